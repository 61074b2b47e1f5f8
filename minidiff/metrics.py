"""How far generated pictures are from real ones, how alike among themselves, and whether they are copies.

Everything here works on vectors: one row per picture, of the judge's 64 features (`minidiff.judge`) or of pixels.
The distances of the literature are defined in Inception's features; in others they are *not* FID or KID, have
another scale, and mean something only beside the same distance between real pictures and real pictures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import check_choice, check_int, check_number, seeded
from minidiff.data.pixels import to_float

WHITE = 1 - 10 / 127.5  # paler than 245 of 255 in all channels is background: sheets are stored with loss
PIXEL_SIZE = 32  # px a side at which pixels are compared: half a pixel of shift is no difference
ROWS = 1024  # training pictures compared at once


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95% interval."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """As plain numbers, for JSON."""
        return asdict(self)


def kernel_distance(features: Tensor, reference: Tensor) -> float:
    """The squared maximum mean discrepancy with the kernel (x·y / D + 1)^3, unbiased, of (N, D) and (M, D).

        mean k(x, x') + mean k(y, y') - 2 mean k(x, y)
        x != x', y != y'

    The estimator of KID (Binkowski et al. 2018, arXiv:1801.01401), by torchmetrics, over all pairs at once. Around
    0, and below it by chance, when both come from one distribution. Raises ValueError unless N = M >= 2.
    """
    from torchmetrics.image.kid import poly_mmd

    _check_equal(features, reference, 2)
    return float(poly_mmd(reference.detach().cpu().double(), features.detach().cpu().double()))


def frechet_distance(features: Tensor, reference: Tensor) -> float:
    """The Fréchet distance between Gaussians fitted to (N, D) and (M, D).

        |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))

    The formula of FID (Heusel et al. 2017, arXiv:1706.08500), by torchmetrics. It is biased upwards, more so for
    few pictures: compare only at equal n. Raises ValueError unless N = M > D, where covariances have full rank.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    _check_equal(features, reference, features.shape[-1] + 1)
    as_given: Any = nn.Identity()  # the "feature extractor" of what already are features
    as_given.num_features = features.shape[1]
    metric = FrechetInceptionDistance(as_given).set_dtype(torch.float64)
    metric.update(reference.detach().cpu().double(), real=True)
    metric.update(features.detach().cpu().double(), real=False)
    return float(metric.compute())


def with_interval(
    distance: Callable[[Tensor, Tensor], float],
    features: Tensor,
    reference: Tensor,
    *,
    draws: int = 100,
    seed: int = 0,
) -> Interval:
    """A distance of (N, D) and (N, D), plus and minus 1.96 standard deviations of its values on random halves.

    A half drawn without replacement varies as much as all N pictures drawn afresh: 2/N * (1 - 1/2) = 1/N
    (subsampling, Politis & Romano 1994). Drawing with replacement, as the usual bootstrap does, would put equal
    pictures into one set, and both distances would take them for structure. Where both sets are alike, the interval
    is too wide, by up to sqrt(3), since there the kernel distance varies with 1/N^2. Raises ValueError when a half is
    too small for `distance`.
    """
    check_int("draws", draws, 2, 100_000)
    n = _check_equal(features, reference, 4)
    generator, mean = seeded(seed), distance(features, reference)
    estimates = []
    for _ in range(draws):
        first, second = (torch.randperm(n, generator=generator)[: n // 2].to(features.device) for _ in range(2))
        estimates.append(distance(features[first], reference[second.to(reference.device)]))
    spread = 1.96 * float(torch.tensor(estimates).std())
    return Interval(mean, mean - spread, mean + spread)


def bootstrap(values: Tensor, counts: Tensor | None = None, *, draws: int = 1000, seed: int = 0) -> Interval:
    """The mean of independent values (N,) and the 95% interval of the means of N drawn with replacement.

    Percentile bootstrap (Efron 1979); of few values the interval is a little narrow: of 16 normal ones it holds the
    true mean in 91% of cases, of 70 in 94%. One value has no interval: low = high = mean. counts: (N,), where each
    value is a sum over so many that belong together; the mean is then that of all of them. Raises ValueError without
    a value.
    """
    values = values.detach().cpu().double().flatten()
    if not len(values):
        raise ValueError("`values` must hold at least one number; got none.")
    check_int("draws", draws, 2, 1_000_000)
    counts = torch.ones_like(values) if counts is None else counts.detach().cpu().double()
    rows = torch.randint(len(values), (draws, len(values)), generator=seeded(seed))
    means = values[rows].sum(1) / counts[rows].sum(1)
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(values.sum() / counts.sum()), low, high)


def wilson(share: float, n: int) -> Interval:
    """A share of n independent trials and its 95% interval, which has a width at 0 and 1, too (Wilson 1927).

    (share + z^2 / 2n ± z sqrt(share (1 - share) / n + z^2 / 4n^2)) / (1 + z^2 / n),   z = 1.96
    """
    check_number("share", share, 0, 1)
    square = 1.96**2 / check_int("n", n, 1, 10**9)
    middle, spread = share + square / 2, (square * (share * (1 - share) + square / 4)) ** 0.5
    return Interval(share, *(max(0.0, end / (1 + square)) for end in (middle - spread, middle + spread)))


def diversity(features: Tensor) -> float:
    """The mean distance 1 - cos(x, x') over all pairs of different rows of (N, D): 0 = all the same picture.

    Raises ValueError for fewer than two rows.
    """
    n = len(features)
    if n < 2 or features.dim() != 2:
        raise ValueError(f"`features` must be (N, D) with at least 2 rows; got {tuple(features.shape)}.")
    unit = nn.functional.normalize(features.detach().cpu().double(), dim=-1)
    return float(1 - (unit.sum(0).square().sum() - n) / (n * (n - 1)))


def foreground(pictures: Tensor) -> Tensor:
    """What is drawn in pictures (B, 3, H, W), uint8 or in [-1, 1]: rows (B, 4 * 32 * 32) for `foreground_distance`.

    First the ink 1 - x of the three colors (one channel is gray), 0 on white, then a mask, 1 where a pixel is drawn.
    White is what is paler than 245 of 255.
    """
    x = nn.functional.adaptive_avg_pool2d(to_float(pictures).clamp(-1, 1).expand(-1, 3, -1, -1), PIXEL_SIZE)
    drawn = (x < WHITE).any(dim=1, keepdim=True)  # (B, 1, 32, 32)
    return torch.cat([(1 - x) * drawn, drawn], dim=1).flatten(1)


def ink_and_mask(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """The two parts (B, 3 * 32 * 32) and (B, 32 * 32) of `foreground`, of its rows or of pictures (B, 3, H, W)."""
    rows = pictures if pictures.dim() == 2 else foreground(pictures)
    ink, mask = rows.split([3 * PIXEL_SIZE**2, PIXEL_SIZE**2], dim=1)
    return ink, mask


def foreground_distance(pictures: Tensor, others: Tensor) -> Tensor:
    """Root mean square difference (N, M) of two sets of pictures, over the pixels where either is not white.

    In [0, 2], the unit of pixels in [-1, 1]. Most of an emoji is white: counting it too would call any two small
    ones alike. Two empty pictures have distance 0. Either set may be given as the rows of `foreground`.
    """
    (a, drawn_a), (b, drawn_b) = ink_and_mask(pictures), ink_and_mask(others)
    either = drawn_a.sum(1)[:, None] + drawn_b.sum(1) - drawn_a @ drawn_b.T  # |A or B| = |A| + |B| - |A and B|
    return torch.cdist(a, b) / (3 * either).sqrt().clamp(min=1)


def feature_distance(features: Tensor, others: Tensor) -> Tensor:
    """1 - cos of each pair of rows of (N, D) and (M, D): (N, M) in [0, 2]."""
    return 1 - nn.functional.normalize(features, dim=-1) @ nn.functional.normalize(others, dim=-1).T


def nearest(samples: Tensor, pictures: Tensor, feature: str = "feature") -> tuple[Tensor, Tensor]:
    """Each sample's distance to the nearest of `pictures`, (N,), and which one that is, (N,).

    feature: "feature" for rows of features (N, D), (M, D) compared by cosine; "pixels" for pictures (N, 3, H, W),
    (M, 3, H, W), uint8 or in [-1, 1], or rows of `foreground`, compared by `foreground_distance`.
    """
    check_choice("feature", feature, ("feature", "pixels"))
    if not len(pictures):
        raise ValueError("`pictures` must hold at least one picture to be near to; got none.")
    if feature == "feature" and not samples.dim() == pictures.dim() == 2:
        raise ValueError('`samples` and `pictures` must be rows of features (N, D); for pictures take "pixels".')
    compare = feature_distance if feature == "feature" else foreground_distance
    samples = to_float(samples) if samples.dim() == 2 else foreground(samples)
    found = [compare(samples, to_float(part.to(samples.device))).min(dim=1) for part in pictures.split(ROWS)]
    best, part = torch.stack([near.values for near in found]).min(dim=0)
    return best, torch.stack([near.indices for near in found]).gather(0, part[None])[0] + ROWS * part


def copies(
    distances: tuple[Tensor, Tensor], real_distances: tuple[Tensor, Tensor]
) -> tuple[Tensor, tuple[float, float]]:
    """Which samples are copies, (N,) booleans, and the two thresholds.

    A copy is nearer than 99% of real pictures are in both senses. The 1% make it strict, and "both"
    means that the same thing drawn anew is no copy. distances: of samples to their nearest training picture, in
    features and in foreground pixels, each (N,); real_distances: the same of held-out real pictures.
    """
    thresholds = tuple(float(torch.quantile(real.cpu().double(), 0.01)) for real in real_distances)
    near = [d.cpu().double() < limit for d, limit in zip(distances, thresholds, strict=True)]
    return near[0] & near[1], (thresholds[0], thresholds[1])


def _check_equal(features: Tensor, reference: Tensor, least: int) -> int:
    n = len(features)
    if features.dim() != 2 or features.shape != reference.shape or n < least:
        raise ValueError(
            f"`features` and `reference` must have one shape (N, D) with N at least {least}; "
            f"got {tuple(features.shape)} and {tuple(reference.shape)}."
        )
    return n


def score_pictures(x: Tensor, real: Tensor) -> dict[str, float]:
    """How well pictures (N, ...) match real ones (M, ...), by distances between pixels.

    Around each real picture lies a ball that reaches to the nearest other real picture. coverage: share of the
    balls that hold a sample (Naeem et al. 2020); on_data: share of samples that lie in some ball (Kynkäänniemi et al.
    2019, precision). overlap: their harmonic mean, so a collapse, all on the data and covering nothing, gets nothing.
    """
    x, real = x.flatten(1), real.flatten(1)
    radius = torch.cdist(real, real).kthvalue(2, dim=1).values  # the nearest is the picture itself
    inside = torch.cdist(x, real) <= radius  # (N, M)
    coverage, on_data = float(inside.any(0).float().mean()), float(inside.any(1).float().mean())
    overlap = 2 * coverage * on_data / max(coverage + on_data, 1e-9)
    return {"on_data": on_data, "coverage": coverage, "overlap": overlap}
