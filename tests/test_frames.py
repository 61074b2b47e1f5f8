"""Sliders without a kernel, and the checker of the exercises."""

from __future__ import annotations

import base64
import io
import re
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from minidiff import learn
from minidiff.common import seeded
from minidiff.data.emoji import to_uint8
from minidiff.frames import FrameGrid, FrameSlider, as_frame, figure_frame
from minidiff.plotting import as_image


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
    for picture in (pixels, Image.fromarray(pixels), tensor, stored, tensor.half()):
        assert np.abs(as_frame(picture).astype(int) - pixels).max() <= (0 if picture is not tensor.half() else 1)
    assert np.abs(as_image(stored) * 255 - pixels).max() < 1e-3 and torch.equal(to_uint8(stored), stored)
    assert as_frame(pixels[:, :, 0]).shape == (4, 5, 3)
    assert as_frame(tensor[:1] * 0 + 9).min() == 255  # clipped


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


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    learn._load_exercises()
    monkeypatch.setattr(learn, "_EXERCISES", dict(learn._EXERCISES))

    @learn.exercise("0.1", right="doubling is adding to itself.")
    def doubled(answer):
        value = answer(3)
        return None if value == 6 else f"for 3 you give {value}."


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda x: 2 * x, "Right: doubling is adding to itself."),
        (lambda x: x**2, "Not yet: for 3 you give 9."),
        (lambda x: x / 0, "Not yet: your answer stops with ZeroDivisionError: division by zero"),
        (lambda x: ..., "Exercise 0.1 is waiting for you"),
        (None, "Exercise 0.1 is waiting for you"),
        (..., "Exercise 0.1 is waiting for you"),
    ],
)
def test_the_checker_answers_at_once(registered: None, capsys: pytest.CaptureFixture[str], answer, said: str) -> None:
    learn.check("0.1", answer)
    assert capsys.readouterr().out.startswith(said)


def test_an_unknown_exercise_is_named(registered: None) -> None:
    with pytest.raises(ValueError, match="`exercise_id` must be one of"):
        learn.check("0.11", 1)


def test_an_answer_is_so_many_numbers_or_none_at_all() -> None:
    assert learn.numbers((1, "2", torch.tensor(3.0)), 3) == [1, 2, 3] and learn.number(np.float32(0.5)) == 0.5
    for answer in ("x", [1], [1, 2, 3], 7, None, (1, "one")):
        assert learn.numbers(answer, 2) is None
    assert learn.numbers([0.5, float("nan")], 2) is None and learn.number(np.nan) is None
    assert learn.number("x") is None and learn.number((1, 2)) is None and learn.number(None) is None


def test_no_exercise_takes_nan_for_an_answer() -> None:
    learn.verdict("1.1", ...)  # loads the exercises
    nan = float("nan")
    answers = [nan, (nan, nan), (nan, nan, nan), lambda *_, **__: nan, lambda *_, **__: (nan, nan)]
    answers.append(lambda x, *_, **__: torch.full_like(torch.as_tensor(x), nan, dtype=torch.float64))
    for exercise_id in (name for name in learn._EXERCISES if not name.startswith("0.")):
        for answer in answers:
            assert learn.verdict(exercise_id, answer)[0] is False, exercise_id


def test_a_ddim_step_with_a_factor_mistaken_is_wrong() -> None:
    def answer(p: int, q: int, r: int, u: int) -> Any:
        """p x0 + q (x_t - r x0) / u, each one of alpha_t, sigma_t, alpha_s, sigma_s; right is 2, 3, 0, 1."""
        return lambda x, x0, *f: f[p] * x0 + f[q] * (x - f[r] * x0) / f[u]

    assert learn.verdict("3.2", answer(2, 3, 0, 1))[0] is True
    for wrong in ((2, 3, 0, 2), (1, 0, 0, 1), (2, 3, 3, 1)):
        assert learn.verdict("3.2", answer(*wrong))[0] is False


def test_fast_mode_chooses_the_quick_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIDIFF_FAST", raising=False)
    assert learn.fast(1000, 10) == 1000
    monkeypatch.setenv("MINIDIFF_FAST", "1")
    assert learn.fast(1000, 10) == 10


def test_guidance_that_ignores_its_arguments_is_wrong_and_two_digits_are_enough_for_a_weight() -> None:
    def guided(scale):
        return lambda cond, neg, w, t, interval: neg + scale(w, t, *interval) * (cond - neg)

    assert learn.verdict("4.3", guided(lambda w, t, low, high: w if low <= t <= high else 1))[0]
    for wrong in (
        lambda w, t, low, high: 4 if low <= t <= high else 1,
        lambda w, t, low, high: w if 0.2 <= t <= 0.8 else 1,
        lambda w, t, low, high: w if t == 0.5 else 1,
    ):
        assert learn.verdict("4.3", guided(wrong))[0] is False
    assert learn.verdict("4.1", (0.73, 0.27, 0))[0] and not learn.verdict("4.1", (0.665, 0.245, 0))[0]
