"""A few of the bundled emoji as a set of their own, with a split of their own: a whole evaluation in seconds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import Tensor

from minidiff.data.emoji import STYLES, EmojiSet


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
