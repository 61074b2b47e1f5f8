"""Pictures as tensors, as PIL images and as files: grids, PNGs that remember how they were made, and animations."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

import minidiff
from minidiff.data.decode import on_paper, to_tensor
from minidiff.data.pixels import to_float, to_uint8

if TYPE_CHECKING:
    from PIL.Image import Image


def to_images(x: Tensor) -> list[Image]:
    """Pictures (B, 3, H, W), or gray (B, 1, H, W), in [-1, 1] as PIL images."""
    from PIL import Image

    pixels = to_uint8(x)
    if pixels.dim() != 4:
        raise ValueError(f"`x` must be pictures (B, 3, H, W), one as x[None]; got shape {tuple(pixels.shape)}.")
    rgb = pixels.expand(-1, 3, -1, -1)  # gray, too
    return [Image.fromarray(picture) for picture in rgb.permute(0, 2, 3, 1).cpu().numpy()]


def from_image(image: Image, size: int) -> Tensor:
    """The middle square of a PIL image as (1, 3, size, size) in [-1, 1], upright, transparency on white."""
    from PIL import Image

    if not isinstance(image, Image.Image):
        raise ValueError(f"`image` must be a PIL image, as Image.open(path) gives one; got {image!r:.80}.")
    return to_float(to_tensor(on_paper(image), size, "crop"))[None]


def grid(images: Sequence[Image], scale: int = 1, columns: int | None = None, gap: int = 0) -> Image:
    """Several pictures of one size as one, row by row, each enlarged `scale` times without smoothing.

    gap: white pixels between two pictures, half of them at the edges.
    """
    from PIL import Image

    if not images:
        raise ValueError("`images` must hold at least one picture; got none.")
    columns = columns or math.ceil(math.sqrt(len(images)))
    size = images[0].width * scale, images[0].height * scale
    across, down = (side + gap for side in size)
    sheet = Image.new("RGB", (columns * across, math.ceil(len(images) / columns) * down), "white")
    for i, image in enumerate(images):
        enlarged = on_paper(image).resize(size, Image.Resampling.NEAREST)
        sheet.paste(enlarged, (i % columns * across + gap // 2, i // columns * down + gap // 2))
    return sheet


def save_png(image: Image, path: str | Path, settings: dict[str, Any]) -> None:
    """Write a PNG with its settings inside, as JSON in the text field "minidiff"; see `read_settings`."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("minidiff", json.dumps({"version": minidiff.__version__, **settings}))
    image.save(path, "PNG", pnginfo=info, optimize=True)


def read_settings(path: str | Path) -> dict[str, Any]:
    """How a picture of ours was made; raises ValueError if the file does not say."""
    from PIL import Image

    with Image.open(path) as image:
        text = getattr(image, "text", {}).get("minidiff")
    if text is None:
        raise ValueError(f"`path` must be a PNG that minidiff wrote; {path} holds no settings.")
    return json.loads(text)


def animation(frames: Sequence[Image], path: str | Path, milliseconds: int = 120) -> None:
    """Write frames as a .gif or .webp that shows the last one a while before it starts again."""
    times = [milliseconds] * (len(frames) - 1) + [1500]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)
