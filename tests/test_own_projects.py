"""What a project of one's own gets wrong: a sentence in place of silence or of a traceback."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_models import BY_STYLE, NET, small_clip, small_net, small_pipe
from torch import Tensor

from minidiff.checkpoints import load_denoiser, save_denoiser
from minidiff.common import CheckpointError, Condition, TextEmbedding, randn, seeded
from minidiff.data.folder import FolderPictures
from minidiff.denoisers import NetDenoiser
from minidiff.guidance import Guided
from minidiff.metrics import nearest
from minidiff.nets import MLP
from minidiff.pipeline import TextToImage
from minidiff.presets import run
from minidiff.samplers import STEPS, ddim_step, sample
from minidiff.schedules import SCHEDULES, CosineSchedule, RectifiedFlow, time_grid
from minidiff.text import HubTextEncoder, WordEncoder
from minidiff.training import ConditionDropout, Denoising, JointDenoising, TensorSource, TrainConfig, train
from minidiff.training.checkpoint import latest, save

LABEL = Condition(label=torch.tensor([1]))
SOME_LABEL = torch.tensor([1, 2, 1, 2])


def text(dim: int) -> Condition:
    return Condition(
        text=TextEmbedding(torch.ones(1, 2, dim), torch.ones(1, 2, dtype=torch.bool), torch.ones(1, dim))
    )


def test_what_the_network_cannot_read_is_no_longer_passed_over() -> None:
    by_text, by_style = (NetDenoiser(small_net(shape), RectifiedFlow(), "flow") for shape in (NET, BY_STYLE))
    points, x = NetDenoiser(MLP(), RectifiedFlow(), "flow"), randn((1, 3, 16, 16), seeded(0))
    times = time_grid(RectifiedFlow(), 1)
    for denoiser, cond, start, what in (
        (by_text, LABEL, x, "no label: leave `label` out, drop it always, or make the network with `labels`"),
        (
            by_style,
            text(16),
            x,
            "no text: leave `text` out, drop it always, or make the network with `context_dim` or `pooled_dim`",
        ),
        (points, LABEL, x[0, 0, 0].view(8, 2)[:1], "no label"),
        (by_style, Condition(image=torch.ones(1, 16)), x, "no image: .*`image_dim`"),
    ):
        for ask in (
            lambda d=denoiser, c=cond, s=start: d.loss(s, c, seeded(0)),
            lambda d=denoiser, c=cond, s=start: list(sample(ddim_step, d, s, times, c)),
            lambda d=denoiser, c=cond, s=start: list(sample(ddim_step, Guided(d, scale=2), s, times, c)),
        ):
            with pytest.raises(
                ValueError, match=rf"`cond` must hold only what the network reads, and that is {what}"
            ):
                ask()
            ask.__defaults__ = (denoiser, cond.null(), start)  # type: ignore[attr-defined]
            ask()  # what was dropped may be there
    unlabeled = Denoising(points, label_drop=1)  # of a source that always has labels
    train(unlabeled, TensorSource(torch.zeros(4, 2), SOME_LABEL), TrainConfig(1, 2, progress=False), device="cpu")
    with pytest.raises(ValueError, match="and that is no label"):
        small_pipe().generate(LABEL, 1, steps=1, seeds=[0])
    with pytest.raises(ValueError, match="and that is no label"):
        train(Denoising(points), TensorSource(torch.zeros(4, 2), SOME_LABEL), TrainConfig(1, 2), device="cpu")


def test_a_weak_model_that_reads_less_may_guide() -> None:
    strong, weak = (NetDenoiser(MLP(labels=n), RectifiedFlow(), "flow") for n in (2, 0))
    *_, x = sample(
        ddim_step, Guided(strong, weak=weak, scale=2), torch.ones(1, 2), time_grid(strong.schedule, 2), LABEL
    )
    assert x.isfinite().all()


def test_a_run_that_goes_on_with_another_experiment_says_so(tmp_path: Path) -> None:
    source = TensorSource(torch.ones(4, 2), SOME_LABEL)

    class Bent(RectifiedFlow):
        def __init__(self, factor: float = 3.0) -> None:
            super().__init__()
            self.factor = factor

        def sigma(self, t: Any) -> Tensor:
            return self.factor * t / (1 + (self.factor - 1) * t)

        def alpha(self, t: Any) -> Tensor:
            return 1 - self.sigma(t)

    def go(steps: int, schedule: Any, label_drop: float = 0.1, **how: Any) -> None:
        objective = Denoising(NetDenoiser(MLP(labels=2), schedule, "flow", **how), label_drop=label_drop)
        config = TrainConfig(steps, 2, progress=False)
        train(objective, source, config, folder=tmp_path, device="cpu")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        go(1, Bent())
        go(2, Bent())
    for steps, name, change in (
        (3, "label_drop", lambda: go(3, Bent(), 0.2)),
        (4, "label_drop, weighting", lambda: go(4, Bent(), weighting="min-snr")),
        (5, "time_sampling, weighting", lambda: go(5, Bent(), time_sampling="logit-normal")),
        (6, "schedule, time_sampling", lambda: go(6, Bent(5.0))),
    ):
        with pytest.warns(UserWarning, match=f"goes on with other settings than before: {name}"):
            change()
        assert (tmp_path / f"step-{steps:08d}").is_dir()


def test_what_an_earlier_checkpoint_does_not_say_is_no_change(tmp_path: Path) -> None:
    source, config = TensorSource(torch.ones(4, 2)), TrainConfig(1, 2, progress=False)
    objective = Denoising(NetDenoiser(MLP(), CosineSchedule()))
    train(objective, source, config, folder=tmp_path / "new", device="cpu")
    found = latest(tmp_path / "new")
    assert found is not None
    for name in (*objective.details, "data"):
        del found.config[name]
    save(tmp_path / "old", found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(objective, source, replace(config, steps=2), folder=tmp_path / "old", device="cpu")


def test_a_text_denoiser_without_its_encoder_says_where_the_encoder_goes(tmp_path: Path) -> None:
    save_denoiser(tmp_path, NetDenoiser(small_net(), RectifiedFlow(), "flow"))
    pipe = TextToImage.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"came without its encoder; got 'a cat': make it by TextToImage\(load_den"):
        pipe("a cat", steps=1)
    assert len(TextToImage(load_denoiser(tmp_path), small_clip())("a cat", steps=1)) == 1


@pytest.mark.parametrize("encoder", [small_clip(), WordEncoder.of(["a cat"])], ids=["clip", "words"])
def test_one_string_is_not_taken_for_a_list_of_letters(encoder: Any) -> None:
    with pytest.raises(ValueError, match=r"`prompts` must be a list of strings; got one string 'a cat': write \[p"):
        encoder("a cat")


def test_a_hub_encoder_checks_its_settings_before_it_loads() -> None:
    for settings, what in (
        ({"max_length": 2}, "`max_length` must be"),
        ({"device": "tpu"}, "`device` must be one of"),
    ):
        with pytest.raises(ValueError, match=what):
            HubTextEncoder("nobody/nothing", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(STEPS))
def test_a_denoiser_that_returns_a_plain_tensor_is_not_unpacked(name: str) -> None:
    class Plain:
        schedule = RectifiedFlow()

        def __call__(self, x_t: Tensor, t: Any, cond: Any = None) -> Tensor:
            return x_t

    x, times = torch.ones(2, 2), torch.tensor([0.9, 0.5])
    for denoiser in (Plain(), Guided(Plain(), scale=2)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"`denoiser` must return Prediction\(x0, eps\); got Tensor"):
            list(sample(STEPS[name], denoiser, x, times, LABEL))  # type: ignore[arg-type]


def test_pictures_in_the_wrong_range_are_noticed() -> None:
    x = torch.rand(4, 3, 8, 8, generator=seeded(0))
    for wrong in (x, 255 * x):
        with pytest.warns(UserWarning, match=r"`x` is nowhere below 0; .*take 2 \* x - 1"):
            TensorSource(wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for right in (2 * x - 1, torch.zeros(4, 3, 8, 8), x[:, 0, 0]):
            TensorSource(right)


def test_times_out_of_range_and_names_in_place_of_steps_are_refused() -> None:
    denoiser, x = NetDenoiser(MLP(), CosineSchedule()), torch.zeros(1, 2)
    for times in (torch.linspace(1000, 0, 5), torch.tensor([0.5, -0.1])):
        with pytest.raises(
            ValueError, match=r"`times` must be strictly decreasing, two or more, in \[0, 1\]; got \["
        ):
            list(sample(ddim_step, denoiser, x, times))
    list(sample(ddim_step, denoiser, x, torch.tensor([0.9, -1e-6])))  # rounding
    with pytest.raises(ValueError, match="`step` must be a function, as `ddim_step`; got 'ddim'"):
        list(sample("ddim", denoiser, x, time_grid(denoiser.schedule, 2)))  # type: ignore[arg-type]


def test_a_step_of_ones_own_is_a_sampler_without_a_name() -> None:
    pipe = small_pipe()
    named, given = (pipe("a cat", steps=2, sampler=sampler)[0] for sampler in ("ddim", ddim_step))
    assert named.tobytes() == given.tobytes()


def test_an_encoder_of_another_size_is_refused_with_both_numbers() -> None:
    denoiser = NetDenoiser(small_net(), RectifiedFlow(), "flow")
    encoder = WordEncoder.of(["a cat"], dim=12)
    for make in (
        lambda: TextToImage(denoiser, encoder),
        lambda: JointDenoising(denoiser, encoder, ConditionDropout()),
    ):
        with pytest.raises(
            ValueError, match="`encoder` must have dim 16, the network's `context_dim`; got one with 12"
        ):
            make()


def test_styles_are_no_more_than_the_labels() -> None:
    denoiser = NetDenoiser(small_net(BY_STYLE), RectifiedFlow(), "flow")
    with pytest.raises(ValueError, match="`styles` must be at most as many as the network's labels, 4; got 5"):
        TextToImage(denoiser, None, list("abcde"))


def test_what_is_likeliest_mistaken_in_a_training_is_said() -> None:
    denoiser, source, config = NetDenoiser(MLP(), CosineSchedule()), TensorSource(torch.ones(4, 2)), TrainConfig(1, 2)
    for make, what in (
        (
            lambda: train(denoiser, source, config, device="cpu"),
            r"`objective` must return a loss, .*Denoising\(denoiser",
        ),
        (lambda: Denoising(MLP()), "`denoiser` must have a loss, as a NetDenoiser has; got MLP"),
        (lambda: NetDenoiser(MLP, CosineSchedule()), r"`net` must be a network, as UNet\(config\), not its class"),  # type: ignore[arg-type]
        (lambda: train(Denoising(denoiser), source, {"steps": 1}, device="cpu"), r"`config` must be a TrainConfig"),  # type: ignore[arg-type]
        (lambda: TextToImage(MLP()), "`denoiser` must be a NetDenoiser with a UNet for 3 channels, .*got MLP"),  # type: ignore[arg-type]
        (lambda: Condition(text="a cat"), r"`text` must be what an encoder says, .*got 'a cat'"),  # type: ignore[arg-type]
        (lambda: Condition(label=[1]), r"`label` must be integers, one per row, .*got \[1\]"),  # type: ignore[arg-type]
        (lambda: Condition(label=torch.tensor([0.5])), r"`label` must be integers, one per row, .*0\.5"),
        (
            lambda: MLP(labels=2)(torch.ones(1, 2), torch.ones(1), Condition(label=torch.tensor([3]))),
            "from 0 .* to 2",
        ),
    ):
        with pytest.raises(ValueError, match=what):
            make()


def test_a_schedule_is_asked_once_before_it_is_used() -> None:
    class Odd(RectifiedFlow):
        def __init__(self, alpha: Any) -> None:
            super().__init__()
            self.given = alpha

        def alpha(self, t: Any) -> Any:
            return self.given(torch.as_tensor(t))

    for alpha, got in (
        (lambda t: t, r"\[1\.0, 1\.0, 1\.0\] at \[0\.25, 0\.75, 1\.0\]"),
        (lambda t: t[None], r"\[\[1\.0, 1\.0, 1\.0\]\]"),
        (lambda t: t * float("nan"), r"\[nan, nan, nan\]"),
    ):
        with pytest.raises(
            ValueError, match=rf"`schedule` must give numbers .*alpha / sigma falling, to 1 or less; got {got}"
        ):
            NetDenoiser(MLP(), Odd(alpha))
    NetDenoiser(MLP(), Odd(lambda t: 1.0))  # a number for all times is one, too


def test_a_schedule_that_is_not_registered_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(RectifiedFlow):
        pass

    monkeypatch.setitem(SCHEDULES, "own", Own)
    save_denoiser(tmp_path, NetDenoiser(small_net(BY_STYLE), Own(), "flow"))
    monkeypatch.delitem(SCHEDULES, "own")
    with pytest.raises(CheckpointError, match=r"got 'own'; one of your own is registered first, .*SCHEDULES\[\"name"):
        load_denoiser(tmp_path)


def test_what_a_fine_tune_begins_with_has_another_name(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ValueError, match="`start` must be left out for midjourney: it builds upon its `clip`"):
        run("midjourney", tmp_path, start="emoji-64", device="cpu")
    with pytest.raises(ValueError, match=r"`clip` must be a model that draws and has a mini-CLIP, .*shapes is none"):
        run("midjourney", tmp_path, clip="shapes", device="cpu")


def test_a_folder_without_any_caption_says_how_to_give_them(tmp_path: Path) -> None:
    for name in ("cats/1.png", "dogs/1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"has no caption \(captions\.csv has columns .*see from_torchvision\)"):
        FolderPictures(tmp_path, 8)
    (tmp_path / "captions.csv").write_text("file;caption\ncats/1.png;a cat\n")
    with pytest.raises(ValueError, match=r"row 1 of .* cannot be used \(its columns are file;caption\)"):
        FolderPictures(tmp_path, 8)


def test_gray_pictures_have_nearest_ones() -> None:
    x = 2 * torch.rand(3, 1, 32, 32, generator=seeded(0)) - 1
    distance, which = nearest(x[1:], x, "pixels")
    assert which.tolist() == [1, 2] and distance.max() < 1e-3
