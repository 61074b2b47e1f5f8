"""What a card says of a run: the command that repeats it, its cost, and how much of the device it used."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from minidiff import cards
from minidiff.cards import OPTIONS, command, facts, flops_per_picture
from minidiff.cli import app
from minidiff.training.config import TrainConfig
from minidiff.training.ema import EMA
from minidiff.training.loop import TrainResult


def test_the_command_on_a_card_is_one_that_can_be_given() -> None:
    """A line for the shell; a call in Python where the shell has no such option."""
    said = {"steps": 2, "start": "shapes", "precision": "bf16"}
    line = command("shapes-cpu", said)
    assert line == "minidiff train shapes-cpu --steps 2 --start shapes --precision bf16"
    known = {option.opts[0] for option in typer.main.get_command(app).commands["train"].params}  # type: ignore
    assert {f"--{name.replace('_', '-')}" for name in OPTIONS} <= known
    call = command("shapes-cpu", {"steps": 2, "compile": True, "warmup": 5})
    assert call == "minidiff.presets.run('shapes-cpu', folder, steps=2, compiled=True, warmup=5)"


def test_the_cost_of_a_step_is_what_its_products_say() -> None:
    """A linear layer of 3 x 5 on 7 pictures: 2 * 3 * 5 FLOPs each forward, and as many for the weights' gradient."""

    class Source:
        def order(self, seed: int, epoch: int) -> torch.Tensor:
            return torch.arange(7)

        def batch(self, indices: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            return torch.ones(len(indices), 3)

    class Linear(torch.nn.Linear):
        def forward(self, batch: torch.Tensor, generator: Any = None) -> torch.Tensor:
            return super().forward(batch)

    layer = Linear(3, 5)
    assert flops_per_picture(layer, Source(), 7) == 2 * (2 * 3 * 5)
    assert layer.weight.grad is None


def test_a_card_names_no_commit_of_the_project_that_minidiff_is_installed_in(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def git(*words: str) -> None:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    git("commit", "--allow-empty", "-m", "mine")
    for place, known in ((".venv/lib/minidiff", False), ("minidiff", True)):
        (tmp_path / place).mkdir(parents=True)
        monkeypatch.setattr(cards, "__file__", str(tmp_path / place / "cards.py"))
        assert (cards._commit() is not None) == known


def test_counting_the_arithmetic_leaves_no_trace_in_what_is_trained():
    class Objective(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(3)

        def forward(self, batch, generator):
            return self.norm(batch)

    class Source:
        def order(self, seed, epoch):
            return torch.arange(9)

        def batch(self, indices, generator):
            return torch.ones(len(indices), 3)

    objective = Objective()
    flops_per_picture(objective, Source())
    assert objective.norm.num_batches_tracked == 0 and objective.norm.weight.grad is None


def test_what_has_no_option_is_said_as_a_call():
    assert command("clip", {"start": "my model"}) == "minidiff train clip --start 'my model'"
    said = command("shapes-cpu", {"minutes": None, "compile": True})
    assert said == "minidiff.presets.run('shapes-cpu', folder, minutes=None, compiled=True)"


@pytest.mark.parametrize(
    ("chip", "precision", "known"),
    [
        ("H100 80GB HBM3", "auto", True),
        ("H100 80GB HBM3", "fp32", False),
        ("GH200 480GB", "auto", True),
        ("T4", "fp32", True),
        ("T400 4GB", "fp32", False),
        ("T400 4GB", "auto", False),
    ],
)
def test_utilization_is_said_only_where_the_peak_is_that_of_the_precision(monkeypatch, chip, precision, known):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"NVIDIA {chip}")
    config, net = TrainConfig(steps=1, batch_size=1, precision=precision), torch.nn.Linear(1, 1)
    result = TrainResult(net, EMA(net, 0.9), step=1, seconds=1.0)
    used = facts(config, result, torch.device("cuda"), 10**9)["utilization"]
    assert (used is not None) == known
    if used is not None:  # of two devices each did half
        assert facts(config, result, torch.device("cuda"), 10**9, processes=2)["utilization"] == used / 2
