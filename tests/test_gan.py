"""The GAN's losses against values known by hand, and the scores of the contest against samples known in advance."""

import math

import pytest
import torch
from torch import nn

from minidiff.common import randn, seeded
from minidiff.gan import (
    GANConfig,
    PictureGenerator,
    discriminator_loss,
    generator_loss,
    perceptron,
    picture_discriminator,
    train_gan,
)
from minidiff.metrics import score_pictures
from minidiff.toy import points
from minidiff.training.sources import TensorSource
from minidiff.versus import score_points

EIGHT = points("eight")


def linear(weight, bias=0.0):
    layer = nn.Linear(len(weight), 1)
    layer.load_state_dict({"weight": torch.tensor([weight]), "bias": torch.tensor([bias])})
    return layer


def test_a_discriminator_that_knows_nothing_loses_two_log_two():
    x, fake = randn((64, 2), seeded(0)), randn((64, 2), seeded(1))
    blind = linear([0.0, 0.0])
    assert float(discriminator_loss(blind, x, fake)) == pytest.approx(2 * math.log(2))
    assert float(generator_loss(blind, fake)) == pytest.approx(math.log(2))
    confident = linear([0.0, 0.0], bias=20.0)  # "all of it is real": right about the data, wrong about the rest
    assert float(discriminator_loss(confident, x, fake)) == pytest.approx(20, abs=1e-4)
    assert float(generator_loss(confident, fake)) == pytest.approx(0, abs=1e-6)


def test_the_r1_penalty_is_half_the_squared_slope_at_the_data():
    x, fake = randn((64, 2), seeded(0)), randn((64, 2), seeded(1))
    steep = linear([3.0, -4.0])
    penalty = discriminator_loss(steep, x, fake, r1=0.2) - discriminator_loss(steep, x, fake)
    assert float(penalty) == pytest.approx(0.2 / 2 * 25, rel=1e-4)


def run(seed=0, steps=40, **options):
    source = TensorSource(EIGHT.sample(512, seeded(0))[0])
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        players = perceptron(2, 2, 32, 2), perceptron(2, 1, 32, 2)
    return train_gan(*players, source, GANConfig(steps, 128, 2, seed=seed, **options))


def test_the_same_seed_plays_the_same_game():
    assert torch.equal(run().sample(8, seeded(1)), run().sample(8, seeded(1)))
    assert not torch.equal(run().sample(8, seeded(1)), run(seed=1).sample(8, seeded(1)))


def test_training_moves_the_samples_towards_the_data():
    before, after = run(steps=1), run(steps=300)
    radius = [float(result.sample(500, seeded(1)).norm(dim=1).mean()) for result in (before, after)]
    assert abs(radius[1] - 1) < 0.3 < abs(radius[0] - 1)
    last, averaged = (after.sample(8, seeded(1), averaged=a) for a in (False, True))
    assert not torch.equal(last, averaged)


@pytest.mark.parametrize(("answer", "rounds"), [(True, 1), (1, 3)])
def test_only_true_ends_a_game(answer, rounds):
    seen, source = [], TensorSource(EIGHT.sample(256, seeded(0))[0])
    players = perceptron(2, 2), perceptron(2, 1)
    train_gan(*players, source, GANConfig(3, 128, 2), on_step=lambda result: (seen.append(result), answer)[1])  # type: ignore[func-returns-value]
    assert len(seen) == rounds


def test_the_picture_networks_fit_together():
    pictures = PictureGenerator()(randn((3, 64), seeded(0)))
    assert pictures.shape == (3, 3, 16, 16) and float(pictures.detach().abs().max()) <= 1
    assert picture_discriminator()(pictures).shape == (3, 1)
    with pytest.raises(ValueError, match="`size` must be 16 for 2 widths and patch 2; got 32"):
        PictureGenerator(size=32)


def test_the_scores_know_the_data_a_collapse_and_noise():
    data = score_points(EIGHT.sample(20_000, seeded(0))[0], EIGHT)
    assert data["on_data"] == pytest.approx(1 - math.exp(-4.5), abs=0.003)  # within 3 sigma, in two dimensions
    assert data["modes"] == 8 and data["overlap"] > 0.97
    collapse = score_points(EIGHT.means[:1].float().repeat(100, 1), EIGHT)
    assert collapse == {"on_data": 1.0, "modes": 1, "overlap": pytest.approx(1 / 8)}
    assert score_points(torch.zeros(100, 2), EIGHT) == {"on_data": 0.0, "modes": 0, "overlap": 0.0}


def test_the_picture_scores_tell_copies_few_copies_and_noise_apart():
    real = randn((100, 12), seeded(0))
    assert score_pictures(real, real)["overlap"] == 1
    few = score_pictures(real[:5].repeat(20, 1), real)
    assert few["on_data"] == 1 and few["coverage"] < 0.5
    assert few["overlap"] == pytest.approx(2 / (1 + 1 / few["coverage"]))
    assert score_pictures(real[:1].repeat(100, 1), real)["overlap"] < 0.1  # a collapse is worth nothing
    assert score_pictures(10 + real, real)["overlap"] == 0


def test_too_large_a_batch_is_refused():
    source = TensorSource(torch.zeros(10, 2))
    with pytest.raises(ValueError, match=r"`batch_size` must be at most the number .*\(10\).*; got 128"):
        train_gan(perceptron(2, 2), perceptron(2, 1), source, GANConfig(1, 128, 2))
