"""What would go wrong without a word is refused, or said: found by a student who built a project on the wheel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import NET, small_pipe, styles_pipe

from minidiff.checkpoints import save_model
from minidiff.common import Condition, alpha_sigma, randn, seeded
from minidiff.data.emoji import EmojiPictures, load_emoji
from minidiff.data.folder import CaptionedPictures, EncodedPictures, from_torchvision
from minidiff.denoisers import PARAMETERIZATIONS, NetDenoiser, interpret, target
from minidiff.gan import GANConfig
from minidiff.guidance import Guided
from minidiff.images import grid, to_images
from minidiff.metrics import diversity
from minidiff.nets import MLP, UNet, UNetConfig
from minidiff.pipeline import TextToImage
from minidiff.plotting import show
from minidiff.samplers import STEPS, check_settings, ddim_step, sample
from minidiff.schedules import (
    CosineSchedule,
    LinearSchedule,
    RectifiedFlow,
    forward_jump,
    markov_step,
    posterior,
    time_grid,
)
from minidiff.text import WordEncoder
from minidiff.toy import ExactDenoiser, points
from minidiff.training import CheckpointError, Denoising, TensorSource, TrainConfig, train
from minidiff.training.objectives import ConditionDropout

FLOW = RectifiedFlow()
EXACT = ExactDenoiser(points("eight"), FLOW)
X, Z = randn((4, 3, 4, 4), seeded(0)), randn((6, 2), seeded(1))
SHORT = TrainConfig(1, 2, progress=False)
DENOISER = NetDenoiser(MLP(dim=2), FLOW, "flow")


PAIR = CaptionedPictures(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), ["a cat", "a dog"])


class MathCosine(CosineSchedule):
    def alpha(self, t: Any) -> Any:
        return math.cos(t)


def nan_step(denoiser: Any, x_t: Any, t: Any, s: Any, cond: Any = None, **_: Any) -> Any:
    return x_t * float("nan"), None


def half_step(denoiser: Any, x_t: Any, t: Any, s: Any, cond: Any = None, **_: Any) -> Any:
    return x_t[:1], None


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a scale in the place of null": (lambda: Guided(EXACT, 4.0), "`null` must be .*scale="),  # type: ignore[arg-type]
    "steps as times, in a jump": (
        lambda: forward_jump(LinearSchedule(), X, torch.arange(4), X),
        "`t` must be from 0",
    ),
    "steps as times, in a loss": (lambda: DENOISER.loss(Z, t=torch.arange(6)), "`t` must be from 0"),
    "a step as a time, in a schedule": (lambda: LinearSchedule().alpha_bar(torch.tensor(500)), "`t` must be from 0"),
    "a step as a time, in flow": (lambda: FLOW.alpha(500), "`t` must be from 0"),  # type: ignore[arg-type]
    "times above 1": (lambda: DENOISER(Z, torch.full((6,), 500.0)), "`t` must be from 0"),
    "one time above 1": (lambda: DENOISER(Z, torch.tensor([0.5] * 5 + [2.0])), "`t` must be from 0"),
    "one time below 0": (lambda: DENOISER(Z, torch.tensor([0.5] * 5 + [-1.0])), "`t` must be from 0"),
    "times that are no numbers": (lambda: DENOISER.loss(Z, t=torch.full((6,), torch.nan)), "`t` must be from 0"),
    "steps as times, in the chain": (
        lambda: markov_step(LinearSchedule(), Z, torch.tensor([499]), torch.tensor([500]), Z),
        "`t` must be from 0",
    ),
    "the chain, backwards": (lambda: markov_step(FLOW, Z, 0.5, 0.4, Z), "`s` must not lie above `t`"),  # type: ignore
    "a step back, forwards": (lambda: posterior(FLOW, Z, Z, t=0.4, s=0.5), "`s` must not lie above `t`"),  # type: ignore
    "parts of other lengths": (lambda: Condition(image=X[:2].flatten(1), label=torch.ones(4).long()), "equally many"),
    "an image that is no tensor": (lambda: Condition(image=[1.0]), "`image` must be a tensor"),  # type: ignore
    "an image without rows": (lambda: Condition(image=torch.ones(128)), r"`image` must be a tensor \(B, D\)"),
    "a label without rows": (lambda: Condition(label=torch.tensor(3)), "`label` must be integers, one per row"),
    "a negative that is not read": (
        lambda: styles_pipe().generate(
            Condition(label=torch.tensor([1])), 1, seeds=[0], steps=1, null=Condition(image=torch.ones(1, 4))
        ),
        "`cond` must hold only what the network reads, and that is no image",
    ),
    "a negative size": (lambda: UNetConfig(image_dim=-3), "`image_dim` must be an integer"),
    "half a size": (lambda: UNetConfig(pooled_dim=0.5), "`pooled_dim` must be an integer"),  # type: ignore[arg-type]
    "two things to move away from": (
        lambda: Guided(small_pipe().denoiser, Condition(label=torch.tensor([1])), 2.0, weak=small_pipe().denoiser),
        "`null` and `weak` are two things to move away from: give one of them",
    ),
    "a shape of times that are drawn evenly": (
        lambda: NetDenoiser(MLP(), RectifiedFlow(), "flow", time_shape=(1.0, 1.4)),
        '`time_shape` needs time_sampling="logit-normal"',
    ),
    "an image shown to a network of words": (
        lambda: Denoising(
            NetDenoiser(UNet(replace(NET, image_dim=None)), RectifiedFlow(), "flow"), ConditionDropout()
        ),
        "`drop` must show no image to a network that reads none",
    ),
    "an encoder that nobody trains": (
        lambda: EncodedPictures(PAIR, WordEncoder.of(PAIR.captions)),
        "`encoder` must be frozen, as it would not be trained here: train it along by JointDenoising",
    ),
    "a style that no word names": (
        lambda: TextToImage(small_pipe().denoiser, WordEncoder.of(["a cat"], dim=16, heads=2), ["paper"]),
        "`words` must be one of a, cat; got 'paper'",
    ),
    "a schedule for single numbers": (
        lambda: NetDenoiser(MLP(), MathCosine(), "v"),
        r"`schedule` must compute with tensors, as torch.cos does, not math.cos",
    ),
    "one width": (lambda: UNetConfig(widths=32), "`widths` must be a tuple, one entry per level; got 32"),  # type: ignore[arg-type]
    "attention everywhere": (lambda: UNetConfig(attention=True), "`attention` must be a tuple"),  # type: ignore[arg-type]
    "heads that do not fit": (
        lambda: WordEncoder.of(["a cat"], dim=50),
        r"`dim` must be a multiple of heads \(4\); got 50",
    ),
    "no channels": (lambda: UNetConfig(widths=(0, 0, 0)), "`widths` must be an integer"),
    "less than no labels": (lambda: MLP(labels=-1), "`labels` must be an integer"),
    "betas for a GAN": (lambda: GANConfig(1, 1, betas=(2, 3)), "`betas` must be a number"),
    "one word as styles": (lambda: TextToImage(styles_pipe().denoiser, None, "art"), "`styles` must be a list"),
    "a start of another size": (
        lambda: small_pipe().generate(None, 1, seeds=[0], start=torch.zeros(1, 3, 32, 32)),
        r"`start` must be a tensor \(1 or 1, \*\(3, 16, 16\)\); got \(1, 3, 32, 32\)",
    ),
    "a picture of a style that is not held": (
        lambda: EmojiPictures(load_emoji(), size=4, styles=["noto"]).batch(torch.tensor([5, 5 + len(load_emoji())])),
        "`indices` must be of the source's styles; 1 are of others",
    ),
    "a weight beyond half precision": (
        lambda: save_model("nowhere", {}, {"w": torch.tensor([1e5])}),
        "`w` holds NaN, or numbers beyond 65,504",
    ),
    "a class and a half": (
        lambda: from_torchvision([(torch.zeros(3, 8, 8, dtype=torch.uint8), 1.7)], 8),
        "item 0 must have a class number",
    ),
    "weights in half precision": (
        lambda: train(Denoising(NetDenoiser(MLP(dim=2).bfloat16(), FLOW, "flow")), TensorSource(Z), SHORT),
        "`objective` must have weights of float32",
    ),
    "labels in the place of a condition": (
        lambda: DENOISER(Z, 0.5, torch.ones(6).long()),
        "`cond` must be a Condition",
    ),  # type: ignore
    "a sampler in capitals": (lambda: check_settings(sampler="DDIM"), "Did you mean 'ddim'"),
    "something to move towards": (
        lambda: small_pipe()("cat", negative="dog", guidance=0.5),
        "`negative` needs guidance above 1; got 0.5",
    ),
    "something to move away from, unguided": (
        lambda: small_pipe()("cat", negative="dog", guidance=1),
        "`negative` needs",
    ),
    "times of another batch": (lambda: DENOISER(Z, torch.rand(3)), r"one per sample \(6\); got shape \(3,\)"),
    "a time as text": (lambda: DENOISER(Z, "0.5"), "`t` must be from 0"),  # type: ignore[arg-type]
    "times as a list": (lambda: [*sample(ddim_step, EXACT, Z, [1.0, 0.0])], "`times` must be a tensor"),  # type: ignore
    "a step that loses samples": (lambda: [*sample(half_step, EXACT, Z, time_grid(FLOW, 2))], r"x_s first.*\(6, 2\)"),
    "NaN in a picture": (lambda: small_pipe()("a red heart", sampler=nan_step), "gave NaN"),
    "no picture": (lambda: small_pipe().generate(None, 0, seeds=[]), "`count` must be"),
    "numbers as styles": (lambda: TextToImage(styles_pipe().denoiser, None, [1, 2]), "`styles` must be names"),  # type: ignore
    "a style twice": (lambda: TextToImage(styles_pipe().denoiser, None, ["a", "a"]), "none twice"),
    "pictures as features": (lambda: diversity(X), r"`features` must be \(N, D\)"),
    "a grid of nothing": (lambda: grid([]), "`images` must hold at least one"),
    "a network's tuple": (lambda: NetDenoiser(lambda x, t, c: (x, t), FLOW, "flow")(Z, 0.5), "got tuple"),  # type: ignore
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused(case: str) -> None:
    call, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence):
        call()
    assert not Path("nowhere").exists()  # what is refused leaves no folder


@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_a_number_per_sample_multiplies_its_sample_where_batch_and_width_are_equal(kind: str) -> None:
    t = torch.tensor([0.2, 0.4, 0.6, 0.8])
    flat, shaped = (FLOW.alpha(t), FLOW.sigma(t)), alpha_sigma(FLOW, t, X)
    assert torch.equal(target(kind, X, X.flip(0), *flat), target(kind, X, X.flip(0), *shaped))
    for one, other in zip(interpret(kind, X, X.flip(0), *flat), interpret(kind, X, X.flip(0), *shaped), strict=True):
        assert torch.equal(one, other)


def test_a_schedule_whose_signal_only_rounds_to_zero_cannot_be_divided_by() -> None:
    class Quarter:
        def alpha(self, t: torch.Tensor) -> torch.Tensor:
            return torch.cos(torch.pi / 2 * t)

        def sigma(self, t: torch.Tensor) -> torch.Tensor:
            return torch.sin(torch.pi / 2 * t)

    with pytest.raises(ValueError, match=r'alpha.* > 0 for "eps"'):
        NetDenoiser(MLP(dim=2), Quarter(), "eps")(Z, 1.0)


def test_what_could_not_be_drawn_is_said_before_it_is_trained() -> None:
    with pytest.warns(UserWarning, match=r'"eps" says nothing of x0 where RectifiedFlow has no signal'):
        NetDenoiser(MLP(dim=2), FLOW, "eps")
    with pytest.warns(UserWarning, match="`label_drop` is 0.* 0.1 teaches it"):
        Denoising(NetDenoiser(MLP(dim=2, labels=3), FLOW, "flow"))
    with pytest.warns(UserWarning, match=r"`drop.none` is 0.* 0.1 teaches it"):
        Denoising(NetDenoiser(MLP(dim=2, pooled_dim=4), FLOW, "flow"), ConditionDropout(1, 0, 0, 0))
    with pytest.warns(UserWarning, match="`drop` is None.* 0.1 teaches it"):
        Denoising(NetDenoiser(MLP(dim=2, pooled_dim=4), FLOW, "flow"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        NetDenoiser(MLP(dim=2), CosineSchedule(), "eps")
        Denoising(NetDenoiser(MLP(dim=2, labels=3), FLOW, "flow"), label_drop=0.1)
        Denoising(DENOISER)


def test_a_folder_that_cannot_be_written_is_named_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    steps: list[int] = []
    with pytest.raises(CheckpointError, match="could not be written"):
        train(
            Denoising(DENOISER),
            TensorSource(Z),
            TrainConfig(3, 2, progress=False),
            folder=tmp_path / "file",
            device="cpu",
            on_step=lambda result: steps.append(result.step),  # type: ignore[func-returns-value, return-value]
        )
    assert steps == []


def test_steps_that_were_skipped_are_told() -> None:
    x = randn((8, 2), seeded(2))
    x[3] = float("nan")
    with pytest.warns(UserWarning, match="2 of 4 steps were skipped.*check the data for NaN"):
        train(Denoising(DENOISER), TensorSource(x), TrainConfig(4, 4, progress=False), device="cpu")


def test_what_is_of_another_kind_than_usual_is_taken() -> None:
    class Still:
        def alpha(self, t: torch.Tensor) -> float:
            return 0.7

        def sigma(self, t: torch.Tensor) -> torch.Tensor:
            return t

    class Same(Still):
        def alpha(self, t: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return torch.full_like(t, 0.7)

    one, other = Still(), Same()
    mixture, schedules = points("eight"), (one, other)
    for got, wanted in zip(*(ExactDenoiser(mixture, still)(Z, 0.5) for still in schedules), strict=True):  # type: ignore
        assert torch.equal(got, wanted)
    means = [mixture.posterior(still, Z[0], 0.5, 0.2).means for still in schedules]  # type: ignore[arg-type]
    assert torch.equal(*means)
    for step in STEPS.values():
        made = [step(ExactDenoiser(mixture, s), Z, 0.5, 0.2, generator=seeded(3))[0] for s in schedules]  # type: ignore
        assert torch.equal(*made)
    assert to_images(torch.zeros(1, 1, 4, 4))[0].getpixel((0, 0)) == (128, 128, 128)
    show(styles_pipe()([""], style=styles_pipe().styles[0], steps=1))  # PIL's own, too
    seeds = np.arange(2)
    assert len(styles_pipe().generate(Condition(label=torch.tensor([1, 2])), 2, steps=1, seeds=seeds)) == 2  # type: ignore
