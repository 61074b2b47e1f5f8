"""What must hold exactly, checked against closed formulas: mixtures of Gaussians have one for everything."""

import math

import pytest
import torch

from minidiff.common import Condition, seeded
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP
from minidiff.samplers import STEPS, ddim_step, ddpm_step, heun_step, sample
from minidiff.schedules import (
    CosineSchedule,
    LinearSchedule,
    RectifiedFlow,
    forward_jump,
    markov_step,
    posterior,
    time_grid,
)
from minidiff.toy import POINTS, ExactDenoiser, Mixture, flow_map, points
from minidiff.training.loop import TrainConfig, train
from minidiff.training.objectives import Denoising

SCHEDULES = [LinearSchedule(), CosineSchedule(), RectifiedFlow()]
SHIFTS = (0.3, 1.0, 4.0)
ODE_STEPS = {name: step for name, step in STEPS.items() if name != "ddpm"}
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)

TWO_PEAKS = Mixture([0.3, 0.7], [[-1.0], [0.6]], [0.3, 0.4])
LINE = torch.linspace(-8, 8, 8001, dtype=torch.float64)  # an integral over it is a sum, to 1e-12 for Gaussians


def normal(x, mean, std):
    return (-(((x - mean) / std) ** 2) / 2).exp() / (std * math.sqrt(2 * math.pi))


def at(schedule, t):
    t = torch.tensor(t, dtype=torch.float64)
    return float(schedule.alpha(t)), float(schedule.sigma(t))


# --- the oracle itself, against integrals ---------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_the_exact_denoiser_is_the_conditional_mean(schedule, t):
    alpha, sigma = at(schedule, t)
    density = TWO_PEAKS.log_prob(LINE[:, None]).exp()
    for x_t in (-1.5, 0.0, 0.4, 2.0):
        weight = density * normal(torch.tensor(x_t), alpha * LINE, sigma)
        x0 = (weight * LINE).sum() / weight.sum()
        eps = (weight * (x_t - alpha * LINE)).sum() / weight.sum() / sigma
        prediction = ExactDenoiser(TWO_PEAKS, schedule)(torch.tensor([[x_t]], dtype=torch.float64), t)
        # The denoiser's times are float32, and so are off by up to 6e-8.
        assert prediction.x0.item() == pytest.approx(x0.item(), abs=1e-6)
        assert prediction.eps.item() == pytest.approx(eps.item(), abs=1e-6)


@each_schedule
def test_the_step_back_follows_bayes(schedule):
    for t, s, x_t in [(0.5, 0.45, 0.3), (0.9, 0.1, -0.2), (0.7, 0.0, 1.1)]:
        (alpha_t, sigma_t), (alpha_s, sigma_s) = at(schedule, t), at(schedule, s)
        a = alpha_t / alpha_s
        prior = TWO_PEAKS.noised(schedule, s).log_prob(LINE[:, None]).exp()
        weight = prior * normal(torch.tensor(x_t), a * LINE, math.sqrt(sigma_t**2 - (a * sigma_s) ** 2))
        density = weight / weight.sum() / (LINE[1] - LINE[0])
        exact = TWO_PEAKS.posterior(schedule, torch.tensor([x_t]), t, s).log_prob(LINE[:, None]).exp()
        assert torch.allclose(exact, density, atol=1e-6)


@each_schedule
def test_the_density_of_x_t_integrates_to_one_and_the_score_is_its_slope(schedule):
    noised = TWO_PEAKS.noised(schedule, 0.3)
    assert float(noised.log_prob(LINE[:, None]).exp().sum() * (LINE[1] - LINE[0])) == pytest.approx(1, abs=1e-9)
    x = torch.tensor([[-1.2], [0.1], [1.7]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(noised.log_prob(x).sum(), x)
    assert torch.allclose(ExactDenoiser(TWO_PEAKS, schedule).score(x.detach(), 0.3), slope, atol=1e-6)


def test_densities_integrate_to_one_in_the_plane_too():
    line = torch.linspace(-2, 2, 401, dtype=torch.float64)
    p = points("eight").log_prob(torch.cartesian_prod(line, line)).exp()
    assert float(p.sum() * (line[1] - line[0]) ** 2) == pytest.approx(1, abs=1e-6)


@each_schedule
def test_the_flow_map_moves_one_density_to_the_other(schedule):
    x = torch.linspace(-2, 2, 201, dtype=torch.float64)[:, None].requires_grad_()
    h = 1e-4
    y = flow_map(TWO_PEAKS, schedule, x.detach(), 0.9, 0.1)
    slope = (flow_map(TWO_PEAKS, schedule, x.detach() + h, 0.9, 0.1) - y) / h
    there = TWO_PEAKS.noised(schedule, 0.1).log_prob(y) + slope[:, 0].log()
    assert torch.allclose(there, TWO_PEAKS.noised(schedule, 0.9).log_prob(x.detach()), atol=2e-3)


def test_a_label_keeps_the_components_that_have_it():
    mixture = Mixture([0.2, 0.3, 0.5], [[-1.0], [0.0], [1.0]], [0.2, 0.1, 0.3], labels=[1, 2, 2])
    alone = Mixture([0.3, 0.5], [[0.0], [1.0]], [0.1, 0.3])
    x, schedule = torch.linspace(-1, 1, 9)[:, None], CosineSchedule()
    labelled = ExactDenoiser(mixture, schedule)(x, 0.4, Condition(label=torch.tensor([2])))
    assert torch.allclose(labelled.x0, ExactDenoiser(alone, schedule)(x, 0.4).x0, atol=1e-6)
    nothing = ExactDenoiser(mixture, schedule)(x, 0.4, Condition(label=torch.tensor([0])))
    assert torch.equal(nothing.x0, ExactDenoiser(mixture, schedule)(x, 0.4).x0)
    with pytest.raises(ValueError, match=r"`label` must be one of .* got 7"):
        ExactDenoiser(mixture, schedule)(x, 0.4, Condition(label=torch.tensor([7])))


@pytest.mark.parametrize("name", POINTS)
def test_the_named_data_sets_have_the_moments_their_samples_have(name):
    mixture = points(name)
    x, _ = mixture.sample(40_000, seeded(0))
    assert torch.allclose(x.mean(0).double(), mixture.mean(), atol=0.02)
    assert float(x.var(0).mean()) == pytest.approx(float(mixture.variance()), rel=0.02)
    assert float(x.abs().max()) < 1.5


# --- samplers -------------------------------------------------------------------------------------------------


@each_schedule
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("name", ODE_STEPS)
def test_towards_a_point_mass_every_state_lies_on_the_straight_line(schedule, shift, name):
    """x_s = alpha_s x0 + sigma_s eps at every listed time: wrong bookkeeping of times shows at once."""
    x0, eps = torch.tensor([[0.7, -0.4]]).double(), torch.tensor([[-1.3, 0.8]]).double()
    denoiser = ExactDenoiser(Mixture([1.0], x0, [0.0]), schedule)
    for steps in (1, 2, 3, 7, 10, 62, 150):
        times = time_grid(schedule, steps, shift=shift)
        x = forward_jump(schedule, x0, times[:1], eps)
        for t, x_t in zip(times[1:], sample(STEPS[name], denoiser, x, times), strict=True):
            assert float((x_t - forward_jump(schedule, x0, t[None], eps)).abs().max()) < 1e-5


@each_schedule
@pytest.mark.parametrize("name", ODE_STEPS)
@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_samplers_converge_with_the_order_they_promise(schedule, name, shift):
    """The slope of log error over log steps: 1 for DDIM (Euler), 2 for Heun and DPM-Solver++(2M)."""
    denoiser = ExactDenoiser(TWO_PEAKS, schedule)
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
    exact = flow_map(TWO_PEAKS, schedule, x, 0.95, 0.1)
    counts, errors = torch.tensor([32.0, 64.0, 128.0]), []
    for steps in counts.int().tolist():
        times = time_grid(schedule, steps, start=0.95, end=0.1, shift=shift)
        *_, end = sample(STEPS[name], denoiser, x, times)
        errors.append((end - exact).abs().max())
    log_n, log_error = counts.log() - counts.log().mean(), torch.stack(errors).log().float()
    order = -float((log_n * log_error).sum() / (log_n**2).sum())
    low, high = (0.9, 1.1) if name == "ddim" else (1.8, 2.5)
    assert low <= order <= high, f"order {order:.2f}, errors {errors}"


@each_schedule
def test_ddim_with_eta_one_is_the_ancestral_step(schedule):
    mixture = points("moons")
    denoiser, x = ExactDenoiser(mixture, schedule), torch.randn(64, 2, generator=seeded(0)).double()
    for t, s in [(0.99, 0.98), (0.9, 0.3), (0.5, 0.49), (0.2, 0.0)]:
        ddpm, _ = ddpm_step(denoiser, x, t, s, generator=seeded(1))
        ddim, _ = ddim_step(denoiser, x, t, s, eta=1.0, generator=seeded(1))
        assert torch.allclose(ddpm, ddim, atol=1e-5)
        still, _ = ddim_step(denoiser, x, t, s, eta=0.0)
        assert t == 0.2 or not torch.allclose(still, ddim, atol=1e-3)


def test_with_sigma_and_alpha_of_edm_the_ddim_step_is_eulers():
    """alpha = 1, sigma = t: x_s = x_t + (s - t) (x_t - D(x_t)) / t (Karras et al. 2022, algorithm 1)."""

    class Exploding(RectifiedFlow):
        def alpha(self, t):
            return torch.ones_like(torch.as_tensor(t))

    denoiser, x = ExactDenoiser(points("eight"), Exploding()), torch.randn(50, 2, generator=seeded(0)).double()
    t, s = torch.tensor(0.75), torch.tensor(0.5)
    euler = x + (s - t).double() * (x - denoiser(x, t).x0) / t.double()
    assert float((ddim_step(denoiser, x, t, s)[0] - euler).abs().max()) < 2e-14


def test_heun_ends_where_eps_means_nothing():
    """The last step, to sigma = 0, must not look at eps there: it is DDIM's, for an untrained network too."""
    denoiser = NetDenoiser(MLP(), RectifiedFlow(), "flow")
    x = torch.randn(8, 2, generator=seeded(0))
    assert torch.equal(heun_step(denoiser, x, 0.1, 0.0)[0], ddim_step(denoiser, x, 0.1, 0.0)[0])


# --- the forward process --------------------------------------------------------------------------------------


@each_schedule
def test_the_chain_of_small_steps_has_the_moments_of_the_one_jump(schedule):
    """Read factor and noise of each step off `markov_step`; their products and sums are alpha and sigma^2."""
    times = torch.arange(1001, dtype=torch.float64) / 1000
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    scale, variance = 1.0, 0.0
    for i in range(1, 1000):
        s, t = times[i - 1 : i], times[i : i + 1]
        a = float(markov_step(schedule, one, s, t, zero))
        noise = float(markov_step(schedule, zero, s, t, one))
        scale, variance = a * scale, a**2 * variance + noise**2
        alpha, sigma = at(schedule, float(t))
        assert scale == pytest.approx(alpha, abs=1e-9)
        assert variance == pytest.approx(sigma**2, abs=1e-9)


@each_schedule
def test_a_step_back_and_a_step_forth_leave_the_distribution_alone(schedule):
    """x_s ~ q(x_s | x_t, x0) averaged over x_t ~ q(x_t | x0) is q(x_s | x0)."""
    for t, s in [(0.999, 0.5), (0.6, 0.59), (0.5, 0.001)]:
        late, early = (torch.tensor([v], dtype=torch.float64) for v in (t, s))
        one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
        pull, std = posterior(schedule, one, zero, late, early)
        keep, _ = posterior(schedule, zero, one, late, early)
        (alpha_t, sigma_t), (alpha_s, sigma_s) = at(schedule, t), at(schedule, s)
        assert float(keep) * alpha_t + float(pull) == pytest.approx(alpha_s, abs=1e-9)
        assert (float(keep) * sigma_t) ** 2 + float(std) ** 2 == pytest.approx(sigma_s**2, abs=1e-9)


# --- training -------------------------------------------------------------------------------------------------


class FreshGaussians:
    """An endless data set: N(0, variance), never the same point twice."""

    def __init__(self, variance, size):
        self.std, self.size = math.sqrt(variance), size

    def order(self, seed, epoch):
        return torch.arange(self.size)

    def batch(self, indices, generator):
        return self.std * torch.randn(len(indices), 1, generator=generator), None


def test_a_small_net_reaches_the_bayes_loss_and_not_less(variance=0.25):
    """No eps-predictor can beat mean_t [alpha_bar v / (alpha_bar v + 1 - alpha_bar)] on N(0, v)."""
    schedule = LinearSchedule()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = NetDenoiser(MLP(dim=1, width=64, depth=2), schedule, "eps")
    config = TrainConfig(steps=800, batch_size=512, learning_rate=3e-3, weight_decay=0.0, decay=0.7, progress=False)
    objective = train(Denoising(denoiser), FreshGaussians(variance, 2**16), config, device="cpu").ema_objective
    trained = objective.denoiser
    assert isinstance(trained, NetDenoiser)

    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    alpha_bar = schedule.alpha_bar(t)
    bayes = float((alpha_bar * variance / (alpha_bar * variance + 1 - alpha_bar)).mean())
    x0 = math.sqrt(variance) * torch.randn(200_000, 1, generator=seeded(1))
    with torch.no_grad():
        every_time = t.float().repeat(200)  # each time equally often: no noise from drawing times
        losses = trained.loss(x0, None, seeded(2), every_time)
    # The losses at one time are alike, so their scatter is measured within each time.
    standard_error = float(losses.view(200, 1000).var(0).mean().sqrt()) / math.sqrt(len(losses))
    assert float(losses.mean()) <= 1.05 * bayes
    assert float(losses.mean()) >= bayes - 3 * standard_error


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"weights": [0.0, 0.0]}, "`weights` must not all be 0"),
        ({"labels": [1.5, 2.0]}, r"`labels` must be whole numbers; got \[1.5, 2.0\]"),
    ],
)
def test_a_mixture_of_nothing_and_half_classes_are_refused(wrong, sentence):
    with pytest.raises(ValueError, match=sentence):
        Mixture(**({"weights": [0.3, 0.7], "means": [[-1.0], [0.6]], "stds": [0.3, 0.4]} | wrong))
