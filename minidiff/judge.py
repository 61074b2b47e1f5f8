"""The judge: a small classifier of emoji that looks at generated pictures with eyes of its own.

Whoever trains a generator with an encoder must not also grade it with that encoder. The judge shares nothing with
the mini-CLIP: no weights, no words, another objective (which concept is this, and in which style?).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.common import check_int, check_number, modes_kept
from minidiff.data.emoji import STYLES, EmojiPictures, EmojiSet
from minidiff.data.pixels import to_float
from minidiff.nets.layers import ResidualBlock, group_norm

SIZE = 64  # px that the judge looks at; other sizes are scaled
FEATURES = 64  # few, so that a Fréchet distance needs few pictures
CONTENT = 48  # of them say what is drawn; the other 16 say how
CHUNK = 512  # pictures looked at together outside training


def _texture(h: Tensor) -> Tensor:
    """The mean and the standard deviation of each channel over the picture, (B, C, H, W) -> (B, 2 C)."""
    var, mean = torch.var_mean(h.float(), dim=(2, 3))
    return torch.cat([mean, (var + 1e-5).sqrt()], dim=1)


class Judge(nn.Module):
    """A residual network from a picture to 64 features, and from there to its base and its style.

    48 features say what is drawn: log p(base | x) = log softmax(e^s cos(f, w_base)) with a learned s, so that what
    the classifier calls alike is alike in cosine too. The other 16 say how: log p(style | x) is read off textures
    near the surface. If they knew the base, they would learn in which style it is *not* in the training split, and
    call every held-out picture wrong.

    bases: the names it can tell apart, those of the training split. widths: channels at 1/2, 1/4, 1/8 of the side.
    """

    def __init__(
        self, bases: Sequence[str], widths: tuple[int, int, int] = (32, 64, 128), dropout: float = 0.2
    ) -> None:
        super().__init__()
        self.bases = tuple(bases)
        if not self.bases or len(set(self.bases)) != len(self.bases):
            raise ValueError("`bases` must be names, at least one and none twice; pass `training_bases(emoji)`.")
        for width in widths:
            check_int("widths", width, 8, 512)
        check_number("dropout", dropout, 0, 0.9)
        self.widths = tuple(widths)
        low, middle, high = widths
        self.near = nn.Sequential(nn.Conv2d(3, low, 4, stride=2, padding=1), ResidualBlock(low, low))
        self.middle = nn.Sequential(nn.Conv2d(low, middle, 4, stride=2, padding=1), ResidualBlock(middle, middle))
        deep = (ResidualBlock(high, high) for _ in range(2))
        self.far = nn.Sequential(nn.Conv2d(middle, high, 2, stride=2), *deep, group_norm(high))
        self.dropout = nn.Dropout(dropout)
        # Averages alone forget where things are: the four quarters are averaged each on its own.
        self.what = nn.Linear(4 * high, CONTENT)
        self.how = nn.Sequential(nn.Linear(2 * (low + middle), 64), nn.SiLU(), nn.Linear(64, FEATURES - CONTENT))
        # Centered over the batch: without it all pictures first point the same way, and cosines say little.
        self.center = nn.BatchNorm1d(FEATURES, affine=False)
        self.base_weights = nn.Parameter(torch.randn(len(self.bases), CONTENT) / math.sqrt(CONTENT))
        self.style = nn.Linear(FEATURES - CONTENT, len(STYLES))
        self.scale = nn.Parameter(torch.tensor(math.log(16.0)))

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 64) of pictures (B, 3, H, W) in [-1, 1]: 48 of mean square 1, and 16 of mean square 1."""
        if x.dim() != 4 or x.shape[1] != 3:
            raise ValueError(f"`x` must have shape (B, 3, H, W); got {tuple(x.shape)}.")
        if max(x.shape[-2:]) > SIZE:
            x = F.adaptive_avg_pool2d(x, SIZE)
        elif min(x.shape[-2:]) < SIZE:
            x = F.interpolate(x, (SIZE, SIZE), mode="bilinear")
        near = self.near(x)  # (B, low, 32, 32)
        middle = self.middle(near)  # (B, middle, 16, 16)
        far = F.silu(self.far(middle))  # (B, high, 8, 8)
        what = self.what(self.dropout(F.adaptive_avg_pool2d(far, 2).flatten(1)))
        how = self.how(self.dropout(torch.cat([_texture(near), _texture(middle)], dim=1)))
        features = self.center(torch.cat([what, how], dim=1).float())
        parts = features.split([CONTENT, FEATURES - CONTENT], dim=1)
        return torch.cat([math.sqrt(part.shape[1]) * F.normalize(part, dim=1) for part in parts], dim=1)

    @property
    def shape(self) -> dict[str, Any]:
        """What `Judge(**shape)` makes an equal one of, but for its weights."""
        return {"bases": self.bases, "widths": self.widths, "dropout": self.dropout.p}

    def logits(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """What the features (B, 64) say, before the softmax: bases (B, len(bases)) and styles (B, 4)."""
        what, how = features[:, :CONTENT], features[:, CONTENT:]
        with torch.autocast(features.device.type, enabled=False):  # e^s would amplify the rounding of bf16
            cosines = F.linear(F.normalize(what, dim=-1), F.normalize(self.base_weights, dim=-1))
            return self.scale.clamp(max=4.0).exp() * cosines, self.style(how)

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """`forward` for any number of pictures, without gradients and without dropout, in float32: (B, 64)."""
        home = self.scale.device
        with modes_kept(self), torch.autocast(home.type, enabled=False):
            self.eval()
            parts = [self(to_float(part.to(home)).clamp(-1, 1)) for part in x.split(CHUNK)]
        return torch.cat(parts) if parts else torch.zeros(0, FEATURES, device=home)

    @torch.no_grad()
    def log_probs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(base | x) of pictures (B, 3, H, W) over `bases` (B, N), and log p(style | x) over STYLES (B, 4)."""
        bases, styles = self.logits(self.features(x))
        return bases.log_softmax(-1), styles.log_softmax(-1)


def training_bases(emoji: EmojiSet) -> list[str]:
    """The sorted bases that have a picture in the training split: every base but the unseen ones."""
    return sorted({record.base for record in emoji.records if "train" in record.split.values()})


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] as a generator might have drawn them: moved, resized, recolored, noisy, soft.

    Shift up to 6% of the side, scale 0.85 to 1.15, stretch 0.93 to 1.07, rotation up to 8 degrees; brightness,
    contrast and color by some 20%; noise up to 0.15 and a 3x3 blur in half of the pictures. Never mirrored. One in
    four is left as it is: resampling softens every edge, and edges are half of a style.
    """
    n = len(x)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        values = torch.rand(n, *(shape or (1,)), generator=generator, device=generator.device)
        return (low + (high - low) * values).to(x.device)

    turn, zoom, stretch = uniform(-0.14, 0.14)[:, 0], uniform(0.87, 1.17)[:, 0], uniform(0.93, 1.07)[:, 0]
    cos, sin, move = turn.cos() * zoom, turn.sin() * zoom, uniform(-0.12, 0.12, 2)
    rows = torch.stack([cos * stretch, -sin, move[:, 0], sin, cos / stretch, move[:, 1]], dim=1)
    ink = 1 - x  # zero on white, so that what comes in from outside is white
    grid = F.affine_grid(rows.view(n, 2, 3), list(x.shape), align_corners=False)
    ink = F.grid_sample(ink, grid, padding_mode="zeros", align_corners=False)
    mix = torch.eye(3, device=x.device) + uniform(-0.08, 0.08, 3, 3)  # colors bleed into each other a little
    ink = torch.einsum("nij,njhw->nihw", mix, ink) * uniform(0.85, 1.15)[:, :, None, None]
    soft = F.avg_pool2d(F.pad(ink, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = uniform(-1, 1)[:, :, None, None].clamp(min=0)
    noise = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
    level = uniform(-0.15, 0.15)[:, :, None, None].clamp(min=0)
    changed = (1 - torch.lerp(ink, soft, blur) + level * noise).clamp(-1, 1)
    return torch.where(uniform(0, 1)[:, :, None, None] < 0.25, x, changed)


class JudgePictures:
    """A training source of (x0, base, style): the training split and nothing else, one variant per (base, style).

    x0: (B, 3, 64, 64), augmented. base: (B,) places in `training_bases`. style: (B,) places in STYLES.
    """

    def __init__(self, emoji: EmojiSet, device: torch.device | str | None = None) -> None:
        self.emoji = emoji
        self.pictures = EmojiPictures(emoji, "train", SIZE, device=device)
        self.order = self.pictures.order  # flat picture indices
        places = {base: i for i, base in enumerate(training_bases(emoji))}
        # Every concept has a place; those of unseen bases are -1 and never drawn.
        self.base = torch.tensor([places.get(record.base, -1) for record in emoji.records]).to(self.pictures.device)

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The pictures at flat indices (B,), with their base and style."""
        x0, cond = self.pictures.batch(indices, generator)
        concept = indices.to(self.pictures.device) % len(self.emoji)
        return augment(x0, generator), self.base[concept], cast(Tensor, cond.label) - 1


class JudgeObjective(nn.Module):
    """Cross-entropy of the base plus that of the style, with smoothed labels (Szegedy et al. 2016, section 7)."""

    def __init__(self, judge: Judge, smoothing: float = 0.1) -> None:
        super().__init__()
        self.judge = judge
        self.smoothing = check_number("smoothing", smoothing, 0, 0.9)

    def forward(self, batch: tuple[Tensor, Tensor, Tensor], generator: torch.Generator | None = None) -> Tensor:
        """The loss of each picture, (B,), in nats."""
        x, base, style = batch
        bases, styles = self.judge.logits(self.judge(x))
        first = F.cross_entropy(bases, base, reduction="none", label_smoothing=self.smoothing)
        return first + F.cross_entropy(styles, style, reduction="none", label_smoothing=self.smoothing)
