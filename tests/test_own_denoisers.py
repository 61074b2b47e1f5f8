"""A denoiser of one's own may read what it likes, say more than a pair, be trained, saved and compiled; a run
that goes on with other data says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from minidiff.common import Condition, seeded
from minidiff.data.folder import CaptionedPictures
from minidiff.denoisers import PARAMETERIZATIONS, NetDenoiser
from minidiff.nets import MLP
from minidiff.samplers import STEPS, sample
from minidiff.schedules import RectifiedFlow, time_grid
from minidiff.training import Denoising, TensorSource, TrainConfig, train
from minidiff.training.checkpoint import latest

LABEL = Condition(label=torch.tensor([1]))


class Richer(NamedTuple):
    x0: Tensor
    eps: Tensor
    variance: Tensor


class Steered:
    """Guided by a classifier of its own, which reads the label; the network inside does not."""

    def __init__(self) -> None:
        self.denoiser = NetDenoiser(MLP(), RectifiedFlow(), "flow")
        self.schedule, self.net = self.denoiser.schedule, self.denoiser.net

    def __call__(self, x_t: Tensor, t: Any, cond: Condition | None = None) -> Richer:
        assert cond is not None and cond.label is not None
        guess = self.denoiser(x_t, t)
        return Richer(guess.x0 + cond.label[:, None], guess.eps, torch.ones_like(x_t))


@pytest.mark.parametrize("step", list(STEPS.values()), ids=list(STEPS))
def test_a_denoiser_of_ones_own_reads_what_it_likes_and_may_say_more_than_a_pair(step: Any) -> None:
    steered: Any = Steered()
    *_, end = sample(step, steered, torch.ones(1, 2), time_grid(RectifiedFlow(), 2), LABEL, seeded(0))
    assert end.shape == (1, 2) and end.isfinite().all()


def test_a_run_of_a_denoiser_of_ones_own_is_saved(tmp_path: Path) -> None:
    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.weighting = torch.nn.Linear(2, 2), lambda snr: snr
            self.schedule, self.time_sampling, self.time_shape = RectifiedFlow(), "mine", (0.0, 1.0)

        def loss(self, x0: Tensor, cond: Condition | None, generator: torch.Generator) -> Tensor:
            return (self.layer(x0) - x0).square().mean(1)

    objective = Denoising(Own())
    train(objective, TensorSource(torch.ones(4, 2)), TrainConfig(1, 2, progress=False), folder=tmp_path, device="cpu")
    assert latest(tmp_path) is not None


@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_a_denoiser_compiles_in_one_graph(kind: str) -> None:
    denoiser = NetDenoiser(MLP(), RectifiedFlow(), kind).eval()
    compiled = torch.compile(denoiser, fullgraph=True, backend="eager")
    x, t = torch.ones(3, 2), torch.full((3,), 0.5)
    assert torch.allclose(compiled(x, t).x0, denoiser(x, t).x0)


def test_a_run_that_goes_on_with_other_data_says_so(tmp_path: Path) -> None:
    def go(steps: int, value: float) -> None:
        objective, source = Denoising(NetDenoiser(MLP(), RectifiedFlow())), TensorSource(torch.full((4, 2), value))
        train(objective, source, TrainConfig(steps, 2, progress=False), folder=tmp_path, device="cpu")

    go(1, 1.0)
    with pytest.warns(UserWarning, match="goes on with other settings than before: data"):
        go(2, 2.0)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    first, second = (CaptionedPictures(pictures, captions).digest for captions in (["a", "b"], ["a", "c"]))
    assert first != second
