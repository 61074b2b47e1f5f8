"""Which part of a recipe does what: conditioning × guidance × prompt length × fine-tune, drawn and measured.

Two finished recipes differ in everything at once, so a difference between their pictures explains nothing. A full
factorial design varies each factor with all combinations of the others. `python -m minidiff.factors FULL` repeats the
whole experiment of chapter 5 (FULL: the folder of `minidiff train midjourney-full`).
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.checkpoints import fingerprint, load_judge, sha256
from minidiff.common import Condition, check_choice, check_int
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.data.pixels import to_float
from minidiff.evaluate.tasks import CANDIDATES, SEED_STRIDE
from minidiff.judge import Judge
from minidiff.pipeline import TextToImage
from minidiff.prior import Prior
from minidiff.prompts import keywords
from minidiff.recipes import DALLE, MIDJOURNEY, load_prior, read_all, sample_prior
from minidiff.recipes_look import in_the_look, two_inks, with_lora

ASSETS = Path(__file__).parent / "assets"
TARGETS, RESULTS = (ASSETS / "factorial" / name for name in ("targets.json", "results.json"))
SEEDS = 3  # pictures per target and cell

CONDITIONINGS = ("text", "text and image", "image")
GUIDANCES: dict[str, dict[str, Any]] = {
    "off": {"guidance": 1.0},
    "low": {"guidance": 2.0},
    "moderate": DALLE,
    "high": MIDJOURNEY,
    "high, not rescaled": {"guidance": MIDJOURNEY["guidance"]},
}
LENGTHS = (3, 12, 48, 200)  # words
TUNINGS = ("none", "lora", "full")
READINGS = ("in parts", "cut", "keywords")


@dataclass(frozen=True)
class Cell:
    """One way to draw the targets. added: words said after the prompt, such as the name of a style."""

    conditioning: str = "text"
    guidance: str = "moderate"
    length: int = 3
    tuning: str = "none"
    reading: str = "in parts"
    added: str = ""

    def __post_init__(self) -> None:
        check_choice("conditioning", self.conditioning, CONDITIONINGS)
        check_choice("guidance", self.guidance, GUIDANCES)
        check_int("length", self.length, 1, 200)
        check_choice("tuning", self.tuning, TUNINGS)
        check_choice("reading", self.reading, READINGS)


# Every combination of two conditionings, two guidances, four lengths, and with or without the fine-tune: 32 cells.
FACTORIAL = [
    Cell(*levels) for levels in itertools.product(CONDITIONINGS[:2], ("moderate", "high"), LENGTHS, TUNINGS[:2])
]
# What else chapter 5 asks, each time beside a cell of the factorial.
FURTHER = [
    *(Cell("image", length=length) for length in LENGTHS),
    *(Cell(length=length, reading=reading) for length in LENGTHS[1:] for reading in READINGS[1:]),
    *(Cell(tuning=tuning, guidance=g) for tuning in TUNINGS[1:] for g in ("off", "low", "high, not rescaled")),
    *(Cell(tuning="full", guidance=g) for g in ("moderate", "high")),
    *(Cell(added=words) for words in ("Twemoji style", "printed with blue and coral ink on paper")),
]


@cache
def _texts() -> tuple[dict[str, str], str]:
    found = json.loads(TARGETS.read_text(encoding="utf-8"))
    return found["targets"], " ".join(found["air"])


def targets() -> list[str]:
    """The names of the sixteen emoji that are drawn; each was trained on in all four styles."""
    return list(_texts()[0])


def describe(target: str, length: int) -> str:
    """A target in so many words: the beginning of one description, which goes from the thing to its details and on
    to what fills long prompts, the mood and the light. A longer prompt begins with the shorter one."""
    about, air = _texts()
    turn = 7 * list(about).index(check_choice("target", target, about))
    filler = air.split()
    words = (about[target].split() + filler[turn:] + filler[:turn])[: check_int("length", length, 1, 200)]
    return " ".join(words).rstrip(",.")


def condition(pipe: TextToImage, cell: Cell, target: str) -> Condition:
    """What the network is told of a target, without the image embedding: (1 row)."""
    prompt = describe(target, cell.length)
    if cell.reading == "keywords":
        prompt = keywords(prompt)
    prompt = ", ".join(filter(None, (prompt, cell.added)))
    if cell.reading == "cut":
        with warnings.catch_warnings(action="ignore"):  # that it is cut is what we want to see
            cond = pipe.condition([prompt])
    else:
        cond, _ = read_all(pipe, prompt)
    assert cond is not None
    return cond


def draw_cell(pipe: TextToImage, prior: Prior, cell: Cell, names: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """All targets with all seeds, (seeds, targets, 3, H, W) in [-1, 1]; pipe: with the cell's fine-tune."""
    asked = Condition.cat([condition(pipe, cell, name) for name in names])
    rows = []
    for seed in seeds:
        own, cond = [seed + i for i in range(len(names))], asked
        if cell.conditioning != "text":
            assert asked.text is not None
            cond = Condition(asked.text, sample_prior(prior, asked.text.pooled, own))
        if cell.conditioning == "image":
            cond = cond.drop(text=torch.ones(len(names), dtype=torch.bool))
        rows.append(pipe.generate(cond, len(names), seeds=own, **GUIDANCES[cell.guidance]))
    return torch.stack(rows)


def on_white(x: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] with their paper bleached: divided, in [0, 1], by the median of their border.

    The judge was trained on white paper. A picture that is on white already stays as it is.
    """
    border = torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], dim=-1).median(-1).values
    paper = ((border + 1) / 2).clamp(0.5, 1)[..., None, None]  # a drawing that reaches the border is no paper
    return 2 * ((x + 1) / 2 / paper).clamp(0, 1) - 1


def measure(judge: Judge, x: Tensor, names: Sequence[str]) -> dict[str, list[list[float]]]:
    """Of pictures (seeds, targets, 3, H, W): each measure as rows of seeds, columns of targets.

    adherence: 1 where the judge finds the target most probable of 100 bases, on bleached paper. evidence: its log
    probability among them, in nats. look: the share of pixels that the two inks can print (`in_the_look`).
    diversity: 1 - cos of the judge's features of two pictures of one target (a row per pair of seeds).
    """
    flat = x.flatten(0, 1)
    features = judge.features(on_white(flat))
    logits = judge.logits(features)[0]
    place = {base: i for i, base in enumerate(judge.bases)}
    lists = []
    for name in names:
        base = load_emoji().find(name).base
        others = [other for other in judge.bases if other != base]
        random.Random(name).shuffle(others)
        lists.append([place[b] for b in (base, *others[: CANDIDATES - 1])])
    candidates = logits.gather(1, torch.tensor(lists, device=logits.device).repeat(len(x), 1))
    seen = features.unflatten(0, x.shape[:2])
    table = {
        "adherence": (candidates.argmax(1) == 0).double().view(x.shape[:2]),
        "evidence": candidates.log_softmax(1)[:, 0].double().view(x.shape[:2]),
        "look": in_the_look(flat).double().view(x.shape[:2]),
    }
    if len(x) > 1:
        pairs = itertools.combinations(seen.double(), 2)
        table["diversity"] = torch.stack([1 - F.cosine_similarity(one, other, dim=-1) for one, other in pairs])
    return {name: [[round(v, 4) for v in row] for row in values.tolist()] for name, values in table.items()}


def ceilings(judge: Judge, names: Sequence[str]) -> dict[str, dict[str, list[list[float]]]]:
    """The measures of the artists' own pictures, a row per style, as they are and printed in the look."""
    emoji = load_emoji()
    concepts = [emoji.find(name).index for name in names]
    true = torch.stack([to_float(emoji.pixels(style)[concepts]) for style in STYLES])
    printed = two_inks(true.flatten(0, 1)).view(true.shape)
    return {"none": measure(judge, true, names), "printed": measure(judge, printed, names)}


def depends_on() -> dict[str, str]:
    """Hashes of the bundled things that the results hang on: when one changes, they are out of date."""
    parts = {"targets": TARGETS}
    parts |= {n: ASSETS / "models" / n / "model.safetensors" for n in ("emoji-64", "prior", "midjourney", "judge")}
    return {name: sha256(path) for name, path in parts.items()}


def load_results() -> dict[str, Any]:
    """The stored results. Raises RuntimeError when they belong to other weights or other texts than the bundled."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    old = [name for name, digest in depends_on().items() if results["depends_on"].get(name) != digest]
    if old:
        raise RuntimeError(f"These results were drawn with another {old[0]}: run `{results['command']}` again.")
    return results


def main(full: str | Path) -> None:
    """Draw every cell on the best device here, measure it and write the table; full: the fully fine-tuned model."""
    judge, names = load_judge(), targets()
    base, tuned = (TextToImage.from_pretrained(name).to(None) for name in ("emoji-64", full))
    pipes = {"none": base, "lora": with_lora(base), "full": tuned}
    prior, seeds = load_prior(pipe=base), [SEED_STRIDE * (i + 1) for i in range(SEEDS)]
    rows = []
    for cell in [*FACTORIAL, *FURTHER]:
        x = draw_cell(pipes[cell.tuning], prior, cell, names, seeds).cpu()
        rows.append(asdict(cell) | measure(judge, x, names))
        means = {k: round(float(torch.tensor(rows[-1][k]).mean()), 3) for k in ("adherence", "look", "diversity")}
        print(asdict(cell), means, flush=True)
    results = {
        "command": "python -m minidiff.factors runs/midjourney-full",
        "torch": torch.__version__.split("+")[0],
        "depends_on": depends_on(),
        "full": fingerprint(pipes["full"].denoiser.net),
        "targets": names,
        "ceilings": ceilings(judge, names),
        "rows": rows,
    }
    RESULTS.write_text(json.dumps(results) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
