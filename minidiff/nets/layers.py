"""The bricks of the U-Net: time embedding, residual block, attention within the picture and to the words."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoidal_embedding(t: Tensor, dim: int) -> Tensor:
    """Write a time as `dim` sines and cosines of geometrically spaced frequencies: (B,) -> (B, dim).

    Frequency k is 10000^(-k / (dim / 2)) per unit of 1000 t, as in Vaswani et al. 2017, section 3.5; dim is even.
    """
    frequencies = torch.exp(-math.log(10_000) * torch.arange(dim // 2, device=t.device) / (dim // 2))
    angles = 1000 * t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def embed_label(table: nn.Embedding, label: Tensor) -> Tensor:
    """The vectors (B, dim) of labels (B,), 0 = none; raises ValueError for one that the table does not hold."""
    try:
        return table(label.long())
    except IndexError:  # only on the CPU, where looking costs nothing
        most = table.num_embeddings - 1
        raise ValueError(f"`label` must be from 0 (none) to {most}; got {label.tolist()}.") from None


class TimeEmbedding(nn.Module):
    """Times (B,) in [0, 1] to vectors (B, dim) that a block can be steered by: two layers on sines and cosines.

    Source: Ho et al. 2020, appendix B.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(64, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        """(B,) -> (B, dim)."""
        return self.mlp(sinusoidal_embedding(t, 64).to(next(self.parameters()).dtype))


def zero(layer: nn.Module) -> nn.Module:
    """Start a layer at zero, so that the branch it ends says nothing until training has given it something."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalize in groups of about 8 channels, at most 32 groups."""
    return nn.GroupNorm(math.gcd(channels, max(1, min(32, channels // 8))), channels)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, steered by an embedding: norm(h) * (1 + scale) + shift.

    (B, channels_in, H, W) and an embedding (B, dim) -> (B, channels_out, H, W). The norm that is steered is the
    adaptive group normalization of Dhariwal & Nichol 2021, section 3.
    """

    def __init__(self, channels_in: int, channels_out: int, dim: int | None = None, dropout: float = 0.0):
        super().__init__()
        self.norm_in = group_norm(channels_in)
        self.conv_in = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.steer = zero(nn.Linear(dim, 2 * channels_out)) if dim else None
        self.norm_out = group_norm(channels_out)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero(nn.Conv2d(channels_out, channels_out, 3, padding=1))
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        """Return (B, channels_out, H, W)."""
        h = self.norm_out(self.conv_in(F.silu(self.norm_in(x))))
        if self.steer is not None and embedding is not None:
            scale, shift = self.steer(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.shortcut(x) + self.conv_out(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Multi-head attention softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017, equation 1).

    Queries come from x (B, N, dim); keys and values from context (B, L, context_dim), or from x itself without
    one. mask: (B, L), True where the context may be read. While `record` is a list, the attention weights
    (B, heads, N, L) of every call are appended to it.
    """

    def __init__(self, dim: int, heads: int, context_dim: int | None = None):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(context_dim or dim, 2 * dim, bias=False)
        self.out = zero(nn.Linear(dim, dim))
        self.record: list[Tensor] | None = None

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return (B, N, dim)."""
        context = x if context is None else context
        q, (k, v) = self.to_q(x), self.to_kv(context).chunk(2, dim=-1)
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (q, k, v))  # (B, heads, N, d)
        visible = None if mask is None else mask[:, None, None, :]
        learns_on_cpu = x.device.type == "cpu" and (q.requires_grad or k.requires_grad)
        if self.record is None and not learns_on_cpu:
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        else:  # written out: PyTorch's kernel shows no weights, and its backward pass is slow on a CPU
            scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-1, -2)
            scores = scores if visible is None else scores.masked_fill(~visible, float("-inf"))
            weights = torch.softmax(scores, dim=-1, dtype=scores.dtype)
            y = weights @ v
            if self.record is not None:
                self.record.append(weights.detach())
        return self.out(y.transpose(1, 2).flatten(2))


def position_embedding(side: int, dim: int) -> Tensor:
    """Where each place lies, as sines and cosines of row and column: (side^2, dim), zeros after the first 16.

    sin and cos of pi 2^k u for k < 4, u the middle of the row or column in (0, 1): cos(pi u) falls from one
    edge to the other, so it tells left from right. The idea is Vaswani et al. 2017's (section 3.5), for two axes.
    """
    u = (torch.arange(side) + 0.5) / side
    angles = math.pi * torch.cartesian_prod(u, u)[:, :, None] * 2.0 ** torch.arange(4)  # (side^2, 2, 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :dim]
    return F.pad(waves, (0, dim - waves.shape[1]))


class AttentionBlock(nn.Module):
    """Let every place look at every other place, then at the words, then think: self-, cross-attention, MLP.

    (B, C, H, W) -> (B, C, H, W). Source: Rombach et al. 2022, section 3.3, for the cross-attention to words.
    context_dim: size of their vectors; with None there are no words to look at. side: tell each place where it lies
    in a map of that many places along an edge, which convolutions can only feel from the edges; "left of" needs it.
    """

    def __init__(
        self, channels: int, heads: int, context_dim: int | None = None, expansion: int = 2, side: int | None = None
    ):
        super().__init__()
        self.here: Tensor | None
        self.register_buffer("here", position_embedding(side, channels) if side else None, persistent=False)
        self.norm_self = nn.LayerNorm(channels)
        self.self_attention = Attention(channels, heads)
        self.cross_attention = None
        if context_dim is not None:
            self.norm_cross = nn.LayerNorm(channels)
            self.cross_attention = Attention(channels, heads, context_dim)
        self.norm_mlp = nn.LayerNorm(channels)
        self.mlp = nn.Sequential(
            nn.Linear(channels, expansion * channels), nn.GELU(), zero(nn.Linear(expansion * channels, channels))
        )

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Return (B, C, H, W)."""
        h = x.flatten(2).transpose(1, 2)  # (B, H*W, C): one token per place
        h = h + self.self_attention(self._placed(self.norm_self(h)))
        if self.cross_attention is not None:
            h = h + self.cross_attention(self._placed(self.norm_cross(h)), context, mask)
        h = h + self.mlp(self._placed(self.norm_mlp(h)))
        return h.transpose(1, 2).unflatten(2, x.shape[2:])

    def _placed(self, h: Tensor) -> Tensor:
        return h if self.here is None else h + self.here
