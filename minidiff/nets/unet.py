"""The U-Net: a picture goes down to few, wide pixels and up again, and is told the time and the words on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.common import Condition, check_int, check_number
from minidiff.nets.layers import (
    Attention,
    AttentionBlock,
    ResidualBlock,
    TimeEmbedding,
    embed_label,
    group_norm,
    zero,
)


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net.

    size: pixels along an edge. channels: of the picture. patch: pixels folded into channels before anything else
    (pixel-unshuffle), which makes every later layer patch^2 times cheaper. widths: channels per level, each level at
    half the resolution of the one before. attention: which levels have it. blocks: residual blocks per level on the
    way down, and as many on the way up, at the finest level one more. head_dim: channels to a head of attention;
    expansion: how many times as wide the MLP behind it is inside. embedding: size of the vector of the time and of
    all that is added to it. dropout: the share of values that each residual block forgets while it is trained.
    positions: whether attention is told where each place lies. context_dim: size of the words' vectors, None for a
    model without text; pooled_dim and image_dim: sizes of the sentence's and of the CLIP image's vector. labels:
    number of classes besides "none".
    Raises ValueError for a value out of range, and for sizes that do not fit each other.
    """

    size: int = 64
    channels: int = 3
    patch: int = 2
    widths: tuple[int, ...] = (64, 128, 160)
    attention: tuple[bool, ...] = (False, True, True)
    blocks: int = 2
    head_dim: int = 32
    expansion: int = 2
    embedding: int = 160
    positions: bool = False
    context_dim: int | None = None
    pooled_dim: int | None = None
    image_dim: int | None = None
    labels: int = 0
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("size", "channels", "patch", "blocks", "head_dim", "expansion", "embedding"):
            check_int(name, getattr(self, name), 1, 100_000)
        for name in ("context_dim", "pooled_dim", "image_dim"):
            check_int(name, getattr(self, name) or 1, 1, 100_000)
        check_int("labels", self.labels, 0, 10**9)
        check_number("dropout", self.dropout, 0, 1)
        for name in ("widths", "attention"):
            levels: Any = getattr(self, name)
            if not isinstance(levels, tuple | list):
                raise ValueError(f"`{name}` must be a tuple, one entry per level; got {levels!r:.60}.")
            object.__setattr__(self, name, tuple(levels))  # JSON knows lists only
        if len(self.widths) != len(self.attention):
            raise ValueError(
                f"`attention` must have one entry per width ({len(self.widths)}); got {len(self.attention)}."
            )
        for width, attend in zip(self.widths, self.attention, strict=True):
            check_int("widths", width, 1, 100_000)
            if attend and width % self.head_dim:
                raise ValueError(
                    f"`widths` with attention must be multiples of head_dim ({self.head_dim}); got {width}."
                )
        if self.context_dim and not any(self.attention) and not self.pooled_dim:
            raise ValueError("`attention` must be on at some width, or `pooled_dim` given, for words to be heard.")
        fold = self.patch * 2 ** (len(self.widths) - 1)
        if self.size % fold:
            raise ValueError(f"`size` must be a multiple of {fold} for this U-Net; got {self.size}.")


class UNet(nn.Module):
    """The network of Ho et al. 2020 (appendix B), after Ronneberger et al. 2015, with cross-attention to text.

    forward(x, t, cond): x (B, channels, size, size), t (B,) in [0, 1] -> (B, channels, size, size). Conditions
    enter in two ways: words through cross-attention; the sentence, the CLIP image embedding and the label by
    addition to the time embedding. A sentence or a CLIP image that is absent, or zero, adds nothing; where words are
    absent, attention reads `no_text` alone; a label that is absent is class 0, which has a learned vector of its own.
    """

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        widths, dim = config.widths, config.embedding
        folded = config.channels * config.patch**2
        self.time = TimeEmbedding(dim)
        self.pooled = _vector(config.pooled_dim, dim)
        self.image = _vector(config.image_dim, dim)
        self.label = nn.Embedding(config.labels + 1, dim) if config.labels else None
        # A word that is always there: what attention reads when there is no text, so that no row is empty.
        self.no_text = nn.Parameter(torch.zeros(1, 1, config.context_dim)) if config.context_dim else None

        self.inlet = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.down, self.downsample = nn.ModuleList(), nn.ModuleList()
        skips, channels, side = [widths[0]], widths[0], config.size // config.patch
        for width, attend in zip(widths, config.attention, strict=True):
            level = nn.ModuleList()
            for _ in range(config.blocks):
                level.append(Layer(channels, width, attend, side, config))
                channels = width
                skips.append(channels)
            self.down.append(level)
            last = len(self.down) == len(widths)
            self.downsample.append(nn.Identity() if last else nn.Conv2d(channels, channels, 3, 2, 1))
            side = side if last else side // 2

        self.middle = Layer(channels, channels, config.attention[-1], side, config)

        self.up, self.upsample = nn.ModuleList(), nn.ModuleList()
        for i, (width, attend) in reversed(list(enumerate(zip(widths, config.attention, strict=True)))):
            level = nn.ModuleList()
            for _ in range(config.blocks + (i == 0)):
                level.append(Layer(channels + skips.pop(), width, attend, side, config))
                channels = width
            self.up.append(level)
            self.upsample.append(nn.Identity() if i == 0 else nn.Conv2d(channels, channels, 3, padding=1))
            side *= 2
        self.norm_out = group_norm(channels)
        self.outlet = zero(nn.Conv2d(channels, folded, 3, padding=1))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # convolutions are faster so

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """Return the network's output, (B, channels, size, size); ValueError for x of another shape."""
        wanted = (self.config.channels, self.config.size, self.config.size)
        if x.shape[1:] != wanted:
            shape = ", ".join(map(str, wanted))
            raise ValueError(
                f"`x` must have shape (B, {shape}) for this U-Net; got {tuple(x.shape)}: scale the pictures, or make "
                "a UNet with another `size`."
            )
        cond = Condition() if cond is None else cond
        embedding = self._embed(t, cond)
        context, mask = self._words(x.shape[0], cond)  # len(x) would be a constant when exported
        h = self.inlet(F.pixel_unshuffle(x, self.config.patch))
        skips = [h]
        for level, downsample in zip(self.down, self.downsample, strict=True):
            for layer in level:  # type: ignore[attr-defined]
                h = layer(h, embedding, context, mask)
                skips.append(h)
            h = downsample(h)
        h = self.middle(h, embedding, context, mask)
        for level, upsample in zip(self.up, self.upsample, strict=True):
            for layer in level:  # type: ignore[attr-defined]
                h = layer(torch.cat([h, skips.pop()], dim=1), embedding, context, mask)
            if not isinstance(upsample, nn.Identity):
                h = upsample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        return F.pixel_shuffle(self.outlet(F.silu(self.norm_out(h))), self.config.patch)

    def _embed(self, t: Tensor, cond: Condition) -> Tensor:
        embedding = self.time(t)
        if self.pooled is not None and cond.text is not None:
            embedding = embedding + self.pooled(cond.text.pooled)
        if self.image is not None and cond.image is not None:
            embedding = embedding + self.image(cond.image)
        if self.label is not None:
            label = torch.zeros_like(t, dtype=torch.long) if cond.label is None else cond.label
            embedding = embedding + embed_label(self.label, label)
        return embedding

    def _words(self, n: int, cond: Condition) -> tuple[Tensor | None, Tensor | None]:
        if self.no_text is None:
            return None, None
        words = self.no_text.expand(n, -1, -1)
        seen = torch.ones(n, 1, dtype=torch.bool, device=words.device)
        if cond.text is None:
            return words, seen
        words = torch.cat([words, cond.text.tokens.to(words.dtype)], dim=1)  # (B, 1 + L, D)
        return words, torch.cat([seen, cond.text.mask.bool()], dim=1)

    @contextmanager
    def record_attention(self) -> Iterator[list[Tensor]]:
        """Within this block, collect what cross-attention reads: one (B, heads, places, 1 + L) per layer and call.

        Column 0 is the word that is always there; column 1 + i is token i of the prompt. Places are row-major. Under
        guidance B is doubled: first the prompts, then what they are guided away from.
        """
        maps: list[Tensor] = []
        readers = [m.cross_attention for m in self.modules() if isinstance(m, AttentionBlock) and m.cross_attention]
        _set_record(readers, maps)
        try:
            yield maps
        finally:
            _set_record(readers, None)


class Layer(nn.Module):
    """A residual block, followed by attention where the level has it."""

    def __init__(self, channels_in: int, channels_out: int, attend: bool, side: int, config: UNetConfig):
        super().__init__()
        self.block = ResidualBlock(channels_in, channels_out, config.embedding, config.dropout)
        heads = channels_out // config.head_dim
        told = side if config.positions else None
        block = AttentionBlock(channels_out, heads, config.context_dim, config.expansion, told) if attend else None
        self.attention = block

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None, mask: Tensor | None) -> Tensor:
        """Return (B, channels_out, H, W)."""
        h = self.block(x, embedding)
        return h if self.attention is None else self.attention(h, context, mask)


def _vector(size: int | None, dim: int) -> nn.Linear | None:
    """A way for a vector of that size into the embedding; without bias, so that zero adds nothing."""
    return None if size is None else nn.Linear(size, dim, bias=False)


def _set_record(readers: list[Attention], maps: list[Tensor] | None) -> None:
    for reader in readers:
        reader.record = maps
