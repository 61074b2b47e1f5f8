"""What `minidiff data` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minidiff.data.captions import canonical_captions
from minidiff.data.emoji import SPLITS, STYLES, load_emoji
from minidiff.images import to_images

if TYPE_CHECKING:
    from PIL.Image import Image

Found = tuple[list["Image"], list[str]]


def describe() -> list[str]:
    """The counts of the bundled emoji."""
    emoji = load_emoji()
    lines = [f"{len(emoji)} concepts of {len(emoji.bases)} bases, in {len(STYLES)} styles: {', '.join(STYLES)}"]
    lines += [f"{split:12} {len(emoji.split_indices(split)):6} pictures" for split in SPLITS]
    groups = Counter(record.group for record in emoji.records)
    lines += [f"{group:18} {n:5} concepts" for group, n in groups.most_common()]
    return [*lines, "Look at some: minidiff data panda, minidiff data --split test, minidiff data --shapes"]


def emoji_pictures(names: Sequence[str]) -> Found:
    """Each emoji in its four styles, and what the table says of it."""
    emoji = load_emoji()
    records = [emoji.find(name) for name in names]
    lines = []
    for record in records:
        splits = ", ".join(f"{style} {record.split[style]}" for style in STYLES)
        lines.append(f"{record.emoji}  {record.name} ({record.group}; {', '.join(record.keywords)}) [{splits}]")
    return to_images(emoji.at(emoji.flat_index(record.index, style) for record in records for style in STYLES)), lines


def split_pictures(split: str, count: int) -> Found:
    """The first pictures of a split, with the captions they are evaluated with."""
    emoji = load_emoji()
    places = emoji.split_indices(split)[:count].tolist()
    return to_images(emoji.at(places)), canonical_captions(emoji, places)


def shape_pictures(count: int) -> Found:
    """Scenes of shapes and their captions."""
    from minidiff.data.shapes import ShapeScenes

    source = ShapeScenes(count, device="cpu")
    return to_images(source.pictures), [scene.caption() for scene in source.scenes]
