"""Guidance: ask the network twice, with and without the condition, and go further in the direction between."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minidiff.common import (
    Condition,
    Denoiser,
    NoiseSchedule,
    Prediction,
    alpha_sigma,
    as_times,
    check_number,
    per_sample,
)
from minidiff.denoisers import interpret, predict, target
from minidiff.schedules import levels


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance around any denoiser; itself a denoiser.

        x0 = x0_null + scale (x0_cond - x0_null)

    And the same for eps: scale 0 ignores the condition, 1 is the plain conditional model (guidance off), above 1
    exaggerates. Source: Ho & Salimans 2022, equation 6, whose w is scale - 1. Both answers come from one pass of
    twice the batch.

    scale: 0 to 100. null: what to move away from; `cond.null()` when None, or another prompt ("negative prompt").
    rescale: 0 to 1, gives the guided network output the contrast of the conditional one (Lin et al. 2024, equations
    15 and 16); x0 and eps are then derived from it. interval: times (from, to) in which guidance acts; outside, the
    conditional model answers alone (Kynkäänniemi et al. 2024). weak: an inferior denoiser to move away from in place
    of the null condition ("autoguidance", Karras et al. 2024). Raises ValueError for a scale, a rescale or an
    interval out of range, for null and weak together, and for a weak one of another schedule.
    """

    denoiser: Denoiser
    null: Condition | None = None
    scale: float = 1.0
    rescale: float = 0.0
    interval: tuple[float, float] = (0.0, 1.0)
    weak: Denoiser | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.null, Condition | None):
            raise ValueError(f"`null` must be a Condition or None; got {self.null!r:.60}: write scale=... by name.")
        if self.null is not None and self.weak is not None:
            raise ValueError("`null` and `weak` are two things to move away from: give one of them.")
        schedules = [part.schedule for part in (self.denoiser, self.weak) if part is not None]
        if self.weak is not None and not any(isinstance(schedule, nn.Module) for schedule in schedules):
            own, other = map(levels, schedules)
            if own != other:  # x0 and eps of the two would add up to different x_t
                raise ValueError("`weak` must have the schedule of the denoiser that it guides; got another one.")
        check_number("scale", self.scale, 0, 100)
        check_number("rescale", self.rescale, 0, 1)
        pair = isinstance(self.interval, tuple | list)
        ends = [check_number("interval", end, 0, 1) for end in self.interval] if pair else []
        if len(ends) != 2 or ends[0] >= ends[1]:
            raise ValueError(f"`interval` must go from a smaller time to a larger one; got {self.interval}.")

    @property
    def schedule(self) -> NoiseSchedule:
        """The schedule of the denoiser within."""
        return self.denoiser.schedule

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Condition | None = None) -> Prediction:
        """The guided prediction for x_t (B, ...) at time t; cond has one row or B."""
        times = as_times(t, x_t)
        low, high = self.interval
        acts = (times >= low) & (times <= high)
        cond = cond or (self.null and self.null.null())  # nothing asked for, but something to move away from
        never = self.scale == 1 or (not cond and self.weak is None)
        if never or ((low, high) != (0, 1) and not bool(acts.any())):  # looking at times waits for a GPU
            return self.denoiser(x_t, times, cond)
        with_cond, without = self._both(x_t, times, cond)
        scale = per_sample(torch.where(acts, self.scale, 1.0), x_t)
        guided = Prediction(*(b + scale * (a - b) for a, b in zip(with_cond, without, strict=True)))
        return self._rescaled(guided, with_cond, x_t, times) if self.rescale else guided

    def _both(self, x_t: Tensor, t: Tensor, cond: Condition | None) -> tuple[Prediction, Prediction]:
        if self.weak is not None:
            return predict(self.denoiser, x_t, t, cond), predict(self.weak, x_t, t, cond)
        assert cond is not None
        n = len(x_t)
        null = self.null or cond.null()
        both = Condition.cat([cond.expand(n), null.expand(n)])
        x0, eps = predict(self.denoiser, torch.cat([x_t, x_t]), torch.cat([t, t]), both)
        return Prediction(x0[:n], eps[:n]), Prediction(x0[n:], eps[n:])

    def _rescaled(self, guided: Prediction, plain: Prediction, x_t: Tensor, t: Tensor) -> Prediction:
        """output <- rescale * output * std(plain) / std(output) + (1 - rescale) * output, std over each sample."""
        kind = getattr(self.denoiser, "parameterization", "x0")
        alpha, sigma = alpha_sigma(self.schedule, t, x_t)
        output = target(kind, *guided, alpha, sigma)
        dims = tuple(range(1, x_t.dim()))
        wanted = target(kind, *plain, alpha, sigma).std(dims, keepdim=True)
        ratio = wanted / output.std(dims, keepdim=True).clamp(min=1e-8)
        return interpret(kind, output * (self.rescale * ratio + 1 - self.rescale), x_t, alpha, sigma)
