"""Read a picture of shapes back into a `Scene`: prompt adherence becomes a count of right answers.

The reading has four steps, none of them learned: find connected spots of ink, name each spot's color (the
nearest of the palette), name its shape and size (the nearest rendered template), and group equal spots.
Whatever does not fit (an off-palette color, a blob, sizes that differ within a group, four circles) makes the
picture unreadable: None. Ink that covers less than half a pixel, and specks of a few pixels, count as noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minidiff.data.pixels import to_float
from minidiff.data.scenes import COLORS, COUNTS, SHAPES, SIZES, Group, Scene
from minidiff.data.shapes import SUBPIXELS, stamp

SPECK = 5  # spots of fewer pixels are noise: the smallest star covers twice as many
COLOR_TOLERANCE = 0.2  # largest distance to the palette, as a share of that color's own distance from white
SHAPE_TOLERANCE = 0.1  # largest squared error to the template, as a share of the template's own square
SCALES = (0.88, 0.94, 1.0, 1.06, 1.12)  # a small or large shape may be drawn that much smaller or larger
WINDOW = 14  # pixels a side that templates are compared in
ATTRIBUTES = ("count", "size", "color", "shape", "relation")


@dataclass(frozen=True)
class Spot:
    """One shape found in a picture: its center in pixels (y down), and how far it is from its template."""

    color: str
    shape: str
    size: str
    y: float
    x: float
    error: float


@cache
def _palette() -> np.ndarray:
    """The palette in [-1, 1], (colors, 3)."""
    return np.array(list(COLORS.values()), dtype=np.float32) / 127.5 - 1


@cache
def _templates() -> tuple[list[tuple[str, str]], np.ndarray, np.ndarray]:
    """Return (shape, size) names, coverages (T, WINDOW^2) and their squared lengths (T,).

    Every kind is there at every scale and every quarter-pixel shift of its centroid.
    """
    names, rows = [], []
    for shape, size, scale in product(SHAPES, SIZES, SCALES):
        diameter = scale * SIZES[size]
        middle = stamp(shape, diameter, 0, 0, WINDOW)
        places = np.arange(WINDOW) + 0.5 - WINDOW / 2
        drop = round(float((middle.sum(1) * places).sum() / middle.sum()) * SUBPIXELS)  # centroid below middle
        for y, x in product(range(-6, 7, 2), repeat=2):
            names.append((shape, size))
            rows.append(stamp(shape, diameter, y - drop, x, WINDOW).ravel())
    return names, np.stack(rows), (np.stack(rows) ** 2).sum(1)


def _spots_of_ink(solid: np.ndarray) -> list[np.ndarray]:
    """Return the 4-connected components of `solid` (H, W) as masks, largest label first.

    Every pixel starts with a number of its own and takes the largest of its neighbors' until nothing changes.
    """
    labels = np.where(solid, np.arange(1, solid.size + 1).reshape(solid.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        spread = np.maximum.reduce(
            [padded[1:-1, 1:-1], padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
        )
        spread = np.where(solid, spread, 0)
        if (spread == labels).all():
            return [labels == label for label in np.unique(labels)[::-1] if label]
        labels = spread


def _grown(mask: np.ndarray) -> np.ndarray:
    """Return `mask` and its eight neighbors: a spot with its antialiased rim."""
    padded = np.pad(mask, 1)
    rows, columns = mask.shape
    return np.logical_or.reduce([padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)])


def _as_array(picture: Tensor) -> np.ndarray:
    """Return a picture as float (3, 32, 32) in [-1, 1]; larger ones are averaged down."""
    values = to_float(picture).detach().cpu()
    if picture.ndim != 3 or picture.shape[0] != 3 or picture.shape[1] != picture.shape[2] or picture.shape[1] % 32:
        raise ValueError(
            f"`picture` must have shape (3, S, S) with S a multiple of 32; got {tuple(picture.shape)}: "
            "pass one picture at a time."
        )
    if picture.shape[1] > 32:
        values = torch.nn.functional.avg_pool2d(values, picture.shape[1] // 32)
    return values.clamp(-1, 1).numpy()


def spots(picture: Tensor) -> list[Spot] | None:
    """Return every shape in `picture` (3, S, S), float in [-1, 1] or uint8; None if some spot is no shape."""
    pixels = _as_array(picture)
    if not np.isfinite(pixels).all():
        return None
    palette, (names, templates, squares) = _palette(), _templates()
    ink = 1 - pixels  # (3, H, W): what is missing to white
    full = 1 - palette  # (colors, 3): ink of a fully covered pixel
    # Half covered by whichever color explains most: the same bar for pale yellow and for black.
    cover = np.einsum("kc,chw->khw", full / (full**2).sum(1, keepdims=True), ink)
    residual = ((ink[None] - cover[:, None] * full[:, :, None, None]) ** 2).sum(1)
    best = np.take_along_axis(cover, residual.argmin(0)[None], 0)[0]
    found = []
    for mask in _spots_of_ink(best > 0.5):
        if mask.sum() < SPECK:
            continue
        core = mask & (best > 0.75)
        color = pixels[:, core if core.sum() >= SPECK else mask].mean(1)
        gap = np.sqrt(((palette - color) ** 2).sum(1))
        nearest = int(gap.argmin())
        if gap[nearest] > COLOR_TOLERANCE * np.linalg.norm(full[nearest]):
            return None
        coverage = np.where(_grown(mask), cover[nearest], 0).clip(0, 1)
        rows, columns = np.indices(coverage.shape) + 0.5
        y, x = (coverage * rows).sum() / coverage.sum(), (coverage * columns).sum() / coverage.sum()
        top, left = round(float(y)) + WINDOW // 2, round(float(x)) + WINDOW // 2  # in the padded picture
        window = np.pad(coverage, WINDOW)[top : top + WINDOW, left : left + WINDOW].ravel().astype(np.float32)
        lost = coverage.sum() - window.sum()
        errors = squares - 2 * templates @ window + (window**2).sum()  # |template - window|^2
        which = int(errors.argmin())
        error = float((errors[which] + max(lost, 0)) / squares[which])
        if error > SHAPE_TOLERANCE:
            return None
        found.append(Spot(list(COLORS)[nearest], *names[which], float(y), float(x), error))
    return found


def read(picture: Tensor) -> Scene | None:
    """Return the scene that `picture` (3, S, S), float in [-1, 1] or uint8, shows; None if unreadable.

    Of the two ways to tell a scene of two groups ("a left of b", "b right of a") it returns the one with
    "left of" or "above". Sizes are always named. Raises ValueError unless S is a multiple of 32.
    """
    found = spots(picture)
    if not found:
        return None
    members: dict[tuple[str, str], list[Spot]] = {}
    for spot in found:
        members.setdefault((spot.color, spot.shape), []).append(spot)
    if len(members) > 2:
        return None
    groups = []
    for (color, shape), group in members.items():
        if len(group) > COUNTS[-1] or len({spot.size for spot in group}) > 1:
            return None
        groups.append(Group(len(group), group[0].size, color, shape))
    if len(groups) == 1:
        return Scene(groups[0])
    one, two = (np.array([(spot.y, spot.x) for spot in group]) for group in members.values())
    down, right = two.mean(0) - one.mean(0)
    axis, relation = (1, "left of") if abs(right) > abs(down) else (0, "above")
    if (right if axis else down) < 0:
        one, two, groups = two, one, groups[::-1]
    if one[:, axis].max() >= two[:, axis].min():  # some of the one stand among the other
        return None
    return Scene(groups[0], relation, groups[1])


def compare(wanted: Scene, seen: Scene | None) -> dict[str, bool]:
    """Return which attributes of `wanted` the reading `seen` has right, and "all" of them at once.

    A picture that is unreadable or shows another number of groups has nothing right. A size that `wanted`
    leaves open is right either way; a scene of one group has no relation to get wrong.
    """
    best = dict.fromkeys((*ATTRIBUTES, "all"), False)
    if seen is None or len(seen.groups) != len(wanted.groups):
        return best
    for telling in (seen, seen.mirrored()):
        pairs = list(zip(wanted.groups, telling.groups, strict=True))
        right = {
            "count": all(a.count == b.count for a, b in pairs),
            "size": all(a.size in (None, b.size) for a, b in pairs),
            "color": all(a.color == b.color for a, b in pairs),
            "shape": all(a.shape == b.shape for a, b in pairs),
            "relation": wanted.relation == telling.relation,
        }
        right["all"] = all(right.values())
        best = max(best, right, key=lambda answer: sum(answer.values()))
    return best


def adherence(pictures: Tensor | Sequence[Scene | None], scenes: Sequence[Scene | str]) -> dict[str, Any]:
    """Return the shares in [0, 1] of pictures (B, 3, S, S) that show their scene: "all", and each attribute.

    pictures: or what `read` found in them. scenes: or their captions. "readable" is the share that the oracle can
    read; an unreadable picture is wrong in everything. "relation" is a share of the scenes that have two groups (None
    without any). Raises ValueError when the numbers differ.
    """
    if len(pictures) != len(scenes) or not len(scenes):
        raise ValueError(
            f"`pictures` and `scenes` must be equally many, at least one each; got {len(pictures)} and {len(scenes)}."
        )
    asked = [Scene.of(scene) if isinstance(scene, str) else scene for scene in scenes]
    seen = [read(picture) if isinstance(picture, Tensor) else picture for picture in pictures]
    answers = [compare(scene, reading) for scene, reading in zip(asked, seen, strict=True)]
    shares: dict[str, Any] = {
        name: float(np.mean([answer[name] for answer in answers])) for name in ("all", *ATTRIBUTES)
    }
    related = [a["relation"] for a, scene in zip(answers, asked, strict=True) if scene.relation]
    shares["relation"] = float(np.mean(related)) if related else None
    return shares | {"readable": float(np.mean([reading is not None for reading in seen]))}
