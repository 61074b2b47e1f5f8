"""What only many pictures together show: their distance to real ones, copies among them, and their diversity."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.common import check_int
from minidiff.data.captions import canonical_caption, canonical_captions
from minidiff.data.emoji import STYLES, EmojiRecord, EmojiSet
from minidiff.data.pixels import shrink, to_float
from minidiff.evaluate.tasks import SEED_STRIDE, TWINS, Generate, Problem, Settings, draw, plainest
from minidiff.judge import Judge
from minidiff.metrics import (
    bootstrap,
    copies,
    diversity,
    foreground,
    frechet_distance,
    kernel_distance,
    nearest,
    wilson,
    with_interval,
)

Pair = tuple[int, int]  # style, concept
SHIFT = 2  # of 64 px, by which the training of emoji-64 moves its pictures


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
    others = [plainest(rs) for base, rs in sorted(emoji.families.items()) if base not in asked]
    for task in tasks:
        record = generator.choice([r for r in others if r.split[task.style] == "train" and r.base not in used])
        used.add(record.base)
        picked.append(emoji.flat_index(record.index, task.style))
    rows = {name: xs[0] for name, xs in answers.items() if name in ("model", "unconditional")}
    return _distances(judge, rows | {"floor: the true pictures": answers["ceiling"][0]}, emoji.at(picked), seed)


def trained_pairs(emoji: EmojiSet, size: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Two equal lists of training pictures that share no base: prompts to ask for, and a reference."""
    check_int("distribution_size", size, 4, len(emoji))
    trained = [(b, rs) for b, rs in sorted(emoji.families.items()) if "train" in plainest(rs).split.values()]
    random.Random(seed).shuffle(trained)
    size = min(size, len(trained) // 2)
    pairs = []
    for i, (_, records) in enumerate(trained[: 2 * size]):
        record = plainest(records)
        styles = [s for s in range(len(STYLES)) if record.split[STYLES[s]] == "train"]
        pairs.append((styles[(i // 2) % len(styles)], record.index))
    return pairs[::2], pairs[1::2]


def trained_distances(
    generate: Generate, judge: Judge, real: Tensor, reference: Tensor, pictures: Tensor, settings: Settings, seed: int
) -> dict[str, Any]:
    """Prompts of training pictures against training pictures of other bases: how real many look together."""
    n = len(real)
    empty = draw(generate, [""] * n, [None] * n, settings, seed + 9 * SEED_STRIDE)
    return _distances(
        judge, {"model": pictures, "unconditional": empty, "floor: real pictures": real}, reference, seed
    )


def copy_rates(
    judge: Judge, emoji: EmojiSet, drawn: dict[str, tuple[Tensor, int]]
) -> tuple[dict[str, Any], tuple[list[str], Tensor]]:
    """The share of copies among the pictures of each set, given with the number of concepts that they show.

    The thresholds come from held-out pictures of which no twin was trained on.
    """
    home, rows = judge.scale.device, emoji.split_indices("train").tolist()
    training = emoji.at(rows).to(home).split(2048)
    features = torch.cat([judge.features(to_float(part)) for part in training])
    drawings = torch.cat([foreground(part) for part in training])  # once, for every shift of every set

    def distances(x: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        near, which = nearest(judge.features(to_float(x)), features)
        return (near, torch.stack([nearest(y.to(home), drawings, "pixels")[0] for y in _moved(x)]).amin(0)), which

    new = [
        emoji.flat_index(record.index, style)
        for record in map(plainest, emoji.families.values())
        for style in STYLES
        if record.split[style] == "unseen" or (record.split[style] == "test" and style not in TWINS)
    ]
    held_out, _ = distances(emoji.at(new))
    _, limits = copies(held_out, held_out)
    found: dict[str, Any] = {"threshold": {"features": limits[0], "pixels": limits[1]}}
    found["real pictures that nobody trained on"] = {"n": len(new)} | _medians(held_out)
    for name, (x, concepts) in drawn.items():
        near, which = distances(x)
        flags, _ = copies(near, held_out)
        share = wilson(float(flags.double().mean()), concepts).as_dict()
        found[name] = {"n": len(x), "concepts": concepts, "copies": share} | _medians(near)
        if name == "test":
            closest = torch.argsort(near[0])[:32].tolist()
            places = [rows[int(which[i])] for i in closest]
            sheet = torch.stack([x[closest], shrink(emoji.at(places), x.shape[-1])], dim=1).flatten(0, 1)
            names = canonical_captions(emoji, places)
    return found, ([text for name in names for text in ("sample", name)], sheet)


def _moved(x: Tensor) -> list[Tensor]:
    """uint8 pictures, moved by every shift that training used: a copy may have learned any of them."""
    most = round(SHIFT * x.shape[-1] / 64)
    pad = F.pad(x, [most] * 4, value=255)
    places = [(i, j) for i in range(2 * most + 1) for j in range(2 * most + 1)]
    return [pad[..., i : i + x.shape[-2], j : j + x.shape[-1]] for i, j in places]


def _medians(distances: tuple[Tensor, Tensor]) -> dict[str, float]:
    return {"median_features": float(distances[0].median()), "median_pixels": float(distances[1].median())}


def prompt_diversity(
    generate: Generate, judge: Judge, emoji: EmojiSet, settings: Settings, count: int, seed: int
) -> dict[str, Any]:
    """How different pictures of one prompt are when it names no style, beside the artists' own drawings of it."""
    check_int("diversity_prompts", count, 1, 1000)
    plain = [plainest(rs) for _, rs in sorted(emoji.families.items())]
    trained, unseen = ([r for r in plain if set(r.split.values()) == {split}] for split in ("train", "unseen"))
    records = random.Random(seed).sample(trained, count)
    repeats = max(4, settings.repeats)
    prompts = [canonical_caption(record) for record in records for _ in range(repeats)]
    x = draw(generate, prompts, [None] * len(prompts), settings, seed + 10 * SEED_STRIDE)
    features = judge.features(to_float(x)).view(count, repeats, -1)

    def artists(known: Sequence[EmojiRecord]) -> dict[str, float]:
        real = emoji.at(emoji.flat_index(r.index, style) for r in known for style in STYLES)
        features = judge.features(to_float(real)).view(len(known), len(STYLES), -1)
        return bootstrap(torch.tensor([diversity(f) for f in features]), seed=seed).as_dict()

    return {
        "prompts": [canonical_caption(record) for record in records],
        "pictures_each": repeats,
        "model": bootstrap(torch.tensor([diversity(f) for f in features]), seed=seed).as_dict(),
        "the four styles": artists(records),
        "the four styles, of things that the judge does not know": artists(unseen),
    }
