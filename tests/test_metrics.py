"""Distances, copies and diversity against cases whose answers are known."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor

from minidiff.common import seeded
from minidiff.metrics import (
    bootstrap,
    copies,
    diversity,
    foreground,
    foreground_distance,
    frechet_distance,
    kernel_distance,
    nearest,
    score_pictures,
    wilson,
    with_interval,
)


def normal(n: int, d: int, seed: int, mean: float = 0.0, scale: float = 1.0) -> Tensor:
    return mean + scale * torch.randn(n, d, generator=seeded(seed))


def spot(y: int, x: int, color: tuple[float, float, float], side: int = 12) -> Tensor:
    """A square of one color on white, (1, 3, 64, 64)."""
    picture = torch.ones(1, 3, 64, 64)
    picture[0, :, y : y + side, x : x + side] = torch.tensor(color)[:, None, None]
    return picture


RED, BLUE = (1.0, -1.0, -1.0), (-1.0, -1.0, 1.0)


def test_kernel_distance_is_the_unbiased_mmd_written_out() -> None:
    x, y = normal(20, 5, 1), normal(20, 5, 2, mean=0.5)

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a.double() @ b.double().T / 5 + 1) ** 3

    off = ~torch.eye(20, dtype=torch.bool)
    expected = kernel(x, x)[off].mean() + kernel(y, y)[off].mean() - 2 * kernel(x, y).mean()
    assert kernel_distance(x, y) == pytest.approx(float(expected), rel=1e-6)


def test_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    values = torch.tensor([kernel_distance(normal(30, 4, 2 * i), normal(30, 4, 2 * i + 1)) for i in range(200)])
    assert abs(values.mean()) < 4 * values.std() / math.sqrt(200)
    assert (values < 0).any()  # unbiased, so not bounded below by 0


def test_kernel_distance_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    kernel_distance(normal(10, 4, 0), normal(10, 4, 1))
    assert torch.equal(before, torch.get_rng_state())


def test_frechet_distance_of_two_gaussians_is_the_formula() -> None:
    x, y = normal(20_000, 3, 0), normal(20_000, 3, 1, mean=2.0, scale=3.0)
    # |m1 - m2|^2 = 3 * 4; tr(I + 9 I - 2 * 3 I) = 3 * 4
    assert frechet_distance(x, y) == pytest.approx(24, rel=0.03)


@pytest.mark.parametrize("distance", [kernel_distance, frechet_distance])
def test_unequal_numbers_of_pictures_are_refused(distance) -> None:
    with pytest.raises(ValueError, match="one shape"):
        distance(normal(20, 3, 0), normal(21, 3, 1))
    with pytest.raises(ValueError, match="at least"):
        distance(normal(1, 3, 0), normal(1, 3, 1))


def test_a_distance_s_interval_is_as_wide_as_the_distance_varies() -> None:
    def pair(seed: int) -> tuple[Tensor, Tensor]:
        return normal(100, 4, 2 * seed), normal(100, 4, 2 * seed + 1, mean=0.7)

    fresh = torch.tensor([kernel_distance(*pair(seed)) for seed in range(150)])
    widths = [with_interval(kernel_distance, *pair(seed), draws=100, seed=seed) for seed in range(10)]
    width = sum((w.high - w.low) / 2 for w in widths) / 10
    assert width == pytest.approx(1.96 * float(fresh.std()), rel=0.35)


def test_the_bootstrap_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    hits = 0
    for seed in range(200):
        found = bootstrap(normal(40, 1, seed, mean=3.0), draws=300, seed=seed)
        hits += found.low <= 3.0 <= found.high
    assert 0.87 <= hits / 200 <= 0.99


def test_the_bootstrap_interval_of_many_values_is_the_one_of_a_normal_mean() -> None:
    values = normal(2000, 1, 0)
    found = bootstrap(values, draws=4000)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * float(values.std()) / math.sqrt(2000), rel=0.05)


def test_bootstrap_of_one_value_is_that_value_and_of_none_is_an_error() -> None:
    assert bootstrap(torch.tensor([0.5])).as_dict() == {"mean": 0.5, "low": 0.5, "high": 0.5}
    with pytest.raises(ValueError, match="at least one"):
        bootstrap(torch.tensor([]))


@pytest.mark.parametrize(("right", "n"), [(0, 70), (1, 70), (35, 70), (300, 300)])
def test_a_share_has_wilson_s_interval(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    found = wilson(right / n, n)
    assert (found.mean, found.low, found.high) == pytest.approx((right / n, expected.low, expected.high), abs=1e-4)


def test_values_that_belong_together_are_drawn_together() -> None:
    sums, counts = torch.tensor([2.0, 1.0, 3.0, 1.0]), torch.tensor([2, 1, 3, 1])
    assert bootstrap(sums, counts).as_dict() == {"mean": 1, "low": 1, "high": 1}
    assert bootstrap(torch.tensor([2.0, 0.0]), torch.tensor([2, 1])).as_dict() == pytest.approx(
        {"mean": 2 / 3, "low": 0, "high": 1}
    )


def test_diversity_is_the_mean_cosine_distance_over_all_pairs() -> None:
    x = normal(7, 5, 0)
    unit = x / x.norm(dim=1, keepdim=True)
    pairs = [1 - float(unit[i] @ unit[j]) for i in range(7) for j in range(7) if i != j]
    assert diversity(x) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert diversity(x[:1].expand(4, -1)) == pytest.approx(0, abs=1e-6)


def test_white_background_does_not_make_two_small_spots_alike() -> None:
    red, far, blue = spot(4, 4, RED), spot(44, 44, RED), spot(4, 4, BLUE)
    # Over the spot alone two of three channels differ by 2: sqrt(8 / 3); the white around it changes nothing.
    assert float(foreground_distance(red, blue)) == pytest.approx(math.sqrt(8 / 3), abs=0.01)
    # Apart, each is compared with white: in red's spot G and B differ by 2.
    assert float(foreground_distance(red, far)) == pytest.approx(math.sqrt(8 / 3), abs=0.01)
    assert float(foreground_distance(red, red)) == pytest.approx(0, abs=0.01)
    assert float(foreground_distance(torch.ones_like(red), torch.ones_like(red))) == 0


def test_pictures_are_compared_at_half_their_side_where_half_a_pixel_of_shift_is_no_difference() -> None:
    assert foreground(torch.zeros(1, 3, 64, 64)).shape == (1, 4 * 32 * 32)


def test_nearly_white_counts_as_white() -> None:
    red = spot(4, 4, RED)
    dusty = torch.where(red == 1, torch.full_like(red, 0.95), red)
    dusty[:, 0] = torch.where(red[:, 0] == 1, red[:, 0], dusty[:, 0])
    assert float(foreground_distance(red, dusty)) == pytest.approx(0, abs=0.01)


def test_nearest_finds_the_picture_itself_wherever_it_stands() -> None:
    pictures = torch.cat([spot(i % 40, (7 * i) % 40, RED if i % 2 else BLUE) for i in range(1100)])
    samples = ((pictures[[3, 1050]] + 1) * 127.5).to(torch.uint8)
    distance, which = nearest(samples, pictures, feature="pixels")
    assert torch.allclose(
        foreground_distance(pictures[which], pictures[[3, 1050]]).diagonal(), torch.zeros(2), atol=0.01
    )
    assert (distance < 0.02).all()
    ready = nearest(samples, foreground(pictures), feature="pixels")  # prepared once, for many samples
    assert torch.equal(ready[0], distance) and torch.equal(ready[1], which)
    features = normal(3000, 8, 0)
    distance, which = nearest(2 * features[[2999, 5]], features)
    assert which.tolist() == [2999, 5] and distance.abs().max() < 1e-5
    with pytest.raises(ValueError, match=r'must be rows of features .*; for pictures take "pixels"'):
        nearest(samples, pictures)


def test_a_copy_is_nearer_than_real_pictures_in_both_senses() -> None:
    real = torch.linspace(0.1, 1, 100), torch.linspace(0.2, 1, 100)
    samples = torch.tensor([0.01, 0.01, 0.5, 0.5]), torch.tensor([0.01, 0.9, 0.01, 0.9])
    flags, limits = copies(samples, real)
    assert flags.tolist() == [True, False, False, False]
    assert limits == (pytest.approx(0.109), pytest.approx(0.208))
    assert copies(real, real)[0].double().mean() <= 0.01


def test_the_ball_of_a_real_picture_ends_at_the_nearest_other_one() -> None:
    real = torch.tensor([[0.0], [1.0], [10.0]])
    assert score_pictures(torch.tensor([[-1.5]]), real)["on_data"] == 0  # beyond the ball around 0, of radius 1
    assert score_pictures(torch.tensor([[-0.5]]), real)["on_data"] == 1
