"""Training survives numbers that are not finite, and ends when its time is up."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_training import Regression, config, data
from torch import Tensor, nn

from minidiff.training import TensorSource, TrainingDiverged, train

# --- bad numbers -------------------------------------------------------------------------------------------------


class Poisoned(Regression):
    """The loss, or only its gradient, is not finite in the calls named."""

    def __init__(self, calls: range, loss: float = math.nan, gradient: float = 1.0) -> None:
        super().__init__()
        self.calls, self.loss, self.gradient, self.count = calls, loss, gradient, 0

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        good = super().forward(batch, generator)
        bad, self.count = self.count in self.calls, self.count + 1
        if not bad:
            return good
        if self.gradient == 1.0:
            return good * self.loss
        # sqrt has an infinite slope at 0: a finite loss without a finite gradient
        return good + (self.matrix.sum() - self.matrix.sum().detach()).abs().sqrt()


@pytest.mark.parametrize(
    "bad",
    [{"loss": math.nan}, {"loss": math.inf}, {"gradient": math.inf}],
    ids=["loss nan", "loss inf", "only the gradient"],
)
def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(bad: dict[str, float]) -> None:
    steps: list[list[Tensor]] = []
    model = Poisoned(range(7, 10), **bad)
    result = train(
        model,
        TensorSource(data()),
        config(),
        device="cpu",
        on_step=lambda r: steps.append([p.detach().clone() for p in r.objective.parameters()]),  # type: ignore[func-returns-value]
    )
    same = [all(torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(steps)]
    assert [i + 1 for i, unchanged in enumerate(same) if unchanged] == [7, 8, 9]
    assert result.skipped == 3 and result.history[-1]["skipped"] == 3
    assert math.isfinite(result.history[-1]["loss"])
    assert all(p.isfinite().all() for p in [*model.parameters(), *result.ema.shadow.values()])


def test_a_step_that_is_not_finite_leaves_no_trace_in_the_averages_of_a_batch_normalization() -> None:
    class Normalized(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            x, cond = batch
            return super().forward((self.norm(x), cond), generator)

    x = torch.cat([torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.full((2, 4), math.nan)])
    model = Normalized()
    with pytest.warns(UserWarning, match="steps were skipped"):
        result = train(model, TensorSource(x), config(steps=8, batch_size=2, max_bad_steps=8), device="cpu")
    assert 0 < result.skipped < 8
    assert all(buffer.isfinite().all() and buffer.any() for buffer in model.buffers())


def test_a_bad_first_step_leaves_the_moments_untouched() -> None:
    model = Poisoned(range(1))
    train(model, TensorSource(data()), config(steps=2, warmup=0, decay=0), device="cpu")
    # AdamW's first step has length learning_rate in every coordinate; its second, with no first, would not.
    move = (model.bias - Regression().bias).abs()
    torch.testing.assert_close(move, torch.full_like(move, 1e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("kind", "name"), [({}, "loss"), ({"gradient": math.inf}, "gradient")])
def test_training_stops_with_the_reason_after_too_many_bad_steps_in_a_row(kind: Any, name: str) -> None:
    with pytest.raises(TrainingDiverged, match=f"the {name} was not a finite number for .* steps in a row"):
        train(
            Poisoned(range(3, 999), **kind),
            TensorSource(data()),
            config(steps=999, max_bad_steps=4),
            device="cpu",
        )
    scattered = Poisoned(range(3, 999, 2))
    result = train(scattered, TensorSource(data()), config(max_bad_steps=2), device="cpu")
    assert result.skipped == 9


# --- the clock ---------------------------------------------------------------------------------------------------


class Slow(Regression):
    """A hundredth of a second for each step, on a clock of its own: a busy machine changes nothing."""

    now = 0.0

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        Slow.now += 0.01
        return super().forward(batch, generator)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minidiff.training.loop.time", SimpleNamespace(monotonic=lambda: Slow.now))


def test_the_wall_clock_budget_ends_the_run_with_the_rate_at_zero() -> None:
    c = config(steps=10**6, minutes=1.0 / 60, log_every=1, warmup=0)
    result = train(Slow(), TensorSource(data()), c, device="cpu")
    rates = [entry["lr"] for entry in result.history]
    assert result.stopped == "minutes" and result.progress == 1.0 and 99 <= result.step <= 101
    assert rates[0] == 1e-3 and rates[-1] < 5e-5 and rates == sorted(rates, reverse=True)


def test_a_resumed_run_has_what_is_left_of_its_budget(tmp_path: Path) -> None:
    c = config(steps=10**6, minutes=1.2 / 60, save_every=10, log_every=1)
    first = train(Slow(), TensorSource(data()), c, folder=tmp_path, device="cpu", on_step=lambda r: r.seconds > 0.8)
    assert first.stopped == "on_step"
    second = train(Slow(), TensorSource(data()), c, folder=tmp_path, device="cpu")
    assert second.resumed_from == first.step and second.stopped == "minutes" and second.seconds >= 1.2
    assert 119 <= second.step <= 122


def test_the_speed_in_the_history_is_in_pictures_and_not_in_steps() -> None:
    first, second = train(Slow(), TensorSource(data()), config(steps=10, log_every=5), device="cpu").history
    assert second["images_per_second"] * (second["seconds"] - first["seconds"]) == pytest.approx(5 * 8)
