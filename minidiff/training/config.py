"""How long and how fast to train: the settings of a run, and the learning rate they mean at each step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from minidiff.common import check_choice, check_int, check_number


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    steps: updates of the weights; batch_size: samples per update, over all processes together. learning_rate,
    weight_decay, betas: AdamW's. warmup: steps over which the rate rises; decay: the share of the run, at its end,
    over which it falls to 0. clip_norm: longest gradient, None = any. ema_decay: see `EMA`. minutes: a wall-clock
    budget that may end the run before `steps`; then progress = max(step / steps, elapsed / minutes). precision:
    "fp32", "bf16" (autocast over fp32 weights), or "auto": bf16 where a CUDA device has it. seed: order of the data,
    noise and dropout. save_every: steps between checkpoints, None = only at the end; keep: how many. max_bad_steps:
    how many steps in a row may be skipped. log_every: steps per entry of the history. progress: whether a bar shows
    how far the run is. Raises ValueError for a value out of range.
    """

    steps: int
    batch_size: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    warmup: int = 100
    decay: float = 0.4
    clip_norm: float | None = 1.0
    ema_decay: float = 0.999
    minutes: float | None = None
    precision: str = "auto"
    seed: int = 0
    save_every: int | None = None
    keep: int = 2
    max_bad_steps: int = 10
    log_every: int = 20
    progress: bool = True

    def __post_init__(self) -> None:
        check_int("steps", self.steps, 1, 99_999_999)
        check_int("batch_size", self.batch_size, 1, 10**7)
        check_number("learning_rate", self.learning_rate, 0, 100)
        check_number("weight_decay", self.weight_decay, 0, 10)
        check_betas(self.betas)
        check_int("warmup", self.warmup, 0, 99_999_999)
        check_number("decay", self.decay, 0, 1)
        if self.clip_norm is not None:
            check_number("clip_norm", self.clip_norm, 1e-12, 1e12)
        check_number("ema_decay", self.ema_decay, 0, 1)
        if self.minutes is not None:
            check_number("minutes", self.minutes, 1e-6, 1e6)
        check_choice("precision", self.precision, ("auto", "bf16", "fp32"))
        check_int("seed", self.seed, 0, 2**63 - 1)
        if self.save_every is not None:
            check_int("save_every", self.save_every, 1, 99_999_999)
        check_int("keep", self.keep, 1, 10_000)
        check_int("max_bad_steps", self.max_bad_steps, 1, 10_000)
        check_int("log_every", self.log_every, 1, 99_999_999)


def check_betas(betas: Any) -> None:
    """Raise ValueError unless these are Adam's two: how much of the old moments each step keeps."""
    if not isinstance(betas, tuple | list) or len(betas) != 2:
        raise ValueError(f"`betas` must be two numbers, Adam's beta_1 and beta_2; got {betas!r}.")
    for beta in betas:
        check_number("betas", beta, 0, 0.999999)


class TrainingDiverged(RuntimeError):
    """Too many steps in a row had a loss or a gradient that is not a finite number."""


def learning_rate_at(config: TrainConfig, step: int, progress: float) -> float:
    """The rate of a step (0 is the first): up over the warm-up, level, then straight down to 0.

    learning_rate * min(1, (step + 1) / warmup, (1 - progress) / decay),   progress in [0, 1]

    Known as "warm-up, stable, decay" (Hu et al. 2024, arXiv:2404.06395).
    """
    rise = (step + 1) / config.warmup if config.warmup else 1.0
    fall = (1.0 - progress) / config.decay if config.decay else 1.0
    return config.learning_rate * max(0.0, min(1.0, rise, fall))


def adamw(parameters: list[nn.Parameter], config: TrainConfig, fused: bool) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019); of biases and normalization gains (1-D) nothing decays.

    fused: whether one kernel does the whole step, which CUDA and the CPU have.
    """
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=fused)
