"""A generative adversarial network, for comparison: as small as the diffusion models beside it, and as well kept.

Two networks play against each other (Goodfellow et al. 2014): the generator turns noise into a sample in one pass,
the discriminator tells samples from data. With the two usual stabilizers: the R1 penalty and averaged weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.common import check_choice, check_int, check_number, randn, seeded
from minidiff.nets.layers import ResidualBlock, group_norm
from minidiff.training.config import check_betas
from minidiff.training.ema import EMA
from minidiff.training.sources import Source, epoch_order, fold_in


def perceptron(
    inputs: int, outputs: int, width: int = 128, depth: int = 3, activation: str = "leaky_relu"
) -> nn.Sequential:
    """(B, inputs) -> (B, outputs) through `depth` hidden layers: generator or discriminator for points.

    activation: "leaky_relu", as StyleGAN's, or "silu", as the other networks'. Raises ValueError for another one.
    """
    check_choice("activation", activation, ("leaky_relu", "silu"))
    bend = nn.SiLU() if activation == "silu" else nn.LeakyReLU(0.2)
    sizes = [inputs, *[width] * depth]
    hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), bend)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


class PictureGenerator(nn.Module):
    """Noise (B, latent) -> pictures (B, 3, size, size), with the U-Net's residual blocks, steered by the noise.

    widths: channels at 4, 8, ... pixels; each of the last pixels then unfolds into patch x patch, as in the U-Net.
    Raises ValueError unless size = 2 patch 2^len(widths).
    """

    def __init__(self, latent: int = 64, size: int = 16, widths: tuple[int, ...] = (96, 64), patch: int = 2):
        super().__init__()
        wanted = 2 * patch * 2 ** len(widths)
        if size != wanted:
            raise ValueError(f"`size` must be {wanted} for {len(widths)} widths and patch {patch}; got {size}.")
        self.patch = patch
        self.inlet = nn.Linear(latent, widths[0] * 16)
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, latent) for a, b in zip((widths[0], *widths), widths, strict=False)
        )
        self.norm_out = group_norm(widths[-1])
        self.outlet = nn.Conv2d(widths[-1], 3 * patch**2, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B, 3, size, size), values in (-1, 1)."""
        h = self.inlet(z).unflatten(1, (-1, 4, 4))
        for i, block in enumerate(self.blocks):
            h = block(h if i == 0 else F.interpolate(h, scale_factor=2.0), z)
        return torch.tanh(F.pixel_shuffle(self.outlet(F.silu(self.norm_out(h))), self.patch))


def picture_discriminator(size: int = 16, widths: tuple[int, ...] = (64, 96), patch: int = 2) -> nn.Sequential:
    """Pictures (B, 3, size, size) -> one number each (B, 1), high for data; convolutions without normalization."""
    layers: list[nn.Module] = [nn.PixelUnshuffle(patch), nn.Conv2d(3 * patch**2, widths[0], 3, padding=1)]
    for a, b in itertools.pairwise(widths):
        layers += [nn.LeakyReLU(0.2), nn.Conv2d(a, a, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(a, b, 4, 2, 1)]
    side = size // patch // 2 ** (len(widths) - 1)
    return nn.Sequential(*layers, nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(widths[-1] * side**2, 1))


@dataclass(frozen=True)
class GANConfig:
    """How to train a GAN: two Adams with one learning rate.

    betas and ema_decay follow StyleGAN2 (Karras et al. 2020, section 3.1). r1: weight of the R1 penalty, 0 = off; it
    doubles the cost of a step, so only every `r1_every`-th has it, as many times as strong (StyleGAN2: every 16th).
    latent: coordinates of the noise. Raises ValueError for a value out of range.
    """

    steps: int
    batch_size: int
    latent: int = 64
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.0, 0.99)
    r1: float = 1.0
    r1_every: int = 8
    ema_decay: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("steps", self.steps, 1, 99_999_999)
        check_int("batch_size", self.batch_size, 1, 10**7)
        check_int("latent", self.latent, 1, 100_000)
        check_number("learning_rate", self.learning_rate, 0, 100)
        check_betas(self.betas)
        check_number("r1", self.r1, 0, 1e6)
        check_int("r1_every", self.r1_every, 1, 10**6)
        check_number("ema_decay", self.ema_decay, 0, 1)
        check_int("seed", self.seed, 0, 2**63 - 1)


@dataclass
class GANResult:
    """A run, while it lasts and when it is over; history: both losses of each step, (generator, discriminator)."""

    generator: nn.Module
    discriminator: nn.Module
    ema: EMA
    latent: int
    step: int = 0
    history: list[tuple[float, float]] = field(default_factory=list)

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator | None = None, averaged: bool = True) -> Tensor:
        """Draw n samples, (n, ...): one pass through the generator with its averaged (or its last) weights."""
        z = randn((n, self.latent), generator, next(self.generator.parameters()).device)
        return (self.ema.module() if averaged else self.generator)(z)


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor, r1: float = 0.0) -> Tensor:
    """What the discriminator minimizes, averaged: a number.

        softplus(-D(x)) + softplus(D(G(z))) + r1 / 2 |grad_x D(x)|^2

    Source: Goodfellow et al. 2014, equation 1, with D's probability written as a sigmoid; the penalty on the slope at
    real data is R1 of Mescheder et al. 2018, equation 9.
    """
    real = real.detach().requires_grad_(r1 > 0)
    score = discriminator(real)
    loss = F.softplus(-score).mean() + F.softplus(discriminator(fake)).mean()
    if r1 > 0:
        (slope,) = torch.autograd.grad(score.sum(), real, create_graph=True)
        loss = loss + r1 / 2 * slope.square().flatten(1).sum(1).mean()
    return loss


def generator_loss(discriminator: nn.Module, fake: Tensor) -> Tensor:
    """softplus(-D(G(z))), averaged: the non-saturating loss of Goodfellow et al. 2014, section 3."""
    return F.softplus(-discriminator(fake)).mean()


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    source: Source,
    config: GANConfig,
    on_step: Callable[[GANResult], bool | None] | None = None,
) -> GANResult:
    """Let the two networks play for `steps` rounds over a source's batches (x, condition), the condition unused.

    A round is one update of the discriminator and one of the generator. `on_step(result)` is called after each, and
    ends the run by returning True. Data and noise depend on the config's seed alone.
    """
    noise = seeded(fold_in(config.seed, 0))
    players, device = (generator, discriminator), next(generator.parameters()).device
    adams = [torch.optim.Adam(p.parameters(), config.learning_rate, betas=config.betas) for p in players]
    result = GANResult(generator, discriminator, EMA(generator, config.ema_decay), config.latent)
    order, epoch, place = epoch_order(source, config.batch_size, config.seed, 0), 0, 0
    for step in range(1, config.steps + 1):
        if place + config.batch_size > len(order):
            epoch, place = epoch + 1, 0
            order = epoch_order(source, config.batch_size, config.seed, epoch)
        real, _ = source.batch(order[place : place + config.batch_size], noise)
        place += config.batch_size
        real = real.to(device)
        fake = generator(torch.randn(config.batch_size, config.latent, generator=noise).to(device))

        r1 = config.r1 * config.r1_every if step % config.r1_every == 0 else 0.0
        loss_d = discriminator_loss(discriminator, real, fake.detach(), r1)
        adams[1].zero_grad()
        loss_d.backward()
        adams[1].step()

        loss_g = generator_loss(discriminator, fake)
        adams[0].zero_grad()
        loss_g.backward(inputs=list(generator.parameters()))  # the discriminator's gradients would be thrown away
        adams[0].step()

        result.ema.update()
        result.step = step
        result.history.append((float(loss_g.detach()), float(loss_d.detach())))
        if on_step is not None and on_step(result) is True:
            break
    return result
