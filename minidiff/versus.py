"""A GAN and a diffusion model side by side: equal data, equal computing, equally many trials of their settings.

Everything that could favor one of them is fixed here, in `PROTOCOL`, before the first run (three entries were changed
later, the score of pictures, "clip" and "clip_norm"; chapter 1 says when and for whose sake): the budget, counted in
multiply-accumulates and not in the seconds of a busy machine; the trials; the seed on which a trial is chosen, which
is never reported; and the seeds that are. `python -m minidiff.versus` runs the whole contest on one CPU core, once,
and writes the table that chapter 1 shows. `python -m minidiff.versus nudged` repeats all trials with training data
that are larger by a few times 2^-23, the last digits of 32-bit numbers, and stores their overlaps beside the table.
"""

from __future__ import annotations

import functools
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import check_choice, randn, seeded
from minidiff.data.emoji import EmojiPictures, data_hash, load_emoji
from minidiff.denoisers import NetDenoiser
from minidiff.gan import GANConfig, PictureGenerator, perceptron, picture_discriminator, train_gan
from minidiff.metrics import score_pictures
from minidiff.nets import MLP, UNet, UNetConfig
from minidiff.samplers import ddim_step, sample
from minidiff.schedules import CosineSchedule, time_grid
from minidiff.toy import Mixture, points
from minidiff.training.cost import multiply_accumulates
from minidiff.training.loop import TrainConfig, train
from minidiff.training.objectives import Denoising
from minidiff.training.sources import Source, TensorSource

RESULTS = Path(__file__).parent / "assets" / "results" / "gan_versus_diffusion.json"
NUDGED = RESULTS.with_name("gan_versus_diffusion_nudged.json")  # all the same, but for the last digits of the data
NUDGES = [k * 2.0**-23 for k in range(1, 6)]  # 2^-23 is the relative step from one float32 to the next
FACES = ("face-smiling", "face-affection", "face-tongue", "face-neutral-skeptical", "face-concerned", "face-negative")
SIZE = 16  # px
DDIM_STEPS = 25

Sampler = Callable[[int, int], Tensor]  # (n, seed) -> samples
Watch = Callable[[int, Sampler], None]  # called during training with the step and the model as it is then
Look = Callable[[int, Callable[[], Sampler]], None]

RATES = (1e-3, 3e-3)  # the learning rates that both models try
KNOBS: dict[str, dict[str, tuple[str, list[Any]]]] = {  # and one setting of its own for each, with two values
    "points": {"gan": ("activation", ["leaky_relu", "silu"]), "diffusion": ("target", ["eps", "v"])},
    "pictures": {"gan": ("r1", [0.3, 3.0]), "diffusion": ("target", ["eps", "v"])},
}
PROTOCOL: dict[str, Any] = {
    "macs": {"points": 2e11, "pictures": 2e12},  # per training: multiply-accumulates of all matrix products
    "trials": {
        kind: {
            m: [{"learning_rate": rate, knob: v} for rate in RATES for v in values]
            for m, (knob, values) in pair.items()
        }
        for kind, pair in KNOBS.items()
    },
    "chosen_by": {"seed": 10, "score": "overlap"},
    "reported_seeds": [11, 12, 13],
    "batch": {"points": 256, "pictures": 32},
    "clip_norm": None,  # gradients of any length, for both
    "clip": {"points": None, "pictures": 1.0},  # where a denoiser's guesses end, as the GAN's do by its tanh
    "samples": {"points": 2000, "pictures": 302},  # as many as there are pictures
    "looks": {"points": [40, 500], "pictures": [8, 100]},  # judgments during a training, and by how many samples
}


def data(kind: str) -> Tensor:
    """The training data, the same for both models: 10,000 points around eight peaks, or 302 emoji faces."""
    if check_choice("kind", kind, KNOBS) == "points":
        return points("eight").sample(10_000, seeded(0))[0]
    emoji = load_emoji()
    faces = EmojiPictures(emoji, size=SIZE, groups=["smileys-emotion"], one_per_base=False)
    keep = [i for i in faces.indices.tolist() if emoji.records[emoji.concept_of(i)].subgroup in FACES]
    return faces.batch(torch.tensor(keep))[0]


@functools.cache
def rounds_within_budget(kind: str, model: str) -> int:
    """Rounds of training that the budget pays for: a round is one update of each network.

    Counted on the eight rounds of which one has the GAN's R1 penalty; no setting that is tried changes the count.
    """
    trial, counted = PROTOCOL["trials"][kind][model][0], GANConfig.r1_every
    macs = multiply_accumulates(lambda: fit(kind, model, trial, 0, counted))
    return int(PROTOCOL["macs"][kind] * counted / macs)


def fit(
    kind: str,
    model: str,
    settings: dict[str, Any],
    seed: int,
    rounds: int | None = None,
    watch: Watch | None = None,
    nudge: float = 0.0,
) -> tuple[Sampler, dict[str, float]]:
    """Train one model from scratch; returns how to sample from it, and what it cost (CPU seconds, parameters).

    kind: "points" or "pictures"; model: "gan" or "diffusion"; settings: one of PROTOCOL's trials; rounds: None for as
    many as the budget pays for; watch: called now and then, uncounted; nudge: a share by which the data are larger.
    """
    check_choice("model", model, ("gan", "diffusion"))
    source, count = TensorSource(data(kind) * (1 + nudge)), rounds or rounds_within_budget(kind, model)
    every, watched = max(1, count // PROTOCOL["looks"][kind][0]), 0.0

    def look(step: int, sampler: Callable[[], Sampler]) -> None:
        nonlocal watched
        if watch is not None and step % every == 0:
            began = time.process_time()
            watch(step, sampler())
            watched += time.process_time() - began

    began = time.process_time()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        build = _fit_gan if model == "gan" else _fit_diffusion
        sampler, networks = build(kind, source, seed, count, look, **settings)
    seconds = time.process_time() - began - watched
    parameters = sum(p.numel() for network in networks for p in network.parameters())
    return sampler, {"cpu_seconds": seconds, "rounds": count, "parameters": parameters}


def _fit_gan(
    kind: str,
    source: Source,
    seed: int,
    rounds: int,
    look: Look,
    learning_rate: float,
    activation: str = "leaky_relu",
    r1: float = 0.1,
) -> tuple[Sampler, list[nn.Module]]:
    latent = 2 if kind == "points" else 64
    players: tuple[nn.Module, nn.Module] = (
        perceptron(2, 2, activation=activation),
        perceptron(2, 1, activation=activation),
    )
    if kind == "pictures":
        players = (PictureGenerator(latent, SIZE), picture_discriminator(SIZE))
    batch, decay = PROTOCOL["batch"][kind], _ema_decay(rounds)
    config = GANConfig(rounds, batch, latent, learning_rate, r1=r1, ema_decay=decay, seed=seed)

    def sampler_of(result: Any) -> Sampler:
        return lambda n, seed: result.sample(n, seeded(seed))

    result = train_gan(*players, source, config, lambda result: look(result.step, lambda: sampler_of(result)))
    return sampler_of(result), list(players)


def _fit_diffusion(
    kind: str, source: Source, seed: int, rounds: int, look: Look, learning_rate: float, target: str
) -> tuple[Sampler, list[nn.Module]]:
    shape = (2,) if kind == "points" else (3, SIZE, SIZE)
    network: nn.Module = MLP(dim=2, width=128, depth=3)
    if kind == "pictures":
        network = UNet(
            UNetConfig(SIZE, widths=(48, 64), attention=(False, False), blocks=1, embedding=64, dropout=0.0)
        )
    denoiser = NetDenoiser(network, CosineSchedule(), target, clip=PROTOCOL["clip"][kind])

    def sampler_of(result: Any) -> Sampler:
        denoiser = result.ema_objective.denoiser

        def draw(n: int, seed: int) -> Tensor:
            *_, x = sample(
                ddim_step, denoiser, randn((n, *shape), seeded(seed)), time_grid(denoiser.schedule, DDIM_STEPS)
            )
            return x

        return draw

    batch, ema = PROTOCOL["batch"][kind], _ema_decay(rounds)
    # Like the GAN's: no decay of weights, a learning rate that stays what it is, and gradients as they are.
    same = {"weight_decay": 0.0, "warmup": 0, "decay": 0.0, "clip_norm": PROTOCOL["clip_norm"]}
    config = TrainConfig(rounds, batch, learning_rate, ema_decay=ema, seed=seed, progress=False, **same)
    result = train(
        Denoising(denoiser),
        source,
        config,
        device="cpu",
        on_step=lambda result: look(result.step, lambda: sampler_of(result)),
    )
    return sampler_of(result), [network]


def _ema_decay(rounds: int) -> float:
    """An average over about the last tenth of a run, for either model."""
    return 1 - 10 / rounds if rounds > 20 else 0.5


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


def score(kind: str, x: Tensor) -> dict[str, float]:
    """`score_points` or `score_pictures`, against the data of that kind."""
    return score_points(x, points("eight")) if kind == "points" else score_pictures(x, data(kind))


def milliseconds_per_sample(sampler: Sampler, n: int) -> float:
    """CPU time to draw one of n samples."""
    began = time.process_time()
    sampler(n, 0)
    return 1000 * (time.process_time() - began) / n


def run(kind: str, model: str, settings: dict[str, Any], seed: int) -> tuple[Sampler, dict[str, Any]]:
    """Train and judge one model: how to sample from it, and its row of the table."""
    n, few = PROTOCOL["samples"][kind], PROTOCOL["looks"][kind][1]
    course: list[list[float]] = []

    def watch(step: int, sampler: Sampler) -> None:
        course.append([step, round(score(kind, sampler(few, 1))["overlap"], 4)])

    sampler, cost = fit(kind, model, settings, seed, watch=watch)
    row = {"kind": kind, "model": model, "seed": seed, **settings, **cost}
    row |= {"macs_per_sample": multiply_accumulates(lambda: sampler(1, 0))}
    row |= {"ms_per_sample": milliseconds_per_sample(sampler, n), **score(kind, sampler(n, 0)), "course": course}
    print({key: value for key, value in row.items() if key != "course"}, flush=True)
    return sampler, {key: round(value, 5) if isinstance(value, float) else value for key, value in row.items()}


def compare(kind: str, model: str) -> dict[str, Any]:
    """Try every setting with the selection seed, keep the best, and run it with the seeds that are reported."""
    trials, chosen_by = PROTOCOL["trials"][kind][model], PROTOCOL["chosen_by"]
    tried = [run(kind, model, settings, chosen_by["seed"]) for settings in trials]
    best = max(range(len(trials)), key=lambda i: tried[i][1][chosen_by["score"]])
    runs = [run(kind, model, trials[best], seed) for seed in PROTOCOL["reported_seeds"]]
    if kind == "pictures":
        from torchvision.utils import save_image

        for name, shown in (("trials", tried), ("faces", runs)):
            rows = torch.cat([sampler(16, 0) for sampler, _ in shown])  # a row of 16 pictures for each run
            save_image(rows / 2 + 0.5, RESULTS.with_name(f"{name}_{model}.png"), nrow=16, padding=0)
    return {"chosen": trials[best], "trials": [row for _, row in tried], "reported": [row for _, row in runs]}


def compare_nudged(kind: str, model: str) -> list[list[float]]:
    """The overlap of every trial, again for each of the nudges."""
    n, seed = PROTOCOL["samples"][kind], PROTOCOL["chosen_by"]["seed"]
    rows = []
    for trial in PROTOCOL["trials"][kind][model]:
        samplers = (fit(kind, model, trial, seed, nudge=nudge)[0] for nudge in NUDGES)
        rows.append([round(score(kind, sampler(n, 0))["overlap"], 5) for sampler in samplers])
        print(kind, model, trial, rows[-1], flush=True)
    return rows


def main(nudged: bool = False) -> None:
    """Run the whole contest, or its trials nudged, and write the table anew, part by part."""
    table: dict[str, Any] = {
        "command": "OMP_NUM_THREADS=1 python -m minidiff.versus" + " nudged" * nudged,
        "device": f"one core of a {platform.machine()} processor, torch {torch.__version__.split('+')[0]}",
        "data_sha256": data_hash(),
        "protocol": PROTOCOL,
    }
    for kind, pair in KNOBS.items():
        for model in pair:
            table.setdefault(kind, {})[model] = (compare_nudged if nudged else compare)(kind, model)
            (NUDGED if nudged else RESULTS).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] not in ([], ["nudged"]):
        sys.exit(f"The contest takes no argument but nudged; got {' '.join(sys.argv[1:])}.")
    main(nudged=len(sys.argv) > 1)
