"""A network for points: everything the U-Net does for pictures, small enough to train in seconds."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from minidiff.common import Condition, check_int
from minidiff.nets.layers import TimeEmbedding, embed_label


class MLP(nn.Module):
    """A perceptron on points (B, dim), told the time and, if labels > 0, a class (0 = none).

    pooled_dim: the size of a sentence's vector that it is told as well, None for none. Returns (B, dim): whatever
    the denoiser around it asks for.
    """

    def __init__(
        self, dim: int = 2, width: int = 128, depth: int = 3, labels: int = 0, pooled_dim: int | None = None
    ):
        super().__init__()
        check_int("dim", dim, 1, 10_000)
        check_int("width", width, 1, 10_000)
        check_int("depth", depth, 1, 100)
        check_int("labels", labels, 0, 10**9)
        check_int("pooled_dim", pooled_dim or 1, 1, 100_000)
        self.config = SimpleNamespace(labels=labels, context_dim=None, pooled_dim=pooled_dim, image_dim=None)
        self.time = TimeEmbedding(width)
        self.label = nn.Embedding(labels + 1, width) if labels else None
        self.pooled = nn.Linear(pooled_dim, width, bias=False) if pooled_dim else None  # zero says nothing
        self.inlet = nn.Linear(dim, width)
        self.hidden = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.outlet = nn.Linear(width, dim)

    def forward(self, x: Tensor, t: Tensor, cond: Condition | None = None) -> Tensor:
        """x (B, dim), t (B,) -> (B, dim)."""
        embedding, cond = self.time(t), Condition() if cond is None else cond
        if self.label is not None:
            none = torch.zeros(len(x), dtype=torch.long, device=x.device)
            embedding = embedding + embed_label(self.label, none if cond.label is None else cond.label)
        if self.pooled is not None and cond.text is not None:
            embedding = embedding + self.pooled(cond.text.pooled)
        h = self.inlet(x)
        for layer in self.hidden:
            h = h + nn.functional.silu(layer(h + embedding))
        return self.outlet(h)
