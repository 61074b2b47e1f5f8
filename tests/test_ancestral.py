"""How much variance the ancestral step loses on Gaussian data, where every step is affine and so can be added up."""

import itertools
import math

import pytest
import torch

from minidiff.common import seeded
from minidiff.samplers import ddpm_step
from minidiff.schedules import CosineSchedule, LinearSchedule, RectifiedFlow, posterior, time_grid
from minidiff.toy import ExactDenoiser, Mixture

SCHEDULES = [LinearSchedule(), CosineSchedule(), RectifiedFlow()]
SHIFTS = (0.3, 1.0, 4.0)
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


def missing_variance(schedule, variance, times, **options):
    """The share of the data's variance that ancestral sampling loses.

    For Gaussian data a step is x -> slope x + std z: read both off the code, and propagate the variance.
    """
    denoiser = ExactDenoiser(Mixture([1.0], [[0.0]], [math.sqrt(variance)]), schedule)
    probe = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    z = torch.randn(1, generator=seeded(3)).item()  # what a generator per sample will draw for both
    current = 1.0
    for t, s in itertools.pairwise(times):
        (noise, moved), _ = ddpm_step(denoiser, probe, t, s, generator=[seeded(3), seeded(3)], **options)
        slope, std = float(moved - noise), float(noise) / z
        current = slope**2 * current + std**2
    return 1 - current / variance


def share_of_noise(schedule, variance, times):
    """y = sigma^2 / (alpha^2 v + sigma^2), the share of the noise in the variance of x_t, for data N(0, v)."""
    noise = schedule.sigma(times.double()) ** 2
    return noise / (schedule.alpha(times.double()) ** 2 * variance + noise)


@each_schedule
@pytest.mark.parametrize("variance", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("shift", SHIFTS)
def test_ancestral_sampling_loses_the_variance_that_the_formula_says(schedule, variance, shift):
    """Each step takes x0_hat for certain and so loses pull^2 Var(x0 | x_t); it adds up to sum (y_t - y_s)^2 / y_t."""
    times = time_grid(schedule, 60, shift=shift)
    y = share_of_noise(schedule, variance, times)
    expected = float(((y[:-1] - y[1:]) ** 2 / y[:-1]).sum())
    assert missing_variance(schedule, variance, times) == pytest.approx(expected, rel=1e-4)
    assert expected > 3.9 / 60  # (sum of root y_t - root y_s)^2 = 1 shared by 60 steps, times about 4: on any grid


@each_schedule
@pytest.mark.parametrize("variance", [0.1, 0.25])
def test_a_thousand_steps_lose_less_than_five_thousandths_for_data_of_small_variance(schedule, variance):
    half, full = (missing_variance(schedule, variance, time_grid(schedule, n)) for n in (500, 1000))
    assert 0 < full * variance <= 0.005
    assert half / full == pytest.approx(2, abs=0.15)  # an error of order 1


@each_schedule
@pytest.mark.parametrize("variance", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("steps", [5, 50])
def test_a_step_that_knows_the_variance_of_gaussian_data_loses_nothing(schedule, variance, steps):
    """What is left is where sampling starts: at N(0, 1), which is not quite the distribution of x_t there."""
    times = time_grid(schedule, steps)
    assert abs(missing_variance(schedule, variance, times, data_variance=variance)) < 1e-4


def test_ho_s_two_variances_are_those_of_a_point_and_of_unit_variance():
    """Ho et al. 2020, section 3.2: beta_tilde = (1 - alpha_bar_s) / (1 - alpha_bar_t) beta, and beta."""
    schedule = LinearSchedule()
    x = torch.zeros(1, 1, dtype=torch.float64)
    for i in (2, 500, 1000):
        late, early = (torch.tensor([k / 1000], dtype=torch.float64) for k in (i, i - 1))
        beta, kept = float(schedule.betas[i - 1]), 1 - schedule.alpha_bar(torch.cat([early, late]))
        small, large = (float(posterior(schedule, x, x, late, early, v)[1]) ** 2 for v in (0.0, 1.0))
        assert small == pytest.approx(beta * float(kept[0] / kept[1]), rel=1e-9)
        assert large == pytest.approx(beta, rel=1e-9)
