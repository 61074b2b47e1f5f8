"""Guidance: what its scale means, and that it changes nothing when it is off."""

from typing import Any

import pytest
import torch
from small_models import BY_STYLE, small_net, small_pipe

from minidiff.common import Condition, randn, seeded
from minidiff.denoisers import PARAMETERIZATIONS, NetDenoiser, target
from minidiff.guidance import Guided
from minidiff.nets import MLP
from minidiff.schedules import CosineSchedule, RectifiedFlow
from minidiff.toy import ExactDenoiser, points

X = randn((16, 2), seeded(0))
COND = Condition(label=torch.tensor([3]))


def denoisers():
    torch.manual_seed(0)
    return [ExactDenoiser(points("eight"), CosineSchedule()), NetDenoiser(MLP(labels=8), RectifiedFlow(), "flow")]


each_denoiser = pytest.mark.parametrize("denoiser", denoisers(), ids=["exact", "net"])


def assert_same(a, b):
    assert torch.allclose(a.x0, b.x0, atol=1e-5) and torch.allclose(a.eps, b.eps, atol=1e-5)


@each_denoiser
def test_scale_one_is_the_conditional_model_and_zero_the_unconditional(denoiser):
    assert_same(Guided(denoiser, scale=1.0)(X, 0.6, COND), denoiser(X, 0.6, COND))
    assert_same(Guided(denoiser, scale=1.0 + 1e-7)(X, 0.6, COND), denoiser(X, 0.6, COND))
    assert_same(Guided(denoiser, scale=0.0)(X, 0.6, COND), denoiser(X, 0.6))
    assert not torch.allclose(denoiser(X, 0.6).x0, denoiser(X, 0.6, COND.expand(16)).x0, atol=1e-3)


def test_guidance_that_is_off_costs_nothing():
    rows = []

    class Counted(ExactDenoiser):
        def __call__(self, x_t, t, cond=None):
            rows.append(len(x_t))
            return super().__call__(x_t, t, cond)

    denoiser = Counted(points("eight"), CosineSchedule())
    Guided(denoiser, scale=1.0)(X, 0.6, COND)
    Guided(denoiser, scale=3.0, interval=(0.0, 0.5))(X, 0.6, COND)
    Guided(denoiser, scale=3.0)(X, 0.6)  # no condition, nothing to exaggerate
    Guided(denoiser, scale=3.0)(X, 0.6, COND)
    assert rows == [16, 16, 16, 32]


@each_denoiser
@pytest.mark.parametrize("scale", [0.5, 3.0, 7.5])
def test_the_scale_multiplies_the_difference(denoiser, scale):
    with_label, without = denoiser(X, 0.6, COND.expand(16)), denoiser(X, 0.6)
    guided = Guided(denoiser, scale=scale)(X, 0.6, COND)
    assert torch.allclose(guided.x0, without.x0 + scale * (with_label.x0 - without.x0), atol=1e-4)
    # The guided picture and the guided noise still explain x_t.
    t = torch.tensor(0.6)
    explained = denoiser.schedule.alpha(t) * guided.x0 + denoiser.schedule.sigma(t) * guided.eps
    assert torch.allclose(explained, X, atol=1e-4)


def test_guidance_follows_the_sharpened_score():
    """score = score(x) + w (score(x | y) - score(x)): the slope of p(x) p(y | x)^w (Ho & Salimans 2022)."""
    mixture, schedule, w = points("eight"), CosineSchedule(), 4.0
    denoiser, x = ExactDenoiser(mixture, schedule), X.double().requires_grad_()
    noised = mixture.noised(schedule, 0.6)
    log_joint = noised._log_joint(x, torch.ones(16).double(), torch.zeros(16).double())
    sharpened = log_joint.logsumexp(1) + w * (log_joint[:, 2] - log_joint.logsumexp(1))  # label 3 is component 2
    (slope,) = torch.autograd.grad(sharpened.sum(), x)
    eps = Guided(denoiser, scale=w)(x.detach(), 0.6, COND).eps
    assert torch.allclose(-eps / schedule.sigma(torch.tensor(0.6).double()), slope, atol=1e-4)


@each_denoiser
def test_a_negative_condition_is_what_is_moved_away_from(denoiser):
    other = Condition(label=torch.tensor([6]))
    guided = Guided(denoiser, null=other, scale=2.0)(X, 0.6, COND)
    away, towards = denoiser(X, 0.6, other.expand(16)), denoiser(X, 0.6, COND.expand(16))
    assert torch.allclose(guided.x0, 2 * towards.x0 - away.x0, atol=1e-4)
    assert_same(Guided(denoiser, null=COND, scale=5.0)(X, 0.6, COND), towards)


def test_without_a_prompt_one_can_still_move_away():
    exact, x = ExactDenoiser(points("eight"), RectifiedFlow()), randn((4, 2), seeded(3)).double()
    unwanted = Condition(label=torch.tensor([1]))
    away = Guided(exact, null=unwanted, scale=5.0)(x, 0.5)
    plain, wrong = exact(x, 0.5), exact(x, 0.5, unwanted.expand(4))
    assert torch.allclose(away.x0, wrong.x0 + 5 * (plain.x0 - wrong.x0))
    assert not torch.allclose(away.x0, plain.x0)


@each_denoiser
def test_outside_its_interval_guidance_is_off_sample_by_sample(denoiser):
    guided = Guided(denoiser, scale=4.0, interval=(0.3, 0.7))
    t = torch.tensor([0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.1, 0.6]).repeat(2)
    on = (t >= 0.3) & (t <= 0.7)
    cond = COND.expand(16)
    got, full, off = guided(X, t, cond).x0, Guided(denoiser, scale=4.0)(X, t, cond).x0, denoiser(X, t, cond).x0
    assert torch.allclose(got, torch.where(on[:, None], full, off), atol=1e-4)


@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_rescaling_gives_back_the_contrast_of_the_conditional_output(kind):
    """Lin et al. 2024, equations 15 and 16: in the network's own output, per sample."""
    torch.manual_seed(0)
    schedule = CosineSchedule()
    denoiser = NetDenoiser(MLP(dim=12, labels=8), schedule, kind)
    x, cond, t = randn((16, 12), seeded(0)), COND.expand(16), torch.full((16,), 0.6)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]

    def output(prediction):
        return target(kind, prediction.x0, prediction.eps, alpha, sigma)

    full = output(Guided(denoiser, scale=6.0, rescale=1.0)(x, t, cond)).std(1)
    assert torch.allclose(full, output(denoiser(x, t, cond)).std(1), rtol=1e-3)
    none, half = (output(Guided(denoiser, scale=6.0, rescale=r)(x, t, cond)) for r in (0.0, 0.5))
    whole = output(Guided(denoiser, scale=6.0, rescale=1.0)(x, t, cond))
    assert torch.allclose(half, (none + whole) / 2, atol=1e-4)


def test_a_picture_is_rescaled_as_a_whole_and_not_row_by_row() -> None:
    """The contrast of one row of pixels says nothing about the picture's."""
    denoiser = NetDenoiser(small_net(BY_STYLE), RectifiedFlow(), "flow")
    x, cond = randn((2, 3, 16, 16), seeded(0)), Condition(label=torch.tensor([1, 2]))
    guided, free, plain = (
        said.eps - said.x0  # the network's own output
        for said in (
            Guided(denoiser, scale=6.0, rescale=1.0)(x, 0.6, cond),
            Guided(denoiser, scale=6.0)(x, 0.6, cond),
            denoiser(x, 0.6, cond),
        )
    )
    dims = (1, 2, 3)
    assert torch.allclose(guided, free * plain.std(dims, keepdim=True) / free.std(dims, keepdim=True), atol=1e-3)


def test_a_pipeline_hands_the_rescaling_and_the_interval_on() -> None:
    pipe = small_pipe()

    def draw(**how: Any) -> torch.Tensor:
        return pipe.generate(pipe.condition(["cat"]), 1, seeds=[0], steps=6, guidance=8.0, **how)

    for how in ({"rescale": 0.7}, {"interval": (0.5, 1.0)}):
        assert not torch.allclose(draw(**how), draw(), atol=1e-2), how


def test_autoguidance_moves_away_from_a_weaker_denoiser():
    strong, weak = ExactDenoiser(points("eight"), CosineSchedule()), ExactDenoiser(points("rings"), CosineSchedule())
    guided = Guided(strong, scale=1.5, weak=weak)(X, 0.4)
    good, bad = strong(X, 0.4).x0, weak(X, 0.4).x0
    assert torch.allclose(guided.x0, bad + 1.5 * (good - bad), atol=1e-5)
    torch.manual_seed(0)
    net = NetDenoiser(MLP(labels=8), CosineSchedule(), "v")
    told = Guided(strong, scale=1.5, weak=net)(X, 0.4, COND)  # both are told the condition
    good, bad = strong(X, 0.4, COND).x0, net(X, 0.4, COND.expand(16)).x0
    assert torch.allclose(told.x0, bad + 1.5 * (good - bad), atol=1e-5)
    with pytest.raises(ValueError, match="`weak` must have the schedule of the denoiser that it guides"):
        Guided(strong, scale=1.5, weak=denoisers()[1])


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, 101, "3"])
def test_a_scale_that_makes_no_sense_is_refused(scale):
    with pytest.raises(ValueError, match=r"`scale` must be a number from 0 to 100; got"):
        Guided(denoisers()[0], scale=scale)


def test_a_condition_that_says_nothing_is_none():
    net = NetDenoiser(MLP(dim=2, width=16, depth=1), RectifiedFlow(), "flow")
    x = torch.ones(3, 2)
    assert torch.equal(Guided(net, scale=3.0)(x, 0.5, Condition()).x0, net(x, 0.5).x0)


def test_an_empty_interval_is_refused():
    with pytest.raises(ValueError, match="`interval` must go from a smaller time to a larger one"):
        Guided(denoisers()[0], interval=(0.7, 0.3))
    with pytest.raises(ValueError, match=r"`interval` must go from .*; got \(0\.5,\)"):
        Guided(denoisers()[0], interval=(0.5,))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`interval` must go from .*; got 0\.5"):
        Guided(denoisers()[0], interval=0.5)  # type: ignore[arg-type]
