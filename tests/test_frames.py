"""Sliders without a kernel."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff.common import seeded
from minidiff.data.pixels import to_uint8
from minidiff.frames import FrameGrid, FrameSlider, as_frame, figure_frame
from minidiff.images import grid


def _frames(n: int) -> list[torch.Tensor]:
    generator = seeded(0, "cpu")
    return [torch.rand(3, 8, 12, generator=generator) * 2 - 1 for _ in range(n)]


def _sheet(page: str) -> np.ndarray:
    found = re.search(r"base64,([^)]+)\)", page)
    assert found
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))).convert("RGB"))


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_the_sheet_holds_every_frame_pixel_by_pixel(n: int) -> None:
    frames = _frames(n)
    page = FrameSlider(frames)._repr_html_()
    sheet = _sheet(page)
    columns = sheet.shape[1] // 12
    assert f"columns = {columns}," in page
    for i, frame in enumerate(frames):
        row, column = divmod(i, columns)
        cut = sheet[row * 8 : row * 8 + 8, column * 12 : column * 12 + 12]
        assert np.array_equal(cut, as_frame(frame))


def test_the_same_frames_make_the_same_page_and_others_another() -> None:
    assert FrameSlider(_frames(3))._repr_html_() == FrameSlider(_frames(3))._repr_html_()
    assert FrameSlider(_frames(3))._repr_html_() != FrameSlider(_frames(3)[::-1])._repr_html_()


def test_a_grid_has_two_sliders_and_the_last_counts_fastest() -> None:
    frames = _frames(6)
    page = FrameGrid(
        [frames[:3], frames[3:]], (["0.2", "0.8"], [1, 2, 3]), ("t", "guidance"), start=(1, 2)
    )._repr_html_()
    assert page.count("<input") == 2
    assert np.array_equal(_sheet(page)[-8:, -12:], as_frame(frames[5]))


def test_labels_and_captions_cannot_break_out_of_the_page() -> None:
    page = FrameSlider(_frames(2), ["</script><b>", '"'], name="<i>", caption="a < b & c")._repr_html_()
    assert page.count("</script>") == 1
    assert "<b>" not in page
    assert "a &lt; b &amp; c" in page


def test_pictures_of_every_kind_become_the_same_frame() -> None:
    pixels = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    tensor = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) / 127.5 - 1
    stored = torch.from_numpy(pixels).permute(2, 0, 1)
    for picture in (pixels, Image.fromarray(pixels), tensor, stored, stored.long(), tensor.half()):
        assert (as_frame(picture) == pixels).all()
    assert torch.equal(to_uint8(stored), stored)
    gray = as_frame(torch.zeros(1, 2, 5))  # of one channel, or `imshow` would color it
    assert gray.shape == (2, 5, 3) and (gray == 128).all()
    assert as_frame(pixels[:, :, 0]).shape == (4, 5, 3)
    assert as_frame(tensor[:1] * 0 + 9).min() == 255  # clipped
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))  # every emoji that one downloads has such a background
    for picture in (clear, np.asarray(clear), grid([clear])):
        assert (as_frame(picture) == 255).all()


def test_a_figure_becomes_a_frame_and_is_closed() -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots(figsize=(2, 1))
    assert figure_frame(figure, dpi=50).shape == (50, 100, 3)
    assert not plt.get_fignums()


def test_without_html_six_frames_stand_side_by_side() -> None:
    strip = Image.open(io.BytesIO(FrameSlider(_frames(11))._repr_png_()))
    assert strip.size == (6 * 12, 8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FrameSlider(_frames(3), [1, 2]), "`frames` must hold one frame per label, 2 in all; got 3"),
        (lambda: FrameSlider([]), "`frames` must hold one frame per label"),
        (lambda: FrameSlider([np.zeros((2, 2, 3))]), "`frames` must be uint8 arrays"),
        (lambda: FrameSlider([torch.zeros(2, 4, 4)]), "`frames` as tensors must be shaped"),
        (lambda: FrameSlider([*_frames(1), torch.zeros(3, 4, 4)]), "the same height and width"),
        (lambda: FrameSlider(_frames(2), start=2), "`start` must be an integer from 0 to 1; got 2"),
    ],
)
def test_wrong_frames_get_a_sentence(make, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        make()
