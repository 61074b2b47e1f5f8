"""Pictures as numbers: uint8 for files and screens, floats in [-1, 1] for networks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1]: x = pixels / 127.5 - 1. Floats are taken to lie there already."""
    check_tensor(pixels)
    return pixels.float() if pixels.is_floating_point() else pixels.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Float in [-1, 1] to the nearest uint8 0..255; what lies outside is cut off. Integers are taken for 0..255."""
    check_tensor(x)
    if x.dtype == torch.uint8:
        return x
    if not x.is_floating_point():
        return x.clamp(0, 255).to(torch.uint8)
    return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def check_tensor(pictures: Any) -> None:
    """Raise ValueError for what is no tensor, such as PIL images."""
    if not isinstance(pictures, Tensor):
        way = "torch.cat([from_image(image, 64) for image in images]), from minidiff.images"
        raise ValueError(f"Pictures must be a tensor (B, 3, H, W); got {type(pictures).__name__}. PIL images: {way}.")


def shrink(pixels: Tensor, size: int) -> Tensor:
    """Pictures uint8 (N, 3, H, W) at size x size, averaged over areas."""
    parts = (torch.nn.functional.adaptive_avg_pool2d(part.float(), size) for part in pixels.split(512))
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def shift_pictures(pictures: Tensor, most: int, generator: torch.Generator | None = None) -> Tensor:
    """Move each uint8 picture (B, 3, H, W) by its own whole numbers of pixels from -most to most, on white."""
    home = generator.device if generator is not None else pictures.device
    dy, dx = torch.randint(2 * most + 1, (2, len(pictures)), generator=generator, device=home).to(pictures.device)
    height, width = pictures.shape[-2:]
    padded = torch.nn.functional.pad(pictures, [most] * 4, value=255)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (B, 3, 2 most + 1, 2 most + 1, H, W), no copy
    return windows[torch.arange(len(pictures), device=pictures.device), :, dy, dx]
