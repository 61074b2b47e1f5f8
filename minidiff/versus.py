"""A GAN and a diffusion model side by side: equal data, equal computing time, equally many trials of their settings.

`python -m minidiff.versus` repeats the whole comparison on one CPU core and writes the table that chapter 1 shows.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import check_choice, randn, seeded
from minidiff.data.emoji import FOLDER, EmojiPictures, load_emoji, to_uint8
from minidiff.denoisers import NetDenoiser
from minidiff.gan import GANConfig, PictureGenerator, perceptron, picture_discriminator, train_gan
from minidiff.nets import MLP, UNet, UNetConfig
from minidiff.samplers import ddim_step, sample
from minidiff.schedules import CosineSchedule, time_grid
from minidiff.toy import Mixture, points
from minidiff.training.loop import TrainConfig, train
from minidiff.training.objectives import Denoising
from minidiff.training.sources import Source, TensorSource

RESULTS = Path(__file__).parent / "assets" / "results" / "gan_versus_diffusion.json"
FACES = ("face-smiling", "face-affection", "face-tongue", "face-neutral-skeptical", "face-concerned", "face-negative")
SIZE = 16  # px
DDIM_STEPS = 25

Sampler = Callable[[int, int], Tensor]  # (n, seed) -> samples
Watch = Callable[[int, Sampler], None]  # called during training with the step and the model as it is then
Look = Callable[[int, Callable[[], Sampler]], None]


@dataclass(frozen=True)
class Settings:
    """One trial: what is varied for either model. The step counts take the same computing time, see `STEPS`."""

    learning_rate: float
    r1: float = 1.0  # the GAN's
    target: str = "v"  # the diffusion model's


# Two settings of each model's own knob, times two learning rates: as many trials for the one as for the other.
TRIALS: dict[str, dict[str, list[Settings]]] = {
    "points": {
        "gan": [Settings(lr, r1=r1) for lr in (1e-3, 3e-3) for r1 in (0.02, 0.2)],
        "diffusion": [Settings(lr, target=t) for lr in (1e-3, 3e-3) for t in ("eps", "v")],
    },
    "pictures": {
        "gan": [Settings(lr, r1=r1) for lr in (5e-4, 2e-3) for r1 in (0.3, 3.0)],
        "diffusion": [Settings(lr, target=t) for lr in (1e-3, 3e-3) for t in ("eps", "v")],
    },
}
# Rounds of training: chosen so that both models of a pair take the same CPU time, measured and kept in the table.
STEPS = {("points", "gan"): 2000, ("points", "diffusion"): 2800}
STEPS |= {("pictures", "gan"): 500, ("pictures", "diffusion"): 500}
LONGER = 4  # on pictures, one run more with so many times the steps
SEEDS = {"points": 4, "pictures": 3}
BATCH = {"points": 256, "pictures": 32}
LOOKS = {"points": 40, "pictures": 6}  # how often a run is judged while it trains


def data(kind: str) -> Tensor:
    """The training data, the same for both models: 10,000 points around eight peaks, or 302 emoji faces."""
    if check_choice("kind", kind, TRIALS) == "points":
        return points("eight").sample(10_000, seeded(0))[0]
    emoji = load_emoji()
    faces = EmojiPictures(emoji, size=SIZE, groups=["smileys-emotion"], one_per_base=False)
    keep = [i for i in faces.indices.tolist() if emoji.records[emoji.concept_of(i)].subgroup in FACES]
    return faces.batch(torch.tensor(keep))[0]


def data_hash() -> str:
    """SHA-256 of the bundled emoji's SHA256SUMS, as in a checkpoint's card; the points follow from a seed."""
    return hashlib.sha256((FOLDER / "SHA256SUMS").read_bytes()).hexdigest()


def fit(
    kind: str, model: str, settings: Settings, seed: int, steps: int | None = None, watch: Watch | None = None
) -> tuple[Sampler, dict[str, float]]:
    """Train one model from scratch; returns how to sample from it, and what it cost (CPU seconds, parameters).

    kind: "points" or "pictures"; model: "gan" or "diffusion"; watch: called `LOOKS` times, and not counted as cost.
    """
    check_choice("model", model, ("gan", "diffusion"))
    source, count = TensorSource(data(kind)), steps or STEPS[kind, model]
    watched = 0.0

    def look(step: int, sampler: Callable[[], Sampler]) -> None:
        nonlocal watched
        if watch is not None and step % max(1, count // LOOKS[kind]) == 0:
            began = time.process_time()
            watch(step, sampler())
            watched += time.process_time() - began

    began = time.process_time()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = _fit_gan if model == "gan" else _fit_diffusion
        sampler, networks = build(kind, source, settings, seed, count, look)
    parameters = [sum(p.numel() for p in network.parameters()) for network in networks]
    seconds = time.process_time() - began - watched
    return sampler, {"cpu_seconds": seconds, "steps": count, "parameters": sum(parameters)}


def _fit_gan(
    kind: str, source: Source, settings: Settings, seed: int, steps: int, look: Look
) -> tuple[Sampler, list[nn.Module]]:
    latent = 2 if kind == "points" else 64
    players: tuple[nn.Module, nn.Module] = (perceptron(2, 2), perceptron(2, 1))
    if kind == "pictures":
        players = (PictureGenerator(latent, SIZE), picture_discriminator(SIZE))
    rate, decay = settings.learning_rate, _ema_decay(steps)
    config = GANConfig(steps, BATCH[kind], latent, rate, r1=settings.r1, ema_decay=decay, seed=seed)

    def sampler_of(result: Any) -> Sampler:
        return lambda n, seed: result.sample(n, seeded(seed))

    result = train_gan(*players, source, config, lambda result: look(result.step, lambda: sampler_of(result)))
    return sampler_of(result), list(players)


def _fit_diffusion(
    kind: str, source: Source, settings: Settings, seed: int, steps: int, look: Look
) -> tuple[Sampler, list[nn.Module]]:
    shape = (2,) if kind == "points" else (3, SIZE, SIZE)
    network: nn.Module = MLP(dim=2, width=128, depth=3)
    if kind == "pictures":
        network = UNet(
            UNetConfig(SIZE, widths=(48, 64), attention=(False, False), blocks=1, embedding=64, dropout=0.0)
        )
    denoiser = NetDenoiser(network, CosineSchedule(), settings.target)

    def sampler_of(result: Any) -> Sampler:
        denoiser = result.ema_objective.denoiser

        def draw(n: int, seed: int) -> Tensor:
            *_, x = sample(
                ddim_step, denoiser, randn((n, *shape), seeded(seed)), time_grid(denoiser.schedule, DDIM_STEPS)
            )
            return x

        return draw

    rate = settings.learning_rate
    config = TrainConfig(
        steps, BATCH[kind], rate, weight_decay=0.0, ema_decay=_ema_decay(steps), seed=seed, progress=False
    )
    result = train(
        Denoising(denoiser),
        source,
        config,
        device="cpu",
        on_step=lambda result: look(result.step, lambda: sampler_of(result)),
    )
    return sampler_of(result), [network]


def _ema_decay(steps: int) -> float:
    """An average over about the last tenth of a run."""
    return 1 - 10 / steps if steps > 20 else 0.5


def score_points(x: Tensor, mixture: Mixture) -> dict[str, float]:
    """How well points (N, 2) match a mixture.

    on_data: share of points within 3 standard deviations of a peak (0.989 for the data themselves). modes: peaks that
    have at least a quarter of their share of points. overlap: sum over peaks of min(share found, share due), 1 = all
    points in place and all peaks served fairly.
    """
    distance, nearest = torch.cdist(x.double(), mixture.means).min(1)
    near = distance <= 3 * mixture.stds[nearest]
    found = torch.bincount(nearest[near], minlength=len(mixture.means)) / len(x)
    modes = int((found >= mixture.weights / 4).sum())
    overlap = float(torch.minimum(found, mixture.weights).sum())
    return {"on_data": float(near.double().mean()), "modes": modes, "overlap": overlap}


def score_pictures(x: Tensor, real: Tensor, k: int = 1) -> dict[str, float]:
    """How well pictures (N, ...) match real ones (M, ...), by distances between pixels.

    Around each real picture lies a ball that reaches to its k-th nearest other real picture. coverage: share of the
    balls that hold a sample (Naeem et al. 2020); on_data: share of samples that lie in some ball (Kynkäänniemi et al.
    2019, precision). overlap: the mean of the two.
    """
    x, real = x.flatten(1), real.flatten(1)
    radius = torch.cdist(real, real).kthvalue(k + 1, dim=1).values  # the nearest is the picture itself
    inside = torch.cdist(x, real) <= radius  # (N, M)
    coverage, on_data = float(inside.any(0).float().mean()), float(inside.any(1).float().mean())
    return {"on_data": on_data, "coverage": coverage, "overlap": (coverage + on_data) / 2}


def score(kind: str, x: Tensor) -> dict[str, float]:
    """`score_points` or `score_pictures`, against the data of that kind."""
    return score_points(x, points("eight")) if kind == "points" else score_pictures(x, data(kind))


def milliseconds_per_sample(sampler: Sampler, n: int) -> float:
    """CPU time to draw one of n samples."""
    began = time.process_time()
    sampler(n, 0)
    return 1000 * (time.process_time() - began) / n


def run(
    kind: str, model: str, settings: Settings, seed: int, steps: int | None = None
) -> tuple[Sampler, dict[str, Any]]:
    """Train and judge one model: how to sample from it, and its row of the table."""
    n, few = (2000, 500) if kind == "points" else (len(data(kind)), 100)
    course: list[list[float]] = []

    def watch(step: int, sampler: Sampler) -> None:
        course.append([step, round(score(kind, sampler(few, 1))["overlap"], 4)])

    sampler, cost = fit(kind, model, settings, seed, steps, watch)
    row = {"kind": kind, "model": model, "seed": seed, **asdict(settings), **cost}
    row |= {"ms_per_sample": milliseconds_per_sample(sampler, n), **score(kind, sampler(n, 0)), "course": course}
    print({key: value for key, value in row.items() if key != "course"}, flush=True)
    return sampler, {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}


def compare(kind: str, model: str) -> dict[str, Any]:
    """Try every setting once (seed 0), keep the best, and run it with other seeds; pictures once for longer, too."""
    trials, sheet = TRIALS[kind][model], []
    rows = [run(kind, model, settings, seed=0)[1] for settings in trials]
    best = trials[max(range(len(trials)), key=lambda i: rows[i]["overlap"])]
    for seed in range(1, SEEDS[kind] + 1):
        sampler, row = run(kind, model, best, seed)
        rows.append(row)
        sheet.append(sampler(16, 0))
    if kind == "pictures":
        sampler, row = run(kind, model, best, 1, LONGER * STEPS[kind, model])
        rows.append(row)
        _save_sheet(torch.stack([*sheet, sampler(16, 0)]), model)
    return {"chosen": asdict(best), "rows": rows}


def _save_sheet(pictures: Tensor, model: str) -> None:
    """A row of 16 pictures for each of the seeds, and one for the longer run."""
    from PIL import Image

    rows = to_uint8(pictures).permute(0, 3, 1, 4, 2).reshape(len(pictures) * SIZE, -1, 3)
    Image.fromarray(rows.numpy()).save(RESULTS.with_name(f"faces_{model}.png"), optimize=True)


def main(wanted: list[str]) -> None:
    """Renew the parts of the table that are asked for, all of them when none is."""
    for kind, model in [tuple(part.split("/")) for part in wanted] or list(STEPS):
        part = compare(kind, model)
        table = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        table["command"] = "OMP_NUM_THREADS=1 python -m minidiff.versus"
        table["device"] = f"one core of a {platform.machine()} processor, torch {torch.__version__.split('+')[0]}"
        table["data_sha256"] = data_hash()
        table.setdefault(kind, {})[model] = part
        RESULTS.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    main(sys.argv[1:])
