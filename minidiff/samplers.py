"""Samplers: how to walk from noise to data when a denoiser says, at every point, where it leads.

A *step* goes from time t to an earlier time s and knows nothing of loops; `sample` is the one loop and knows
nothing of steps. Every step sees only the denoiser's `Prediction`, so each works with every network and schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from minidiff.common import (
    Condition,
    Denoiser,
    Generators,
    alpha_sigma,
    as_times,
    check_choice,
    check_int,
    check_number,
    noise_like,
)
from minidiff.denoisers import NetDenoiser, check_read, predict
from minidiff.guidance import Guided
from minidiff.schedules import posterior


class Step(Protocol):
    """One move from time t to s < t. `memory` is what the step before left behind, None at the first."""

    def __call__(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor | float,
        s: Tensor | float,
        cond: Condition | None = None,
        *,
        memory: Any = None,
        generator: Generators = None,
    ) -> tuple[Tensor, Any]:
        """Return x_s (B, ...) and the memory for the next step."""
        ...


def sample(
    step: Step,
    denoiser: Denoiser,
    x: Tensor,
    times: Tensor,
    cond: Condition | None = None,
    generator: Generators = None,
) -> Iterator[Tensor]:
    """Walk x (B, ...) along `times` and yield every state on the way; the last one is the sample.

    times: N + 1 strictly decreasing numbers in [0, 1], see `time_grid`; N states are yielded after the initial x.
    generator: one, or one per sample: then a sample does not depend on the batch it is drawn in. Raises ValueError,
    when the first state is asked for, for other times, a denoiser without schedule, a condition that it does not
    read, and a step that does not return (x_s, memory).
    """
    if not callable(step):
        raise ValueError(f"`step` must be a function, as `ddim_step`; got {step!r:.80}: by name, it is STEPS[name].")
    if not isinstance(times, Tensor):
        raise ValueError(f"`times` must be a tensor, as `time_grid` gives one; got {times!r:.60}.")
    falling = times.dim() == 1 and len(times) > 1 and bool((times[1:] < times[:-1]).all())
    if not falling or times[0] > 1 + 1e-4 or times[-1] < -1e-4:  # rounding aside
        got = f"{times.tolist()!r:.60}"
        raise ValueError(f"`times` must be strictly decreasing, two or more, in [0, 1]; got {got}: see `time_grid`.")
    if not hasattr(denoiser, "schedule"):
        raise ValueError(
            f"`denoiser` must have a schedule, as a NetDenoiser; got {type(denoiser).__name__}: the step comes first."
        )
    asked = denoiser.denoiser if isinstance(denoiser, Guided) else denoiser
    if type(asked) is NetDenoiser:  # what others read, they know
        for said in (cond, denoiser.null if isinstance(denoiser, Guided) else None):
            check_read(asked, said)
        asked.check_alpha(torch.as_tensor(asked.schedule.alpha(times[:1].to(x.device, torch.float32))))
    memory = None
    for t, s in pairwise(times.tolist()):  # as numbers: a step can then look at them without waiting for a GPU
        with torch.no_grad():
            moved = step(denoiser, x, t, s, cond, memory=memory, generator=generator)
        if not isinstance(moved, tuple) or len(moved) != 2:  # a tensor of two samples would unpack, wrongly
            raise ValueError(
                f"`step` must return (x_s, memory), with None for no memory; got {type(moved).__name__}."
            )
        if getattr(moved[0], "shape", None) != x.shape:
            raise ValueError(f"`step` must return x_s first, of x_t's shape {tuple(x.shape)}; got {moved[0]!r:.60}.")
        x, memory = moved
        yield x


def ddpm_step(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    cond: Condition | None = None,
    *,
    data_variance: float = 0.0,
    memory: Any = None,
    generator: Generators = None,
) -> tuple[Tensor, Any]:
    """Draw x_s from q(x_s | x_t, x0_hat): the ancestral step, which puts fresh noise in at every move.

    Source: Ho et al. 2020, algorithm 2, with the posterior variance; written for any s < t. That variance takes the
    guess x0_hat for certain, and so is too small by an amount of second order in the step. Data N(0, v) come out with
    a variance too small by the share sum (y_t - y_s)^2 / y_t over the steps, y = sigma^2 / (alpha^2 v + sigma^2):
    about 4 / N at least, for N steps on whatever grid, and 5 / N for v = 1 and even steps of the cosine schedule.
    data_variance: v >= 0, to add what is missing if the data are N(0, v); see `posterior`. 0 suits data near to
    single points, as pictures are, 1 was Ho's other choice; but with v > 0 the last step, too, ends in noise, which
    Ho's does not.
    """
    check_number("data_variance", data_variance, 0, 1e12)
    t, s = as_times(t, x_t), as_times(s, x_t)
    mean, std = posterior(denoiser.schedule, predict(denoiser, x_t, t, cond).x0, x_t, t, s, data_variance)
    return mean + std * noise_like(x_t, generator), None


def ddim_step(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    cond: Condition | None = None,
    *,
    eta: float = 0.0,
    memory: Any = None,
    generator: Generators = None,
) -> tuple[Tensor, Any]:
    """Noise the predicted picture again, but less, with the predicted noise: x_s = alpha_s x0_hat + sigma_s eps_hat.

    This one line is DDIM, the Euler step of EDM and that of flow matching. eta > 0 replaces a part of eps_hat by
    fresh noise; eta = 1 has DDPM's variance. Source: Song et al. 2021 (DDIM), equation 12.
    """
    check_number("eta", eta, 0, 1)
    t, s = as_times(t, x_t), as_times(s, x_t)
    x0, eps = predict(denoiser, x_t, t, cond)
    alpha_s, sigma_s = alpha_sigma(denoiser.schedule, s, x_t)
    if eta == 0:
        return alpha_s * x0 + sigma_s * eps, None
    fresh = eta * posterior(denoiser.schedule, x0, x_t, t, s)[1]
    kept = (sigma_s**2 - fresh**2).clamp(min=0).sqrt()
    return alpha_s * x0 + kept * eps + fresh * noise_like(x_t, generator), None


def heun_step(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    cond: Condition | None = None,
    *,
    memory: Any = None,
    generator: Generators = None,
) -> tuple[Tensor, Any]:
    """Take the DDIM step, look again from there, and go with the average of both looks: second order.

        x_s = x_t + (alpha_s - alpha_t) mean(x0_hat) + (sigma_s - sigma_t) mean(eps_hat)

    The trapezoidal rule in the two coordinates in which the path's equation never divides by zero. A step to
    sigma = 0 stays first order, as eps means nothing there. Source: the idea is Karras et al. 2022 (EDM), algorithm
    1, two calls a step; one for the step to s = 0, if s is a number.
    """
    last = isinstance(s, int | float) and s <= 0
    t, s = as_times(t, x_t), as_times(s, x_t)
    alpha_t, sigma_t = alpha_sigma(denoiser.schedule, t, x_t)
    alpha_s, sigma_s = alpha_sigma(denoiser.schedule, s, x_t)
    here = predict(denoiser, x_t, t, cond)
    euler = alpha_s * here.x0 + sigma_s * here.eps
    if last:
        return euler, None
    there = predict(denoiser, euler, s, cond)
    x0, eps = (here.x0 + there.x0) / 2, (here.eps + there.eps) / 2
    return torch.where(sigma_s > 0, x_t + (alpha_s - alpha_t) * x0 + (sigma_s - sigma_t) * eps, euler), None


def dpmpp_2m_step(
    denoiser: Denoiser,
    x_t: Tensor,
    t: Tensor | float,
    s: Tensor | float,
    cond: Condition | None = None,
    *,
    memory: tuple[Tensor, Tensor] | None = None,
    generator: Generators = None,
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """DPM-Solver++(2M): second order for one call a step, by remembering the picture predicted before.

        x_s = (sigma_s / sigma_t) x_t - alpha_s (exp(-h) - 1) D
        D = (1 + 1/(2r)) x0_hat - 1/(2r) x0_before
        lambda = log(alpha / sigma)
        h = lambda_s - lambda_t
        r = h_before / h

    Source: Lu et al. 2022 (DPM-Solver++), algorithm 2. The first step and the one to sigma = 0 are first
    order; from alpha = 0 also the second, as the step before it is infinitely long in lambda.
    """
    t, s = as_times(t, x_t), as_times(s, x_t)
    alpha_t, sigma_t = alpha_sigma(denoiser.schedule, t, x_t)
    alpha_s, sigma_s = alpha_sigma(denoiser.schedule, s, x_t)
    x0 = predict(denoiser, x_t, t, cond).x0
    lambda_t, lambda_s = alpha_t.log() - sigma_t.log(), alpha_s.log() - sigma_s.log()
    blend = x0
    if memory is not None:
        x0_before, lambda_before = memory
        # 1/(2r); zero where a step is infinitely long in lambda, that is at pure noise and at sigma = 0.
        half = (lambda_s - lambda_t) / (lambda_t - lambda_before) / 2
        half = torch.where(torch.isfinite(half), half, torch.zeros_like(half))
        blend = x0 + half * (x0 - x0_before)
    # alpha_s (1 - exp(-h)) = alpha_s - alpha_t sigma_s / sigma_t, which stays finite at both ends of time.
    x_s = sigma_s / sigma_t * x_t + (alpha_s - alpha_t * sigma_s / sigma_t) * blend
    return x_s, (x0, lambda_t)


STEPS: dict[str, Step] = {"ddpm": ddpm_step, "ddim": ddim_step, "heun": heun_step, "dpmpp_2m": dpmpp_2m_step}


def as_step(sampler: str | Step) -> Step:
    """The step that `STEPS` has by this name, or the one that was given."""
    return sampler if callable(sampler) else STEPS[check_choice("sampler", sampler, STEPS)]


SETTINGS: dict[str, Callable[[Any], Any]] = {
    "steps": lambda value: check_int("steps", value, 1, 1000),
    "guidance": lambda value: check_number("guidance", value, 0, 100),
    "sampler": as_step,
    "rescale": lambda value: check_number("rescale", value, 0, 1),
    "strength": lambda value: check_number("strength", value, 0.01, 1.0),
}


def check_settings(**settings: Any) -> None:
    """Raise ValueError for a setting that no model can be drawn from with, before one is loaded or run."""
    for name, value in settings.items():
        SETTINGS[name](value)
