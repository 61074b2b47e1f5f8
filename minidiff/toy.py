"""Mixtures of Gaussians: data for which every question of this library has an exact answer.

Noise a mixture of Gaussians and it is a mixture of Gaussians; ask where a noised point came from, and the answer
is one too. So the best possible denoiser, the density of x_t and that of a step back are closed formulas here,
behind the same interface as a trained network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minidiff.common import Condition, NoiseSchedule, Prediction, as_times, check_choice, check_int
from minidiff.schedules import check_schedule, transition

Numbers = Tensor | Sequence[float] | Sequence[Sequence[float]]


class Mixture:
    """p(x) = sum_k weights_k N(x; means_k, stds_k^2 I), isotropic Gaussians in any dimension.

    weights: (K,) positive, scaled to add up to 1; means: (K, D); stds: (K,), 0 = all mass in one point. labels:
    (K,) integers from 1, the class each component belongs to, or None. Raises ValueError when shapes disagree.
    """

    def __init__(self, weights: Numbers, means: Numbers, stds: Numbers, labels: Numbers | None = None):
        self.means = torch.as_tensor(means, dtype=torch.float64).clone()
        if self.means.dim() != 2:
            raise ValueError(f"`means` must have shape (K, D); got {tuple(self.means.shape)}.")
        weights, self.stds = self._one_per_mean("weights", weights), self._one_per_mean("stds", stds)
        if not bool(weights.sum() > 0):
            raise ValueError("`weights` must not all be 0.")
        self.weights = weights / weights.sum()
        classes = None if labels is None else self._one_per_mean("labels", labels)
        if classes is not None and not torch.equal(classes, classes.round()):
            raise ValueError(f"`labels` must be whole numbers; got {classes.tolist()}.")
        self.labels = None if classes is None else classes.long()

    def _one_per_mean(self, name: str, values: Numbers) -> Tensor:
        numbers = torch.as_tensor(values, dtype=torch.float64)
        if numbers.shape != self.means.shape[:1] or not bool((numbers >= 0).all()):
            got = f"shape {tuple(numbers.shape)}" if numbers.numel() > 4 else numbers.tolist()
            raise ValueError(f"`{name}` must be {len(self.means)} numbers from 0, one per mean; got {got}.")
        return numbers

    def __repr__(self) -> str:
        return f"Mixture({len(self.means)} Gaussians in {self.dim} dimensions)"

    @property
    def dim(self) -> int:
        """D, the number of coordinates of a point."""
        return self.means.shape[1]

    def mean(self) -> Tensor:
        """E[x], (D,)."""
        return self.weights @ self.means

    def variance(self) -> Tensor:
        """The mean squared distance to E[x], per coordinate: a number."""
        spread = (self.means - self.mean()).square().mean(1)
        return self.weights @ (spread + self.stds**2)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) for points x (..., D): (...), in x's precision."""
        one = torch.ones((), dtype=torch.float64)
        flat = x.reshape(-1, self.dim).double()
        log_joint = self._log_joint(flat, one.expand(len(flat)), (0 * one).expand(len(flat)))
        return log_joint.logsumexp(1).to(x.dtype).reshape(x.shape[:-1])

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n points, (n, D) float32, and the component each came from, (n,) long."""
        check_int("n", n, 1, 10**8)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(n, self.dim, generator=generator)
        return self.means[k].float() + self.stds[k, None].float() * noise, k

    def noised(self, schedule: NoiseSchedule, t: float) -> Mixture:
        """The distribution of x_t = alpha x0 + sigma eps: means alpha m_k, variances alpha^2 s_k^2 + sigma^2."""
        alpha, sigma = _signal_and_noise(schedule, torch.tensor(t, dtype=torch.float64))
        stds = ((alpha * self.stds) ** 2 + sigma**2).sqrt()
        return Mixture(self.weights, alpha * self.means, stds, self.labels)

    def posterior(self, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float = 0.0) -> Mixture:
        """p(x_s | x_t) for one noised point x_t (D,) and s < t: what an exact step back would draw from.

            x_t = a x_s + sigma_ts z
            a = alpha_t / alpha_s
            sigma_ts^2 = sigma_t^2 - a^2 sigma_s^2

        Bayes' rule with the prior p(x_s) and this likelihood. With s = 0 it answers "which picture was this?".
        """
        if not 0 <= s < t <= 1:
            raise ValueError(f"`s` must lie below `t`, both in [0, 1]; got s = {s:g} and t = {t:g}.")
        ends = (_signal_and_noise(schedule, torch.tensor(u, dtype=torch.float64)) for u in (s, t))
        a, noise = transition(*next(ends), *next(ends))
        prior = self.noised(schedule, s)
        y = x_t.double().reshape(1, self.dim)
        weights = prior._log_joint(y, a.expand(1), noise.expand(1)).softmax(1)[0]
        total = a**2 * prior.stds**2 + noise**2  # (K,): the variance of x_t within a component
        means = prior.means + (a * prior.stds**2 / total)[:, None] * (y - a * prior.means)
        return Mixture(weights, means, prior.stds * noise / total.sqrt(), self.labels)

    def _log_joint(self, y: Tensor, a: Tensor, std: Tensor) -> Tensor:
        """log(weights_k p(y | k)) for y = a x + std z: y (B, D), a and std (B,) -> (B, K), float64."""
        variance = self._variance_of(a[:, None], std[:, None])
        gap = y.double()[:, None, :] - a[:, None, None] * self.means  # (B, K, D)
        log_normal = gap.square().sum(2) / variance + self.dim * (2 * math.pi * variance).log()
        return self.weights.log() - log_normal / 2

    def _variance_of(self, a: Tensor, std: Tensor) -> Tensor:
        """Of a x + std z within each component, (B, K), for a and std (B, 1)."""
        return (a**2 * self.stds**2 + std**2).clamp(min=1e-18)  # a point mass without noise


class ExactDenoiser:
    """The best denoiser there can be for a mixture: x0 = E[x0 | x_t] and eps = E[eps | x_t].

        x0 = sum_k r_k (m_k + p_k (x_t - alpha m_k))
        eps = sigma sum_k r_k / v_k (x_t - alpha m_k)
        p_k = alpha s_k^2 / v_k
        v_k = alpha^2 s_k^2 + sigma^2

    r_k is the probability that x_t came from component k. Neither divides by alpha or sigma. The minimum of the
    training loss (Karras et al. 2022, equation 2), computed in float64 on the CPU, where x_t must lie. A condition's
    label, if not 0, keeps only the components with that label.
    """

    def __init__(self, mixture: Mixture, schedule: NoiseSchedule):
        if not isinstance(mixture, Mixture):
            raise ValueError(f"`mixture` must be a Mixture, as points('moons'); got {type(mixture).__name__}.")
        self.mixture, self.schedule = mixture, check_schedule(schedule)

    def __call__(self, x_t: Tensor, t: Tensor | float, cond: Condition | None = None) -> Prediction:
        """x_t: (B, D), t: a number or (B,). Returns x0 and eps, (B, D), in x_t's precision."""
        alpha, sigma = _signal_and_noise(self.schedule, as_times(t, x_t))  # (B,)
        r, m, x = self._responsibilities(x_t, alpha, sigma, cond), self.mixture.means, x_t.double()
        alpha, sigma = alpha[:, None], sigma[:, None]
        near = r / self.mixture._variance_of(alpha, sigma)  # (B, K): r_k / v_k
        pull = alpha * self.mixture.stds**2 * near  # r_k p_k; both sums then need nothing of the size (B, K, D)
        x0 = (r - alpha * pull) @ m + pull.sum(1, keepdim=True) * x
        eps = sigma * (near.sum(1, keepdim=True) * x - alpha * (near @ m))
        return Prediction(x0.to(x_t.dtype), eps.to(x_t.dtype))

    def responsibilities(self, x_t: Tensor, t: Tensor | float, cond: Condition | None = None) -> Tensor:
        """r_k = p(component k | x_t), (B, K), float64: which component did this come from?"""
        return self._responsibilities(x_t, *_signal_and_noise(self.schedule, as_times(t, x_t)), cond)

    def _responsibilities(self, x_t: Tensor, alpha: Tensor, sigma: Tensor, cond: Condition | None) -> Tensor:
        return (self.mixture._log_joint(x_t, alpha, sigma) + self._log_allowed(cond, len(x_t))).softmax(1)

    def score(self, x_t: Tensor, t: Tensor | float, cond: Condition | None = None) -> Tensor:
        """The gradient of log p(x_t), (B, D) = -eps / sigma: the way uphill (Song et al. 2021)."""
        sigma = self.schedule.sigma(as_times(t, x_t)).to(x_t.dtype)
        return -self(x_t, t, cond).eps / sigma[:, None]

    def _log_allowed(self, cond: Condition | None, n: int) -> Tensor:
        labels = self.mixture.labels
        if cond is None or cond.label is None or not bool(cond.label.any()):
            return torch.zeros(1, 1, dtype=torch.float64)
        known = {0} if labels is None else {0, *labels.tolist()}
        if unknown := set(cond.label.tolist()) - known:
            raise ValueError(
                f"`label` must be one of the mixture's labels or 0, {sorted(known)}; got {min(unknown)}."
            )
        assert labels is not None
        wanted = cond.label.expand(n)[:, None]
        return torch.where((wanted == 0) | (wanted == labels), 0.0, -math.inf).double()


def _signal_and_noise(schedule: NoiseSchedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha(t) and sigma(t) in float64 and t's shape, also of a schedule that answers 1.0."""
    t = t.double()
    curves = (schedule.alpha(t), schedule.sigma(t))
    alpha, sigma = (torch.as_tensor(curve, dtype=t.dtype).expand(t.shape) for curve in curves)
    return alpha, sigma


def flow_map(mixture: Mixture, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float) -> Tensor:
    """Where the probability-flow ODE takes points x_t (B, 1) from time t to s, exactly: F_s^-1(F_t(x_t)).

    In one dimension the flow keeps the points' order and moves p_t to p_s, and there is only one map that does:
    the quantiles' one. F is the cumulative distribution; inverted by bisection. Returns (B, 1), float64.
    Raises ValueError unless the mixture has one dimension.
    """
    if mixture.dim != 1:
        raise ValueError(f"`mixture` must have one dimension, where the map is known; it has {mixture.dim}.")
    before, after = mixture.noised(schedule, t), mixture.noised(schedule, s)
    below, above = _tails(before, x_t.double())
    reach = 40 * after.stds.max()  # farther out there is less mass than float64 can hold
    low = (after.means.min() - reach).expand(x_t.shape).clone()
    high = (after.means.max() + reach).expand(x_t.shape).clone()
    for _ in range(100):
        middle = (low + high) / 2
        left, right = _tails(after, middle)
        too_far = torch.where(below < above, left > below, right < above)  # compare the smaller, exacter tail
        low, high = torch.where(too_far, low, middle), torch.where(too_far, middle, high)
    return (low + high) / 2


def _tails(mixture: Mixture, x: Tensor) -> tuple[Tensor, Tensor]:
    """The mass below and the mass above points x (B, 1), each (B, 1)."""
    z = (x - mixture.means[:, 0]) / mixture.stds  # (B, K)
    below, above = torch.special.ndtr(z) @ mixture.weights, torch.special.ndtr(-z) @ mixture.weights
    return below[:, None], above[:, None]


def _even(means: Tensor, std: float, labels: Tensor | None = None) -> Mixture:
    return Mixture(torch.ones(len(means)), means, torch.full((len(means),), std), labels)


def _circle(n: int, radius: float = 1.0, start: float = 0.0, turns: float = 1.0) -> Tensor:
    angle = 2 * math.pi * (start + turns * torch.arange(n, dtype=torch.float64) / n)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


def _eight() -> Mixture:
    return _even(_circle(8), 0.06, torch.arange(1, 9))


def _grid() -> Mixture:
    line = torch.linspace(-1, 1, 5, dtype=torch.float64)
    return _even(torch.cartesian_prod(line, line), 0.05, torch.arange(1, 26))


def _rings() -> Mixture:
    return _even(torch.cat([_circle(60), _circle(30, 0.5)]), 0.04, torch.tensor([1] * 60 + [2] * 30))


def _moons() -> Mixture:
    upper, lower = _circle(40, turns=0.5), _circle(40, start=0.5, turns=0.5)
    shift = torch.tensor([0.5, -0.15], dtype=torch.float64)
    return _even(0.75 * torch.cat([upper - shift, lower + shift]), 0.05, torch.tensor([1] * 40 + [2] * 40))


def _spiral() -> Mixture:
    angle = 2 * math.pi * torch.linspace(0.1, 1, 100, dtype=torch.float64).sqrt() * 1.75
    return _even((angle / angle.max())[:, None] * torch.stack([angle.cos(), angle.sin()], 1), 0.03)


def _checkerboard() -> Mixture:
    line = torch.linspace(-1, 1, 17, dtype=torch.float64)[:-1] + 1 / 16  # 16 x 16 places, squares of 4 x 4
    places = torch.cartesian_prod(line, line)
    squares = ((places + 1) * 2).floor().sum(1)
    return _even(places[squares % 2 == 0], 0.035)


POINTS: dict[str, Callable[[], Mixture]] = {
    "eight": _eight,
    "grid": _grid,
    "rings": _rings,
    "moons": _moons,
    "spiral": _spiral,
    "checkerboard": _checkerboard,
}


def points(name: str) -> Mixture:
    """A named 2-D data set within about [-1, 1]^2, as a mixture: its exact denoiser is therefore known.

    "eight" Gaussians on a circle, a "grid" of 25, two "rings", two "moons", a "spiral", a "checkerboard". All
    but the last two have labels. Raises ValueError for another name.
    """
    return POINTS[check_choice("name", name, POINTS)]()
