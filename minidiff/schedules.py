"""Noise schedules: how a picture fades into noise, step by step and in one jump.

Everywhere in minidiff x_t = alpha(t) x0 + sigma(t) eps with t from 0 (data) to 1 (noise). Here `alpha` is the
*square root* of the alpha_bar of Ho et al. 2020, so that the same two symbols also describe flow matching.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minidiff.common import (
    NoiseSchedule,
    alpha_sigma,
    check_choice,
    check_int,
    check_number,
    check_times,
    per_sample,
    seen,
)

SHIFTS = (0.01, 100.0)


class _Schedule(NoiseSchedule):
    """What follows from alpha and sigma alone."""

    t_max: float = 1.0  # where sampling starts; below 1 where alpha(1) is too small to divide by
    shift: float = 1.0  # above 1, sampling spends more of its steps at noisy times: see `time_grid`

    def alpha_bar(self, t: Tensor) -> Tensor:
        """alpha_bar = alpha^2, the share of the signal's variance that is left."""
        return self.alpha(t) ** 2

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2), the logarithm of the signal-to-noise ratio: +inf at data, falling."""
        t = torch.as_tensor(t)
        wide = _wide(t)
        return _like(2 * (self.alpha(wide).log() - self.sigma(wide).log()), t)


class DiscreteSchedule(_Schedule):
    """The schedules of DDPM: T small steps, each mixing in a little noise of variance beta_i.

        alpha_bar(i/T) = (1 - beta_1) ... (1 - beta_i)

    Between the steps log alpha_bar is interpolated. Source: Ho et al. 2020, equation 4. betas: (T,) in (0, 1), kept
    in float64, as is everything derived from them: in half precision 1 - alpha_bar(1/T) would round to zero.
    """

    def __init__(self, betas: Tensor):
        betas = torch.as_tensor(betas, dtype=torch.float64)
        if betas.dim() != 1 or not bool(((betas > 0) & (betas < 1)).all()):
            raise ValueError("`betas` must be a list of numbers above 0 and below 1; got others.")
        self.betas = betas
        self.T = len(betas)
        self._log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self._tables: dict[torch.device, Tensor] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(T={self.T})"

    def _log(self, t: Tensor) -> Tensor:
        t = _wide(t)
        if t.device not in self._tables:  # one for each device: copying would wait for a GPU every time
            self._tables[t.device] = self._log_alpha_bar.to(t.device)
        table = self._tables[t.device]
        place = t.clamp(0, 1) * self.T
        low = place.floor().clamp(max=self.T - 1).long()
        return torch.lerp(table[low], table[low + 1], place - low)

    def alpha(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar(t)), in t's precision."""
        t = torch.as_tensor(t)
        return _like((0.5 * self._log(t)).exp(), t)

    def sigma(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar(t)), in t's precision."""
        t = torch.as_tensor(t)
        return _like((-torch.expm1(self._log(t))).sqrt(), t)


class LinearSchedule(DiscreteSchedule):
    """beta_i rises in a straight line from 1e-4 to 0.02 (Ho et al. 2020, section 4).

    Those two numbers belong to T = 1000; for another T they are scaled by 1000 / T, so that the end of the
    process holds as little of the picture. T: an integer from 21 (below, a beta would reach 1) to 100,000.
    """

    def __init__(self, T: int = 1000):
        check_int("T", T, 21, 100_000)
        scale = 1000 / T
        super().__init__(torch.linspace(1e-4 * scale, 0.02 * scale, T, dtype=torch.float64))


class CosineSchedule(DiscreteSchedule):
    """alpha_bar(t) = f(t) / f(0) with f(t) = cos^2((t + s) / (1 + s) * pi / 2), s = 0.008.

    Source: Nichol & Dhariwal 2021, equation 17; as there, beta is capped at 0.999, which only touches the last
    step. alpha_bar(1) is about 2e-9: turning eps into x0 there multiplies an error by 20,000, so sampling starts
    one step below, at t_max = 1 - 1/T. T: an integer from 2 to 100,000.
    """

    def __init__(self, T: int = 1000):
        check_int("T", T, 2, 100_000)
        s = 0.008
        f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * torch.pi / 2) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=0.999))
        self.t_max = 1 - 1 / T


class RectifiedFlow(_Schedule):
    """The straight line from data to noise: alpha = 1 - t, sigma = t.

    Source: Liu et al. 2023 and Lipman et al. 2023 (flow matching). Its velocity dx_t/dt is eps - x0. shift: how a
    sampler's steps are spread, from 0.01 to 100, see `time_grid`; the process itself is the same for all.
    """

    def __init__(self, shift: float = 1.0):
        self.shift = check_number("shift", shift, *SHIFTS)

    def __repr__(self) -> str:
        return "RectifiedFlow()" if self.shift == 1 else f"RectifiedFlow(shift={self.shift:g})"

    def alpha(self, t: Tensor) -> Tensor:
        """1 - t."""
        check_times(t)
        return 1 - torch.as_tensor(t)

    def sigma(self, t: Tensor) -> Tensor:
        """t."""
        check_times(t)
        return torch.as_tensor(t) * 1.0


SCHEDULES: dict[str, Callable[[], Any]] = {"linear": LinearSchedule, "cosine": CosineSchedule, "flow": RectifiedFlow}


def noise_end(schedule: NoiseSchedule) -> float:
    """The time at which sampling starts: the schedule's t_max, or 1 for one that names none."""
    return float(getattr(schedule, "t_max", 1.0))


def own_shift(schedule: NoiseSchedule) -> float:
    """How sampling spreads its steps (see `time_grid`): the schedule's shift, or 1 for one that names none."""
    return getattr(schedule, "shift", 1.0)  # type: ignore[no-any-return]


def make_schedule(name: str) -> Any:
    """The schedule called "linear", "cosine" or "flow", or by a name that was added to `SCHEDULES`."""
    made = SCHEDULES[check_choice("schedule", name, SCHEDULES)]
    return made() if callable(made) else copy.copy(made)


def levels(schedule: NoiseSchedule, device: torch.device | str = "cpu") -> list[list[float]]:
    """alpha and sigma at three times, to four digits: enough to tell a schedule from another one."""
    t = torch.tensor([0.25, 0.5, 0.75], device=device)
    both = (torch.as_tensor(f(t)).expand(3).tolist() for f in (schedule.alpha, schedule.sigma))
    return [[round(value, 4) for value in values] for values in both]


def check_schedule(schedule: Any) -> NoiseSchedule:
    """Return what was given if it has alpha(t) and sigma(t); otherwise say what was expected."""
    if isinstance(schedule, type) or not (hasattr(schedule, "alpha") and hasattr(schedule, "sigma")):
        raise ValueError(f"`schedule` must have alpha(t) and sigma(t), as RectifiedFlow() has; got {schedule!r:.80}.")
    return schedule


def check_falling(schedule: Any) -> NoiseSchedule:
    """Return a schedule that gives a number for each time, with less and less signal, at the end no more than noise.

    Raises ValueError for another one.
    """
    if isinstance(check_schedule(schedule), torch.nn.Module):  # learned, and perhaps on a GPU
        return schedule
    t = noise_end(schedule) * torch.tensor([0.25, 0.75, 1.0], device="cpu")
    try:
        ratio = torch.as_tensor(schedule.alpha(t)) / torch.as_tensor(schedule.sigma(t))
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"`schedule` must compute with tensors, as torch.cos does, not math.cos ({error})."
        ) from error
    if ratio.shape != t.shape or not torch.inf > ratio[0] > ratio[1] >= ratio[2] or not ratio[2] <= 1:
        got = f"{ratio.tolist()!r:.60} at {t.tolist()!r:.40}"
        said = "numbers (B,) at times (B,) from 0 to 1, alpha / sigma falling, to 1 or less"
        raise ValueError(f"`schedule` must give {said}; got {got}.")
    return schedule


def forward_jump(schedule: NoiseSchedule, x0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """Noise a picture to time t in one jump: x_t = alpha(t) x0 + sigma(t) eps.

    Source: Ho et al. 2020, equation 4. x0, eps: (B, ...); t: (B,) in [0, 1]. Returns x_t: (B, ...).
    """
    alpha, sigma = alpha_sigma(schedule, t, x0)
    return alpha * x0 + sigma * eps


def markov_step(schedule: NoiseSchedule, x_s: Tensor, s: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    """One step of the forward chain, from time s to a later t, that looks at nothing but x_s.

        x_t = a x_s + sqrt(sigma_t^2 - a^2 sigma_s^2) noise
        a = alpha_t / alpha_s

    For neighboring steps of a DDPM schedule a^2 = 1 - beta: Ho et al. 2020, equation 2. x_s, noise: (B, ...);
    s <= t: (B,), with alpha_s > 0. Raises ValueError for s > t.
    """
    a, std = transition(*_both_ends(schedule, s, t))
    return per_sample(a, x_s) * x_s + per_sample(std, x_s) * noise


def posterior(
    schedule: NoiseSchedule, x0: Tensor, x_t: Tensor, t: Tensor, s: Tensor, data_variance: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Mean (B, ...) and standard deviation (B, 1, ...) of q(x_s | x_t, x0): one step back, if x0 were known.

        mean = keep x_t + pull x0
        std^2 = sigma_ts^2 sigma_s^2 / sigma_t^2
        keep = a sigma_s^2 / sigma_t^2
        pull = alpha_s sigma_ts^2 / sigma_t^2
        a = alpha_t / alpha_s
        sigma_ts^2 = sigma_t^2 - a^2 sigma_s^2

    Source: Ho et al. 2020, equations 6 and 7, written for any s < t and so for every schedule. Raises ValueError for
    s > t; at t = 0 there is no step back.

    If x0 is only a guess, std^2 lacks pull^2 times the variance that is left around it. With `data_variance` v that
    is added as for data N(0, v): v sigma_t^2 / (alpha_t^2 v + sigma_t^2). For v = 1 on a DDPM schedule std^2 is then
    sigma_ts^2, the other of the two variances that Ho et al. tried (section 3.2).
    """
    alpha_s, sigma_s, alpha_t, sigma_t = _both_ends(schedule, s, t)
    a, sigma_ts = transition(alpha_s, sigma_s, alpha_t, sigma_t)
    keep = a * sigma_s**2 / sigma_t**2
    pull = alpha_s * sigma_ts**2 / sigma_t**2
    left = data_variance * sigma_t**2 / (alpha_t**2 * data_variance + sigma_t**2)
    std = ((sigma_ts * sigma_s / sigma_t) ** 2 + pull**2 * left).sqrt()
    return per_sample(keep, x_t) * x_t + per_sample(pull, x_t) * x0, per_sample(std, x_t)


def transition(alpha_s: Tensor, sigma_s: Tensor, alpha_t: Tensor, sigma_t: Tensor) -> tuple[Tensor, Tensor]:
    """The factor a and the noise sigma_ts of the step s -> t, q(x_t | x_s) = N(a x_s, sigma_ts^2 I)."""
    a = alpha_t / alpha_s
    return a, (sigma_t**2 - (a * sigma_s) ** 2).clamp(min=0).sqrt()


def _both_ends(schedule: NoiseSchedule, s: Tensor, t: Tensor) -> tuple[Tensor, ...]:
    """alpha_s, sigma_s, alpha_t and sigma_t, in float64; ValueError for s > t."""
    s, t = _wide(s), _wide(t)
    if seen(s) and seen(t) and bool((s > t).any()):
        raise ValueError(f"`s` must not lie above `t`: data are at 0, noise at 1; got {s.tolist()!r:.40} above.")
    return tuple(torch.as_tensor(curve(time)) for time in (s, t) for curve in (schedule.alpha, schedule.sigma))


def time_grid(
    schedule: NoiseSchedule,
    steps: int,
    *,
    start: float | None = None,
    end: float = 0.0,
    shift: float | None = None,
) -> Tensor:
    """The times a sampler visits: steps + 1 strictly decreasing numbers (float32) from `start` to `end`.

        t = shift u / (1 + (shift - 1) u)

    for evenly spaced u: a shift above 1 takes small steps at noisy times, where the picture is laid out, and large
    ones later. Under rectified flow it multiplies sigma / alpha by shift (Esser et al. 2024, equation 23). start: by
    default the schedule's noise end, t_max; shift: its own, 1 for one that names none. steps: 1 to 1000. Raises
    ValueError for a value out of range.
    """
    check_schedule(schedule)
    check_int("steps", steps, 1, 1000)
    start = check_number("start", noise_end(schedule) if start is None else start, 1e-3, 1.0)
    check_number("end", end, 0.0, start)
    if end >= start:
        raise ValueError(f"`end` must lie below `start` ({start:g}); got {end:g}.")
    shift = check_number("shift", own_shift(schedule) if shift is None else shift, *SHIFTS)
    first, last = (t / (shift - (shift - 1) * t) for t in (start, end))  # the u of start and end
    u = last + (first - last) * torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (shift * u / (1 + (shift - 1) * u)).float()


def _wide(t: Tensor) -> Tensor:
    """Times in float64, on the CPU if their own device (Apple's MPS) has no such numbers; see `check_times`."""
    check_times(t)
    t = torch.as_tensor(t)
    return (t.cpu() if t.device.type == "mps" else t).double()


def _like(value: Tensor, t: Tensor) -> Tensor:
    """The value in the precision of t, where that is a float, and on its device."""
    dtype = t.dtype if t.dtype.is_floating_point else torch.get_default_dtype()
    return value.to(dtype).to(t.device)
