"""From a network's output to a belief about x0 and eps, and from a picture to a loss.

A network may be asked for the noise, the picture, or a mixture of both. `target` says what it should have
answered, `interpret` turns its answer into a `Prediction`; nothing else in minidiff knows the difference.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import (
    Condition,
    Denoiser,
    NoiseSchedule,
    Prediction,
    alpha_sigma,
    as_times,
    check_choice,
    check_number,
    modes_kept,
    noise_like,
    per_sample,
    seen,
)
from minidiff.schedules import check_falling, noise_end

PARAMETERIZATIONS = ("eps", "x0", "v", "flow")
# What a network says in its configuration of the parts of a `Condition` that it reads
READ_BY = {"text": ("context_dim", "pooled_dim"), "image": ("image_dim",), "label": ("labels",)}


def target(parameterization: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What the network is trained to say about x_t = alpha x0 + sigma eps.

    "eps": the noise (Ho et al. 2020, equation 14); "x0": the picture; "v": alpha eps - sigma x0 (Salimans & Ho
    2022, appendix D); "flow": eps - x0, the velocity of rectified flow (Liu et al. 2023). x0, eps: (B, ...); alpha,
    sigma: numbers, or one per sample.
    """
    alpha, sigma = per_sample(alpha, x0), per_sample(sigma, x0)
    match check_choice("parameterization", parameterization, PARAMETERIZATIONS):
        case "eps":
            return eps
        case "x0":
            return x0
        case "v":
            return alpha * eps - sigma * x0
        case _:  # "flow"
            return eps - x0


def interpret(parameterization: str, output: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    """The inverse of `target`: solve x_t = alpha x0 + sigma eps, given the output, for x0 and eps.

    "eps" divides by alpha and "x0" by sigma: at t = 1 the one may fail, at t = 0 the other answers eps = 0.
    output, x_t: (B, ...); alpha, sigma: numbers, or one per sample.
    """
    alpha, sigma = per_sample(alpha, x_t), per_sample(sigma, x_t)
    match check_choice("parameterization", parameterization, PARAMETERIZATIONS):
        case "eps":
            return Prediction((x_t - sigma * output) / alpha, output)
        case "x0":
            return from_x0(output, x_t, alpha, sigma)
        case "v":
            norm = alpha**2 + sigma**2
            return Prediction((alpha * x_t - sigma * output) / norm, (sigma * x_t + alpha * output) / norm)
        case _:  # "flow"
            total = alpha + sigma
            return Prediction((x_t - sigma * output) / total, (x_t + alpha * output) / total)


def from_x0(x0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Prediction:
    """The prediction whose picture is x0: eps follows from x_t = alpha x0 + sigma eps (0 where sigma is 0)."""
    return Prediction(x0, (x_t - alpha * x0) / torch.where(sigma > 0, sigma, torch.inf))


def predict(denoiser: Denoiser, x_t: Tensor, t: Tensor | float, cond: Condition | None = None) -> Prediction:
    """What a denoiser answers, see `Denoiser`; ValueError if that is no pair of x0 and eps."""
    answer: Any = denoiser(x_t, t, cond)  # type: ignore[arg-type]
    answer = (answer.x0, answer.eps) if hasattr(answer, "eps") else answer  # it may say more than a pair
    if not isinstance(answer, tuple) or len(answer) != 2:  # a tensor of two samples would unpack, wrongly
        raise ValueError(f"`denoiser` must return Prediction(x0, eps); got {type(answer).__name__}.")
    return Prediction(*answer)


class NetDenoiser(nn.Module):
    """A network, a schedule, and what the network predicts: together a trainable `Denoiser`.

    net(x_t, t, cond) returns (B, ...) like x_t. weighting: "uniform" is the plain mean squared error (Ho et al.
    2020, equation 14); "min-snr" weighs the error so that its share in terms of x0 is min(SNR, 5) (Hang et al.
    2023). time_sampling: how training times are drawn, "uniform" or "logit-normal", log(t / (1 - t)) ~ N(m, s^2) with
    (m, s) = time_shape: more of the middle or, with m > 0, of the noise, where the layout is decided (Esser et al.
    2024). clip: limit |x0| to this value when predicting, None for no limit.
    """

    def __init__(
        self,
        net: nn.Module,
        schedule: NoiseSchedule,
        parameterization: str = "eps",
        *,
        weighting: str = "uniform",
        time_sampling: str = "uniform",
        time_shape: tuple[float, float] = (0.0, 1.0),
        clip: float | None = None,
    ):
        super().__init__()
        if isinstance(net, type) or not callable(net):
            raise ValueError(f"`net` must be a network, as UNet(config), not its class; got {net!r:.60}.")
        self.net = net
        self.schedule = check_falling(schedule)
        self.parameterization = check_choice("parameterization", parameterization, PARAMETERIZATIONS)
        self.weighting = check_choice("weighting", weighting, ("uniform", "min-snr"))
        self.time_sampling = check_choice("time_sampling", time_sampling, ("uniform", "logit-normal"))
        mean, std = time_shape
        self.time_shape = check_number("time_shape", mean, -10, 10), check_number("time_shape", std, 0, 10)
        if self.time_shape != (0, 1) and time_sampling != "logit-normal":
            raise ValueError(f'`time_shape` needs time_sampling="logit-normal"; got {time_shape} without it.')
        self.clip = None if clip is None else check_number("clip", clip, 1e-6, 1e6)
        if parameterization == "eps" and not isinstance(schedule, nn.Module):
            alpha = torch.as_tensor(schedule.alpha(torch.tensor([noise_end(schedule)])))
            if bool((alpha.abs() < 1e-6).any()):
                said = f'"eps" says nothing of x0 where {type(schedule).__name__} has no signal, at its noisy end'
                warnings.warn(f'{said}: train "v" or "flow", or start sampling lower.', stacklevel=2)

    def forward(self, x_t: Tensor, t: Tensor | float, cond: Condition | None = None) -> Prediction:
        """Predict x0 and eps, each (B, ...), for x_t (B, ...) at times t, a number or (B,); cond has 1 row or B.

        Without dropout, also while the network is trained: `loss` asks it in its own way.
        """
        if type(t) is torch.Generator:  # train calls so what it trains
            raise ValueError("`objective` must return a loss, which a denoiser does not: write Denoising(denoiser).")
        if getattr(self.net, "training", False):  # a function has no modes
            with modes_kept(self):
                return self.eval().forward(x_t, t, cond)
        times = as_times(t, x_t)
        alpha, sigma = alpha_sigma(self.schedule, times, x_t)
        if seen(alpha):
            self.check_alpha(alpha)
        prediction = interpret(self.parameterization, self._ask(x_t, times, cond), x_t, alpha, sigma)
        if self.clip is None:
            return prediction
        return from_x0(prediction.x0.clamp(-self.clip, self.clip), x_t, alpha, sigma)

    def loss(
        self,
        x0: Tensor,
        cond: Condition | None = None,
        generator: torch.Generator | None = None,
        t: Tensor | float | None = None,
    ) -> Tensor:
        """The squared error of the network at a random time, averaged over each sample: (B,).

        Draw t and eps, jump to x_t, compare the output with `target`. Give t (B,) to choose the times. Raises
        ValueError for a condition that the network does not read.
        """
        check_read(self, cond)
        t = self.draw_times(len(x0), generator, x0.device) if t is None else as_times(t, x0)
        eps = noise_like(x0, generator)
        alpha, sigma = alpha_sigma(self.schedule, t, x0)
        error = self._ask(alpha * x0 + sigma * eps, t, cond) - target(self.parameterization, x0, eps, alpha, sigma)
        squared = error.float().square().flatten(1).mean(1)
        return squared if self.weighting == "uniform" else squared * self._min_snr(alpha, sigma)

    @property
    def learned_by(self) -> dict[str, Any]:
        """How it is trained, as arguments: weighting, time_sampling and time_shape."""
        return {name: getattr(self, name) for name in ("weighting", "time_sampling", "time_shape")}

    def check_alpha(self, alpha: Tensor) -> None:
        """Raise ValueError where x0 = (x_t - sigma eps) / alpha cannot be computed, if the network says eps."""
        if self.parameterization == "eps" and bool((alpha.abs() < 1e-6).any()):
            raise ValueError('`t` must lie where alpha(t) > 0 for "eps": start lower, or train "v" or "flow".')

    def _ask(self, x_t: Tensor, t: Tensor, cond: Condition | None) -> Tensor:
        check_condition(cond)
        output = self.net(x_t, t, cond.expand(len(x_t)) if cond is not None and len(cond) else cond)
        if not isinstance(output, Tensor) or output.shape != x_t.shape:  # or it would be broadcast
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ValueError(f"`net` must return the shape of x_t, {tuple(x_t.shape)}; got {got}.")
        return output

    def draw_times(self, n: int, generator: torch.Generator | None, device: torch.device) -> Tensor:
        """n training times: the steps i/T of a discrete schedule, or any time of a continuous one."""
        home = generator.device if generator is not None else device
        steps = getattr(self.schedule, "T", None)
        if self.time_sampling == "logit-normal":
            mean, std = self.time_shape
            t = torch.sigmoid(mean + std * torch.randn(n, generator=generator, device=home)).to(device)
            return t if steps is None else (t * steps).ceil() / steps
        if steps is None:
            return torch.rand(n, generator=generator, device=home).to(device)
        return (torch.randint(1, steps + 1, (n,), generator=generator, device=home) / steps).to(device)

    def _min_snr(self, alpha: Tensor, sigma: Tensor) -> Tensor:
        """min(SNR, 5) in units of x0's error, divided by what one unit of the target's error is worth there."""
        alpha = alpha.clamp(min=1e-6)  # 0 * inf is no weight
        snr = alpha**2 / sigma**2
        one = torch.ones_like(snr)
        slope = interpret(self.parameterization, one, 0 * one, alpha, sigma).x0  # x0 is linear in the output
        return (snr.clamp(max=5) * slope**2).flatten().float()


def check_condition(cond: Any) -> None:
    """Raise ValueError for anything but a Condition or None."""
    if not isinstance(cond, Condition | None):
        way = "Condition(label=labels), Condition(text=encoder(prompts)) or pipe.condition(prompts)"
        raise ValueError(f"`cond` must be a Condition, as {way}; got {type(cond).__name__}.")


def check_read(denoiser: Any, cond: Condition | None) -> None:
    """Raise ValueError for a part of the condition that the network does not read, unless it is dropped, all zero."""
    check_condition(cond)
    for part, sizes in READ_BY.items():
        said = getattr(cond, part, None)
        said = getattr(said, "pooled", said)  # of a text
        if said is not None and not reads(denoiser, part) and bool(said.any()):
            way = f"leave `{part}` out, drop it always, or make the network with `{'` or `'.join(sizes)}`"
            raise ValueError(f"`cond` must hold only what the network reads, and that is no {part}: {way}.")


def check_encoder(denoiser: nn.Module, encoder: Any) -> None:
    """Raise ValueError unless the network reads text, and in the sizes of this encoder, as far as it says."""
    if not callable(encoder):
        raise ValueError(f"`encoder` must be a text encoder, as a MiniClip; got {encoder!r:.60}.")
    if not reads(denoiser, "text"):
        raise ValueError("`encoder` is for a network that reads text, and this one reads none: see `context_dim`.")
    config = net_config(denoiser)
    for size, name in (("context_dim", "dim"), ("pooled_dim", "pooled_dim")):
        wanted, given = getattr(config, size, None), getattr(encoder, name, None)
        if wanted and given and wanted != given:
            raise ValueError(f"`encoder` must have {name} {wanted}, the network's `{size}`; got one with {given}.")


def reads(denoiser: Any, *parts: str) -> bool:
    """Whether the network was made to be told any of these parts of a `Condition`, as far as it says."""
    config = net_config(denoiser)
    sizes = [size for part in parts for size in READ_BY[part] if hasattr(config, size)]
    return any(getattr(config, size) for size in sizes) or not sizes


def net_config(denoiser: Any) -> Any:
    """What the network within says of its shape, None if it says nothing."""
    return getattr(getattr(denoiser, "net", None), "config", None)
