"""An interrupted run ends, bit for bit, where the straight one does; and nothing in its checkpoint is idle."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import NET
from torch import Tensor, nn

from minidiff.common import seeded
from minidiff.data.folder import CaptionedPictures
from minidiff.denoisers import NetDenoiser
from minidiff.nets.unet import UNet
from minidiff.schedules import RectifiedFlow
from minidiff.text import WordEncoder
from minidiff.training import (
    CheckpointError,
    ConditionDropout,
    JointDenoising,
    TensorSource,
    TrainConfig,
    TrainResult,
    train,
)
from minidiff.training.checkpoint import Checkpoint, latest, save

STEPS = 24  # three epochs of 8 batches and a remainder that is dropped


class Net(nn.Module):
    """Everything a resume can get wrong: dropout, noise from the generator, a buffer that training changes."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            layers = (nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.SiLU(), nn.Linear(width, 3))
            self.net = nn.Sequential(*layers)

    def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
        x, _ = batch
        eps = torch.randn(x.shape, generator=generator)
        return (self.net(x + eps) - eps).square().mean(1)


def config(**changes: Any) -> TrainConfig:
    settings = {"steps": STEPS, "batch_size": 4, "learning_rate": 0.05, "warmup": 4, "log_every": 5, "keep": 99}
    return TrainConfig(**{**settings, "progress": False, **changes})


def source(n: int = 35) -> TensorSource:
    return TensorSource(torch.randn(n, 3, generator=seeded(5)))


def run(folder: Path | None = None, stop: int | None = None, **changes: Any) -> TrainResult:
    on_step = (lambda r: r.step == stop) if stop else None
    return train(Net(), source(), config(**changes), folder=folder, device="cpu", on_step=on_step)


def weights(result: TrainResult) -> list[Tensor]:
    return [*result.objective.state_dict().values(), *result.ema.shadow.values()]


def distance(a: TrainResult, b: TrainResult) -> float:
    pairs = zip(weights(a), weights(b), strict=True)
    return max(float((x.double() - y.double()).abs().max()) for x, y in pairs)


@pytest.fixture(scope="module")
def straight() -> TrainResult:
    """The run that was never interrupted."""
    return run()


@pytest.mark.parametrize("stop", [1, 7, 8, 13, 23])  # 8 is the end of an epoch, the others are inside one
def test_an_interrupted_run_ends_bit_for_bit_where_the_straight_one_does(
    straight: TrainResult, tmp_path: Path, stop: int
) -> None:
    assert run(tmp_path, stop=stop).stopped == "on_step"
    torch.rand(3)  # whatever else the new process draws
    resumed = run(tmp_path)
    assert resumed.resumed_from == stop and resumed.step == STEPS
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(straight), strict=True))
    clock = ("seconds", "images_per_second")
    for one, other in zip(resumed.history, straight.history, strict=True):
        assert {k: v for k, v in one.items() if k not in clock} == {k: v for k, v in other.items() if k not in clock}
    assert json.loads((tmp_path / "history.json").read_text()) == resumed.history


def test_a_finished_run_is_not_trained_again_and_a_longer_one_goes_on(straight: TrainResult, tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.warns(UserWarning, match="is finished: nothing was trained"):
        again = run(tmp_path)
    assert again.resumed_from == STEPS and distance(again, straight) == 0
    assert run(tmp_path, steps=STEPS + 3).step == STEPS + 3


def without_step(now: Checkpoint, then: Checkpoint) -> Checkpoint:
    return replace(now, step=then.step)


def without_random(name: str) -> Callable[[Checkpoint, Checkpoint], Checkpoint]:
    return lambda now, then: replace(now, random={**now.random, name: then.random[name]})


def without(part: str) -> Callable[[Checkpoint, Checkpoint], Checkpoint]:
    return lambda now, then: replace(now, **{part: getattr(then, part)})


def without_moment(name: str) -> Callable[[Checkpoint, Checkpoint], Checkpoint]:
    def change(now: Checkpoint, then: Checkpoint) -> Checkpoint:
        old = {key: value for key, value in then.optimizer.items() if key.endswith("/" + name)}
        return replace(now, optimizer={**now.optimizer, **old})

    return change


PARTS: dict[str, Callable[[Checkpoint, Checkpoint], Checkpoint]] = {
    "weights": without("weights"),
    "averaged weights": without("ema"),
    "number of averages": without("ema_updates"),
    "optimizer: first moment": without_moment("exp_avg"),
    "optimizer: second moment": without_moment("exp_avg_sq"),
    "optimizer: its own step count": without_moment("step"),
    "step, and with it the learning rate": without_step,
    "epoch": without("epoch"),
    "position in the epoch": without("position"),
    "dropout's random state": without_random("cpu"),
    "noise's random state": without_random("noise-cpu"),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_a_checkpoint_is_needed(straight: TrainResult, tmp_path: Path, part: str) -> None:
    """With one part as it was at step 1 the run ends elsewhere, by 1e-3 and more."""
    run(tmp_path, stop=13, save_every=1)
    for path in tmp_path.glob("step-*"):
        if path.name not in ("step-00000001", "step-00000013"):
            shutil.rmtree(path)
    now = latest(tmp_path)
    shutil.rmtree(tmp_path / "step-00000013")
    then = latest(tmp_path)
    shutil.rmtree(tmp_path)
    assert now is not None and then is not None and (now.step, then.step) == (13, 1)
    save(tmp_path, now)
    assert distance(run(tmp_path, steps=STEPS), straight) == 0
    shutil.rmtree(tmp_path)
    save(tmp_path, PARTS[part](now, then))
    assert distance(run(tmp_path), straight) > 1e-3


def test_the_time_spent_before_an_interruption_counts(tmp_path: Path) -> None:
    run(tmp_path, stop=3)
    found = latest(tmp_path)
    assert found is not None
    save(tmp_path, replace(found, elapsed=540.0))
    resumed = run(tmp_path, steps=10**6, minutes=10, stop=8)
    assert resumed.seconds > 540 and resumed.progress == pytest.approx(0.9, abs=0.05)


def test_what_the_loop_counted_is_resumed(tmp_path: Path) -> None:
    class Bad(Net):
        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            return super().forward(batch, generator) * float("nan")

    c = config(max_bad_steps=6, log_every=99)
    train(Bad(), source(), c, folder=tmp_path, device="cpu", on_step=lambda r: r.step == 4)
    with pytest.raises(RuntimeError, match="8 steps in a row"):
        train(Bad(), source(), c, folder=tmp_path, device="cpu", on_step=lambda r: r.step == 8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda d: run(d, seed=1), "`seed` must stay 0"),
        (lambda d: run(d, batch_size=5), "`batch_size` must stay 4"),
        (lambda d: train(Net(17), source(), config(), folder=d, device="cpu"), "has shape .* there and .* here"),
        (lambda d: train(nn.Sequential(Net()), source(), config(), folder=d, device="cpu"), "of another model"),
        (lambda d: train(Net(), source(36), config(), folder=d, device="cpu"), "made with 35 samples"),
    ],
    ids=["seed", "batch size", "widths", "names", "data"],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, change: Any, sentence: str) -> None:
    run(tmp_path, stop=3)
    with pytest.raises(CheckpointError, match=sentence):
        change(tmp_path)


def test_other_settings_are_allowed_and_named(tmp_path: Path) -> None:
    run(tmp_path, stop=3)
    with pytest.warns(UserWarning, match="other settings than before: learning_rate"):
        run(tmp_path, learning_rate=0.01)
    others = TensorSource(torch.randn(35, 3, generator=seeded(6)))  # equally many, so that nothing else tells them
    with pytest.warns(UserWarning, match=r"other settings than before: (.*, )?data"):
        train(Net(), others, config(steps=STEPS + 1), folder=tmp_path, device="cpu")


def test_noise_that_is_drawn_afresh_is_not_what_the_run_began_with(tmp_path: Path) -> None:
    run(tmp_path, stop=3)
    found = latest(tmp_path)
    assert found is not None
    save(tmp_path, replace(found, random={}))  # as another number of processes leaves it
    seeds: list[int] = []

    class Heard(Net):
        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            seeds.append(generator.initial_seed())
            return super().forward(batch, generator)

    with pytest.warns(UserWarning, match="noise is drawn afresh"):
        train(Heard(), source(), config(), folder=tmp_path, device="cpu")
    train(Heard(), source(), config(steps=1), device="cpu")
    assert seeds[0] != seeds[-1]


def test_of_an_earlier_checkpoint_only_the_task_may_be_unknown(tmp_path: Path) -> None:
    run(tmp_path / "new", stop=3)
    found = latest(tmp_path / "new")
    assert found is not None
    del found.config["task"], found.config["learning_rate"]
    save(tmp_path / "old", found)
    with pytest.warns(UserWarning, match="other settings than before: learning_rate"):
        run(tmp_path / "old")
    del found.config["seed"]
    save(tmp_path / "older", found)
    with pytest.raises(CheckpointError, match="`seed` must stay None"):
        run(tmp_path / "older")


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(
    straight: TrainResult, tmp_path: Path
) -> None:
    run(tmp_path, stop=10, save_every=5, keep=2)
    (tmp_path / "step-00000010" / "state.json").write_bytes(b"")
    with pytest.warns(UserWarning, match="step-00000010 is damaged"):
        resumed = run(tmp_path, save_every=5, keep=2)
    assert resumed.resumed_from == 5 and distance(resumed, straight) == 0


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """As in a terminal: where a shell starts its background jobs, Ctrl-C does not reach them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def pressing(step: int, times: int = 1) -> Callable[[TrainResult], None]:
    def press(result: TrainResult) -> None:
        for _ in range(times if result.step == step else 0):
            signal.raise_signal(signal.SIGINT)

    return press


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_run_when_its_step_is_saved(straight: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"step 7 is saved in .*; the same call goes on"):
        train(Net(), source(), config(), folder=tmp_path, device="cpu", on_step=pressing(7))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = run(tmp_path)
    assert resumed.resumed_from == 7 and distance(resumed, straight) == 0


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_run_at_once_when_pressed_twice_or_with_nowhere_to_save(tmp_path: Path) -> None:
    for folder, press in ((tmp_path, pressing(7, times=2)), (None, pressing(7))):
        with pytest.raises(KeyboardInterrupt) as caught:
            train(Net(), source(), config(), folder=folder, device="cpu", on_step=press)
        assert "saved" not in str(caught.value)
    assert latest(tmp_path) is None
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_network_or_an_encoder_of_another_make_is_noticed_though_its_weights_fit(tmp_path: Path) -> None:
    captions = ["a cat", "a dog"]
    source = CaptionedPictures(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), captions)

    def go(steps: int, heads: int, head_dim: int) -> None:
        net = UNet(replace(NET, image_dim=None, head_dim=head_dim))
        denoiser = NetDenoiser(net, RectifiedFlow(), "flow")
        drop = ConditionDropout(text=0.9, image=0, both=0, none=0.1)
        objective = JointDenoising(denoiser, WordEncoder.of(captions, dim=16, heads=heads), drop)
        train(objective, source, TrainConfig(steps, 2, progress=False), folder=tmp_path, device="cpu")

    go(1, 4, 16)
    with pytest.warns(UserWarning, match="goes on with other settings than before: encoder, network"):
        go(2, 2, 8)
