"""Models small enough to build in a test: a text-to-image pipeline, and one that is drawn from by style."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from minidiff.clip import train_tokenizer
from minidiff.data.emoji import STYLES
from minidiff.denoisers import NetDenoiser
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.pipeline import TextToImage
from minidiff.schedules import CosineSchedule, RectifiedFlow
from minidiff.text import MiniClip, MiniClipConfig

CLIP = MiniClipConfig(
    dim=16, context=24, vocabulary=400, text_width=16, text_layers=1, text_heads=2,
    image_size=16, image_patch=8, image_width=16, image_layers=1, image_heads=2,
)  # fmt: skip
NET = UNetConfig(
    size=16, widths=(8, 16), attention=(False, True), blocks=1, head_dim=8, embedding=16,
    context_dim=16, pooled_dim=16, image_dim=16,
)  # fmt: skip
BY_STYLE = UNetConfig(
    size=16, patch=1, widths=(8, 16), attention=(False, True), blocks=1, head_dim=8, embedding=16, labels=4
)

LONG = "On a quiet morning in a small town, far from the sea. " * 17 + "a red heart, fluent 3d style, a rocket, face"


@cache
def tokenizer() -> Any:
    return train_tokenizer(["a red heart, noto style", "cat face", "rocket", "fluent 3d style"] * 3, 400)


def small_clip() -> MiniClip:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MiniClip(CLIP, tokenizer()).eval().requires_grad_(False)


def small_net(config: UNetConfig = NET) -> UNet:
    """A U-Net whose zero-initialized layers were stirred, as training does: a new one answers 0 to everything."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = UNet(config).eval().requires_grad_(False)
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def small_pipe() -> TextToImage:
    """Text to 16x16 pictures, flow."""
    return TextToImage(NetDenoiser(small_net(), RectifiedFlow(), "flow"), small_clip(), STYLES, {"steps": 7})


def styles_pipe() -> TextToImage:
    """16x16 pictures by style, without words, eps target, cosine schedule."""
    return TextToImage(NetDenoiser(small_net(BY_STYLE), CosineSchedule(), "eps", clip=1.0), None, STYLES)
