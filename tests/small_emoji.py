"""A few of the bundled emoji as a set of their own, with a split of their own: a whole evaluation in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from minidiff.common import seeded
from minidiff.data.emoji import STYLES, EmojiSet, load_emoji

SIZE = 60  # concepts of `sixty`: 6 test, 4 validation, 2 unseen


class SmallEmoji(EmojiSet):
    """The concepts at `rows`, each a base of its own; splits[i] is the split of concept i ({} = train everywhere)."""

    def __init__(self, whole: EmojiSet, rows: Sequence[int], splits: Sequence[dict[str, str]]) -> None:
        self.whole, self.rows = whole, list(rows)
        self.records = [
            dataclasses.replace(
                whole.records[row],
                index=i,
                base=whole.records[row].name,
                split=dict.fromkeys(STYLES, "train") | splits[i],
            )
            for i, row in enumerate(self.rows)
        ]
        self.bases = sorted(record.base for record in self.records)
        self._base_of = [self.bases.index(record.base) for record in self.records]

    def pixels(self, style: str, size: int = 64) -> Tensor:
        return self.whole.pixels(style, size)[self.rows]


class KnowsAll:
    """A judge that cannot err on true pictures: its features are small pictures, its classes their nearest ones."""

    def __init__(self, emoji: SmallEmoji) -> None:
        self.scale = torch.zeros(())
        self.bases = tuple(sorted({r.base for r in emoji.records if "train" in r.split.values()}))
        self.known = {style: self.features(emoji.pixels(style).float() / 127.5 - 1) for style in STYLES}
        self.rows = [next(r.index for r in emoji.records if r.base == base) for base in self.bases]

    def features(self, x: Tensor) -> Tensor:
        return 1 - torch.nn.functional.adaptive_avg_pool2d(x.float(), 4).flatten(1)

    def logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        far = torch.stack([torch.cdist(features, known) for known in self.known.values()])  # (4, B, N)
        return -50 * far.amin(0)[:, self.rows], -50 * far.amin(2).T


@cache
def sixty() -> SmallEmoji:
    """Sixty plain concepts from all over; the held-out ones are the first, a style each but for the unseen."""
    whole = load_emoji()
    plain = [r.index for r in whole.records if not r.tone and r.gender is None and r.group != "flags"]
    rows = plain[:: len(plain) // SIZE][:SIZE]
    splits: list[dict[str, str]] = [{} for _ in rows]
    for i in range(6):
        splits[i] = {STYLES[i % 4]: "test"}
    for i in range(6, 10):
        splits[i] = {STYLES[i % 4]: "validation"}
    for i in range(10, 12):
        splits[i] = dict.fromkeys(STYLES, "unseen")
    return SmallEmoji(whole, rows, splits)


@cache
def everything_known() -> tuple[SmallEmoji, Any]:
    """The sixty concepts, and the judge that cannot err on them."""
    return sixty(), KnowsAll(sixty())


def noise(prompts: Sequence[str], styles: Sequence[str | None], seeds: Sequence[int], **how: Any) -> Tensor:
    """A generator that draws nothing but noise, of the seeds."""
    return torch.stack([torch.rand(3, 64, 64, generator=seeded(s)) * 2 - 1 for s in seeds])
