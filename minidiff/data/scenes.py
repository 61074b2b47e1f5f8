"""The language of the shapes data: what a picture may show, and how to say it.

"two small red circles left of a blue square" is a `Scene`: one or two groups of equal shapes and, for two
groups, where the first lies as seen from the second. `minidiff.data.shapes` draws scenes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from itertools import product, starmap

import numpy as np

from minidiff.common import check_choice, check_int

COLORS: dict[str, tuple[int, int, int]] = {  # sRGB, 0 to 255; every pair and white at least 80 apart
    "red": (224, 45, 60),
    "orange": (255, 136, 25),
    "yellow": (255, 214, 61),
    "green": (38, 160, 86),
    "blue": (45, 106, 222),
    "purple": (142, 68, 201),
    "black": (38, 38, 43),
}
SHAPES = ("circle", "square", "triangle", "star", "heart")
SIZES = {"small": 6.3, "large": 9.5}  # diameter of the box around a shape, in 32nds of the picture's side
COUNTS = (1, 2, 3)
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = dict(zip(RELATIONS, ("right of", "left of", "below", "above"), strict=True))

# (color, shape) pairs that no training picture shows; every shape and color is seen with its other partners.
HELD_OUT = (("green", "circle"), ("purple", "square"), ("yellow", "triangle"), ("blue", "star"), ("orange", "heart"))

_NUMBERS = {1: "a", 2: "two", 3: "three"}
CAPTION_LENGTH = 10  # words of the longest caption: three small red circles left of two large blue squares
VOCABULARY: tuple[str, ...] = (
    *("<pad>", "a", "an", "two", "three", *SIZES, *COLORS),
    *(word for shape in SHAPES for word in (shape, shape + "s")),
    *("left", "right", "of", "above", "below"),
)


@dataclass(frozen=True)
class Group:
    """One to three equal shapes; `size` None means that the caption does not say, so either size is right."""

    count: int
    size: str | None
    color: str
    shape: str

    def __post_init__(self) -> None:
        check_int("count", self.count, COUNTS[0], COUNTS[-1])
        if self.size is not None:
            check_choice("size", self.size, tuple(SIZES))
        check_choice("color", self.color, tuple(COLORS))
        check_choice("shape", self.shape, SHAPES)

    def caption(self) -> str:
        """Return the group in words, such as "two small red circles" or "an orange heart"."""
        words = [*([self.size] if self.size else []), self.color, self.shape]
        number = "an" if self.count == 1 and words[0] == "orange" else _NUMBERS[self.count]
        return " ".join([number, *words]) + ("s" if self.count > 1 else "")


@cache
def _groups() -> dict[str, Group]:
    every = starmap(Group, product(COUNTS, (None, *SIZES), COLORS, SHAPES))
    return {group.caption(): group for group in every}


@dataclass(frozen=True)
class Scene:
    """One group alone, or two groups and the `relation` of the first to the second.

    Raises ValueError when only one of `relation` and `second` is given, or when both groups share color and
    shape: a picture could not tell them apart.
    """

    first: Group
    relation: str | None = None
    second: Group | None = None

    def __post_init__(self) -> None:
        if (self.relation is None) != (self.second is None):
            raise ValueError(
                f"`relation` and `second` go together; got {self.relation!r} and {self.second!r}: "
                "give both or neither."
            )
        if self.relation is not None:
            check_choice("relation", self.relation, RELATIONS)
        if self.second and (self.first.color, self.first.shape) == (self.second.color, self.second.shape):
            raise ValueError(
                f"`second` must differ from `first` in color or shape; "
                f"both are {self.first.color} {self.first.shape}s."
            )

    @classmethod
    def of(cls, caption: str) -> Scene:
        """The scene that a caption describes, as `caption` would; raises ValueError for other words."""
        first, *rest = re.split(f" ({'|'.join(RELATIONS)}) ", " ".join(caption.lower().split()), maxsplit=1)
        groups = [_groups()[check_choice("caption", words, _groups())] for words in (first, *rest[1:])]
        return cls(groups[0], rest[0], groups[1]) if rest else cls(groups[0])

    @property
    def groups(self) -> tuple[Group, ...]:
        """The scene's one or two groups, in the caption's order."""
        return (self.first,) if self.second is None else (self.first, self.second)

    def caption(self) -> str:
        """Return the scene in words, such as "two small red circles left of a blue square"."""
        if self.second is None:
            return self.first.caption()
        return f"{self.first.caption()} {self.relation} {self.second.caption()}"

    def mirrored(self) -> Scene:
        """Return the same scene told from its other group: "a left of b" becomes "b right of a"."""
        if self.second is None or self.relation is None:
            return self
        return Scene(self.second, OPPOSITE[self.relation], self.first)


def random_scene(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """Draw a scene: 40% one group, else two; the size is said for 3 groups out of 4; all else uniform.

    `held_out=False` never shows a `HELD_OUT` pair; `held_out=True` shows one, first or second.
    """
    ordinary = [pair for pair in product(COLORS, SHAPES) if pair not in HELD_OUT]
    first, second = (ordinary[i] for i in rng.choice(len(ordinary), 2, replace=False))
    if held_out:
        first = HELD_OUT[rng.integers(len(HELD_OUT))]
    groups = [
        Group(
            int(rng.integers(COUNTS[0], COUNTS[-1] + 1)),
            tuple(SIZES)[rng.integers(2)] if rng.random() < 0.75 else None,
            *pair,
        )
        for pair in (first, second)
    ]
    if rng.random() < 0.4:
        return Scene(groups[0])
    scene = Scene(groups[0], RELATIONS[rng.integers(len(RELATIONS))], groups[1])
    return scene.mirrored() if rng.random() < 0.5 else scene
