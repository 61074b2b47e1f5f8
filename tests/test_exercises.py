"""The checkers of the exercises: what they take, what they refuse, and what they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from minidiff import learn
from minidiff.common import seeded


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
        (lambda x: None, "Not yet: your function returns nothing. Is a `return` missing"),
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


@pytest.mark.parametrize("root", [lambda v: v**0.5, lambda v: v.sqrt(), torch.sqrt, math.sqrt])
def test_a_step_between_two_times_may_take_its_root_in_any_way(root) -> None:
    def answer(alpha_s, sigma_s, alpha_t, sigma_t):
        a = alpha_t / alpha_s
        return a, root(sigma_t**2 - (a * sigma_s) ** 2)

    assert learn.verdict("2.2", answer)[0]
    right, said = learn.verdict("2.2", lambda *case: (answer(*case)[0], answer(*case)[1] ** 2))
    assert right is False and "variance" in said


@pytest.mark.parametrize("shift", [math.log10(4), math.log2(4), 10 * math.log10(4)])
def test_another_logarithm_is_told_to_be_the_right_idea(shift: float) -> None:
    right, said = learn.verdict("2.4", shift)
    assert right is False and "natural logarithm" in said


def test_the_average_of_two_points_needs_sigma_and_may_be_written_in_torch() -> None:
    assert learn.verdict("1.1", lambda x_t, alpha, sigma: torch.tanh(alpha * x_t / sigma**2))[0]
    for wrong in (
        lambda x_t, alpha, sigma: math.tanh(alpha * x_t / (1 - alpha) ** 2),
        lambda x_t, alpha, sigma: math.tanh((1 - sigma) * x_t / sigma**2),
    ):
        assert learn.verdict("1.1", wrong)[0] is False


def test_nearly_the_marks_of_a_collapsed_generator_are_wrong() -> None:
    assert learn.verdict("1.3", (1, 1, 1 / 8))[0]
    for wrong in ((0.989, 1, 0.1236), (1, 1, 0.13), (1, 8, 1 / 8)):
        assert learn.verdict("1.3", wrong)[0] is False


def test_answers_of_chapter_3_may_be_rounded_and_of_any_kind() -> None:
    assert learn.verdict("3.1", 13)[0] and learn.verdict("3.4", (70, 700))[0]
    right, said = learn.verdict("3.1", 164.7)
    assert right is False and "mean square" in said
    for kind in (torch.Tensor.float, torch.Tensor.numpy, torch.Tensor.tolist):
        assert learn.verdict("3.3", lambda x_t, sigma_t, kind=kind: kind((1 - (1 - sigma_t**2)).sqrt() * x_t))[0]

        def ddim(x_t, x0_hat, alpha_t, sigma_t, alpha_s, sigma_s, kind=kind):
            return kind(alpha_s * x0_hat + sigma_s * (x_t - alpha_t * x0_hat) / sigma_t)

        assert learn.verdict("3.2", ddim)[0]
    for number, words in (("3.2", "return x_s, a tensor of x_t's shape (4,)"), ("3.3", "return one guess for each")):
        right, said = learn.verdict(number, lambda *_: "something else")
        assert right is False and words in said


def test_answers_of_chapter_4_may_be_rounded_and_exchanged_shapes_are_no_exchanged_colors() -> None:
    def answer(part):
        def losses(shapes, pairs, x0):
            def told(s):
                a, b = s.first, s.second
                return replace(
                    s, first=replace(a, **{part: getattr(b, part)}), second=replace(b, **{part: getattr(a, part)})
                )

            t, found = torch.full((len(x0),), 0.8), []
            for scenes in (pairs, [told(s) for s in pairs]):
                cond = shapes.condition([s.caption() for s in scenes])
                found.append(shapes.denoiser.loss(x0, cond, seeded(5), t).mean().item())
            return found[1] / found[0]

        return losses

    assert learn.verdict("4.2", answer("color"))[0] and learn.verdict("4.2", answer("shape"))[0] is False
    assert learn.verdict("4.1", torch.tensor([[2.0, 1.0, -torch.inf]]).softmax(dim=1))[0]
    assert learn.verdict("4.3", lambda c, n, w, t, i: (n + (w if i[0] <= t <= i[1] else 1) * (c - n)).float())[0]
    assert learn.verdict("4.4", 1e-8)[0] and "nothing is 0" in learn.verdict("4.4", "nothing")[1]


def test_a_noised_embedding_may_be_made_in_place_or_in_single_precision() -> None:
    def in_place(e, n, a):
        return e.mul_((1 - a**2) ** 0.5).add_(n.mul_(a))

    for answer in (in_place, lambda e, n, a: (1 - a**2) ** 0.5 * e.float() + a * n.float()):
        assert learn.verdict("5.4", answer)[0]
    right, said = learn.verdict("5.4", lambda e, n, a: (1 - a) * e + a * n)
    assert right is False and "mean square" in said
