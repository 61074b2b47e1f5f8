"""The bundled emoji: 3,025 concepts, each drawn in four styles, with names and keywords in English and German.

A *concept* is a row of the table; a *picture* is a concept in a style, and its flat index is
style_index * N + concept. Every picture belongs to one split (see tools/emoji_split.py).
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import torch
from torch import Tensor

from minidiff.common import Condition, check_choice, check_int, seeded, seen
from minidiff.data.pixels import shift_pictures, shrink, to_float
from minidiff.training.sources import fold_in, sent

STYLES = ("noto", "twemoji", "fluent-flat", "fluent-3d")
SPLITS = ("train", "validation", "test", "unseen")
CELL = 64  # px, the side of one picture in a sheet
COLUMNS = 64  # pictures to a row of a sheet
FOLDER = Path(__file__).resolve().parent.parent / "assets" / "emoji"


@dataclass(frozen=True)
class EmojiRecord:
    """One concept of the table.

    base: the concept without skin tone, gender and hair, as the name of its plainest variant.
    keywords, keywords_de: Unicode CLDR's, without the held-out one and its forms.
    tone: () or one or two skin tones from 1 (light) to 5 (dark). gender: "man", "woman" or None.
    split: style -> "train", "validation", "test" or "unseen".
    """

    index: int
    hexcode: str
    emoji: str
    base: str
    name: str
    keywords: tuple[str, ...]
    name_de: str
    keywords_de: tuple[str, ...]
    group: str
    subgroup: str
    tone: tuple[int, ...]
    gender: str | None
    held_out_keyword: str | None
    split: dict[str, str]


class EmojiSet:
    """The table and, decoded when first asked for, the pictures.

    records: N concepts in the order of the sheets. bases: the sorted names of all bases. Every file is compared with
    SHA256SUMS when it is read (all of them in well under a second). Raises ValueError, saying what to do, when one is
    missing or damaged.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        self.records = [_record(line) for line in self._read("emoji.jsonl").decode().splitlines()]
        self.bases = sorted({record.base for record in self.records})
        place = {base: i for i, base in enumerate(self.bases)}
        self._base_of = [place[record.base] for record in self.records]
        self._pixels: dict[tuple[str, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def families(self) -> dict[str, list[EmojiRecord]]:
        """base -> its variants."""
        found: dict[str, list[EmojiRecord]] = {}
        for record in self.records:
            found.setdefault(record.base, []).append(record)
        return found

    def pixels(self, style: str, size: int = CELL) -> Tensor:
        """All N pictures of a style, uint8 (N, 3, size, size), on white; do not write to them, they are shared.

        Sizes below 64 are averages over areas. Raises ValueError for an unknown style or a size not in 1..64.
        """
        check_choice("style", style, STYLES)
        check_int("size", size, 1, CELL)
        if (style, size) not in self._pixels:
            self._pixels[style, size] = self._decode(style) if size == CELL else shrink(self.pixels(style), size)
        return self._pixels[style, size]

    def split_indices(self, split: str) -> Tensor:
        """Sorted flat indices (M,) of the pictures in a split: "train", "validation", "test" or "unseen"."""
        check_choice("split", split, SPLITS)
        pictures = ((s, record) for s in range(len(STYLES)) for record in self.records)
        found = [s * len(self) + r.index for s, r in pictures if r.split[STYLES[s]] == split]
        return torch.tensor(found, dtype=torch.long)

    def flat_index(self, concept: int, style: str) -> int:
        """The flat index of a concept in a style."""
        check_int("concept", concept, 0, len(self) - 1)
        return STYLES.index(check_choice("style", style, STYLES)) * len(self) + concept

    def style_of(self, index: int) -> str:
        """The style of the picture at a flat index."""
        return STYLES[check_int("index", int(index), 0, len(STYLES) * len(self) - 1) // len(self)]

    def concept_of(self, index: int) -> int:
        """The concept of the picture at a flat index."""
        return check_int("index", int(index), 0, len(STYLES) * len(self) - 1) % len(self)

    def at(self, indices: Iterable[int]) -> Tensor:
        """The pictures at flat indices, uint8 (B, 3, 64, 64)."""
        return torch.stack([self.pixels(self.style_of(i))[self.concept_of(i)] for i in indices])

    def base_of(self, concept: int) -> int:
        """Which of `bases` a concept is a variant of, as an index into that list."""
        return self._base_of[check_int("concept", int(concept), 0, len(self) - 1)]

    def find(self, name: str) -> EmojiRecord:
        """The concept with this English name or this emoji; raises ValueError with the nearest name if none has."""
        for record in self.records:
            if name.lower() == record.name.lower() or name.strip("\ufe0f") == record.emoji.strip("\ufe0f"):
                return record
        near = difflib.get_close_matches(name.lower(), [record.name.lower() for record in self.records], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`name` must be the name of an emoji of the table; got {name!r}.{hint}")

    def _decode(self, style: str) -> Tensor:
        import io

        import numpy as np
        from PIL import Image

        data = self._read(f"{style}.avif")
        try:
            sheet = torch.from_numpy(np.array(Image.open(io.BytesIO(data)).convert("RGB")))
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"`{style}.avif` in {self.folder} cannot be decoded ({error}): {_REMEDY}") from None
        rows = -(-len(self) // COLUMNS)
        if sheet.shape != (rows * CELL, COLUMNS * CELL, 3):
            raise ValueError(f"`{style}.avif` in {self.folder} does not fit the table of {len(self)}: {_REMEDY}")
        cells = sheet.view(rows, CELL, COLUMNS, CELL, 3).permute(0, 2, 4, 1, 3)  # (rows, columns, 3, y, x)
        return cells.reshape(-1, 3, CELL, CELL)[: len(self)].contiguous()

    def _read(self, name: str) -> bytes:
        try:
            data = (self.folder / name).read_bytes()
            sums = (self.folder / "SHA256SUMS").read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(f"`{name}` cannot be read from {self.folder} ({error.strerror}): {_REMEDY}") from None
        if f"{hashlib.sha256(data).hexdigest()}  {name}\n" not in sums:
            raise ValueError(f"`{name}` in {self.folder} is damaged, its SHA-256 is another: {_REMEDY}")
        return data


_REMEDY = "reinstall minidiff, or rebuild the data with tools/build_emoji.py of the repository."


@cache
def load_emoji() -> EmojiSet:
    """The bundled emoji, loaded once. Raises ValueError, saying what to do, when a file is missing."""
    return EmojiSet()


def data_hash() -> str:
    """What names the bundled data: the SHA-256 of SHA256SUMS."""
    return hashlib.sha256((FOLDER / "SHA256SUMS").read_bytes()).hexdigest()


class EmojiPictures:
    """A training source: one split's pictures as (x0, Condition(label=style + 1)), drawn fairly by base.

    Half of the pictures are skin tones of some gesture or profession; drawn one by one they would drown the
    rest. With `one_per_base`, an epoch shows of each (base, style) one variant, another one each time. Pictures are
    never mirrored: clocks, letters and arrows mean something.

    groups, styles: keep only these (default: all). size: px, 1..64. shift: the largest shift of a picture, in px
    and in every direction, filled up with white. Raises ValueError when nothing is left to draw from.
    """

    def __init__(
        self,
        emoji: EmojiSet,
        split: str = "train",
        size: int = CELL,
        groups: Sequence[str] | None = None,
        styles: Sequence[str] | None = None,
        device: torch.device | str | None = None,
        shift: int = 0,
        one_per_base: bool = True,
    ) -> None:
        known = sorted({record.group for record in emoji.records})
        for name, values, choices in (("groups", groups, known), ("styles", styles, STYLES)):
            for value in values or ():
                check_choice(name, value, choices)
        self.emoji = emoji
        self.size = check_int("size", size, 1, CELL)
        self.shift = check_int("shift", shift, 0, size)
        self.one_per_base = one_per_base
        self.device = torch.device(device or "cpu")
        self._families: dict[tuple[int, int], list[int]] = {}  # (base, style) -> flat indices of its variants
        for index in emoji.split_indices(split).tolist():
            style, concept = divmod(index, len(emoji))
            if emoji.records[concept].group in (groups or known) and STYLES[style] in (styles or STYLES):
                self._families.setdefault((emoji.base_of(concept), style), []).append(index)
        if not self._families:
            raise ValueError(f"The split {split!r} has no picture with groups={groups} and styles={styles}.")
        self.indices = torch.tensor(sorted(i for family in self._families.values() for i in family))
        present = [s for s in range(len(STYLES)) if any(style == s for _, style in self._families)]
        self._row = torch.full((len(STYLES),), -1, device=self.device)  # style -> its place in _pixels
        self._row[present] = torch.arange(len(present), device=self.device)
        self._pixels = torch.cat([emoji.pixels(STYLES[s], size) for s in present]).to(self.device)

    def __len__(self) -> int:
        """Pictures in an epoch."""
        return len(self._families) if self.one_per_base else len(self.indices)

    def order(self, seed: int, epoch: int) -> Tensor:
        """Flat indices (len(self),) of an epoch, shuffled: a function of seed and epoch alone."""
        generator = seeded(fold_in(seed, epoch))
        if not self.one_per_base:
            return sent(self.indices[torch.randperm(len(self.indices), generator=generator)], self.device)
        drawn = torch.tensor(_draw(list(self._families.values()), generator))
        return sent(drawn[torch.randperm(len(drawn), generator=generator)], self.device)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Condition]:
        """x0 (B, 3, size, size) float in [-1, 1] and its Condition(label = style + 1), on the source's device."""
        indices = indices.to(self.device)
        style, concept = indices // len(self.emoji), indices % len(self.emoji)
        row = self._row[style]
        if seen(row) and bool((row < 0).any()):
            raise ValueError(f"`indices` must be of the source's styles; {int((row < 0).sum())} are of others.")
        pictures = self._pixels[row * len(self.emoji) + concept]
        if self.shift:
            pictures = shift_pictures(pictures, self.shift, generator)
        return to_float(pictures), Condition(label=style + 1)


def _draw(families: list[list[int]], generator: torch.Generator) -> list[int]:
    chance = torch.rand(len(families), generator=generator).tolist()
    return [family[int(u * len(family))] for family, u in zip(families, chance, strict=True)]


def _record(line: str) -> EmojiRecord:
    fields = json.loads(line)
    for name in ("keywords", "keywords_de", "tone"):
        fields[name] = tuple(fields[name])
    return EmojiRecord(**fields)
