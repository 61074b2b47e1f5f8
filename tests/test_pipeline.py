"""From a prompt to a picture: what a seed, a batch, guidance, a style and a start picture mean."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_models import NET, small_net, small_pipe, styles_pipe
from torch import Tensor

from minidiff.common import Condition, randn, seeded
from minidiff.data.shapes import CAPTION_LENGTH, VOCABULARY
from minidiff.denoisers import NetDenoiser
from minidiff.pipeline import TextToImage, from_image, to_images
from minidiff.prompts import LONGEST
from minidiff.samplers import STEPS, check_settings, ddim_step, sample
from minidiff.schedules import RectifiedFlow, forward_jump, time_grid
from minidiff.text import MiniClip, WordEncoder

PROMPTS = ["a red heart", "cat", "rocket", "a cat face with a red heart", "", "noto", "face", "a rocket style"]


@pytest.fixture(scope="module")
def pipe() -> TextToImage:
    return small_pipe()


def draw(pipe: TextToImage, prompts: list[str], seeds: list[int] | None = None, **settings: Any) -> Tensor:
    seeds = list(range(len(prompts))) if seeds is None else seeds
    return pipe.generate(pipe.condition(prompts), len(prompts), seeds=seeds, **{"steps": 3} | settings)


@pytest.mark.parametrize("sampler", sorted(STEPS))
def test_a_picture_does_not_depend_on_its_batch(pipe: TextToImage, sampler: str) -> None:
    whole = draw(pipe, PROMPTS, sampler=sampler)
    assert whole.shape == (8, 3, 16, 16) and whole.abs().max() <= 1
    for n in (1, 4):
        for i in range(0, 8, n):
            part = draw(pipe, PROMPTS[i : i + n], list(range(i, i + n)), sampler=sampler)
            assert torch.allclose(part, whole[i : i + n], atol=1e-4)
    assert not torch.allclose(whole[0], whole[1], atol=0.1)


def test_picture_i_has_the_seed_plus_i(pipe: TextToImage) -> None:
    three = pipe(["cat"] * 3, seed=5, steps=2)
    for i, picture in enumerate(three):
        (alone,) = pipe("cat", seed=5 + i, steps=2)
        assert picture.size == (16, 16) and _far(picture, alone) <= 1
    assert _far(three[0], three[1]) > 50
    assert [p.tobytes() for p in pipe(["cat"] * 3, seed=5, steps=2)] == [p.tobytes() for p in three]


def _far(a: Image.Image, b: Image.Image) -> int:
    return int((from_image(a, 16) - from_image(b, 16)).abs().max() * 127.5 + 0.5)


def test_guidance_one_is_the_conditional_model_and_zero_the_unconditional(pipe: TextToImage) -> None:
    x, times = randn((1, 3, 16, 16), [seeded(0)]), time_grid(pipe.denoiser.schedule, 3)  # type: ignore[arg-type]
    cond = pipe.condition(["a red heart"])
    *_, plain = sample(ddim_step, pipe.denoiser, x, times, cond)
    *_, without = sample(ddim_step, pipe.denoiser, x, times)
    for scale, wanted in ((1.0, plain), (0.0, without)):
        got = draw(pipe, ["a red heart"], guidance=scale, sampler="ddim")
        assert torch.allclose(got, wanted.clamp(-1, 1), atol=1e-5)
    assert not torch.allclose(plain, without, atol=1e-2)


@pytest.mark.parametrize("nothing", ["", "   ", "\n\t"])
def test_an_empty_prompt_is_the_absence_of_one(pipe: TextToImage, nothing: str) -> None:
    cond = pipe.condition([nothing, "cat"])
    assert cond is not None and cond.text is not None
    assert not any(leaf.any() for leaf in cond.index([0]).text or ()) and bool(cond.text.mask[1].any())
    empty, none = draw(pipe, [nothing], guidance=7.0), pipe.generate(None, 1, steps=3, seeds=[0])
    assert torch.allclose(empty, none, atol=1e-5)


def test_a_condition_is_moved_to_where_the_model_is(pipe: TextToImage, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[tuple[int, object]] = []
    to = Condition.to

    def spy(cond: Condition, device: torch.device) -> Condition:
        moved.append((id(cond), device))
        return to(cond, device)

    monkeypatch.setattr(Condition, "to", spy)
    cond, null = pipe.condition("cat"), pipe.null("red heart")
    moved.clear()
    pipe.generate(cond, 1, null=null, seeds=[0], steps=1)
    assert moved == [(id(cond), pipe.device), (id(null), pipe.device)]


def test_a_negative_prompt_of_any_length_is_what_is_moved_away_from(pipe: TextToImage) -> None:
    for negative in ("cat", "a cat face with a red heart and a rocket"):
        null = pipe.condition([negative])
        got = from_image(pipe("a red heart", negative=negative, steps=3, guidance=3.0)[0], 16)
        assert torch.allclose(got, draw(pipe, ["a red heart"], null=null, guidance=3.0), atol=0.01)
        plain = from_image(pipe("a red heart", steps=3, guidance=3.0)[0], 16)
        assert not torch.allclose(got, plain, atol=0.05)
    blank = from_image(pipe("a red heart", negative="  ", steps=3, guidance=3.0)[0], 16)
    assert torch.allclose(blank, plain, atol=0.01)
    same = from_image(pipe("cat", negative="cat", steps=3, guidance=9.0)[0], 16)
    assert torch.allclose(same, from_image(pipe("cat", steps=3, guidance=1.0)[0], 16), atol=0.01)


def test_a_style_is_said_in_words_or_by_its_number(pipe: TextToImage) -> None:
    said, typed = (
        pipe.condition(["cat", ""], "fluent-3d"),
        pipe.condition(["cat, fluent 3d style", "fluent 3d style"]),
    )
    assert said is not None and typed is not None and said.text is not None and typed.text is not None
    assert all(map(torch.equal, said.text, typed.text))
    with pytest.warns(UserWarning, match="were not read, '(e )+e'"):  # the end is cut, but not the style
        long = pipe.condition(["e " * 40], "noto")
    assert long is not None and long.text is not None and isinstance(pipe.encoder, MiniClip)
    assert torch.allclose(long.text.pooled, pipe.encoder(["noto style, " + "e " * 40]).pooled)
    labels = [styles_pipe().condition([""], style) for style in (None, "noto", "fluent-3d")]
    assert [int(cond.label) for cond in labels if cond is not None and cond.label is not None] == [0, 1, 4]
    by_style = styles_pipe()
    noto, none = by_style("", style="noto", steps=2), by_style("", steps=2)
    assert _far(noto[0], none[0]) > 5


def test_an_image_is_noised_to_the_strength_and_drawn_on_from_there(pipe: TextToImage) -> None:
    start = (torch.arange(768.0).view(1, 3, 16, 16) / 384 - 1).round(decimals=2)
    (picture,) = to_images(start)
    start = from_image(picture, 16)
    states: list[Tensor] = []
    pipe(
        "cat",
        image=picture,
        strength=0.4,
        steps=3,
        guidance=1.0,
        sampler="ddim",
        callback=lambda i, x: states.append(x),
    )
    x = forward_jump(RectifiedFlow(), start, torch.tensor([0.4]), randn((1, 3, 16, 16), [seeded(0)]))
    times = time_grid(RectifiedFlow(), 3, start=0.4)
    wanted = list(sample(ddim_step, pipe.denoiser, x, times, pipe.condition(["cat"])))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(states, wanted, strict=True))
    far = [
        float((draw(pipe, ["cat"], start=start, strength=s, guidance=1.0) - start).abs().mean()) for s in (0.01, 0.5)
    ]
    assert far[0] < 0.05 < far[1]
    assert torch.allclose(
        draw(pipe, ["cat"], start=start, strength=1.0), draw(pipe, ["cat"]), atol=1e-5
    )  # pure noise


def test_a_picture_keeps_its_layout_as_it_is_noised_to_six_tenths_unless_told_otherwise(pipe: TextToImage) -> None:
    start = randn((1, 3, 16, 16), seeded(3)).clamp(-1, 1)
    assert torch.equal(draw(pipe, ["cat"], start=start), draw(pipe, ["cat"], start=start, strength=0.6))


def test_the_callback_sees_every_step_in_order_and_may_stop(pipe: TextToImage) -> None:
    seen: list[tuple[int, Tensor]] = []
    last = draw(pipe, ["cat"], steps=5, callback=lambda i, x: seen.append((i, x)))
    assert [i for i, _ in seen] == [0, 1, 2, 3, 4] and torch.equal(seen[-1][1].clamp(-1, 1), last)
    assert torch.equal(draw(pipe, ["cat"], steps=5, callback=lambda i, x: i + 1), last)  # only True stops
    stopped = draw(pipe, ["cat"], steps=5, callback=lambda i, x: i == 2)
    assert torch.allclose(stopped, seen[2][1].clamp(-1, 1), atol=1e-6)


def test_a_model_comes_back_as_it_was(pipe: TextToImage, tmp_path: Path) -> None:
    for before in (pipe, styles_pipe()):
        folder = tmp_path / str(before.encoder is None)
        before.save_pretrained(folder)
        after = TextToImage.from_pretrained(str(folder))
        assert after.styles == before.styles and after.card == before.card and after.size == before.size
        prompt = "" if before.encoder is None else "a red heart"
        a, b = (p(prompt, style="noto", steps=2, guidance=2.0)[0] for p in (before, after))
        assert _far(a, b) <= 6  # of 255: the weights are rounded to fp16
        assert after.device == torch.device("cpu") and after.to("cpu") is after


def test_a_new_pipeline_is_ready_to_draw(pipe: TextToImage) -> None:
    assert pipe.encoder is not None
    encoder = small_pipe().encoder
    assert isinstance(encoder, torch.nn.Module)
    TextToImage(NetDenoiser(small_net().train(), RectifiedFlow(), "flow"), encoder.train())
    assert not encoder.training  # dropout would make every picture another one


@pytest.mark.parametrize("prompt", ["красное сердце", "赤いハート", "قلب", "🐼🚀", "<eos><pad>", "\x00", "a" * 300])
def test_any_text_can_be_drawn(pipe: TextToImage, prompt: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert bool(torch.isfinite(draw(pipe, [prompt], steps=1)).all())


def test_what_is_cut_of_a_prompt_is_said(pipe: TextToImage) -> None:
    with pytest.warns(UserWarning, match=r"its last 10\d\d\d characters were not read, '.* \.\.\. .*the end'"):
        pipe("red cat face " * 800 + "the end", steps=1)
    with pytest.warns(UserWarning, match=r"its last \d\d characters were not read, '(e )+rocket'"):
        pipe("e " * 25 + "rocket", steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe("a red heart", style="noto", steps=1)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompts": []}, r"`prompts` must be a string or a list of strings, at least one; got \[\]"),
    ({"prompts": 3}, "`prompts` must be a string or a list of strings, at least one; got 3"),
    ({"prompts": ["cat", None]}, "`prompts` must be a string"),
    ({"prompts": "x" * (LONGEST + 1)}, "`prompts` must have at most 20000 characters each; got 20001"),
    ({"prompts": "\ud83d"}, "`prompts` must be text that UTF-8 can write"),
    ({"negative": 3}, "`negative` must be a string"),
    ({"negative": ["a dog", "a cat"]}, "`negative` must be a string, one for all prompts"),
    ({"style": "fluent3d"}, "`style` must be one of noto, .*; got 'fluent3d'. Did you mean 'fluent-3d'"),
    ({"steps": 0}, "`steps` must be an integer from 1 to 1000; got 0"),
    ({"steps": 2.5}, "`steps` must be an integer from 1 to 1000; got 2.5"),
    ({"guidance": float("nan")}, "`guidance` must be a number from 0 to 100; got nan"),
    ({"guidance": -1}, "`guidance` must be a number from 0 to 100; got -1"),
    ({"seed": -1}, "`seed` must be an integer from 0 to 9223372036854775807; got -1"),
    ({"seed": 2**63}, "`seed` must be an integer from 0 to"),
    ({"prompts": ["cat", "cat"], "seed": 2**63 - 1}, "`seed` must be an integer from 0 to 9223372036854775806"),
    ({"sampler": "dpmpp2m"}, "`sampler` must be one of .*; got 'dpmpp2m'. Did you mean 'dpmpp_2m'"),
    ({"rescale": 2}, "`rescale` must be a number from 0 to 1; got 2"),
    ({"interval": (0.5, 0.5)}, "`interval` must go from a smaller time to a larger one"),
    ({"strength": 0.0, "image": Image.new("RGB", (16, 16))}, "`strength` must be a number from 0.01 to 1; got 0"),
    ({"strength": 0.5}, "`strength` needs a picture to begin with; got 0.5"),
]


@pytest.mark.parametrize(("settings", "sentence"), BAD, ids=[str(s)[:40] for s, _ in BAD])
def test_wrong_settings_get_a_sentence_before_the_network_runs(
    pipe: TextToImage, settings: dict[str, Any], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe.denoiser, "forward", None)  # calling it would be a TypeError
    with pytest.raises(ValueError, match=sentence):
        pipe(**{"prompts": "cat"} | settings)


def test_a_model_without_words_or_styles_says_so() -> None:
    with pytest.raises(ValueError, match=r"`prompts` must be empty for this model, .*without text; got 'cat'"):
        styles_pipe()("cat")
    with pytest.raises(ValueError, match="`negative` must be empty for this model"):
        styles_pipe()("", negative="cat")
    encoder = WordEncoder(VOCABULARY, CAPTION_LENGTH, dim=16, layers=1, heads=2)
    words = TextToImage(NetDenoiser(small_net(), RectifiedFlow(), "flow"), encoder)
    with pytest.raises(ValueError, match="`style` must be left out, as this model knows no styles; got 'noto'"):
        words("a red circle", style="noto")
    with pytest.raises(ValueError, match="'circel'"):
        words("a red circel")
    assert len(words("", steps=1)) == 1  # no words at all are fine, though


def test_settings_can_be_checked_without_a_model() -> None:
    check_settings()
    with pytest.raises(ValueError, match=r"`strength` must be a number from 0\.01 to 1; got 1\.5"):
        check_settings(strength=1.5)


def test_one_condition_serves_any_number_of_pictures(pipe: TextToImage) -> None:
    cond = pipe.condition(["cat"])
    many = pipe.generate(cond, 3, steps=2, seeds=[0, 1, 2])
    assert torch.allclose(many, draw(pipe, ["cat"] * 3, steps=2), atol=1e-5)
    image = pipe.generate(Condition(image=torch.ones(1, NET.image_dim or 0)), 2, steps=2, seeds=[0, 1])
    assert not torch.allclose(image, many[:2], atol=0.01)
    with pytest.raises(ValueError, match=r"`cond` must have 1 row or one per sample \(3\); got 2"):
        pipe.generate(pipe.condition(["cat", "cat"]), 3, seeds=[0, 1, 2])
    with pytest.raises(ValueError, match=r"one per picture, as range\(2\); got \[0\]"):
        pipe.generate(cond, 2, seeds=[0])


def test_pixels_survive_the_way_to_an_image_and_back_and_transparency_is_white() -> None:
    x = torch.arange(768).view(1, 3, 16, 16).remainder(256).float() / 127.5 - 1
    assert torch.allclose(from_image(to_images(x)[0], 16), x, atol=1e-6)
    clear = Image.new("RGBA", (40, 20), (255, 0, 0, 0))
    assert torch.equal(from_image(clear, 16), torch.ones(1, 3, 16, 16))
    assert to_images(torch.full((1, 3, 2, 2), 9.0))[0].getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ValueError, match=r"`image` must be a PIL image, .*; got 'a\.png'"):
        from_image("a.png", 16)  # type: ignore[arg-type]
