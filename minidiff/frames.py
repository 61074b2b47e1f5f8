"""Figures with sliders that need no kernel, no library and no network: they work in every page that shows them.

All frames travel in one picture; sliders choose which part of it shows (frames.html). Widgets would be dead there.
"""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import math
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any

import numpy as np
from torch import Tensor

from minidiff.common import check_int
from minidiff.data.decode import on_paper
from minidiff.data.pixels import to_uint8

_SLIDER = Template(
    '<label style="display:flex;gap:.6em;align-items:center;min-height:1.9em"><i style="white-space:nowrap">$name</i>'
    '<input type="range" min="0" max="$last" value="$place" step="1" autocomplete="off" aria-label="$name"'
    ' style="flex:1;min-width:4em;accent-color:currentColor"><output aria-live="off"'
    ' style="min-width:min(${room}ch,45%);font-variant-numeric:tabular-nums">$label</output></label>'
)


def as_frame(picture: Any) -> np.ndarray:
    """A picture as uint8 (H, W, 3).

    picture: uint8 array (H, W), (H, W, 3) or (H, W, 4), a PIL image, or a tensor (3, H, W) or (1, H, W), uint8 or
    float in [-1, 1] (values outside are clipped). Transparency is laid on white. Raises ValueError for anything else.
    """
    if isinstance(picture, Tensor):
        if picture.dim() != 3 or picture.shape[0] not in (1, 3):
            raise ValueError(
                f"`frames` as tensors must be shaped (3, H, W) or (1, H, W); got {tuple(picture.shape)}."
            )
        return to_uint8(picture.detach()).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    frame = np.asarray(on_paper(picture) if hasattr(picture, "convert") else picture)
    if frame.dtype != np.uint8 or frame.ndim not in (2, 3) or (frame.ndim == 3 and frame.shape[2] not in (3, 4)):
        wanted = "uint8 arrays (H, W, 3), PIL images or float tensors (3, H, W)"
        raise ValueError(f"`frames` must be {wanted}; got an array of {frame.dtype} shaped {frame.shape}.")
    if frame.ndim == 3 and frame.shape[2] == 4:
        from PIL import Image

        frame = np.asarray(on_paper(Image.fromarray(frame)))
    return np.stack([frame] * 3, axis=2) if frame.ndim == 2 else frame


def figure_frame(figure: Any, dpi: int = 100) -> np.ndarray:
    """A matplotlib figure as uint8 (H, W, 3); the figure is closed, so that the notebook does not show it as well."""
    import matplotlib.pyplot as plt
    from PIL import Image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    plt.close(figure)
    return as_frame(Image.open(buffer))


class _Frames:
    """What one slider and two have in common: the frames in order, an axis of labels per slider, the page."""

    def __init__(
        self,
        frames: Sequence[Any],
        axes: Sequence[tuple[str, Sequence[Any]]],
        start: Sequence[int],
        *,
        width: int | None = None,
        ms: int = 150,
        caption: str = "",
        alt: str = "",
        quality: int | None = None,
    ):
        self.frames = [as_frame(frame) for frame in frames]
        self.axes = [(name, [str(label) for label in labels]) for name, labels in axes]
        wanted = math.prod(len(labels) for _, labels in self.axes)
        if not self.frames or len(self.frames) != wanted:
            raise ValueError(f"`frames` must hold one frame per label, {wanted} in all; got {len(self.frames)}.")
        if len({frame.shape for frame in self.frames}) > 1:
            raise ValueError("`frames` must all have the same height and width.")
        for place, (_, labels) in zip(start, self.axes, strict=True):
            check_int("start", place, 0, len(labels) - 1)
        self.width = width or (256 if self.frames[0].shape[1] <= 128 else self.frames[0].shape[1])
        self.ms, self.start, self.caption, self.quality = ms, list(start), caption, quality
        self.alt = alt or caption or "a picture that changes with the slider"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.frames)} frames, {', '.join(name for name, _ in self.axes)})"

    def _sheet(self) -> tuple[str, int, int]:
        """All frames in one picture, nearly square, as a data address, with its columns and rows."""
        height, width = self.frames[0].shape[:2]
        columns = max(1, min(len(self.frames), round(math.sqrt(len(self.frames) * height / width))))
        rows = math.ceil(len(self.frames) / columns)
        blank = [np.zeros_like(self.frames[0])] * (rows * columns - len(self.frames))
        cells = np.stack([*self.frames, *blank]).reshape(rows, columns, height, width, 3)
        sheet = cells.swapaxes(1, 2).reshape(rows * height, columns * width, 3)
        look = {"lossless": True} if self.quality is None else {"quality": self.quality}
        data = base64.b64encode(_encode(sheet, "WEBP", method=6, **look))
        return f"data:image/webp;base64,{data.decode()}", columns, rows

    def _key(self) -> str:
        """A name that depends on what is shown alone, so that a second run of a notebook changes nothing."""
        look = repr((self.axes, self.width, self.ms, self.start, self.caption)).encode()
        return "mdf" + hashlib.sha256(look + b"".join(frame.tobytes() for frame in self.frames)).hexdigest()[:12]

    def _repr_html_(self) -> str:
        address, columns, rows = self._sheet()
        height, width = self.frames[0].shape[:2]
        first = int(np.ravel_multi_index(self.start, [len(labels) for _, labels in self.axes]))
        across, down = 100 * (first % columns) / max(columns - 1, 1), 100 * (first // columns) / max(rows - 1, 1)
        sliders = [
            _SLIDER.substitute(
                name=html.escape(name),
                last=len(labels) - 1,
                place=place,
                label=html.escape(labels[place]),
                room=max(4, *map(len, labels)),  # or the slider would change its length with the word beside it
            )
            for (name, labels), place in zip(self.axes, self.start, strict=True)
        ]
        page = resources.files("minidiff").joinpath("frames.html").read_text(encoding="utf-8")
        return Template(page).substitute(
            key=self._key(),
            width=self.width,
            ratio=f"{width}/{height}",
            rendering="pixelated" if min(width, height) <= 128 else "auto",  # strips of small pictures, too
            address=address,
            position=f"{across:g}% {down:g}%",
            size=f"{100 * columns}% {100 * rows}%",
            sliders="\n".join(sliders),
            caption=f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else "",
            alt=html.escape(self.alt),
            alt_js=_json(self.alt),
            labels=_json([labels for _, labels in self.axes]),
            columns=columns,
            rows=rows,
            ms=self.ms,
        )

    def _repr_png_(self) -> bytes:
        """Up to six frames side by side, for places that show no HTML."""
        places = np.unique(np.linspace(0, len(self.frames) - 1, 6).round().astype(int))
        return _encode(np.concatenate([self.frames[i] for i in places], axis=1), "PNG", optimize=True)


class FrameSlider(_Frames):
    """One picture that changes with a slider: FrameSlider([x_T, ..., x_0], labels=["1.0", ..., "0.0"]).

    frames: pictures of one size, see `as_frame`. labels: a word or number per frame (0, 1, ... by default).
    name: what the slider stands for. start: the frame shown first.

    And by keyword: width in CSS pixels, ms per frame when playing (150), caption, alt (what a listener hears),
    quality (None keeps every pixel; 1 to 100 is lossy WebP, for noise and photographs).
    """

    def __init__(
        self,
        frames: Sequence[Any],
        labels: Sequence[Any] | None = None,
        *,
        name: str = "t",
        start: int = 0,
        **look: Any,
    ):
        super().__init__(frames, [(name, range(len(frames)) if labels is None else labels)], [start], **look)


class FrameGrid(_Frames):
    """One picture that changes with two sliders: frames[i][j] belongs to labels[0][i] and labels[1][j].

    The keywords are those of `FrameSlider`. names: what the two sliders stand for, say ("t", "guidance"); the play
    button moves the first.
    """

    def __init__(
        self,
        frames: Sequence[Sequence[Any]],
        labels: tuple[Sequence[Any], Sequence[Any]],
        names: tuple[str, str],
        *,
        start: tuple[int, int] = (0, 0),
        **look: Any,
    ):
        axes = list(zip(names, labels, strict=True))
        super().__init__([frame for row in frames for frame in row], axes, start, **look)


def _encode(pixels: np.ndarray, kind: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value).replace("<", "\\u003c")
