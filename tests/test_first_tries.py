"""What somebody tries first with parts of the library: it works as said, or one sentence says what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from small_models import BY_STYLE, NET, small_clip, small_net, small_pipe, styles_pipe
from torch import nn

from minidiff import checkpoints
from minidiff.common import check_choice, randn, seeded
from minidiff.data.folder import CaptionedPictures
from minidiff.data.pixels import to_float, to_uint8
from minidiff.denoisers import NetDenoiser, interpret
from minidiff.guidance import Guided
from minidiff.nets import MLP
from minidiff.nets.unet import UNet
from minidiff.pipeline import TextToImage
from minidiff.recipes_look import add_lora, save_lora, with_lora
from minidiff.samplers import ddim_step, sample
from minidiff.schedules import CosineSchedule, RectifiedFlow, forward_jump, time_grid
from minidiff.text import WordEncoder
from minidiff.training import ConditionDropout, Denoising, JointDenoising, TensorSource, TrainConfig, train

CONFIG = TrainConfig(steps=4, batch_size=2, warmup=0, progress=False)


def with_dropout() -> NetDenoiser:
    net = small_net(replace(BY_STYLE, labels=0, dropout=0.5))
    return NetDenoiser(net.requires_grad_(True), RectifiedFlow(), "flow").train()


def test_a_look_at_the_model_on_the_way_changes_nothing() -> None:
    source, weights = TensorSource(randn((4, 3, 16, 16), seeded(0))), []
    for looks in (False, True):
        denoiser = with_dropout()

        def look(result: Any, looks: bool = looks) -> None:
            if looks:
                TextToImage(result.objective.denoiser).generate(None, 1, steps=1, seeds=[0])

        weights.append(train(Denoising(denoiser), source, CONFIG, device="cpu", on_step=look))
    first, second = (list(result.objective.parameters()) for result in weights)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_prediction_has_no_dropout_and_a_loss_has() -> None:
    denoiser, x = with_dropout(), randn((4, 3, 16, 16), seeded(0))
    assert torch.equal(denoiser(x, 0.5).x0, denoiser(x, 0.5).x0)
    assert denoiser.net.training
    frozen = [module for module in denoiser.net.modules() if isinstance(module, nn.GroupNorm)]
    for module in frozen:
        module.eval()  # whatever was in training mode, and nothing else, is so afterwards
    modes = {module: module.training for module in denoiser.modules()}
    denoiser(x, 0.5)
    assert frozen and modes == {module: module.training for module in denoiser.modules()}
    denoiser.train()
    losses = [denoiser.loss(x, None, seeded(1), torch.full((4,), 0.5)) for _ in range(2)]
    assert not torch.equal(*losses)


def test_pictures_in_bytes_are_refused_and_floats_stay_as_they_are() -> None:
    pixels, x = torch.full((2, 3, 16, 16), 200, dtype=torch.uint8), randn((2, 3, 16, 16), seeded(0))
    with pytest.raises(ValueError, match=r"`x0` and `x_t` must be floating-point .*uint8 needs `to_float`"):
        forward_jump(RectifiedFlow(), pixels, torch.tensor([0.5, 0.5]), x)
    assert to_float(x) is x and torch.equal(to_uint8(to_float(pixels)), pixels)


def test_a_network_that_cannot_hear_is_not_spoken_to() -> None:
    deaf = NetDenoiser(UNet(replace(BY_STYLE, labels=0)), RectifiedFlow(), "flow")
    with pytest.raises(ValueError, match="`drop` must show no text to a network that reads none: "):
        Denoising(deaf, ConditionDropout())
    with pytest.raises(ValueError, match="`attention` must be on at some width, or `pooled_dim` given"):
        replace(NET, attention=(False, False), pooled_dim=None)
    with pytest.raises(ValueError, match="`encoder` is for a network that reads text, and this one reads none"):
        TextToImage(deaf, small_clip())


def test_one_condition_serves_any_number_of_pictures_with_and_without_guidance() -> None:
    pipe, x = small_pipe(), randn((3, 3, 16, 16), seeded(0))
    cond, times = pipe.condition("a red heart"), time_grid(pipe.denoiser.schedule, 2)
    assert cond is not None
    for denoiser in (pipe.denoiser, Guided(pipe.denoiser, scale=1.0), Guided(pipe.denoiser, scale=2.0)):
        *_, one = sample(ddim_step, denoiser, x, times, cond)
        *_, each = sample(ddim_step, denoiser, x, times, cond.expand(3))
        assert torch.allclose(one, each, atol=1e-5)


def test_one_prompt_is_one_prompt_for_a_model_without_words() -> None:
    for prompt in ("", "abc"):
        cond = styles_pipe().condition(prompt, "twemoji")
        assert cond is not None and cond.label is not None and cond.label.tolist() == [2]


def test_seeds_that_are_not_one_per_picture_are_refused_by_their_name() -> None:
    with pytest.raises(ValueError, match=r"`seeds` must be one per picture, as range\(4\); got \[0, 1\]"):
        small_pipe().generate(None, 4, seeds=[0, 1])


def test_arrays_become_data_and_wrong_labels_do_not() -> None:
    source = TensorSource(torch.as_tensor(np.zeros((4, 2))), torch.tensor([1, 2, 1, 2]))
    for net in (MLP(), MLP().double()):
        train(Denoising(NetDenoiser(net, CosineSchedule())), TensorSource(source.x), CONFIG, device="cpu")
    for labels in (torch.tensor([0.5, 0.7, 1.5, 1.0]), torch.tensor([1, -1, 1, 1])):
        with pytest.raises(ValueError, match="`labels` must be integers, 1 and up"):
            TensorSource(source.x, labels)
    with pytest.raises(ValueError, match=r"`pictures` must be a uint8 tensor, .*got ndarray"):
        CaptionedPictures(np.zeros((1, 3, 8, 8), np.uint8), ["a"])  # type: ignore[arg-type]


def test_a_schedule_works_wherever_its_times_are() -> None:
    schedule, t = CosineSchedule(), torch.tensor([0.5])
    before = schedule.alpha(t)
    assert schedule.alpha(t.to("meta")).shape == (1,) and torch.equal(schedule.alpha(t), before)


class Raw:
    """A source whose batches are whatever it was given."""

    def __init__(self, batch: Any) -> None:
        self.given = batch

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        return torch.arange(4)

    def batch(self, indices: Any, generator: Any) -> Any:
        return self.given


@pytest.mark.parametrize(
    ("batch", "got"),
    [
        (torch.zeros(2, 2), "got Tensor"),
        ((torch.zeros(2, 2), torch.ones(2)), "got Tensor, Tensor"),
        ((torch.zeros(2, 2), None, None), "got Tensor, NoneType, NoneType"),
    ],
)
def test_a_source_that_gives_something_else_is_told_what_to_give(batch: Any, got: str) -> None:
    objective = Denoising(NetDenoiser(MLP(), CosineSchedule()))
    with pytest.raises(ValueError, match=rf"`source` must give pairs .*for labels write .*; {got}"):
        train(objective, Raw(batch), CONFIG, device="cpu")
    with pytest.raises(ValueError, match="`source` must have order and batch, as a TensorSource; got Tensor"):
        train(objective, torch.zeros(4, 2), CONFIG, device="cpu")  # type: ignore[arg-type]


def test_an_encoder_that_cannot_be_trained_is_refused_before_training() -> None:
    with pytest.raises(ValueError, match="`encoder` must have tokenize and encode_ids"):
        JointDenoising(NetDenoiser(small_net(), RectifiedFlow(), "flow"), nn.Linear(1, 1), ConditionDropout())


def test_a_large_vocabulary_is_not_recited() -> None:
    encoder = WordEncoder(["<pad>", *(f"word{i}" for i in range(5000))], 4, dim=8, heads=1)
    ids, mask = encoder.tokenize(["Word4999, word0", ""])
    assert ids.tolist() == [[5000, 1, 0, 0], [0] * 4] and mask.sum().item() == 2
    with pytest.raises(ValueError, match=r"`words` must be one of word0, .*, \.\.\.; got 'hello'") as caught:
        encoder.tokenize(["hello"])
    assert len(str(caught.value)) < 600
    with pytest.raises(ValueError, match="`prompts` must have at most 4 words each; got 5"):
        encoder.tokenize(["word1 " * 5])
    with pytest.raises(ValueError, match=r"`x` must be one of a, b; got"):
        check_choice("x", "c", ["a", "b"])


def test_going_on_with_a_loaded_model_says_what_is_missing() -> None:
    loaded = NetDenoiser(small_net(), RectifiedFlow(), "flow")
    with pytest.raises(ValueError, match=r"requires a gradient: see requires_grad_\(True\)"):
        train(Denoising(loaded), TensorSource(torch.zeros(4, 3, 16, 16)), CONFIG, device="cpu")


def test_what_cannot_be_saved_says_how_to_keep_it(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="got MLP: keep the weights of another network by safetensors"):
        checkpoints.save_denoiser(tmp_path, NetDenoiser(MLP(), CosineSchedule()))


def test_lora_on_a_model_of_ones_own_is_trained_kept_and_drawn_with(tmp_path: Any) -> None:
    pytest.importorskip("peft")
    pipe, base = small_pipe(), small_pipe()
    with pytest.raises(ValueError, match="`net` must be a network that was given to `add_lora`"):
        save_lora(tmp_path / "none", base.denoiser.net)
    add_lora(pipe.denoiser.net)
    with pytest.raises(ValueError, match="`net` must be without LoRA"):
        add_lora(pipe.denoiser.net)
    source = TensorSource(randn((4, 3, 16, 16), seeded(0)))
    train(Denoising(pipe.denoiser), source, replace(CONFIG, learning_rate=0.1), device="cpu")
    with pytest.raises(ValueError, match="`denoiser` must be without LoRA to be saved: keep that with `save_lora`"):
        pipe.save_pretrained(tmp_path / "pipe")
    save_lora(tmp_path / "lora", pipe.denoiser.net)
    tuned, x = with_lora(base, tmp_path / "lora"), randn((2, 3, 16, 16), seeded(1))
    plain, ours, theirs = (p.denoiser(x, 0.5).x0 for p in (base, pipe, tuned))
    assert (ours - theirs).abs().max() < 0.01 < 0.1 < (plain - ours).abs().max()  # kept in half precision


def test_settings_out_of_range_are_refused_and_the_end_of_time_is_finite() -> None:
    denoiser, x = NetDenoiser(MLP(), CosineSchedule(), "v"), torch.zeros(2, 2)
    with pytest.raises(ValueError, match="`eta` must be a number from 0 to 1; got 2"):
        ddim_step(denoiser, x, 0.5, 0.4, eta=2)
    with pytest.raises(ValueError, match="`clip` must be a number from"):
        NetDenoiser(MLP(), CosineSchedule(), clip=-1.0)
    at_the_end = interpret("x0", x + 1, x + 1, torch.ones(2, 1), torch.zeros(2, 1))
    assert torch.equal(at_the_end.x0, x + 1) and torch.equal(at_the_end.eps, x)
