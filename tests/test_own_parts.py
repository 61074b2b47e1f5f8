"""Parts of one's own in the pipeline: a text encoder, styles, a network, a schedule."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import NET, small_net
from torch import Tensor

from minidiff.common import TextEmbedding, randn, seeded
from minidiff.denoisers import NetDenoiser
from minidiff.pipeline import TextToImage
from minidiff.samplers import ddim_step
from minidiff.schedules import CosineSchedule, RectifiedFlow
from minidiff.training import CheckpointError, Denoising, TensorSource, TrainConfig, train


class Letters:
    """A text encoder of somebody's own: no more than the protocol asks for."""

    dim = pooled_dim = 16

    def __call__(self, prompts: Any) -> TextEmbedding:
        tokens = torch.stack([torch.full((3, 16), float(len(prompt))) for prompt in prompts])
        return TextEmbedding(tokens, torch.ones(len(prompts), 3, dtype=torch.bool), tokens[:, 0])


def test_a_text_encoder_of_ones_own_needs_no_more_than_the_protocol(tmp_path: Path) -> None:
    pipe = TextToImage(NetDenoiser(small_net(), RectifiedFlow(), "flow"), Letters(), ["my-own"]).to("cpu")
    plain = pipe.generate(pipe.condition(["cat"]), 1, steps=2, seeds=[0])
    assert plain.isfinite().all() and len(pipe("cat", style="my-own", negative="dog", steps=1)) == 1
    assert pipe.styled("cat", "my-own") == "cat, my-own"
    with pytest.raises(ValueError, match="`style` must be one of my-own; got 'noto'"):
        pipe("cat", style="noto")
    with pytest.raises(ValueError, match="with a text encoder of your own cannot be saved: keep its denoiser"):
        pipe.save_pretrained(tmp_path)


def test_a_network_that_does_not_fit_is_refused_when_the_pipeline_is_made() -> None:
    gray = small_net(replace(NET, channels=1))
    for net, name in ((torch.nn.Conv2d(3, 3, 3), "Conv2d"), (gray, "UNet")):
        with pytest.raises(
            ValueError, match=rf"`denoiser` must be a NetDenoiser with a UNet for 3 channels, .*got {name}: draw"
        ):
            TextToImage(NetDenoiser(net, RectifiedFlow(), "flow"))
    with pytest.raises(ValueError, match=r"`denoiser` must be a NetDenoiser with a UNet .*got UNet: draw"):
        TextToImage(small_net())  # type: ignore[arg-type]


def test_a_network_that_answers_in_another_shape_is_refused_before_it_is_broadcast() -> None:
    denoiser, x = NetDenoiser(lambda x, t, cond: x[:, :1], RectifiedFlow(), "v"), torch.zeros(4, 3, 8, 8)  # type: ignore
    for ask in (lambda: denoiser.loss(x, None, seeded(0)), lambda: denoiser(x, 0.5)):
        with pytest.raises(
            ValueError, match=r"`net` must return the shape of x_t, \(4, 3, 8, 8\); got \(4, 1, 8, 8\)"
        ):
            ask()


def test_the_noise_alone_says_nothing_of_a_picture_that_is_all_noise() -> None:
    with pytest.raises(ValueError, match=r"`t` must lie where alpha\(t\) > 0 for \"eps\": start lower, or train"):
        TextToImage(NetDenoiser(small_net(), RectifiedFlow())).generate(None, 1, steps=2, seeds=[0])


def test_captions_that_nobody_would_read_are_refused() -> None:
    objective = Denoising(NetDenoiser(small_net(), RectifiedFlow(), "flow"))
    with pytest.raises(ValueError, match=r"`source` must give pairs .* use JointDenoising; got Tensor, list"):
        objective((torch.zeros(1, 3, 16, 16), ["a cat"]), seeded(0))  # type: ignore[arg-type]


def test_a_run_does_not_go_on_towards_another_target(tmp_path: Path) -> None:
    source, config = TensorSource(torch.zeros(4, 3, 16, 16)), TrainConfig(2, 4, progress=False)

    def go(target: str, schedule: Any) -> None:
        objective = Denoising(NetDenoiser(small_net().requires_grad_(True), schedule, target))
        train(objective, source, config, folder=tmp_path, device="cpu")

    go("flow", RectifiedFlow())
    for target, schedule in (("eps", RectifiedFlow()), ("flow", CosineSchedule())):
        with pytest.raises(CheckpointError, match=f"must stay 'flow under RectifiedFlow', .*got '{target} under "):
            go(target, schedule)


class VarianceExploding(RectifiedFlow):
    """alpha = 1, sigma = 80 t: all of the noise lies above the data."""

    def alpha(self, t: Any) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Any) -> Tensor:
        return 80 * t


def test_drawing_begins_with_as_much_noise_as_the_schedule_ends_with() -> None:
    pipe = TextToImage(NetDenoiser(small_net(), VarianceExploding(), "v"))
    begun: list[Tensor] = []

    def looking(denoiser: Any, x_t: Tensor, *rest: Any, **more: Any) -> Any:
        begun.append(x_t)
        return ddim_step(denoiser, x_t, *rest, **more)

    pipe.generate(None, 2, steps=1, seeds=[0, 1], sampler=looking)
    assert torch.allclose(begun[0], 80 * randn((2, 3, 16, 16), [seeded(0), seeded(1)]))


def test_a_precision_of_ones_own_is_torchs_autocast() -> None:
    pipe, seen = TextToImage(NetDenoiser(small_net(), RectifiedFlow(), "flow"), Letters()), set()
    pipe.denoiser.net.inlet.register_forward_hook(lambda layer, x, y: seen.add(y.dtype))  # type: ignore
    cond = pipe.condition(["cat", "dog"])
    whole = pipe.generate(cond, 2, steps=4, seeds=[0, 1])
    with torch.autocast("cpu", torch.bfloat16):
        half = pipe.generate(cond, 2, steps=4, seeds=[0, 1])
    assert seen == {torch.float32, torch.bfloat16} and half.dtype == torch.float32
    assert 0 < (half - whole).abs().mean() < 0.02
