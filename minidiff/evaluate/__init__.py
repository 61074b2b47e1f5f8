"""The evaluation: everything the project claims about a text-to-image model is measured here.

`evaluate` reports, `sweep` chooses (on the validation split alone), `evaluate_shapes` counts with the exact oracle.
All of them take a function that draws prompts (`Generate`; `generate_with(pipe)` makes one) and return plain
numbers; `minidiff.evaluate.report` writes them down with the pictures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from minidiff.checkpoints import load_judge
from minidiff.common import check_choice, check_int, pick_device, seeded
from minidiff.data.emoji import STYLES, EmojiSet, load_emoji
from minidiff.data.pixels import shift_pictures, shrink, to_float
from minidiff.evaluate.sets import (
    SHIFT,
    copy_rates,
    prompt_diversity,
    test_distances,
    trained_distances,
    trained_pairs,
)
from minidiff.evaluate.tasks import (
    SEED_STRIDE,
    Generate,
    Problem,
    Settings,
    best_by_clip,
    draw,
    lookup,
    mark,
    other_styles,
    pose,
    problems,
    summarize,
    true_features,
    true_pictures,
)
from minidiff.judge import Judge
from minidiff.metrics import bootstrap
from minidiff.text import MiniClip

if TYPE_CHECKING:
    from minidiff.pipeline import TextToImage

PRECISIONS = ("fp32", "bf16")
SEEN = {
    "model": "The prompt; in training, this concept in its other styles and this style on other concepts.",
    "ceiling": "The answer itself: the true held-out picture. What it misses, the judge misses.",
    "lookup": "All training pictures; it answers with the one whose caption shares most words with the prompt. The "
    "judge was trained on that very picture too, and so knows what it shows.",
    "other style": "The right concept, as its training picture in another style. Of Fluent flat and 3D, the "
    "other is the same drawing (reported as twins). The judge was trained on these very pictures, so the concept is "
    "always found: only style, similarity and pixel error say something here.",
    "best by CLIP": "As the model; of its drawings, the one that its own CLIP finds nearest to the prompt.",
    "unconditional": "Nothing of the prompt: the same model, asked for nothing.",
}


def generate_with(pipe: TextToImage, precision: str = "fp32") -> Generate:
    """The tensor-level call of a pipeline, for `evaluate`; a model without text is told the style by its label.

    precision: "bf16" draws under `torch.autocast`, faster on a device that has it.
    """
    half = check_choice("precision", precision, PRECISIONS) == "bf16"

    def generate(prompts: list[str], styles: list[str | None], seeds: list[int], **how: Any) -> Tensor:
        with torch.autocast(pipe.device.type, torch.bfloat16, enabled=half):
            cond = pipe.condition(prompts) if pipe.encoder is not None else pipe.labeled(styles)
            return pipe.generate(cond, len(prompts), seeds=seeds, **how)

    return generate


def evaluate(
    generate: Generate,
    judge: Judge | None = None,
    *,
    settings: Settings | None = None,
    emoji: EmojiSet | None = None,
    clip: MiniClip | None = None,
    distribution_size: int = 600,
    diversity_prompts: int = 24,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything about a text-to-image model, as plain numbers; see `minidiff.evaluate.report.EXPLAINED`.

    judge: by default the bundled one. clip: what it says is reported, too, and what it would choose.
    distribution_size: pictures on each side of the distances, at most half the bases.

    The result is ready for JSON but for `pictures`: {name: (captions, uint8 (N, 3, H, W))}, which `write_report`
    turns into a page.
    """
    started = time.monotonic()
    judge, settings, emoji = judge or load_judge(device=pick_device()), settings or Settings(), emoji or load_emoji()
    seen = {who: what for who, what in SEEN.items() if clip is not None or who != "best by CLIP"}
    result: dict[str, Any] = {"settings": asdict(settings) | {"seed": seed}, "seen": seen, "splits": {}}
    result["pictures"] = pictures = {}
    drawn: dict[str, tuple[Tensor, int]] = {}
    for split in ("test", "validation", "unseen"):
        tasks = problems(emoji, split, judge.bases)
        answers = _answers(generate, emoji, tasks, split, settings, seed)
        if clip is not None:
            answers["best by CLIP"] = [best_by_clip(clip, tasks, answers["model"])]
        known = true_features(judge, emoji, tasks)
        marks = {name: [mark(judge, emoji, tasks, x, clip, known) for x in xs] for name, xs in answers.items()}
        mean = {name: {k: torch.stack([m[k] for m in ms]).mean(0) for k in ms[0]} for name, ms in marks.items()}
        rivals = [name for name in marks if name != "model"]
        ahead = {who: [{k: mean["model"][k] - v for k, v in mean[who].items()}] for who in rivals}
        minus = {who: summarize(tasks, less, seed)["all"] for who, less in ahead.items()}
        result["splits"][split] = _found(tasks, marks, seed) | {"model_minus": minus}
        drawn[split] = torch.cat(answers["model"]), len({task.record.base for task in tasks})
        for name, xs in answers.items():
            pictures[f"{split}: {name}"] = ([task.prompt for task in tasks], xs[0])
        if split == "test":
            result["distribution"] = {"test": test_distances(judge, emoji, tasks, answers, seed)}
    trained = trained_pairs(emoji, distribution_size, seed)
    real, reference = (emoji.at(emoji.flat_index(c, STYLES[s]) for s, c in pairs) for pairs in trained)
    tasks = pose(emoji, [(emoji.records[c], STYLES[s]) for s, c in trained[0]], judge.bases)
    captions, styles = [task.prompt for task in tasks], [task.style for task in tasks]
    x = draw(generate, captions, styles, settings, seed)
    marks = {name: [mark(judge, emoji, tasks, shown, clip)] for name, shown in (("model", x), ("ceiling", real))}
    result["splits"]["trained prompts"] = _found(tasks, marks, seed)
    pictures["trained prompts: model"] = (captions[:64], x[:64])
    result["distribution"]["trained prompts"] = trained_distances(generate, judge, real, reference, x, settings, seed)
    drawn["trained prompts"] = x, len(x)
    moved = shrink(shift_pictures(real, SHIFT, seeded(seed)), x.shape[-1])
    # As blurred and recolored as a network might remember them.
    again = draw(generate, captions, styles, settings, seed + 11 * SEED_STRIDE, starts=to_float(moved))
    controls = {"training pictures, moved as in training": (moved, len(x)), "the same, drawn again": (again, len(x))}
    pictures |= {name: (captions[:64], copied[:64]) for name, (copied, _) in controls.items()}
    result["copies"], pairs = copy_rates(judge, emoji, controls | drawn)
    pictures["nearest training pictures (sample, its nearest)"] = pairs
    result["diversity"] = prompt_diversity(generate, judge, emoji, settings, diversity_prompts, seed)
    result["seconds"] = time.monotonic() - started
    return result


def _answers(
    generate: Generate,
    emoji: EmojiSet,
    tasks: Sequence[Problem],
    split: str,
    settings: Settings,
    seed: int,
) -> dict[str, list[Tensor]]:
    """Who answers what: name -> pictures (P, 3, H, W) for each repeat."""
    prompts, styles = [task.prompt for task in tasks], [task.style for task in tasks]
    repeats = settings.repeats if split != "unseen" else min(2, settings.repeats)
    seeds = [seed + SEED_STRIDE * (r + 1) for r in range(repeats)]
    answers = {"model": [draw(generate, prompts, styles, settings, s) for s in seeds]}
    answers["ceiling"] = [true_pictures(emoji, tasks)]
    answers["lookup"] = lookup(emoji, tasks, turns=8)
    if split != "unseen":  # of which no style was seen
        answers["other style"] = [other_styles(emoji, tasks, turn) for turn in range(3)]
    nothing: list[str | None] = [None] * len(tasks)
    answers["unconditional"] = [draw(generate, [""] * len(tasks), nothing, settings, s) for s in seeds[:2]]
    return answers


def _found(tasks: Sequence[Problem], marks: dict[str, list[dict[str, Tensor]]], seed: int) -> dict[str, Any]:
    """What a split shows: how many problems, what guessing would reach, and a row for each who answered."""
    hard = [1 / len(task.hard) for task in tasks if task.hard]
    return {
        "pictures": len(tasks),
        "chance": {"base_100": 0.01, "hard_20": sum(hard) / len(hard) if hard else None, "style": 0.25},
        "rows": {name: summarize(tasks, repeats, seed) for name, repeats in marks.items()},
    }


def sweep(
    generate: Generate,
    judge: Judge | None = None,
    *,
    guidances: Sequence[float] = (1, 2, 3, 4, 6, 8),
    shifts: Sequence[float] = (1, 2, 8),
    steps: Sequence[int] = (6, 8, 12, 20, 50),
    intervals: Sequence[tuple[float, float]] = ((0.0, 0.8), (0.2, 1.0), (0.2, 0.8)),
    repeats: int = 4,
    emoji: EmojiSet | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The marks on the *validation* split, one setting changed at a time: guidance, shift, steps, then interval.

    Guidance is varied at 12 steps and the model's own shift; each further axis at the best of those before it. The
    result has `best`, the setting of the highest mean similarity to the true pictures, and `rows`, one per setting,
    with the marks of all problems (see `summarize`) and, under `beside_best`, how much higher they are than the best
    setting's. All start from the same seeds, so the differences are taken picture by picture, and their intervals
    are narrower.
    """
    judge, emoji = judge or load_judge(device=pick_device()), emoji or load_emoji()
    tasks = problems(emoji, "validation", judge.bases)
    prompts, styles = [task.prompt for task in tasks], [task.style for task in tasks]
    known = true_features(judge, emoji, tasks)
    seeds = [seed + SEED_STRIDE * (r + 1) for r in range(check_int("repeats", repeats, 1, 1000))]
    marks: dict[Settings, list[dict[str, Tensor]]] = {}
    rows: dict[Settings, dict[str, Any]] = {}

    def measure(setting: Settings) -> None:
        # All repeats in one go, so that the batches are full.
        many = [(p, s, start + i) for start in seeds for i, (p, s) in enumerate(zip(prompts, styles, strict=True))]
        x = draw(generate, [m[0] for m in many], [m[1] for m in many], setting, [m[2] for m in many])
        marks[setting] = [mark(judge, emoji, tasks, part, right=known) for part in x.split(len(tasks))]
        rows[setting] = summarize(tasks, marks[setting], seed)["all"]

    best = Settings(guidance=float(guidances[0]), repeats=repeats)
    axes: dict[str, list[Any]] = {"guidance": [float(g) for g in guidances], "shift": [float(s) for s in shifts]}
    axes |= {"steps": [*steps], "interval": [*intervals]}
    for axis, values in axes.items():
        for setting in (replace(best, **{axis: value}) for value in values):
            if setting not in rows:
                measure(setting)
        best = max(rows, key=lambda setting: rows[setting]["similarity"]["mean"])
    for setting, row in rows.items():
        pairs = zip(marks[setting], marks[best], strict=True)
        row["beside_best"] = summarize(tasks, [{k: a[k] - b[k] for k in a} for a, b in pairs], seed)["all"]
    return {
        "split": "validation",
        "pictures": len(tasks),
        "rows": [asdict(setting) | found for setting, found in rows.items()],
        "best": asdict(best),
    }


def evaluate_shapes(
    generate: Generate, n: int = 500, seed: int = 0, *, steps: int = 20, guidance: float = 2.0
) -> dict[str, Any]:
    """Prompt adherence on n scenes of shapes, seen and held-out pairs apart, counted by the exact oracle.

    {"seen" | "held_out": {"model", "ceiling", "chance"}}, each with "all" (every attribute right at once), single
    attributes and "readable", shares in [0, 1]; the model's "all_interval" is a bootstrap over scenes. ceiling: fresh
    renderings of the same scenes. chance: the model's pictures, marked against other scenes. Ready for JSON but for
    `pictures`, as in `evaluate`.
    """
    from minidiff.data.scenes import random_scene
    from minidiff.data.shapes import render
    from minidiff.data.shapes_oracle import adherence, compare, read

    check_int("n", n, 2, 100_000)
    settings = {"n": n, "seed": seed, "steps": steps, "guidance": guidance}
    result: dict[str, Any] = {"settings": settings, "pictures": {}}
    for name, held_out in (("seen", False), ("held_out", True)):
        rng = np.random.default_rng([seed, 7, int(held_out)])
        scenes = [random_scene(rng, held_out) for _ in range(n)]
        captions = [scene.caption() for scene in scenes]
        x = draw(generate, captions, [None] * n, Settings(steps, guidance), seed + SEED_STRIDE * (1 + held_out))
        seen = [read(picture) for picture in x]
        right = torch.tensor([compare(*pair)["all"] for pair in zip(scenes, seen, strict=True)]).double()
        result[name] = {
            "model": adherence(seen, scenes) | {"all_interval": bootstrap(right, seed=seed).as_dict()},
            "ceiling": adherence(torch.stack([render(scene, rng) for scene in scenes]), scenes),
            "chance": adherence(seen, [*scenes[1:], scenes[0]]),
        }
        result["pictures"][f"{name} pairs".replace("_", "-")] = (captions[:64], x[:64])
    return result
