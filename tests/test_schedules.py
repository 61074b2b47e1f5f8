"""Noise schedules: their tables, their ends, and the times a sampler visits."""

import math

import pytest
import torch

from minidiff.denoisers import PARAMETERIZATIONS, NetDenoiser, interpret, target
from minidiff.nets import MLP
from minidiff.samplers import ddim_step, sample
from minidiff.schedules import (
    CosineSchedule,
    DiscreteSchedule,
    LinearSchedule,
    RectifiedFlow,
    check_falling,
    forward_jump,
    make_schedule,
    time_grid,
)
from minidiff.toy import ExactDenoiser, Mixture

SCHEDULES = [LinearSchedule(), CosineSchedule(), RectifiedFlow()]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
T = 1000
STEPS_OF_T = torch.arange(1, T + 1, dtype=torch.float64) / T


def test_the_linear_schedule_is_ddpms_table():
    product, alpha_bars = 1.0, []
    for i in range(T):  # Ho et al. 2020, section 4: from 1e-4 to 0.02 in equal steps
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / (T - 1))
        alpha_bars.append(product)
    assert torch.allclose(LinearSchedule().alpha_bar(STEPS_OF_T), torch.tensor(alpha_bars).double(), rtol=1e-6)
    assert alpha_bars[-1] == pytest.approx(4.0e-5, rel=0.02)


@pytest.mark.parametrize("steps", [21, 100, 4000])
def test_a_linear_schedule_of_any_number_of_steps_ends_in_noise(steps: int) -> None:
    assert float(LinearSchedule(steps).alpha_bar(torch.tensor(1.0))) < 1e-4


def test_the_cosine_schedule_is_a_squared_cosine():
    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2  # Nichol & Dhariwal 2021, equation 17

    for t in (0.001, 0.25, 0.5, 0.75, 0.999):
        alpha_bar = float(CosineSchedule().alpha_bar(torch.tensor(t, dtype=torch.float64)))
        assert alpha_bar == pytest.approx(f(t) / f(0), rel=1e-9)


@each_schedule
def test_the_ends_are_data_and_noise_and_between_them_it_only_gets_noisier(schedule):
    t = torch.linspace(0, 1, 3001, dtype=torch.float64)
    assert float(schedule.alpha(t[0])) == 1 and float(schedule.sigma(t[0])) == 0
    assert float(schedule.alpha(t[-1])) < 0.01 and float(schedule.sigma(t[-1])) > 0.99
    assert bool((schedule.alpha(t).diff() < 0).all()) and bool((schedule.sigma(t).diff() > 0).all())
    assert bool((schedule.log_snr(t[1:-1]).diff() < 0).all())


@pytest.mark.parametrize("schedule", SCHEDULES[:2], ids=repr)
def test_the_discrete_schedules_preserve_variance_and_interpolate_the_logarithm(schedule):
    t = torch.rand(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, torch.ones(500).double())
    left, right = torch.tensor([0.250, 0.251], dtype=torch.float64)
    halfway = schedule.alpha_bar((left + right) / 2)
    assert float(halfway) == pytest.approx(float((schedule.alpha_bar(left) * schedule.alpha_bar(right)).sqrt()))


def test_precision_is_lost_last():
    """In half precision 1 - alpha_bar(1/T) would round to zero; the tables are float64 and cast at the end."""
    first = torch.tensor(1 / T)
    assert 1 - LinearSchedule().alpha_bar(first).half() == 0
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        t = torch.tensor(1.0, dtype=dtype) / 1024  # exactly representable in each of them
        exact = float(LinearSchedule().sigma(t.double()))
        assert float(LinearSchedule().sigma(t)) == pytest.approx(exact, rel=1e-2)
        assert LinearSchedule().sigma(t).dtype == dtype
    assert LinearSchedule().betas.dtype == torch.float64


def test_the_cosine_schedule_starts_below_its_noise_end():
    """At t = 1 an error of eps grows 20,000 times on its way to x0, which is why t_max lies below."""
    schedule = CosineSchedule()
    one = torch.tensor(1.0, dtype=torch.float64)
    assert float(schedule.alpha_bar(one)) == pytest.approx(2.4e-9, rel=0.05)
    growth = schedule.sigma(one) / schedule.alpha(one)
    assert 15_000 < float(growth) < 25_000
    assert schedule.t_max == 0.999 and float(time_grid(schedule, 10)[0]) == pytest.approx(0.999)
    at_start = torch.tensor(schedule.t_max, dtype=torch.float64)
    assert float(schedule.sigma(at_start) / schedule.alpha(at_start)) < 1000
    assert CosineSchedule(50).t_max == pytest.approx(0.98)  # one step of its own


def test_nothing_is_clipped_unless_asked_for():
    """Data may legitimately lie outside [-1, 1]; clipping is a choice, and then x0 and eps still fit together."""
    wide = ExactDenoiser(Mixture([1.0], [[3.0]], [0.1]), RectifiedFlow())
    assert float(wide(torch.tensor([[1.5]]), 0.5).x0) > 2.5
    net, x, t = MLP(dim=2, width=16, depth=1), 50 * torch.ones(1, 2), 0.5
    free, clipped = NetDenoiser(net, RectifiedFlow()), NetDenoiser(net, RectifiedFlow(), clip=1.0)
    with torch.no_grad():
        assert float(free(x, t).x0.abs().max()) > 1
        x0, eps = clipped(x, t)
    assert float(x0.abs().max()) == 1 and torch.allclose(0.5 * x0 + 0.5 * eps, x)
    assert not clipped(x, 0.0).eps.any()  # at t = 0 there is no noise, whatever was clipped


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
@each_schedule
def test_any_number_of_steps_from_1_to_T_gives_exactly_that_many(schedule, shift):
    for steps in range(1, T + 1):
        times = time_grid(schedule, steps, shift=shift)
        assert len(times) == steps + 1
        assert bool((times.diff() < 0).all()), f"{steps} steps: times that do not fall"
        assert float(times[0]) == pytest.approx(schedule.t_max) and float(times[-1]) == 0


@each_schedule
def test_a_grid_begins_and_ends_where_it_is_told(schedule):
    for shift in (0.5, 1.0, 3.0):
        times = time_grid(schedule, 20, start=0.8, end=0.2, shift=shift)
        assert float(times[0]) == pytest.approx(0.8) and float(times[-1]) == pytest.approx(0.2)
        assert bool((times.diff() < 0).all())


@each_schedule
@pytest.mark.parametrize(("start", "end"), [(1e-3, 0), (1e-3, 5e-4), (1.0, 0.9995)])
def test_a_grid_close_to_either_end_of_time_falls_all_the_way(schedule, start, end):
    times = time_grid(schedule, 5, start=start, end=end, shift=100)
    assert bool((times.diff() < 0).all()), times
    assert float(times[0]) == pytest.approx(start) and float(times[-1]) == pytest.approx(end)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_a_shift_multiplies_the_noise_of_every_step_and_leaves_the_ends(shift):
    """Esser et al. 2024, equation 23: under rectified flow sigma / alpha is shift times what it would be."""
    even, moved = time_grid(RectifiedFlow(), 12).double(), time_grid(RectifiedFlow(), 12, shift=shift).double()
    ratio = [t / (1 - t) for t in (even[1:], moved[1:])]
    assert torch.allclose(ratio[1], shift * ratio[0], rtol=1e-5) and moved[0] == 1 and moved[-1] == 0
    assert torch.equal(time_grid(RectifiedFlow(shift), 12).double(), moved)
    assert torch.equal(time_grid(RectifiedFlow(shift), 12, shift=1).double(), even)


@pytest.mark.parametrize("shift", [0.01, 3.0, 100.0])
@each_schedule
def test_a_part_of_a_shifted_grid_is_spread_like_the_whole(schedule, shift):
    """From one of its times to another a grid of fewer steps visits the same times."""
    whole = time_grid(schedule, 12, shift=shift)
    part = time_grid(schedule, 6, start=float(whole[4]), end=float(whole[10]), shift=shift)
    assert torch.allclose(part, whole[4:11], rtol=1e-4) and bool((whole.diff() < 0).all())


@each_schedule
@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_what_a_network_is_asked_for_and_what_is_made_of_it_are_inverse(schedule, kind):
    g = torch.Generator().manual_seed(0)
    x0, eps = (torch.randn(64, 3, generator=g, dtype=torch.float64) for _ in range(2))
    t = 0.01 + 0.98 * torch.rand(64, generator=g, dtype=torch.float64)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    x_t = forward_jump(schedule, x0, t, eps)
    back = interpret(kind, target(kind, x0, eps, alpha, sigma), x_t, alpha, sigma)
    assert torch.allclose(back.x0, x0, atol=1e-9) and torch.allclose(back.eps, eps, atol=1e-9)
    # And whatever a network says, x0 and eps together explain x_t.
    x0, eps = interpret(kind, torch.randn(64, 3, generator=g, dtype=torch.float64), x_t, alpha, sigma)
    assert torch.allclose(alpha * x0 + sigma * eps, x_t, atol=1e-9)


@each_schedule
@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_min_snr_weighs_the_error_of_x0_by_the_capped_signal_to_noise_ratio(schedule, kind):
    """Whatever is predicted, the weighted loss is min(SNR, 5) |x0 - x0_hat|^2 (Hang et al. 2023)."""
    net, x0 = MLP(dim=2, width=16, depth=1), torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.05, 0.95, 200)
    denoiser = NetDenoiser(net, schedule, kind, weighting="min-snr")
    eps = torch.randn(200, 2, generator=torch.Generator().manual_seed(1))
    error = (denoiser(forward_jump(schedule, x0, t, eps), t).x0 - x0).square().mean(1)
    snr = (schedule.alpha(t) / schedule.sigma(t)) ** 2
    loss = denoiser.loss(x0, None, torch.Generator().manual_seed(1), t)
    assert torch.allclose(loss, snr.clamp(max=5) * error, rtol=2e-3)


@pytest.mark.parametrize("sampling", ["uniform", "logit-normal"])
@each_schedule
def test_training_times_are_those_of_the_schedule(schedule, sampling):
    denoiser = NetDenoiser(MLP(), schedule, time_sampling=sampling)
    t = denoiser.draw_times(20_000, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert float(t.min()) >= 0 and float(t.max()) <= 1
    below = [float((t < limit).float().mean()) for limit in (0.25, 0.5, 0.75)]
    # P(z < -log 3) = 0.136 for logit-normal times
    assert below == pytest.approx([0.25, 0.5, 0.75] if sampling == "uniform" else [0.136, 0.5, 0.864], abs=0.015)
    if sampling == "uniform" and isinstance(schedule, DiscreteSchedule):
        assert torch.allclose((t * T).round(), t * T, atol=1e-3) and float(t.min()) > 0


def _denoiser():
    return NetDenoiser(MLP(), CosineSchedule())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: time_grid(RectifiedFlow(), 0), r"`steps` must be an integer from 1 to 1000; got 0\."),
        (lambda: time_grid(RectifiedFlow(), 10**9), r"`steps` .* got 1000000000\."),
        (lambda: time_grid(RectifiedFlow(), 5, shift=0), r"`shift` must be a number .* got 0\."),
        (lambda: RectifiedFlow(shift=-1), r"`shift` must be a number .* got -1\."),
        (lambda: time_grid(RectifiedFlow(), 5, start=0.3, end=0.3), r"`end` must lie below `start`"),
        (lambda: time_grid(RectifiedFlow(), 5, start=float("nan")), r"`start` must be a number .* got nan\."),
        (lambda: LinearSchedule(T=20), r"`T` must be an integer from 21"),
        (lambda: DiscreteSchedule(torch.tensor([0.1, 1.0])), r"`betas` must be"),
        (lambda: make_schedule("cosin"), r"`schedule` .* Did you mean 'cosine'\?"),
        (
            lambda: NetDenoiser(MLP(), "cosine"),  # type: ignore[arg-type]
            r"`schedule` must have alpha\(t\) and sigma\(t\), .* got 'cosine'\.",
        ),
        (lambda: time_grid("cosine", 5), r"`schedule` must have .* got 'cosine'\."),  # type: ignore[arg-type]
        (
            lambda: _denoiser()(torch.zeros(2, 2), 500),
            r"`t` must be from 0 .* i / T for step i of T; got 500",
        ),
        (lambda: _denoiser()(torch.zeros(2, 2), torch.tensor([1, 999])), r"`t` .* got tensor\(\[  1, 999\]\)\."),
        (lambda: _denoiser()(torch.zeros(2, 2), float("nan")), r"`t` .* got nan\."),
        (lambda: NetDenoiser(MLP(), RectifiedFlow), r"`schedule` must have .* got <class"),  # type: ignore[arg-type]
        (lambda: NetDenoiser(MLP(), RectifiedFlow(), "epsilon"), r"`parameterization` .* got 'epsilon'\."),
    ],
)
def test_wrong_input_gets_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_a_schedule_that_ends_early_is_looked_at_where_it_is():
    class Early(RectifiedFlow):
        t_max = 0.7

    for schedule in (CosineSchedule(2), CosineSchedule(3), Early()):
        assert check_falling(schedule) is schedule


@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_min_snr_weights_are_numbers_at_both_ends_of_time(kind):
    denoiser = NetDenoiser(MLP(dim=2, width=16, depth=1), RectifiedFlow(), kind, weighting="min-snr")
    loss = denoiser.loss(torch.ones(2, 2), generator=torch.Generator().manual_seed(0), t=torch.tensor([0.0, 1.0]))
    assert loss.isfinite().all()


def test_a_schedule_may_answer_with_a_number_wherever_it_is_asked():
    class Exploding:  # x_t = x0 + t eps, as in EDM
        def alpha(self, t):
            return 1.0

        def sigma(self, t):
            return torch.as_tensor(t) * 3 + 0.01

    denoiser = NetDenoiser(torch.nn.Identity(), Exploding(), "eps", weighting="min-snr")
    denoiser.net.forward = lambda x, t, cond: x
    assert denoiser.loss(torch.ones(3, 2)).isfinite().all()


def test_a_schedule_may_answer_with_a_number():
    class Exploding:
        def alpha(self, t):
            return 1.0

        def sigma(self, t):
            return 80 * t

    x, t = torch.ones(3, 2), torch.tensor([0.1, 0.5, 1.0])
    assert torch.allclose(forward_jump(Exploding(), x, t, x), 1 + 80 * t[:, None] * x)
    *_, drawn = sample(ddim_step, NetDenoiser(MLP(dim=2, width=16, depth=1), Exploding(), "x0"), 80 * x, t.flip(0))
    assert drawn.isfinite().all()


@each_schedule
def test_log_snr_takes_a_number_as_alpha_and_sigma_do(schedule):
    wanted = 2 * (schedule.alpha(0.5).double().log() - schedule.sigma(0.5).double().log())
    assert float(schedule.log_snr(0.5)) == pytest.approx(float(wanted), abs=1e-5)
