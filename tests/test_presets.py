"""Every preset trains: it builds, runs, writes a model with its card, and goes on where it was cut off."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_emoji import SmallEmoji
from small_models import CLIP, small_clip

from minidiff import checkpoints, presets
from minidiff.checkpoints import BUNDLED, fingerprint, load_judge
from minidiff.clip import emoji_captions
from minidiff.common import CheckpointError, seeded
from minidiff.data import shapes
from minidiff.data.emoji import FOLDER, STYLES, load_emoji
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.pipeline import TextToImage
from minidiff.presets import PRESETS, run
from minidiff.presets_recipes import RECIPE_PRESETS
from minidiff.schedules import time_grid
from minidiff.training import ConditionDropout, TrainResult
from minidiff.training.ema import EMA

QUICK: dict[str, Any] = {"steps": 2, "batch_size": 4, "device": "cpu", "minutes": 500.0}


def small(config: UNetConfig) -> UNet:
    """The preset's U-Net with hardly any channels; what it is told and how it is folded stay."""
    widths = (8,) * (len(config.widths) - 1) + (16,)
    return UNet(replace(config, widths=widths, head_dim=8, embedding=16, blocks=1))


@pytest.fixture(scope="module")
def emoji() -> SmallEmoji:
    whole = load_emoji()
    groups = ("smileys-emotion", "animals-nature", "food-drink")
    rows = [r.index for r in whole.records if r.group in groups and r.held_out_keyword]
    splits: list[dict[str, str]] = [{} for _ in range(12)]
    splits[0], splits[1], splits[2] = {"noto": "test"}, {"noto": "validation"}, dict.fromkeys(STYLES, "unseen")
    return SmallEmoji(whole, rows[:: len(rows) // 12][:12], splits)


@pytest.fixture
def tiny(emoji: SmallEmoji, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small data and small networks, and otherwise the presets as they are."""

    def few(n: int, **settings: Any) -> shapes.ShapeScenes:
        return shapes_scenes(min(n, 8), **settings)

    shapes_scenes = shapes.ShapeScenes
    monkeypatch.setattr(shapes, "ShapeScenes", few)
    monkeypatch.setattr(presets, "load_emoji", lambda: emoji)
    monkeypatch.setattr(presets, "CAPTIONS", 3)
    monkeypatch.setattr(presets, "UNet", small)
    monkeypatch.setattr(presets, "MiniClipConfig", lambda: replace(CLIP, context=32))
    monkeypatch.setattr(presets, "load_clip", lambda name: small_clip())


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", sorted(PRESETS.keys() - RECIPE_PRESETS))  # the others: test_recipes.py
def test_a_preset_trains_and_leaves_a_model_with_its_card(name: str, tmp_path: Path) -> None:
    further: dict[str, Any] = {}
    if PRESETS[name].needs:
        further = {"start": str(tmp_path / "first")}
        run("emoji-64", tmp_path / "first", **QUICK)
    card = run(name, tmp_path / "out", seed=3, **further, **QUICK)
    assert json.loads((tmp_path / "out" / "card.json").read_text()) == json.loads(json.dumps(card))
    assert card["preset"] == name and card["steps"] == 2 and card["device"] == "CPU" and card["parameters"] > 0
    said = "".join(f" --{option} {value}" for option, value in further.items())
    assert card["command"] == f"minidiff train {name} --seed 3 --steps 2 --batch-size 4 --minutes 500.0{said}"
    assert card["config"]["seed"] == 3 and card["config"]["learning_rate"] == PRESETS[name].config.learning_rate
    emoji_sums = hashlib.sha256((FOLDER / "SHA256SUMS").read_bytes()).hexdigest()
    assert (card["data_sha256"] == emoji_sums) == (not name.startswith("shapes"))
    assert card["torch"] == torch.__version__ and card["seconds"] > 0 and card["images_per_second"] > 0
    assert card["flops_per_image"] > 1e4 and card["utilization"] is None
    assert card["flops_per_second"] == pytest.approx(card["flops_per_image"] * card["images_per_second"])
    assert (tmp_path / "out" / "samples.png").exists() == (name not in ("judge", "clip", "prior"))
    if name == "judge":
        assert load_judge(tmp_path / "out").bases
    elif name == "clip":
        checkpoints.load_clip(tmp_path / "out")
        assert set(card["measured"]) == {"retrieval", "held_out_keywords"}
    else:
        pipe = TextToImage.from_pretrained(tmp_path / "out")
        prompt = "" if name == "teaching" else "a red circle" if "shapes" in name else "cat"
        assert len(pipe(prompt, steps=1)) == 1 and pipe.card["preset"] == name
        assert pipe.styles == (() if "shapes" in name else STYLES)


@pytest.mark.usefixtures("tiny")
def test_a_run_that_was_cut_off_goes_on_and_ends_as_if_it_never_had_been(tmp_path: Path) -> None:
    torch.manual_seed(1)
    run("shapes-cpu", tmp_path / "whole", **QUICK)
    torch.manual_seed(2)  # what was drawn before must not matter
    stopped = run("shapes-cpu", tmp_path / "cut", on_step=lambda result: result.step == 1, **QUICK)
    assert stopped["steps"] == 1
    seen: list[int] = []
    resumed = run("shapes-cpu", tmp_path / "cut", on_step=lambda result: seen.append(result.step), **QUICK)
    assert resumed["steps"] == 2 and seen == [2]
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", ["emoji-cpu", "shapes-cpu"])
def test_training_may_begin_with_the_weights_of_a_trained_model(name: str, tmp_path: Path) -> None:
    run(name, tmp_path / "first", learning_rate=0.1, **QUICK)
    card = run(name, tmp_path / "second", start=str(tmp_path / "first"), learning_rate=0.0, **QUICK)
    first, second = (checkpoints.load_model(tmp_path / folder)[1] for folder in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
    assert card["start"] == fingerprint(TextToImage.from_pretrained(tmp_path / "first").denoiser.net)
    assert f"--start {tmp_path / 'first'}" in card["command"]
    stays = r"What is learned must stay 'flow under RectifiedFlow.*, or another folder"
    for folder, start in (("second", None), ("first", str(tmp_path / "second"))):  # runs that began otherwise
        with pytest.raises(CheckpointError, match=stays):
            run(name, tmp_path / folder, start=start, learning_rate=0.0, **QUICK | {"steps": 3})
    shaped = CheckpointError, r"`start` must be a model of the shape .* teaching does not fit"
    kind, said = (ValueError, "with a mini-CLIP, as emoji-64; teaching has none") if "emoji" in name else shaped
    with pytest.raises(kind, match=said):
        run(name, tmp_path / "third", start="teaching", **QUICK)


def test_only_what_has_a_u_net_is_compiled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`compile` must be left out for judge: only U-Nets are compiled"):
        run("judge", tmp_path / "judge", compiled=True, **QUICK)


@pytest.mark.usefixtures("tiny")
def test_building_a_model_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    run("shapes-cpu", tmp_path, **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("tiny")
def test_text_to_emoji_is_trained_at_the_times_at_which_it_will_be_asked() -> None:
    denoiser: Any = PRESETS["emoji-64"].build(torch.device("cpu"), "emoji-64").objective.denoiser
    trained, asked = (denoiser.draw_times(50_000, seeded(0), "cpu"), time_grid(denoiser.schedule, 12)[:-1])
    assert abs(trained.median() - asked.median()) < 0.05
    assert (trained >= 0.9).float().mean() > 0.5 * (asked >= 0.9).float().mean()
    assert (trained > 0.98).float().mean() > 0.01


@pytest.mark.usefixtures("tiny")
def test_a_preset_ships_the_average_and_not_the_last_weights(tmp_path: Path) -> None:
    seen: list[TrainResult] = []
    run("shapes-cpu", tmp_path, learning_rate=0.1, on_step=lambda result: seen.append(result), **QUICK)
    name, kept = "denoiser.net.inlet.weight", checkpoints.load_model(tmp_path)[1]
    average, last = (w[name].half().float() for w in (seen[-1].ema.shadow, seen[-1].objective.state_dict()))
    assert torch.equal(kept[name], average) and not torch.equal(kept[name], last)


@pytest.mark.usefixtures("tiny")
def test_a_preset_leaves_conditions_out_now_and_then_as_guidance_needs() -> None:
    for name in ("emoji-64", "emoji-cpu"):
        told: Any = PRESETS[name].build(torch.device("cpu"), "emoji-64").objective
        assert told.drop == ConditionDropout()
    labeled: Any = PRESETS["teaching"].build(torch.device("cpu"), None).objective
    assert labeled.label_drop == 0.2


@pytest.mark.usefixtures("tiny")
def test_the_tokenizer_never_reads_the_captions_of_unseen_pictures(
    emoji: SmallEmoji, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def train_tokenizer(captions: list[str], vocabulary: int) -> Any:
        read.extend(captions)
        return small_clip().tokenizer

    monkeypatch.setattr(presets, "train_tokenizer", train_tokenizer)
    PRESETS["clip"].build(torch.device("cpu"), None)
    captions = emoji_captions(emoji, 3, seed=0)
    unseen = {caption for index in emoji.split_indices("unseen").tolist() for caption in captions[index]}
    assert read and unseen and not unseen & set(read)


def test_what_ships_was_trained_with_the_defaults_that_a_preset_still_has() -> None:
    """A default that moves unnoticed would make of the next training another model than the book shows."""
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in BUNDLED.glob("*/card.json")]
    cards = [card for card in cards if card.get("preset") not in (None, "midjourney")]
    assert {"shapes-gpu", "teaching"} <= {card["preset"] for card in cards}
    for card in cards:
        config = json.loads(json.dumps(asdict(PRESETS[card["preset"]].config)))
        for name in ("betas", "ema_decay", "weight_decay", "clip_norm", "decay"):
            assert card["config"][name] == config[name], (card["preset"], name)


def test_the_networks_have_the_sizes_that_were_promised() -> None:
    """U-Net <= 8.5 M parameters, text tower <= 2 M, image tower <= 1.5 M."""

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        clip = presets.MiniClip(presets.MiniClipConfig(), small_clip().tokenizer)
        told: dict[str, Any] = {"context_dim": clip.dim, "pooled_dim": clip.pooled_dim, "image_dim": clip.pooled_dim}
        flagship, quick = (UNet(replace(c, **told)) for c in (UNetConfig(), presets.SMALL_EMOJI))
    assert count(flagship) <= 8.5e6 and count(quick) < count(flagship) / 2
    assert count(clip.model.text_model) <= 2e6 and count(clip.model.vision_model) <= 1.5e6


def unused(*_: Any) -> Any:
    raise AssertionError("built before the settings were checked")


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("emoji64", {}, r"`preset` must be one of .*; got 'emoji64'\. Did you mean 'emoji-64'"),
        ("shapes-cpu", {"steps": 0}, "`steps` must be an integer from 1 to 99999999; got 0"),
        ("shapes-cpu", {"steps": 10**9}, "`steps` must be an integer from 1 to 99999999; got 1000000000"),
        ("shapes-cpu", {"batch_size": 0}, "`batch_size` must be an integer from 1"),
        ("shapes-cpu", {"minutes": float("nan")}, "`minutes` must be a number from 1e-06 to 1e"),
        ("shapes-cpu", {"learning_rate": -1.0}, "`learning_rate` must be a number from 0 to 100; got -1"),
        ("shapes-cpu", {"seed": -1}, "`seed` must be an integer from 0"),
        ("shapes-cpu", {"device": "cuda:99"}, "`device` must be one of .*; got 'cuda:99'"),
        (
            "emoji-64-more",
            {"clip": "emoji-64"},
            "`start` must be given for emoji-64-more, which trains",
        ),
        ("shapes-cpu", {"clip": "emoji-64"}, "`clip` must be left out for shapes-cpu.*; got 'emoji-64'"),
        ("clip", {"start": "emoji-64"}, "`start` must be left out for clip: only models that draw.*; got 'emoji-64'"),
        ("shapes-cpu", {"precision": "fp16"}, "`precision` must be one of auto, bf16, fp32; got 'fp16'"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_built(
    name: str, settings: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for preset, entry in list(PRESETS.items()):
        monkeypatch.setitem(PRESETS, preset, replace(entry, build=unused))
    with pytest.raises(ValueError, match=sentence):
        run(name, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_clip_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`clip` must be one of .*; got 'no-such-clip'"):
        run("emoji-cpu", tmp_path, clip="no-such-clip", device="cpu")
    with pytest.raises(ValueError, match="`clip` must be a checkpoint with a mini-CLIP"):
        run("emoji-cpu", tmp_path, clip="teaching", device="cpu")


@pytest.mark.usefixtures("tiny")
def test_a_clip_may_lie_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    monkeypatch.setattr(presets, "fetch", lambda name: Path("downloaded") / name)

    def load(name: str) -> Any:
        loaded.append(name)
        return small_clip()

    monkeypatch.setattr(presets, "load_clip", load)
    run("emoji-cpu", tmp_path, clip="owner/name", **QUICK)
    assert loaded == [str(Path("downloaded", "owner", "name"))]


@pytest.mark.usefixtures("tiny")
def test_a_compiled_network_is_averaged_and_saved_like_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled by Dynamo, without the code generator, which takes minutes: what can break is the wrapping."""
    compiled: list[UNet] = []
    plain: Callable[..., None] = UNet.compile

    def quickly(self: UNet) -> None:
        compiled.append(self)
        plain(self, backend="eager")

    monkeypatch.setattr(presets, "UNet", UNet)
    monkeypatch.setattr(UNet, "compile", quickly)
    net = replace(presets.SHAPES, widths=(8, 16), attention=(False, False), head_dim=8, embedding=16)
    entry = replace(PRESETS["shapes-cpu"], build=partial(presets.build_shapes, net=net, scenes=8))
    monkeypatch.setitem(PRESETS, "shapes-cpu", entry)
    card = run("shapes-cpu", tmp_path / "compiled", compiled=True, **QUICK)
    assert len(compiled) == 1 and card["command"].endswith(" --compile")
    run("shapes-cpu", tmp_path / "plain", **QUICK)
    a, b = (checkpoints.load_model(tmp_path / name)[1] for name in ("compiled", "plain"))
    assert a.keys() == b.keys() and all(torch.allclose(a[k], b[k], atol=2e-3) for k in a)
    assert isinstance(copy.deepcopy(EMA(compiled[0]).module()), UNet)


@pytest.mark.usefixtures("tiny")
def test_none_is_a_setting_like_any_other(tmp_path: Path) -> None:
    card = run("shapes-cpu", tmp_path, **QUICK | {"minutes": None, "clip_norm": None})
    assert card["config"]["minutes"] is None and card["config"]["clip_norm"] is None
    assert "minutes=None" in card["command"]
