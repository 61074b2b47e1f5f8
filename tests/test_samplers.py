"""The loop of the samplers: how often it looks, when, and whose noise it uses."""

from typing import Any

import pytest
import torch
from small_models import small_pipe, styles_pipe

from minidiff.common import randn, seeded
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP
from minidiff.samplers import STEPS, ddim_step, sample
from minidiff.schedules import CosineSchedule, LinearSchedule, RectifiedFlow, time_grid
from minidiff.toy import ExactDenoiser, points

SCHEDULES = [LinearSchedule(), CosineSchedule(), RectifiedFlow()]
each_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)


class Watched:
    """A denoiser that notes the times it is asked about."""

    def __init__(self, denoiser):
        self.denoiser, self.schedule, self.times = denoiser, denoiser.schedule, []

    def __call__(self, x_t, t, cond=None):
        self.times.append(float(t[0]))
        return self.denoiser(x_t, t, cond)


@each_schedule
@pytest.mark.parametrize("name", STEPS)
def test_n_steps_yield_n_states_and_look_at_the_listed_times(schedule, name):
    for steps in (1, 2, 3, 10, 62, 1000):
        watched = Watched(ExactDenoiser(points("eight"), schedule))
        times = time_grid(schedule, steps)
        x = randn((2, 2), seeded(0))
        states = list(sample(STEPS[name], watched, x, times, generator=seeded(1)))
        assert len(states) == steps
        assert all(bool(torch.isfinite(state).all()) for state in states)
        wanted = times[:-1].tolist()
        if name == "heun":  # looks twice, except in the step to t = 0
            wanted = [t for pair in zip(wanted, times[1:].tolist(), strict=True) for t in pair][:-1]
        assert watched.times == pytest.approx(wanted)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_of_samples_at_different_times_is_each_ones_own(name):
    denoiser, x = ExactDenoiser(points("eight"), CosineSchedule()), randn((2, 2), seeded(0))
    t, s = torch.tensor([0.5, 0.6]), torch.tensor([0.3, 0.0])
    both, _ = STEPS[name](denoiser, x, t, s, generator=[seeded(1), seeded(2)])
    for i in (0, 1):
        alone, _ = STEPS[name](denoiser, x[i : i + 1], t[i : i + 1], s[i : i + 1], generator=[seeded(1 + i)])
        assert torch.allclose(alone, both[i : i + 1], atol=1e-6)


@pytest.mark.parametrize("name", STEPS)
def test_a_sample_does_not_depend_on_its_batch(name):
    """With a generator per sample, sample i is the same at batch 1, 4 and 8."""
    torch.manual_seed(0)
    denoiser = NetDenoiser(MLP(), CosineSchedule(), "v")
    times = time_grid(denoiser.schedule, 10)

    def draw(seeds):
        generators = [seeded(seed) for seed in seeds]
        *_, x0 = sample(STEPS[name], denoiser, randn((len(seeds), 2), generators), times, generator=generators)
        return x0

    eight = draw(range(8))
    assert torch.allclose(draw(range(4)), eight[:4], atol=1e-5)
    assert torch.allclose(draw([5]), eight[5:6], atol=1e-5)
    assert not torch.allclose(eight[0], eight[1], atol=1e-2)


@pytest.mark.parametrize("name", STEPS)
@each_schedule
def test_every_sampler_draws_the_mixture(schedule, name):
    """200 steps from noise: the share of each of the eight peaks, and the width of a peak, are right."""
    mixture = points("eight")
    denoiser, n = ExactDenoiser(mixture, schedule), 4000
    start = randn((n, 2), seeded(0))
    *_, x = sample(STEPS[name], denoiser, start, time_grid(schedule, 200, shift=0.2), generator=seeded(1))
    distance = torch.cdist(x.double(), mixture.means)
    nearest = distance.argmin(1)
    share = torch.bincount(nearest, minlength=8) / n
    assert float((share - 1 / 8).abs().max()) < 0.03  # six standard errors
    spread = (x.double() - mixture.means[nearest]).square().mean().sqrt()
    assert float(spread) == pytest.approx(0.06, rel=0.06)


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    denoiser = ExactDenoiser(points("eight"), CosineSchedule())
    list(
        sample(
            STEPS["ddpm"], denoiser, randn((4, 2), seeded(0)), time_grid(denoiser.schedule, 5), generator=seeded(1)
        )
    )
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("times", [[0.5], [0.2, 0.5], [0.5, 0.5], [[0.5, 0.1]]])
def test_times_that_do_not_fall_are_refused(times):
    denoiser = ExactDenoiser(points("eight"), RectifiedFlow())
    with pytest.raises(ValueError, match="strictly decreasing"):
        next(sample(ddim_step, denoiser, torch.zeros(1, 2), torch.tensor(times)))


def test_a_step_that_returns_the_state_alone_is_refused():
    """Two samples in one tensor would otherwise be taken for a state and a memory."""

    def alone(denoiser, x_t, t, s, cond=None, *, memory=None, generator=None):
        return x_t

    denoiser = ExactDenoiser(points("eight"), RectifiedFlow())
    with pytest.raises(ValueError, match=r"`step` must return \(x_s, memory\), .* got Tensor"):
        next(sample(alone, denoiser, torch.zeros(2, 2), torch.tensor([1.0, 0.5])))


def test_one_generator_per_sample_or_none():
    denoiser = ExactDenoiser(points("eight"), RectifiedFlow())
    with pytest.raises(ValueError, match=r"`generator` must be one or a list with one per sample \(3\); got 2"):
        next(sample(STEPS["ddpm"], denoiser, torch.zeros(3, 2), torch.tensor([1.0, 0.5]), generator=[seeded(0)] * 2))


def test_a_pipeline_spreads_its_steps_by_the_shift_of_the_call_or_of_the_model():
    pipe = small_pipe()
    cond, x = pipe.condition(["cat"]), randn((1, 3, 16, 16), [seeded(0)])

    def draw(**more):
        return pipe.generate(cond, 1, steps=3, guidance=1.0, sampler="ddim", seeds=[0], **more)

    *_, wanted = sample(ddim_step, pipe.denoiser, x, time_grid(RectifiedFlow(), 3, shift=4.0), cond)
    assert torch.allclose(draw(shift=4.0), wanted.clamp(-1, 1), atol=1e-5)
    assert not torch.allclose(draw(), wanted.clamp(-1, 1), atol=1e-2)
    pipe.denoiser.schedule.shift = 4.0  # type: ignore[attr-defined]
    assert torch.allclose(draw(), wanted.clamp(-1, 1), atol=1e-5)


def test_a_denoiser_in_the_place_of_the_step_is_named():
    denoiser = ExactDenoiser(points("eight"), RectifiedFlow())
    with pytest.raises(ValueError, match=r"`denoiser` must have a schedule, .*got function: the step comes first"):
        next(sample(denoiser, ddim_step, torch.zeros(1, 2), time_grid(RectifiedFlow(), 2)))  # type: ignore[arg-type]


def test_a_pipeline_begins_at_the_noise_end_of_its_schedule_and_not_beyond() -> None:
    times: list[float] = []

    def watched(denoiser: Any, x_t: torch.Tensor, t: Any, s: Any, *rest: Any, **more: Any) -> Any:
        times.append(float(t))
        return ddim_step(denoiser, x_t, t, s, *rest, **more)

    styles_pipe()("", steps=2, sampler=watched)
    assert times[0] == pytest.approx(0.999)  # of the cosine schedule, at whose t = 1 no picture is left


def test_drawing_keeps_no_graph_for_gradients() -> None:
    denoiser = NetDenoiser(MLP(), RectifiedFlow(), "flow")
    *_, x = sample(ddim_step, denoiser, torch.zeros(1, 2), time_grid(denoiser.schedule, 2))
    assert not x.requires_grad
