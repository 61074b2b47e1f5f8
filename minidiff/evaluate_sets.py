"""What only many pictures together show: their distance to real ones, copies among them, and their diversity."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minidiff.common import check_int
from minidiff.data.captions import canonical_caption
from minidiff.data.emoji import STYLES, EmojiSet, shrink, to_float
from minidiff.evaluate_tasks import SEED_STRIDE, Generate, Problem, Settings, draw, families, plainest
from minidiff.judge import Judge
from minidiff.metrics import bootstrap, copies, diversity, frechet_distance, kernel_distance, nearest, with_interval

Pair = tuple[int, int]  # style, concept


def _distances(judge: Judge, rows: dict[str, Tensor], reference: Tensor, seed: int) -> dict[str, Any]:
    """Kernel and (where n allows) Fréchet distances of several equally large sets to one reference."""
    known = judge.features(to_float(reference))
    found: dict[str, Any] = {"n": len(reference)}
    for name, pictures in rows.items():
        features = judge.features(to_float(pictures))
        found[name] = {"kernel": with_interval(kernel_distance, features, known, seed=seed).as_dict()}
        if len(features) // 2 > features.shape[1]:
            found[name]["frechet"] = with_interval(frechet_distance, features, known, seed=seed, draws=50).as_dict()
    return found


def test_distances(
    judge: Judge, emoji: EmojiSet, tasks: Sequence[Problem], answers: dict[str, list[Tensor]], seed: int
) -> dict[str, Any]:
    """Test prompts against as many training pictures of other bases in the same styles."""
    generator = random.Random(seed)
    asked, used, picked = {task.record.base for task in tasks}, set(), []
    for task in tasks:
        free = [
            r for r in emoji.records if r.split[task.style] == "train" and r.base not in asked and r.base not in used
        ]
        record = generator.choice(free)
        used.add(record.base)
        picked.append(emoji.pixels(task.style)[record.index])
    rows = {name: xs[0] for name, xs in answers.items() if name in ("model", "unconditional")}
    return _distances(judge, rows | {"floor: the true pictures": answers["ceiling"][0]}, torch.stack(picked), seed)


def trained_pairs(emoji: EmojiSet, size: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Two equal lists of training pictures that share no base: prompts to ask for, and a reference."""
    check_int("distribution_size", size, 4, len(emoji))
    trained = [(b, rs) for b, rs in sorted(families(emoji).items()) if "train" in plainest(rs).split.values()]
    random.Random(seed).shuffle(trained)
    size = min(size, len(trained) // 2)
    pairs = []
    for i, (_, records) in enumerate(trained[: 2 * size]):
        record = plainest(records)
        styles = [s for s in range(len(STYLES)) if record.split[STYLES[s]] == "train"]
        pairs.append((styles[(i // 2) % len(styles)], record.index))
    return pairs[::2], pairs[1::2]


def trained_distances(
    generate: Generate,
    judge: Judge,
    emoji: EmojiSet,
    trained: tuple[list[Pair], list[Pair]],
    pictures: Tensor,
    settings: Settings,
    seed: int,
) -> dict[str, Any]:
    """Prompts of training pictures against training pictures of other bases: how real many look together."""
    real, reference = (torch.stack([emoji.pixels(STYLES[s])[c] for s, c in pairs]) for pairs in trained)
    n = len(real)
    empty = draw(generate, [""] * n, [None] * n, settings, seed + 9 * SEED_STRIDE)
    return _distances(
        judge, {"model": pictures, "unconditional": empty, "floor: real pictures": real}, reference, seed
    )


def copy_rates(
    judge: Judge, emoji: EmojiSet, drawn: dict[str, Tensor]
) -> tuple[dict[str, Any], tuple[list[str], Tensor]]:
    """The share of copies among the pictures of each set of prompts, beside that of real test pictures."""

    def pixels(split: str) -> tuple[Tensor, list[int]]:
        rows = emoji.split_indices(split).tolist()
        return emoji.at(rows), rows

    home = judge.scale.device
    (training, rows), (real, _) = pixels("train"), pixels("test")
    training = training.to(home)
    features = torch.cat([judge.features(to_float(part)) for part in training.split(2048)])

    def distances(x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        near, which = nearest(judge.features(to_float(x)), features)
        return (near, nearest(x.to(home), training, "pixels")[0]), which

    held_out, _ = distances(real)
    flags, limits = copies(held_out, held_out)
    found: dict[str, Any] = {
        "threshold": {"features": limits[0], "pixels": limits[1]},
        "real test pictures": _share(flags) | _medians(held_out),
    }
    for name, x in drawn.items():
        near, which = distances(x)
        flags, _ = copies(near, held_out)
        found[name] = _share(flags) | _medians(near)
        if name == "test":
            closest = torch.argsort(near[0])[:32].tolist()
            places = [rows[int(which[i])] for i in closest]
            sheet = torch.stack([x[closest], shrink(emoji.at(places), x.shape[-1])], dim=1).flatten(0, 1)
            names = [canonical_caption(emoji.records[emoji.concept_of(p)], emoji.style_of(p)) for p in places]
    return found, ([text for name in names for text in ("sample", name)], sheet)


def _share(flags: Tensor) -> dict[str, Any]:
    return {"n": len(flags), "copies": bootstrap(flags.double()).as_dict()}


def _medians(distances: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {"median_features": float(distances[0].median()), "median_pixels": float(distances[1].median())}


def prompt_diversity(
    generate: Generate, judge: Judge, emoji: EmojiSet, settings: Settings, count: int, seed: int
) -> dict[str, Any]:
    """How different pictures of one prompt are when it names no style, beside the artists' own drawings of it."""
    check_int("diversity_prompts", count, 1, 1000)
    bases = [rs for _, rs in sorted(families(emoji).items()) if set(plainest(rs).split.values()) == {"train"}]
    records = [plainest(rs) for rs in random.Random(seed).sample(bases, count)]
    repeats = max(4, settings.repeats)
    prompts = [canonical_caption(record) for record in records for _ in range(repeats)]
    x = draw(generate, prompts, [None] * len(prompts), settings, seed + 10 * SEED_STRIDE)
    features = judge.features(to_float(x)).view(count, repeats, -1)
    real = torch.stack([emoji.pixels(style)[r.index] for r in records for style in STYLES])
    artists = judge.features(to_float(real)).view(count, len(STYLES), -1)
    return {
        "prompts": [canonical_caption(record) for record in records],
        "pictures_each": repeats,
        "model": bootstrap(torch.tensor([diversity(f) for f in features]), seed=seed).as_dict(),
        "the four styles": bootstrap(torch.tensor([diversity(f) for f in artists]), seed=seed).as_dict(),
    }
