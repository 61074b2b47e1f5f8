"""What a model is on disk: it comes back as it was, and whatever is not one is refused in a sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import BY_STYLE, NET, small_net, small_pipe, styles_pipe

from minidiff import checkpoints, schedules
from minidiff.common import CheckpointError, Condition, randn, seeded
from minidiff.data.emoji import STYLES
from minidiff.data.shapes import CAPTION_LENGTH, VOCABULARY
from minidiff.denoisers import PARAMETERIZATIONS, NetDenoiser
from minidiff.hub import model_card
from minidiff.nets.unet import UNet
from minidiff.pipeline import TextToImage
from minidiff.schedules import SCHEDULES, CosineSchedule, LinearSchedule, RectifiedFlow, make_schedule
from minidiff.text import WordEncoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small_pipe().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def change(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize("schedule", sorted(SCHEDULES))
@pytest.mark.parametrize("kind", PARAMETERIZATIONS)
def test_a_denoiser_comes_back_as_it_was(tmp_path: Path, schedule: str, kind: str) -> None:
    before = NetDenoiser(small_net(BY_STYLE), make_schedule(schedule), kind, clip=0.9)
    before.schedule.shift = 2.5  # type: ignore[attr-defined]
    checkpoints.save_denoiser(tmp_path, before, styles=["a", "b"])
    after = checkpoints.load_denoiser(tmp_path)
    assert after.schedule.shift == 2.5  # type: ignore[attr-defined]
    assert checkpoints.describe_denoiser(after) == checkpoints.describe_denoiser(before)
    assert not after.training and not any(p.requires_grad for p in after.parameters())
    x, cond = randn((2, 3, 16, 16), seeded(0)), Condition(label=torch.tensor([1, 3]))
    assert torch.allclose(after(x, 0.4, cond).x0, before(x, 0.4, cond).x0, atol=0.02)  # fp16 on disk
    assert json.loads((tmp_path / "config.json").read_text())["styles"] == ["a", "b"]


def test_a_word_encoder_comes_back_as_it_was(tmp_path: Path) -> None:
    encoder = WordEncoder(VOCABULARY, CAPTION_LENGTH, dim=16, layers=1, heads=2).eval()
    TextToImage(NetDenoiser(small_net(), make_schedule("flow"), "flow"), encoder).save_pretrained(tmp_path)
    again = TextToImage.from_pretrained(tmp_path)
    assert isinstance(again.encoder, WordEncoder) and again.styles == ()
    for before, after in zip(encoder(["a red circle"]), again.encoder(["a red circle"]), strict=True):
        assert torch.allclose(before.float(), after.float(), atol=0.01)


def test_a_model_is_half_precision_safetensors_and_json_and_nothing_that_could_run(folder: Path) -> None:
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["README.md", "card.json", "config.json", "model.safetensors", "tokenizer.json"]
    assert {v.dtype for v in load_file(folder / "model.safetensors").values() if v.is_floating_point()} == {
        torch.half
    }
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # whoever may read one may read all
    for name in ("card.json", "config.json", "tokenizer.json"):
        json.loads((folder / name).read_text())


def test_the_bundled_models_are_found_by_name_and_load() -> None:
    assert checkpoints.bundled() == ["emoji-64", "shapes", "teaching"]
    assert (checkpoints.bundled("look"), checkpoints.bundled("judge")) == (["midjourney"], ["judge"])
    with pytest.raises(ValueError, match=r"`checkpoint` must be one of emoji-64, shapes, teaching, .*got 'jugde'\.$"):
        TextToImage.from_pretrained("jugde")  # the judge draws nothing
    denoiser = checkpoints.load_denoiser("teaching")
    assert denoiser.parameterization == "eps" and denoiser.net.config.size == 32  # type: ignore[union-attr]
    for name in checkpoints.bundled("model"):
        assert checkpoints.find(name) == checkpoints.BUNDLED / name


def test_the_denoiser_of_a_model_with_words_can_be_taken_out(folder: Path) -> None:
    x, alone = randn((1, 3, 16, 16), seeded(0)), checkpoints.load_denoiser(folder)
    assert torch.equal(alone(x, 0.5).x0, TextToImage.from_pretrained(folder).denoiser(x, 0.5).x0)


def test_the_mini_clip_of_a_model_can_be_taken_out(folder: Path) -> None:
    clip, encoder = checkpoints.load_clip(folder), small_pipe().encoder
    assert encoder is not None
    assert torch.allclose(clip(["a cat"]).pooled, encoder(["a cat"]).pooled, atol=0.02)


def test_a_model_without_a_mini_clip_has_none_to_give(tmp_path: Path) -> None:
    checkpoints.save_denoiser(tmp_path, styles_pipe().denoiser)
    with pytest.raises(ValueError, match="`clip` must be a checkpoint with a mini-CLIP"):
        checkpoints.load_clip(tmp_path)


def refused(folder: str | Path, pattern: str, kind: type[ValueError] = CheckpointError) -> None:
    with pytest.raises(ValueError, match=pattern) as caught:
        TextToImage.from_pretrained(folder)
    assert type(caught.value) is kind
    assert "`checkpoint`" in str(caught.value) and "\n" not in str(caught.value)


def test_an_unknown_name_suggests_the_nearest() -> None:
    refused(
        "emoji64",
        "must be one of .*emoji-64.*, or the folder of a model; got 'emoji64'. Did you mean 'emoji-64'",
        ValueError,
    )


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "must be a folder with config.json and model.safetensors", ValueError)


@pytest.mark.parametrize("keep", [0, 4, 1000, 20_000])
def test_truncated_weights_are_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    assert path.stat().st_size > 20_000
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "is incomplete or damaged .*; fetch or train it again")


def test_rubbish_in_place_of_weights_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x80\x04 a pickle, say" * 99)
    refused(folder, "is incomplete or damaged")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    refused(folder, name)


@pytest.mark.parametrize("text", ["", "{", "\x00", "{}", "[1]", "null", '"model"'])
def test_a_damaged_configuration_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "is incomplete or damaged|has format None.*it is no model of minidiff")


@pytest.mark.parametrize("name", ["tokenizer.json", "card.json"])
def test_other_damaged_json_is_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("{ not json")
    refused(folder, "damaged" if name == "tokenizer.json" else "is not for this minidiff")


def test_a_newer_format_asks_for_an_update(folder: Path) -> None:
    change(folder, format=2)
    refused(folder, "has format 2, this minidiff reads 1: update minidiff")


@pytest.mark.parametrize(
    ("part", "pattern"),
    [
        ({"net": {"size": 16, "wings": 2}}, "unknown or wrong value.*'wings'"),
        ({"net": {"size": 15}}, "`size` must be a multiple of"),
        ({"net": {"widths": "wide"}}, "unknown or wrong value"),
        ({"net": 3}, "unknown or wrong value"),
        ({"schedule": "cosin"}, "`schedule` must be one of .* Did you mean 'cosine'"),
        ({"parameterization": "score"}, "`parameterization` must be one of"),
        ({"shift": 0}, "`shift` must be a number from 0.01 to 100"),
    ],
)
def test_a_configuration_with_an_unknown_or_wrong_part_is_refused(folder: Path, part: Any, pattern: str) -> None:
    denoiser = json.loads((folder / "config.json").read_text())["denoiser"]
    change(folder, denoiser=denoiser | part)
    refused(folder, pattern)


@pytest.mark.parametrize("key", ["net", "schedule", "parameterization", "clip"])
def test_a_configuration_that_lacks_a_part_is_refused(folder: Path, key: str) -> None:
    denoiser = json.loads((folder / "config.json").read_text())["denoiser"]
    del denoiser[key]
    change(folder, denoiser=denoiser)
    refused(folder, f"its configuration has no '{key}'")


@pytest.mark.parametrize("other", [{"widths": [8, 8]}, {"embedding": 8}, {"blocks": 2}], ids=str)
def test_weights_of_another_architecture_are_refused(folder: Path, other: dict[str, Any]) -> None:
    denoiser = json.loads((folder / "config.json").read_text())["denoiser"]
    change(folder, denoiser=denoiser | {"net": denoiser["net"] | other})
    refused(folder, r"does not fit this architecture: \d+ weights differ, the first is")


def test_missing_and_additional_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    name = "denoiser.net.inlet.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, path)
    refused(folder, "1 weights differ, the first is inlet.weight")
    save_file(tensors | {"denoiser.net.tail": torch.zeros(1)}, path)
    refused(folder, "1 weights differ, the first is tail")


@pytest.mark.parametrize("kind", ["clip", "prior", None])
def test_a_model_that_cannot_draw_says_what_it_is(folder: Path, kind: str | None) -> None:
    change(folder, kind=kind)
    refused(folder, f"holds a {kind}, which cannot draw")


def test_only_a_unet_on_a_known_schedule_can_be_described() -> None:
    with pytest.raises(ValueError, match="`denoiser` must hold a UNet to be saved; got Linear"):
        checkpoints.describe_denoiser(NetDenoiser(torch.nn.Linear(2, 2), make_schedule("flow"), "flow"))

    class Bent(type(make_schedule("flow"))):  # type: ignore[misc]
        pass

    with pytest.raises(ValueError, match=r"`denoiser` must have a schedule with a name .*SCHEDULES\[.*\] = Bent"):
        checkpoints.describe_denoiser(NetDenoiser(small_net(BY_STYLE), Bent(), "flow"))


@pytest.mark.parametrize("schedule", [LinearSchedule(T=100), CosineSchedule(T=50)], ids=repr)
def test_a_schedule_with_settings_of_its_own_is_never_saved_as_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: Any
) -> None:
    denoiser = NetDenoiser(small_net(BY_STYLE), schedule, "v")
    with pytest.raises(ValueError, match=r"must have a schedule with a name .*\(or, for one with settings, a func"):
        checkpoints.save_denoiser(tmp_path, denoiser)
    monkeypatch.setitem(SCHEDULES, "own", lambda: type(schedule)(schedule.T))
    checkpoints.save_denoiser(tmp_path, denoiser)
    assert repr(checkpoints.load_denoiser(tmp_path).schedule) == repr(schedule)


def test_a_tokenizer_is_saved_where_the_platform_would_write_no_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = TextToImage.from_pretrained("emoji-64")
    monkeypatch.setattr("io.text_encoding", lambda encoding, level=2: encoding or "ascii")  # as Windows has cp1252
    pipe.save_pretrained(tmp_path)
    monkeypatch.undo()
    assert TextToImage.from_pretrained(tmp_path).encoder.words("café") == pipe.encoder.words("café")  # type: ignore[union-attr]


def test_the_model_card_says_license_sources_and_how_to_load(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n") and "TextToImage.from_pretrained" in card
    for name in ("Noto", "Apache-2.0", "Twemoji", "CC-BY-4.0", "Fluent", "Microsoft", "Unicode", "MIT", "16x16"):
        assert name in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    compile(code, "card", "exec")
    shapes = model_card(32, (), WordEncoder(VOCABULARY, CAPTION_LENGTH))
    assert "simple shapes" in shapes and "style=" not in shapes and 'pipe("two small red circles' in shapes
    assert 'pipe("", style="noto")' in model_card(32, STYLES)


def test_the_model_card_of_somebodys_own_model_claims_neither_our_pictures_nor_a_license() -> None:
    own = WordEncoder(("<pad>", "sun", "house"), 2)
    for card in (model_card(16, ("sun", "house")), model_card(16, (), own)):
        assert "its owner's" in card and not re.search("Noto|shapes|MIT|license: mit|two small", card)
    assert 'pipe("sun")' in card


def test_a_card_that_its_owner_wrote_stays(folder: Path) -> None:
    (folder / "README.md").write_text("mine")
    small_pipe().save_pretrained(folder)
    assert (folder / "README.md").read_text() == "mine"


def test_a_loaded_model_goes_on_learning_as_it_did(tmp_path: Path) -> None:
    how: dict[str, Any] = {"weighting": "min-snr", "time_sampling": "logit-normal", "time_shape": (1.0, 1.4)}
    checkpoints.save_denoiser(tmp_path, NetDenoiser(UNet(NET), RectifiedFlow(), "flow", **how))
    again = checkpoints.load_denoiser(tmp_path)
    assert {name: getattr(again, name) for name in how} == how
    flagship = checkpoints.load_denoiser("emoji-64")
    assert (flagship.time_sampling, flagship.time_shape) == ("logit-normal", (2.0, 1.5))


def test_a_name_that_has_come_to_mean_another_schedule_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Power(RectifiedFlow):
        def __init__(self, power: float) -> None:
            self.power = power

        def alpha(self, t: Any) -> Any:
            return super().alpha(t) ** self.power

    monkeypatch.setitem(schedules.SCHEDULES, "power", lambda: Power(2.0))
    checkpoints.save_denoiser(tmp_path, NetDenoiser(UNet(NET), Power(2.0), "flow"))
    checkpoints.load_denoiser(tmp_path)
    monkeypatch.setitem(schedules.SCHEDULES, "power", lambda: Power(3.0))
    with pytest.raises(CheckpointError, match="`schedule` must be as when the model was saved; 'power' is"):
        checkpoints.load_denoiser(tmp_path)
