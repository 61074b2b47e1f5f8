"""Scenes of simple shapes: endless training pictures that can be checked exactly.

`render` draws a `Scene` of `minidiff.data.scenes`; `minidiff.data.shapes_oracle` reads it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, cos, pi, sin

import numpy as np
import torch
from torch import Tensor

from minidiff.common import check_int
from minidiff.data.pixels import to_float
from minidiff.data.scenes import CAPTION_LENGTH, COLORS, SIZES, VOCABULARY, Scene, random_scene
from minidiff.text import word_ids
from minidiff.training.sources import InMemory

GAP = 1.5  # free space between any two shapes, in 32nds: one pixel between them always stays mostly white
MAX_SLANT = 0.6  # |offset across| / |offset along| of two groups' centers: "left of" never looks like "above"
SUBPIXELS = 8  # samples per pixel and axis; also the grid that positions snap to


def _inside(shape: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return which points lie inside `shape`, drawn into the box [-1, 1]^2 with y pointing down."""
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.9  # smaller than its box, or it would look larger than the others
    if shape == "triangle":
        return (y <= 0.86) & (y + 0.95 >= 1.81 * abs(x))
    if shape == "heart":  # the classic sextic (X^2 + Y^2 - 1)^3 <= X^2 Y^3, scaled to the box
        u, v = 1.15 * x, 0.12 - 1.15 * y
        return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3
    # Star: fold the plane onto one half of one of the five points, then one straight edge is left to test.
    y = y - 0.1
    angle = abs((np.arctan2(x, -y) + pi / 5) % (2 * pi / 5) - pi / 5)
    u, v = np.hypot(x, y) * np.cos(angle), np.hypot(x, y) * np.sin(angle)
    tip, notch_u, notch_v = 1.05, 0.5 * cos(pi / 5), 0.5 * sin(pi / 5)
    return notch_v * (tip - u) - (tip - notch_u) * v >= 0


@lru_cache(maxsize=8192)
def stamp(shape: str, diameter: float, shift_y: int, shift_x: int, side: int) -> np.ndarray:
    """Return the coverage (side, side) in [0, 1] of one shape, `shift / SUBPIXELS` pixels off the middle."""
    grid = (np.arange(side * SUBPIXELS) + 0.5) / SUBPIXELS - side / 2
    x, y = (grid - shift_x / SUBPIXELS)[None, :], (grid - shift_y / SUBPIXELS)[:, None]
    fine = _inside(shape, 2 * x / diameter + 0 * y, 2 * y / diameter + 0 * x)
    return fine.reshape(side, SUBPIXELS, side, SUBPIXELS).mean(axis=(1, 3)).astype(np.float32)


def _in_a_row(rng: np.random.Generator, count: int, length: float, diameter: float) -> np.ndarray:
    """Draw `count` centers on [0, length], uniform over all arrangements whose boxes keep `GAP` apart."""
    slack = length - count * diameter - (count - 1) * GAP
    return np.sort(rng.random(count)) * slack + np.arange(count) * (diameter + GAP) + diameter / 2


def _place(scene: Scene, diameters: Sequence[float], rng: np.random.Generator) -> list[np.ndarray]:
    """Draw every group's centers (count, 2) as (y, x) in 32nds of the side."""
    if scene.second is None:
        count, diameter = scene.first.count, diameters[0]
        across = rng.uniform(diameter / 2, 32 - diameter / 2, count)
        centers = np.stack([_in_a_row(rng, count, 32, diameter), rng.permutation(across)], axis=1)
        return [centers if rng.random() < 0.5 else centers[:, ::-1]]
    while True:  # a border divides the picture; each group stands in a row along it, on its own side
        border = rng.uniform(12, 20)
        near, far = (
            (scene.groups, diameters)
            if scene.relation in ("left of", "above")
            else (scene.groups[::-1], diameters[::-1])
        )
        spans = ((0, border - GAP / 2), (border + GAP / 2, 32))
        placed = [
            np.stack(
                [
                    _in_a_row(rng, group.count, 32, diameter),
                    rng.uniform(low + diameter / 2, high - diameter / 2, group.count),
                ],
                axis=1,
            )
            for group, diameter, (low, high) in zip(near, far, spans, strict=True)
        ]
        across, along = placed[1].mean(axis=0) - placed[0].mean(axis=0)
        if abs(across) <= MAX_SLANT * along:
            break
    if scene.relation in ("above", "below"):
        placed = [centers[:, ::-1] for centers in placed]
    return placed if scene.relation in ("left of", "above") else placed[::-1]


def render(scene: Scene, rng: np.random.Generator, size: int = 32) -> Tensor:
    """Draw `scene` on white, antialiased, at random places that fit it: uint8 (3, size, size).

    Shapes never touch, and no relation is in doubt. A size that the scene leaves open is drawn at random, one
    per group. Raises ValueError unless 16 <= size <= 256.
    """
    check_int("size", size, 16, 256)
    scale = size / 32
    sizes = [group.size or tuple(SIZES)[rng.integers(2)] for group in scene.groups]
    margin = ceil(scale * max(SIZES.values())) + 2  # stamps may hang over the edge with their empty rim
    canvas = np.full((3, size + 2 * margin, size + 2 * margin), 255, dtype=np.float32)
    placed = _place(scene, [SIZES[s] for s in sizes], rng)
    for group, name, centers in zip(scene.groups, sizes, placed, strict=True):
        diameter = scale * SIZES[name]
        side = ceil(diameter) + 2
        ink = (255 - np.array(COLORS[group.color], dtype=np.float32))[:, None, None]
        for y, x in np.floor((scale * centers - side / 2 + margin) * SUBPIXELS).astype(int):
            (row, shift_y), (column, shift_x) = divmod(int(y), SUBPIXELS), divmod(int(x), SUBPIXELS)
            canvas[:, row : row + side, column : column + side] -= ink * stamp(
                group.shape, diameter, shift_y, shift_x, side
            )
    picture = canvas[:, margin:-margin, margin:-margin]
    return torch.from_numpy(np.rint(picture).astype(np.uint8))


class ShapeScenes(InMemory):
    """A training source: `n` scenes drawn once from `seed`.

    `scenes` is what each picture shows, `pictures` is uint8 (n, 3, 32, 32), `ids` and `mask` hold the captions.
    Raises ValueError unless 1 <= n <= 1,000,000.
    """

    def __init__(self, n: int, seed: int = 0, held_out: bool = False, device: str | torch.device = "cpu") -> None:
        check_int("n", n, 1, 1_000_000)
        check_int("seed", seed, 0, 2**32 - 1)
        rng = np.random.default_rng(seed)
        self.scenes = [random_scene(rng, held_out) for _ in range(n)]
        self.pictures = torch.stack([render(scene, rng) for scene in self.scenes]).to(device)
        places = {word: i for i, word in enumerate(VOCABULARY)}
        ids, mask = word_ids([scene.caption() for scene in self.scenes], places, CAPTION_LENGTH)
        self.ids, self.mask = ids.to(device), mask.to(device)

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(
        self, indices: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return x0 (B, 3, 32, 32) in [-1, 1] and its words (ids, mask), each (B, CAPTION_LENGTH).

        Nothing is drawn at random here; `generator` is only part of what every source accepts.
        """
        indices = indices.to(self.pictures.device)
        return to_float(self.pictures[indices]), (self.ids[indices], self.mask[indices])
