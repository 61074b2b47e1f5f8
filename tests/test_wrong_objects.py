"""Objects where others are wanted: said at once, by the name of the argument; and a few things that now just work."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_models import NET, small_clip, small_net, small_pipe
from torch import Tensor

from minidiff.checkpoints import load_model, save_model
from minidiff.clip import clip_score, contrastive_loss, train_tokenizer
from minidiff.common import CheckpointError, Condition, TextEmbedding, as_times, randn, seeded
from minidiff.data.folder import CaptionedPictures, FolderPictures, from_torchvision
from minidiff.data.pixels import to_float, to_uint8
from minidiff.data.scenes import Scene, random_scene
from minidiff.data.shapes_oracle import adherence, read
from minidiff.denoisers import NetDenoiser
from minidiff.editing import inpaint
from minidiff.images import to_images
from minidiff.judge import Judge
from minidiff.nets import MLP
from minidiff.nets.layers import ResidualBlock
from minidiff.pipeline import TextToImage
from minidiff.recipes import dalle, load_prior, midjourney
from minidiff.recipes_look import add_lora, save_lora
from minidiff.schedules import SCHEDULES, CosineSchedule, RectifiedFlow, make_schedule
from minidiff.text import WordEncoder
from minidiff.toy import ExactDenoiser, points
from minidiff.training import ConditionDropout, Denoising, JointDenoising, TensorSource, TrainConfig, train

PICTURE, WHITE = (Image.new("RGB", (16, 16), color) for color in ("red", "white"))
FOLDER = Path(__file__).resolve().parents[1] / "book" / "_static" / "openers"
DROP = ConditionDropout(0.9, 0, 0, 0.1)


class InSteps:
    """The commonest slip: a schedule of times from 0 to 1000."""

    def alpha(self, i: Any) -> Any:
        return 1 - i / 1000

    def sigma(self, i: Any) -> Any:
        return i / 1000


def denoiser() -> NetDenoiser:
    return NetDenoiser(small_net(), RectifiedFlow(), "flow")


def told() -> Condition:
    cond = small_pipe().condition(["cat"])
    assert cond is not None
    return cond


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: NetDenoiser(small_net(), InSteps(), "v"), "`schedule` must give .* to 1 or less; got .*, 998"),
    (lambda: NetDenoiser(NET, RectifiedFlow()), "`net` must be a network"),  # type: ignore[arg-type]
    (lambda: TextToImage(denoiser(), "emoji-64"), "`encoder` must be a text encoder"),  # type: ignore[arg-type]
    (lambda: ExactDenoiser("moons", CosineSchedule()), "`mixture` must be a Mixture"),  # type: ignore[arg-type]
    (lambda: ExactDenoiser(points("moons"), "cosine"), "`schedule` must have"),  # type: ignore[arg-type]
    (lambda: Denoising(denoiser(), 0.1), "`drop` must be a ConditionDropout"),  # type: ignore[arg-type]
    (lambda: JointDenoising(denoiser(), DROP, small_clip()), "`encoder` must be|`drop` must be"),  # type: ignore
    (lambda: WordEncoder.of("a red circle"), "`captions` must be a list of strings"),
    (lambda: train_tokenizer("a red circle"), "`captions` must be a list of strings"),
    (lambda: Condition(text=told().text._replace(mask=torch.ones(1, 30))), "`text` must be"),  # type: ignore
    (lambda: denoiser()(randn((1, 3, 16, 16)), 0.5, "a cat"), "`cond` must be a Condition"),  # type: ignore
    (lambda: denoiser()(randn((1, 3, 16, 16)), 0.5, told().text), "got TextEmbedding"),  # type: ignore[arg-type]
    (lambda: small_pipe().generate("cat", 1, seeds=[0]), "`cond` must be a Condition.* got str"),  # type: ignore
    (lambda: small_pipe().generate(told(), 1, seeds=0), r"`seeds` must be .*range\(1\); got 0"),  # type: ignore
    (lambda: small_pipe().generate(told(), 1, seeds=[0], start=PICTURE), "`start` must be .* got Image"),  # type: ignore
    (lambda: small_pipe().generate(told(), 1, seeds=[0], strength=0.5), "`strength` needs a picture"),
    (lambda: small_pipe()("cat", negative="dog", guidance="4"), "`guidance` must be a number"),  # type: ignore
    (lambda: inpaint(small_pipe(), "cat", PICTURE, WHITE, negative="dog", guidance=0.5), "`negative` needs"),
    (lambda: inpaint(small_pipe(), "cat", PICTURE, WHITE, negative=["a", "b"]), "`negative` must be a string"),  # type: ignore
    (lambda: to_float([PICTURE]), r"must be a tensor .* got list\. PIL images: torch\.cat"),  # type: ignore[arg-type]
    (lambda: to_uint8(PICTURE), "must be a tensor .* got Image"),  # type: ignore[arg-type]
    (lambda: to_images(torch.zeros(3, 8, 8)), r"`x` must be pictures .* got shape \(3, 8, 8\)"),
    (lambda: clip_score(small_clip(), ["cat"], [PICTURE]), "must be a tensor"),  # type: ignore[arg-type]
    (lambda: read(PICTURE), "must be a tensor"),  # type: ignore[arg-type]
    (lambda: Scene.of("four red circles"), "`caption` must be one of .* got 'four red circles'"),
    (lambda: Scene.of("a red circle left of"), "`caption` must be one of"),
    (lambda: add_lora(denoiser()), "`net` must be the network itself, .* got NetDenoiser"),
    (lambda: add_lora(small_pipe()), "`net` must be the network itself, .* got TextToImage"),  # type: ignore[arg-type]
    (lambda: save_lora("nowhere-at-all", denoiser()), "`net` must be the network itself"),
    (lambda: CaptionedPictures(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), ["one"]), "1 captions and no labels"),
    (lambda: FolderPictures(FOLDER, 16, ["a"]), "`captions` must map names"),  # type: ignore[arg-type]
    (lambda: from_torchvision("ab", 16), "`dataset` item 0 is no usable picture"),
    (lambda: dalle(small_pipe(), "cat", look="none"), "`look` must be left out"),
    (lambda: midjourney(small_pipe(), "cat", style="noto"), "`style` must be left out"),
    (lambda: midjourney(small_pipe(), "cat", look="nowhere"), "`look` must be one of midjourney, or"),
    (lambda: dalle(small_pipe(), "cat", prior="nowhere"), "`prior` must be one of prior, or"),
]


@pytest.mark.parametrize(("wrong", "words"), WRONG, ids=[words[:30] for _, words in WRONG])
def test_the_sentence_names_the_argument(wrong: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        wrong()


def test_a_prior_of_another_clip_is_refused_as_an_object_too() -> None:
    assert load_prior().clip
    with pytest.raises(CheckpointError, match="`prior` must be one for this model's CLIP"):
        dalle(small_pipe(), "cat", prior=load_prior())


def test_a_prior_that_does_not_say_for_which_clip_it_is_is_for_none(tmp_path: Path) -> None:
    config, weights, _ = load_model("prior")
    save_model(tmp_path, {name: value for name, value in config.items() if name != "clip"}, weights)
    assert load_prior(tmp_path).clip == "unknown"
    with pytest.raises(CheckpointError, match="`prior` must be one for this model's CLIP"):
        load_prior(tmp_path, pipe=small_pipe())


def test_the_objective_must_give_something_to_learn_from() -> None:
    source = TensorSource(torch.randn(8, 2, generator=seeded(0)))
    config = TrainConfig(steps=1, batch_size=4, progress=False)

    class Detached(Denoising):
        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            return super().forward(batch, generator).detach()

    with pytest.raises(ValueError, match="`objective` must return a loss to learn from"):
        train(Detached(NetDenoiser(MLP(), CosineSchedule())), source, config, device="cpu")
    with pytest.raises(ValueError, match="`source` must give pairs of x0 and captions"):
        train(JointDenoising(denoiser(), WordEncoder.of(["cat"], dim=16), DROP), source, config, device="cpu")


def test_another_objective_that_goes_on_in_a_folder_says_so(tmp_path: Path) -> None:
    class Thrice(Denoising):
        def forward(self, batch: Any, generator: torch.Generator) -> Tensor:
            return 3 * super().forward(batch, generator)

    source = TensorSource(torch.randn(8, 2, generator=seeded(0)))
    for steps, kind in ((1, Denoising), (2, Thrice)):
        config = TrainConfig(steps=steps, batch_size=4, progress=False)
        objective = kind(NetDenoiser(MLP(), CosineSchedule()))
        if kind is Thrice:
            with pytest.warns(UserWarning, match="objective"):
                train(objective, source, config, folder=tmp_path, device="cpu")
        else:
            train(objective, source, config, folder=tmp_path, device="cpu")


def test_uint8_pictures_are_what_they_are_to_clip_and_judge() -> None:
    pixels = torch.randint(256, (2, 3, 16, 16), generator=seeded(0), dtype=torch.uint8)
    clip, judge = small_clip(), Judge(["cat"])
    assert torch.equal(clip.encode_image(pixels), clip.encode_image(to_float(pixels)))
    assert torch.equal(judge.features(pixels), judge.features(to_float(pixels)))
    assert clip.encode_image(pixels[..., :8]).shape == (2, 16)  # scaled, whichever side differs


def test_rows_of_a_condition_are_named_by_a_tuple_too() -> None:
    cond = Condition(label=torch.tensor([1, 2, 3]))
    assert cond.index((0, 2)).label.tolist() == [1, 3]  # type: ignore[union-attr]


def test_a_caption_of_ones_own_becomes_the_scene_that_the_oracle_marks() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    scenes = [random_scene(rng, bool(i % 2)) for i in range(200)]
    assert [Scene.of(scene.caption()) for scene in scenes] == scenes
    assert Scene.of("  An ORANGE heart ").first.color == "orange"
    assert adherence(scenes, [scene.caption() for scene in scenes])["all"] == 1.0


def test_a_schedule_may_be_registered_as_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "mine", RectifiedFlow(shift=2.0))  # type: ignore[arg-type]
    assert make_schedule("mine").shift == 2.0 and make_schedule("mine") is not SCHEDULES["mine"]


def test_words_of_a_closed_vocabulary_label_its_attention() -> None:
    encoder = WordEncoder.of(["a red circle"], dim=16)
    assert encoder.words("A red, red circle.") == ["a", "red", "red", "circle"]


def test_a_picture_that_was_chosen_among_an_animations_frames_stays_chosen(tmp_path: Path) -> None:
    from minidiff.images import from_image

    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    frames[0].save(tmp_path / "three.gif", save_all=True, append_images=frames[1:])
    opened = Image.open(tmp_path / "three.gif")
    opened.seek(2)
    assert from_image(opened, 8)[0, :, 4, 4].argmax() == 2 and opened.tell() == 2


TERMINATED = """
import os, signal, sys, torch
from minidiff.denoisers import NetDenoiser
from minidiff.nets import MLP
from minidiff.nets.layers import ResidualBlock
from minidiff.schedules import CosineSchedule
from minidiff.training import Denoising, TensorSource, TrainConfig, train

def on_step(result):
    if result.step == 3:
        os.kill(os.getpid(), signal.SIGTERM)

config = TrainConfig(steps=9, batch_size=4, progress=False)
train(Denoising(NetDenoiser(MLP(), CosineSchedule())), TensorSource(torch.randn(8, 2)), config, folder=sys.argv[1],
      device="cpu", on_step=on_step)
print("went on")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no SIGTERM that can be caught")
def test_a_batch_system_that_ends_a_training_finds_it_saved(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TERMINATED, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGTERM and "went on" not in done.stdout, done.stderr
    assert [path.name for path in tmp_path.glob("step-*")] == ["step-00000003"]


def test_inpainting_takes_a_sampler_as_drawing_does() -> None:
    mask = Image.new("L", (16, 16))
    mask.paste(255, (0, 0, 8, 16))
    one, other = (inpaint(small_pipe(), "cat", PICTURE, mask, sampler=name, steps=3)[0] for name in ("ddim", "heun"))
    assert one.tobytes() != other.tobytes()
    assert one.getpixel((12, 8)) == other.getpixel((12, 8)) == (255, 0, 0)


def test_text_must_be_an_encoders() -> None:
    states = torch.zeros(1, 4, 16)
    with pytest.raises(ValueError, match="`text` must be"):
        Condition(text=TextEmbedding(states[0], torch.ones(1, 4, dtype=torch.bool), states[:, 0]))


def test_a_block_scales_and_shifts_its_channels_as_the_embedding_says() -> None:
    block: Any = ResidualBlock(8, 8, dim=4)
    torch.nn.init.normal_(block.steer.weight, generator=seeded(0))
    torch.nn.init.normal_(block.conv_out.weight, generator=seeded(1))
    x, embedding = randn((2, 8, 4, 4), seeded(2)), randn((2, 4), seeded(3))
    h = block.norm_out(block.conv_in(F.silu(block.norm_in(x))))
    scale, shift = block.steer(F.silu(embedding))[..., None, None].chunk(2, 1)
    assert torch.allclose(block(x, embedding), x + block.conv_out(F.silu(h * (1 + scale) + shift)), atol=1e-5)
    assert torch.allclose(block(x), x + block.conv_out(F.silu(h)), atol=1e-5)


def test_the_contrast_is_averaged_over_whatever_is_true_of_each_row_and_column() -> None:
    logits = randn((3, 3), seeded(0))
    truth = torch.tensor([[True, True, False], [False, True, False], [True, False, True]])
    rows = [-logits[i].log_softmax(0)[truth[i]].mean() for i in range(3)]
    columns = [-logits[:, j].log_softmax(0)[truth[:, j]].mean() for j in range(3)]
    assert torch.isclose(contrastive_loss(logits, truth), (sum(rows) + sum(columns)) / 6)  # type: ignore[arg-type]


def test_times_are_single_precision_whatever_was_given() -> None:
    x = torch.zeros(2, 3)
    for t in (0.5, torch.tensor(0.5).double(), torch.tensor([0.5, 0.5]).double()):
        assert as_times(t, x).dtype == torch.float32 and as_times(t, x).tolist() == [0.5, 0.5]
