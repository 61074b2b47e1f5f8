"""Variations, interpolation and inpainting: what stays, what changes, and where the ends are."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import small_pipe, styles_pipe

from minidiff.common import Condition
from minidiff.editing import embed, inpaint, interpolate, slerp, variations
from minidiff.pipeline import TextToImage, from_image, to_images
from minidiff.samplers import STEPS, ddim_step
from minidiff.text import unit_rms


@pytest.fixture(scope="module")
def pipe() -> TextToImage:
    return small_pipe()


def picture(color: str) -> Image.Image:
    image = Image.new("RGB", (16, 16), "white")
    image.paste(color, (3, 3, 12, 12))
    return image


def test_variations_are_drawn_from_the_embedding_alone(pipe: TextToImage) -> None:
    red = picture("red")
    drawn = variations(pipe, red, 3, seed=5, steps=2)
    cond = Condition(image=embed(pipe, [red]))
    assert [p.tobytes() for p in drawn] == [
        p.tobytes() for p in to_images(pipe.generate(cond, 3, seeds=[5, 6, 7], steps=2))
    ]
    assert len({p.tobytes() for p in drawn}) == 3
    assert variations(pipe, picture("blue"), 1, seed=5, steps=2)[0].tobytes() != drawn[0].tobytes()


def test_slerp_walks_the_great_circle_at_constant_speed() -> None:
    a, b = unit_rms(torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))).double().unbind()
    way = slerp(a, b, torch.linspace(0, 1, 5)).double()
    assert torch.allclose(way[:1], a, atol=1e-5) and torch.allclose(way[-1:], b, atol=1e-5)
    assert torch.allclose(way.square().mean(1), torch.ones(5).double(), atol=1e-5)
    angles = torch.acos((way[:-1] * way[1:]).mean(1))
    assert torch.allclose(angles, angles[:1].expand(4), atol=1e-4)
    assert float(angles.sum()) == pytest.approx(float(torch.acos((a * b).mean())), abs=1e-3)


def test_an_interpolation_ends_at_the_two_pictures_own_drawings(pipe: TextToImage) -> None:
    red, blue = picture("red"), picture("blue")
    way = interpolate(pipe, red, blue, 3, seed=2, steps=2)
    for end, image in ((way[0], red), (way[-1], blue)):
        alone = from_image(variations(pipe, image, 1, seed=2, steps=2)[0], 16)
        assert (from_image(end, 16) - alone).abs().max() < 0.03
    assert len({p.tobytes() for p in way}) == 3


@pytest.mark.parametrize("sampler", sorted(STEPS))
def test_inpainting_keeps_what_is_black_in_the_mask_and_draws_the_rest(pipe: TextToImage, sampler: str) -> None:
    image, mask = picture("red"), Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 16, 8))
    (drawn,) = inpaint(pipe, "cat", image, mask, steps=3, sampler=sampler)
    before, after = (from_image(p, 16) for p in (image, drawn))
    assert torch.equal(before[:, :, 8:], after[:, :, 8:])
    assert (before[:, :, :8] - after[:, :, :8]).abs().mean() > 0.05


def test_what_is_kept_is_noised_by_the_noise_that_the_drawing_began_with(pipe: TextToImage) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []

    def watched(denoiser: Any, x_t: torch.Tensor, t: Any, s: Any, *rest: Any, **more: Any) -> Any:
        seen.append((x_t, t))
        return ddim_step(denoiser, x_t, t, s, *rest, **more)

    image, mask = picture("red"), Image.new("L", (16, 16), 0)
    mask.paste(255, (0, 0, 16, 8))
    inpaint(pipe, "cat", image, mask, steps=3, sampler=watched)
    (eps, _), (x, t), _ = seen
    wanted = (1 - t) * from_image(image, 16) + t * eps
    assert torch.allclose(x[:, :, 8:], wanted[:, :, 8:], atol=1e-5)


def test_a_hole_as_large_as_the_picture_is_a_drawing_like_any_other(pipe: TextToImage) -> None:
    white = Image.new("L", (16, 16), 255)
    drawn = inpaint(pipe, "cat", picture("red"), white, style="noto", count=2, seed=4, steps=3, guidance=2.0)
    plain = pipe(["cat", "cat"], style="noto", seed=4, steps=3, guidance=2.0)
    assert len(drawn) == 2
    for a, b in zip(drawn, plain, strict=True):
        assert (from_image(a, 16) - from_image(b, 16)).abs().max() < 0.02


def test_what_is_drawn_fits_what_is_there(pipe: TextToImage) -> None:
    """The network sees the known part at every step: another picture around the hole, another drawing in it."""
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (4, 4, 12, 12))
    red, blue = (from_image(inpaint(pipe, "cat", picture(c), mask, steps=3)[0], 16) for c in ("red", "blue"))
    assert (red - blue)[:, :, 4:12, 4:12].abs().max() > 0.01


def test_wrong_input_is_a_sentence(pipe: TextToImage) -> None:
    red, black = picture("red"), Image.new("L", (16, 16), 0)
    with pytest.raises(ValueError, match=r"`mask` must be white where .*; it is black everywhere"):
        inpaint(pipe, "cat", red, black)
    with pytest.raises(ValueError, match="`count` must be an integer from 1 to 64; got 0"):
        variations(pipe, red, 0)
    with pytest.raises(ValueError, match="`count` must be an integer from 2 to 64; got 1"):
        interpolate(pipe, red, red, 1)
    with pytest.raises(ValueError, match="`pipe` must be a model that is told CLIP image embeddings"):
        variations(styles_pipe(), red)


def test_a_photo_is_taken_upright_and_its_16_bits_scaled(pipe: TextToImage) -> None:
    tall = Image.new("RGB", (16, 16), "white")
    tall.paste("black", (0, 0, 16, 8))  # black above
    lying, exif = tall.rotate(90), Image.Exif()
    exif[0x0112] = 6  # "turn me clockwise"
    file = io.BytesIO()
    lying.save(file, "png", exif=exif)
    assert torch.equal(from_image(Image.open(file), 16), from_image(tall, 16))
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    assert abs(float(from_image(Image.fromarray(ramp), 16).mean())) < 0.01


def test_of_a_mask_only_what_was_painted_counts(pipe: TextToImage) -> None:
    painted = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    painted.paste("white", (0, 0, 16, 8))
    flat = Image.new("L", (16, 16), 0)
    flat.paste(255, (0, 0, 16, 8))
    (a,), (b,) = (inpaint(pipe, "a cat", picture("red"), mask, steps=2) for mask in (painted, flat))
    assert a.tobytes() == b.tobytes()
    with pytest.raises(ValueError, match="`mask` must be a PIL image"):
        inpaint(pipe, "a cat", picture("red"), np.ones((16, 16)))  # type: ignore[arg-type]


def test_of_a_picture_that_is_no_square_the_middle_is_taken(pipe: TextToImage) -> None:
    wide = Image.new("RGB", (48, 16), "white")
    wide.paste(picture("red"), (16, 0))
    assert torch.equal(from_image(wide, 16), from_image(picture("red"), 16))
    assert torch.equal(embed(pipe, [wide]), embed(pipe, [picture("red")]))


def test_inpainting_moves_away_from_a_negative_prompt(pipe: TextToImage) -> None:
    mask = Image.new("L", (16, 16), "white")
    plain, away = (
        inpaint(pipe, "a heart", picture("red"), mask, negative=negative, count=2, steps=2)
        for negative in (None, "blue")
    )
    assert all(a.tobytes() != b.tobytes() for a, b in zip(plain, away, strict=True))
    with pytest.raises(ValueError, match="`negative` must be"):
        inpaint(pipe, "a heart", picture("red"), mask, negative=3)  # type: ignore[arg-type]
