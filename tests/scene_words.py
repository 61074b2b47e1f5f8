"""From the words of the shapes back to what they say, for tests: the inverse of `Scene.caption`, written anew."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import product

from torch import Tensor

from minidiff.data.scenes import COLORS, COUNTS, HELD_OUT, RELATIONS, SHAPES, SIZES, Group, Scene
from minidiff.data.shapes import CAPTION_LENGTH, VOCABULARY
from minidiff.text import word_ids

GROUP = rf"(an?|two|three) (?:({'|'.join(SIZES)}) )?({'|'.join(COLORS)}) ({'|'.join(SHAPES)})s?"
PATTERN = re.compile(rf"{GROUP}(?: ({'|'.join(RELATIONS)}) {GROUP})?")


def parse(caption: str) -> Scene:
    """The scene that `caption` describes."""
    match = PATTERN.fullmatch(caption.lower().strip("."))
    assert match is not None, caption
    counts = {"a": 1, "an": 1, "two": 2, "three": 3}
    number, size, color, shape, relation, *rest = match.groups()
    first = Group(counts[number], size, color, shape)
    return Scene(first, relation, Group(counts[rest[0]], *rest[1:]) if relation else None)


def encode(captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The ids of the words of captions and their mask."""
    return word_ids(captions, {word: i for i, word in enumerate(VOCABULARY)}, CAPTION_LENGTH)


def held_out(scene: Scene) -> bool:
    """Whether some group is one of the `HELD_OUT` pairs, so that no training picture shows it."""
    return any((group.color, group.shape) in HELD_OUT for group in scene.groups)


def all_groups() -> Iterator[Group]:
    """All 315 groups."""
    for count, size, color, shape in product(COUNTS, (*SIZES, None), COLORS, SHAPES):
        yield Group(count, size, color, shape)
