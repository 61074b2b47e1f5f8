"""The contest between a GAN and a diffusion model: its conditions are equal, and its stored results follow them."""

import json
import subprocess
import sys
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from minidiff.common import randn, seeded
from minidiff.gan import GANConfig, perceptron, train_gan
from minidiff.training.cost import multiply_accumulates
from minidiff.training.sources import TensorSource
from minidiff.versus import (
    KNOBS,
    NUDGED,
    NUDGES,
    PROTOCOL,
    RESULTS,
    _ema_decay,
    compare,
    data,
    data_hash,
    fit,
    rounds_within_budget,
)

PAIRS = [(kind, model) for kind, pair in KNOBS.items() for model in pair]
TABLE = json.loads(RESULTS.read_text(encoding="utf-8"))


def test_multiply_accumulates_are_counted_as_by_hand():
    layer, picture = nn.Conv2d(3, 5, 3), randn((2, 3, 8, 8), seeded(0))
    assert multiply_accumulates(lambda: layer(picture)) == 2 * 5 * 6 * 6 * 3 * 9
    # A round of a GAN without its penalty: weights of G and D, how often each is used, and no gradient for the noise
    # or the data at the bottom. Updating the generator, the discriminator's weights need no gradient.
    g, d, inlet = 2 * 128 + 2 * 128**2 + 128 * 2, 2 * 128 + 2 * 128**2 + 128, 2 * 128
    once = (g + 2 * (3 * d - inlet)) + (2 * d + 2 * g - inlet)
    source = TensorSource(randn((64, 2), seeded(0)))
    players = perceptron(2, 2), perceptron(2, 1)
    assert multiply_accumulates(lambda: train_gan(*players, source, GANConfig(1, 64, 2))) == 64 * once


@pytest.mark.parametrize(("kind", "model"), PAIRS)
def test_every_trial_costs_the_budget_to_the_last_round(kind, model):
    for trial in PROTOCOL["trials"][kind][model][1:]:  # the first is the one whose rounds were counted
        rounds = rounds_within_budget(kind, model)
        a_round = multiply_accumulates(partial(fit, kind, model, trial, 1, 8)) / 8
        assert 0 <= PROTOCOL["macs"][kind] - rounds * a_round < a_round


def test_both_models_try_equally_much_with_seeds_that_are_not_reported():
    for kind in KNOBS:
        gan, diffusion = (PROTOCOL["trials"][kind][model] for model in ("gan", "diffusion"))
        assert len(gan) == len(diffusion) == 4
        assert [t["learning_rate"] for t in gan] == [t["learning_rate"] for t in diffusion]
    assert PROTOCOL["chosen_by"]["seed"] not in PROTOCOL["reported_seeds"]


def test_a_seed_decides_a_training_whatever_was_drawn_before() -> None:
    trial, drawn = PROTOCOL["trials"]["points"]["diffusion"][0], []
    for before in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(before)
            drawn.append(fit("points", "diffusion", trial, 1, 3)[0](8, 0))
    assert torch.equal(*drawn)


def test_the_trial_with_the_largest_overlap_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    trials = PROTOCOL["trials"]["points"]["gan"]

    def run(kind: str, model: str, settings: dict[str, Any], seed: int) -> tuple[None, dict[str, int]]:
        return None, {"overlap": trials.index(settings)}

    monkeypatch.setattr("minidiff.versus.run", run)
    assert compare("points", "gan")["chosen"] == trials[-1]


def test_the_average_of_a_contestant_reaches_back_a_tenth_of_its_training() -> None:
    assert _ema_decay(1000) == pytest.approx(1 - 1 / 100)


def test_the_stored_results_follow_the_protocol():
    assert TABLE["protocol"] == PROTOCOL, "run `python -m minidiff.versus`"
    assert TABLE["data_sha256"] == data_hash()
    for kind, model in PAIRS:
        part, trials = TABLE[kind][model], PROTOCOL["trials"][kind][model]
        assert [row | trial for row, trial in zip(part["trials"], trials, strict=True)] == part["trials"]
        assert {row["seed"] for row in part["trials"]} == {PROTOCOL["chosen_by"]["seed"]}
        best = max(part["trials"], key=lambda row: row["overlap"])
        assert part["chosen"].items() <= best.items()
        assert [row["seed"] for row in part["reported"]] == PROTOCOL["reported_seeds"]
        assert all(part["chosen"].items() <= row.items() for row in part["reported"])
        rounds = {row["rounds"] for row in part["trials"] + part["reported"]}
        assert rounds == {rounds_within_budget(kind, model)}


def test_the_nudged_trials_are_of_the_same_contest_and_a_nudge_is_the_last_digit() -> None:
    nudged = json.loads(NUDGED.read_text(encoding="utf-8"))
    assert nudged["protocol"] == PROTOCOL and nudged["data_sha256"] == data_hash()
    for kind, model in PAIRS:
        assert [len(row) for row in nudged[kind][model]] == [len(NUDGES)] * len(PROTOCOL["trials"][kind][model])
    x = data("points")
    steps = [(x * (1 + nudge)).view(torch.int32) - x.view(torch.int32) for nudge in NUDGES]
    assert all(int(step.min()) >= 1 and int(step.max()) <= 10 for step in steps)
    trial = PROTOCOL["trials"]["points"]["diffusion"][1]
    plain, moved = (fit("points", "diffusion", trial, 1, 8, nudge=nudge)[0](64, 0) for nudge in (0.0, NUDGES[-1]))
    assert 0 < (plain - moved).abs().max() < 1e-4


def test_a_mistyped_argument_does_not_start_the_contest() -> None:
    command = [sys.executable, "-m", "minidiff.versus", "nudge"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # before it would write anything
    assert done.returncode == 1 and done.stderr == "The contest takes no argument but nudged; got nudge.\n"


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match=r"`activation` must be .*leaky_relu.*tanh"):
        perceptron(2, 2, activation="tanh")
    assert not torch.equal(
        perceptron(1, 1)[1](torch.tensor(-1.0)), perceptron(1, 1, activation="silu")[1](torch.tensor(-1.0))
    )
