"""The two recipes: nothing of a prompt is lost, everything done to it is said, and each part is what it claims."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from program import program, sentence
from small_emoji import SmallEmoji
from small_models import LONG, small_pipe, styles_pipe

from minidiff import checkpoints, presets_recipes, recipes, recipes_look
from minidiff.checkpoints import fingerprint
from minidiff.common import CheckpointError, Condition
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.pipeline import TextToImage
from minidiff.presets import run
from minidiff.presets_recipes import RECIPE_PRESETS
from minidiff.prior import Prior
from minidiff.prompts import keywords
from minidiff.recipes import dalle, load_prior, midjourney, read_all, sample_prior
from minidiff.recipes_look import RANK, collection, in_the_look, two_inks, with_lora
from minidiff.text import MiniClip, unit_rms


@pytest.fixture(scope="module")
def pipe() -> TextToImage:
    return small_pipe()


@pytest.fixture(scope="module")
def prior(tmp_path_factory: pytest.TempPathFactory, pipe: TextToImage) -> Path:
    """A prior for the small CLIP, in a folder."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Prior(16, 8, 1)
    folder = tmp_path_factory.mktemp("prior")
    assert isinstance(pipe.encoder, MiniClip)
    config = {"kind": "prior", "shape": model.shape, "clip": fingerprint(pipe.encoder)}
    checkpoints.save_model(folder, config, model.state_dict())
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory, pipe: TextToImage) -> Path:
    """A fine-tune of one linear layer and one convolution of the small U-Net, in a folder."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in ("inlet", "middle.block.steer"):
        weight = pipe.denoiser.net.state_dict()[f"{name}.weight"]
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, *weight.shape[1:], generator=generator) / 4
        b = torch.randn(weight.shape[0], RANK, generator=generator) / 4
        tensors[f"{name}.lora_B.weight"] = b[:, :, None, None] if weight.dim() == 4 else b
    folder = tmp_path_factory.mktemp("lora")
    config = {"kind": "lora", "scale": 1.0, "base": fingerprint(pipe.denoiser.net)}
    checkpoints.save_model(folder, config, tensors)
    return folder


# --- the recipes


def test_a_prompt_that_fits_is_read_as_ever_and_a_long_one_word_by_word(pipe: TextToImage) -> None:
    for short in ("a red heart", ""):
        row, parts = read_all(pipe, short)
        plain = pipe.condition([short])
        assert parts == 1 and row.text is not None and plain is not None and plain.text is not None
        assert torch.equal(row.text.tokens, plain.text.tokens) and torch.equal(row.text.mask, plain.text.mask)
        assert torch.allclose(row.text.pooled, plain.text.pooled, atol=1e-5)
    row, parts = read_all(pipe, LONG)
    assert isinstance(pipe.encoder, MiniClip) and row.text is not None and parts > 5
    pieces = len(pipe.encoder.tokenizer.encode(LONG, add_special_tokens=False).ids)
    assert int(row.text.mask.sum()) >= pieces + 2 * parts - parts  # a part's first space may join a piece
    other, _ = read_all(pipe, LONG.replace("rocket", "cat"))  # near the end, far beyond the context
    assert other.text is not None and not torch.allclose(other.text.pooled, row.text.pooled)


def test_dalle_tells_the_network_words_and_an_embedding(pipe: TextToImage, prior: Path) -> None:
    loaded = load_prior(prior, pipe=pipe)
    drawing = dalle(pipe, ["a red heart", LONG], prior=loaded, seed=3, steps=2)
    words, whole = drawing.said
    assert words == "3 words, read at once" and f"{len(LONG.split())} words, read in" in whole
    row, _ = read_all(pipe, "a red heart")
    assert row.text is not None
    image = sample_prior(loaded, row.text.pooled, [3])
    x = pipe.generate(Condition(row.text, image), 1, seeds=[3], steps=2, guidance=4.0)
    alone = dalle(pipe, "a red heart", prior=loaded, seed=3, steps=2).images[0]
    assert recipes.to_images(x)[0].tobytes() == alone.tobytes()
    plain = pipe("a red heart", seed=3, steps=2, guidance=4.0)[0]
    assert alone.tobytes() != plain.tobytes()
    away = dalle(pipe, "a red heart", negative="cat", prior=loaded, seed=3, steps=2).images[0]
    cat = pipe.condition("cat")
    assert cat is not None  # of the embedding it says nothing
    null = Condition(cat.text, torch.zeros_like(image))
    x = pipe.generate(Condition(row.text, image), 1, null=null, seeds=[3], steps=2, guidance=4.0)
    assert recipes.to_images(x)[0].tobytes() == away.tobytes() != alone.tobytes()
    styled = dalle(pipe, "cat", style="noto", rewriter=lambda prompt: f"{prompt} face", prior=loaded, steps=2)
    assert styled.said == ["1 word, rewritten as 'cat face', read at once"]
    said = dalle(pipe, "cat face, noto style", prior=loaded, steps=2)
    assert styled.images[0].tobytes() == said.images[0].tobytes()


def test_the_noise_keeps_the_size_of_an_embedding_and_depends_on_the_seed(pipe: TextToImage, prior: Path) -> None:
    loaded, pooled = load_prior(prior), unit_rms(torch.randn(1, 16, generator=torch.Generator().manual_seed(0)))
    many = pooled.expand(400, -1)
    clean = sample_prior(loaded, many, range(400), noise=0.0)
    noised = sample_prior(loaded, many, range(400), noise=0.5)
    assert torch.allclose(clean.square().mean(1), torch.ones(400), atol=1e-3)
    rest = noised - (1 - 0.25) ** 0.5 * clean
    assert abs(float(rest.std()) - 0.5) < 0.02 and abs(float((rest * clean).mean())) < 0.02
    assert torch.equal(sample_prior(loaded, pooled, [7]), sample_prior(loaded, many[:2], [7, 8])[:1])
    assert not torch.allclose(clean[0], clean[1])


def test_a_prompt_asked_for_several_times_is_rewritten_once(pipe: TextToImage, prior: Path) -> None:
    asked: list[str] = []

    def rewriter(prompt: str) -> str:
        asked.append(prompt)
        return f"{prompt} face"

    drawn = dalle(pipe, ["cat", "dog", "cat"], rewriter=rewriter, prior=load_prior(prior, pipe=pipe), steps=1)
    assert asked == ["cat", "dog"] and ["cat face" in said for said in drawn.said] == [True, False, True]


def test_midjourney_reads_keywords_with_other_weights_and_strong_guidance(pipe: TextToImage, lora: Path) -> None:
    drawing = midjourney(pipe, LONG, look=lora, steps=2)
    short = keywords(LONG)
    assert drawing.said == [f"{len(LONG.split())} words, reduced to {short!r}"]
    x = with_lora(pipe, lora)(short, steps=2, guidance=8.0, rescale=0.7)[0]
    assert drawing.images[0].tobytes() == x.tobytes()
    assert midjourney(pipe, "a cat", look=lora, steps=2).said == ["2 words, kept as it is"]
    away = midjourney(pipe, "a cat", negative="red heart", look=lora, steps=2).images[0]
    same = with_lora(pipe, lora)("a cat", negative="red heart", steps=2, guidance=8.0, rescale=0.7)[0]
    assert away.tobytes() == same.tobytes() != midjourney(pipe, "a cat", look=lora, steps=2).images[0].tobytes()
    plain = midjourney(pipe, LONG, look=None, steps=2).images[0]
    assert plain.tobytes() == pipe(short, steps=2, guidance=8.0, rescale=0.7)[0].tobytes() != x.tobytes()


def test_a_fine_tune_is_added_to_the_weights_as_peft_does_it(pipe: TextToImage, lora: Path) -> None:
    """W + scale B A, a convolution's kernels as rows of a matrix (Hu et al. 2022, equation 3)."""
    peft = pytest.importorskip("peft")
    _, tensors, _ = checkpoints.load_model(lora)
    before = {name: value.clone() for name, value in pipe.denoiser.net.named_parameters()}
    tuned = with_lora(pipe, lora).denoiser.net
    assert all(torch.equal(before[name], value) for name, value in pipe.denoiser.net.named_parameters())
    changed = [n for n, value in tuned.named_parameters() if not torch.equal(value, before[n])]
    assert sorted(changed) == ["inlet.weight", "middle.block.steer.weight"]
    net = small_pipe().denoiser.net
    config = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["inlet", "middle.block.steer"])
    peft.inject_adapter_in_model(config, net)
    peft.set_peft_model_state_dict(net, tensors)
    x, t = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.tensor([0.3, 0.8])
    assert torch.allclose(net.eval()(x, t), tuned(x, t), atol=1e-4)
    assert not torch.allclose(pipe.denoiser.net(x, t), tuned(x, t), atol=1e-2)


@pytest.mark.parametrize("strength", [0.0, 0.5, 2.0])
def test_a_fine_tune_can_be_added_in_part(pipe: TextToImage, lora: Path, strength: float) -> None:
    plain, whole, part = (
        dict(p.denoiser.net.named_parameters())
        for p in (pipe, with_lora(pipe, lora), with_lora(pipe, lora, strength=strength))
    )
    for name, value in part.items():
        assert torch.allclose(value - plain[name], strength * (whole[name] - plain[name]), atol=1e-6), name


def test_what_belongs_to_another_model_is_refused(pipe: TextToImage, prior: Path, lora: Path) -> None:
    other = small_pipe()
    with torch.no_grad():
        next(other.denoiser.net.parameters()).add_(1.0)
        next(other.encoder.parameters()).add_(1.0)  # type: ignore[union-attr]
    with pytest.raises(
        CheckpointError, match=r"`look` must be a fine-tune of this very model; .*minidiff train midj"
    ):
        with_lora(other, lora)
    with pytest.raises(CheckpointError, match=r"`prior` must be one for this model's CLIP; .*minidiff train prior"):
        load_prior(prior, pipe=other)
    with pytest.raises(CheckpointError, match=r"`prior` must be a model of `minidiff train prior`; .* is none"):
        load_prior(lora)
    with pytest.raises(ValueError, match=r"`prior` must be one of prior, or the folder of a model; got 'teaching'"):
        load_prior("teaching")
    for recipe in (dalle, midjourney):
        with pytest.raises(ValueError, match=r"The recipe needs a model with a CLIP|`prompts` must be empty"):
            recipe(styles_pipe(), [""])


@pytest.mark.parametrize(
    ("settings", "pattern"),
    [
        ({"seed": -1}, "`seed` must be an integer from 0"),
        ({"noise": 2}, "`noise` must be a number from 0 to 1; got 2"),
        ({"guidance": -1}, "`guidance` must be a number from 0 to 100"),
        ({"style": "nato"}, "`style` must be one of .*Did you mean 'noto'"),
    ],
)
def test_wrong_settings_are_refused(pipe: TextToImage, prior: Path, settings: dict[str, Any], pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        dalle(pipe, "cat", prior=load_prior(prior), **settings)


# --- the look


def test_the_look_is_made_of_two_inks_and_no_style_of_the_data_has_it() -> None:
    emoji = load_emoji()
    x = torch.cat([emoji.pixels(style)[::400] for style in STYLES]).float() / 127.5 - 1
    printed = two_inks(x)
    assert printed.shape == x.shape and printed.abs().max() <= 1 and torch.equal(printed, two_inks(x))
    assert in_the_look(printed).min() > 0.99 and in_the_look(x).mean() < 0.3


def test_the_collection_comes_from_training_pictures_alone() -> None:
    chosen = collection(load_emoji())
    assert 200 < len(chosen) < 1000 and all(record.split["twemoji"] == "train" for record in chosen)
    assert len({record.base for record in chosen}) == len(chosen)


def test_the_recipes_presets_train_on_a_checkpoint_of_ones_own(
    pipe: TextToImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load_emoji()
    splits: list[dict[str, str]] = [{} for _ in range(12)]
    splits[0], splits[1] = {"noto": "test"}, dict.fromkeys(STYLES, "unseen")
    rows = [record.index for record in whole.records if record.name.isalpha()][:12]
    emoji = SmallEmoji(whole, rows, splits)
    monkeypatch.setattr(presets_recipes, "load_emoji", lambda: emoji)
    monkeypatch.setattr(recipes_look, "load_emoji", lambda: emoji)
    pipe.save_pretrained(tmp_path / "base")
    base = TextToImage.from_pretrained(tmp_path / "base")
    quick: dict[str, Any] = {"steps": 2, "batch_size": 4, "device": "cpu", "clip": str(tmp_path / "base")}
    cards = {name: run(name, tmp_path / name, **quick) for name in RECIPE_PRESETS}
    for name, card in cards.items():
        assert card["command"].startswith(f"minidiff train {name} --steps 2") and card["parameters"] > 0
    measured = cards["prior"]["measured"]
    assert set(measured) == {"test", "unseen", "spread", "clip"} and measured["test"]["candidates"] == 1
    load_prior(tmp_path / "prior", pipe=base)
    tuned = with_lora(base, tmp_path / "midjourney").denoiser.net
    full = TextToImage.from_pretrained(tmp_path / "midjourney-full").denoiser.net
    before = base.denoiser.net.state_dict()
    for net in (tuned, full):
        assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert cards["midjourney"]["parameters"] < cards["midjourney-full"]["parameters"]
    assert cards["midjourney"]["measured"] == {"pictures": 11, "base": fingerprint(base.denoiser.net)}
    next(base.denoiser.net.parameters()).data += 1
    base.save_pretrained(tmp_path / "base")
    with pytest.raises(
        CheckpointError, match="What is learned must stay"
    ):  # a change of other weights does not go on
        run("midjourney", tmp_path / "midjourney", **quick | {"steps": 3})


# --- the command line


def test_generate_cooks_by_recipe_and_says_what_it_did(
    pipe: TextToImage,
    prior: Path,
    lora: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    minidiff = program(monkeypatch, capsys, tmp_path)
    pipe.save_pretrained(tmp_path / "small")
    monkeypatch.setattr(checkpoints, "BUNDLED", tmp_path)
    (tmp_path / "prior").symlink_to(prior)  # as if it were bundled
    common = ["--checkpoint", "small", "--steps", 2, "--scale", 1]
    done = minidiff("generate", LONG, "--recipe", "dalle", "--rewriter", "expand", *common)
    assert done.code == 0 and re.search("prompt 1: 213 words, rewritten as .*, read in [0-9]+ parts", done.err)
    short = minidiff("generate", "cat", "--recipe", "dalle", "--prior", prior, *common)
    assert short.code == 0 and short.err.endswith("prompt 1: 1 word, read at once\n")
    done = minidiff("generate", LONG, "--recipe", "midjourney", "--look", lora, "--negative", "cat", *common)
    assert done.code == 0 and re.search("prompt 1: 213 words, reduced to '", done.err)
    assert "were not read" not in done.err
    for wrong, pattern in (
        (["--recipe", "dali"], "`recipe` must be one of dalle, midjourney; got 'dali'. Did you mean 'dalle'"),
        (["--recipe", "midjourney", "--style", "noto"], "`style` must be left out here, as its look is its own"),
        (["--recipe", "dalle", "--look", "x"], "`look` must be left out here, as only the recipe midjourney has one"),
        (
            ["--recipe", "midjourney", "--prior", "x"],
            "`prior` must be left out here, as only the recipe dalle has one",
        ),
        (["--rewriter", "expand"], "`rewriter` must be left out here, as only the recipe dalle rewrites"),
    ):
        sentence(minidiff("generate", "cat", *wrong, "--checkpoint", "nowhere"), 2, pattern)
