"""The checkers of chapter 4, text: each looks at an answer and gives a hint or None."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minidiff.common import seeded
from minidiff.learn import demand, exercise, number, numbers


@exercise("4.1", "the mask comes before the softmax, so what may be read shares everything.")
def weights_with_padding(answer: Any) -> str | None:
    """softmax(2, 1, -inf)."""
    weights = demand(numbers(answer, 3), "give three numbers, one for each word.")
    e = math.e
    if abs(weights[2]) > 1e-9:
        return "padding must not be heard at all: its score is minus infinity before the softmax."
    if all(abs(w - r) < 6e-3 for w, r in zip(weights, (e**2 / (e**2 + e + 1), e / (e**2 + e + 1), 0), strict=True)):
        return "these do not add up to 1: the padding was taken out after the softmax; take it out before."
    if any(abs(w - r) > 6e-3 for w, r in zip(weights, (e / (e + 1), 1 / (e + 1), 0), strict=True)):
        return "each weight is e to the power of its score, divided by the sum of those that count."
    return None


@exercise("4.2", "a bag of words would have given 1: word order reaches the picture.")
def who_has_which_color(answer: Callable[..., Any]) -> str | None:
    """A function (shapes, pairs, x0) -> loss with swapped colors / loss with the true caption, at t = 0.8."""
    from minidiff.data.scenes import Group, Scene
    from minidiff.data.shapes import render
    from minidiff.pipeline import TextToImage

    circle, square = Group(1, "large", "red", "circle"), Group(1, "small", "blue", "square")
    pairs = [Scene(circle, "left of", square), Scene(square, "above", circle)]
    rng = np.random.default_rng(0)
    x0 = torch.stack([render(scene, rng) for scene in pairs]).float() / 127.5 - 1
    shapes, t = TextToImage.from_pretrained("shapes"), torch.full((2,), 0.8)

    def swapped(s: Scene) -> Scene:
        assert s.second is not None
        first, second = replace(s.first, color=s.second.color), replace(s.second, color=s.first.color)
        return replace(s, first=first, second=second)

    def loss(told: list[Scene]) -> float:
        cond = shapes.condition([scene.caption() for scene in told])
        with torch.no_grad():
            return float(shapes.denoiser.loss(x0, cond, seeded(5), t).mean())

    right = loss([swapped(scene) for scene in pairs]) / loss(pairs)
    value = demand(number(answer(shapes, pairs, x0)), "return one number.")
    if abs(value - 1 / right) < 0.02 / right:
        return "that is the other way round: divide the loss with swapped colors by the one with the truth."
    if abs(value - 1) < 1e-4:
        return "the two losses are equal: were the captions really different, and the noise the same?"
    if abs(value - right) > 0.02 * right:
        return "take the mean loss over the scenes at t = 0.8, each time with a new seeded(5), and divide."
    return None


@exercise("4.3", "scale 1 is the plain conditional answer, so that is what guidance switched off means.")
def guidance_by_hand(answer: Callable[..., Any]) -> str | None:
    """A function (eps_cond, eps_neg, w, t, interval) -> guided eps."""
    eps_cond, eps_neg = torch.randn(2, 5, generator=seeded(0), dtype=torch.float64)
    usual, short = (4.0, (0.2, 0.8)), (2.5, (0.4, 0.6))
    within, outside = [(t, 4.0, usual) for t in (0.2, 0.5, 0.8)], [(t, 1.0, usual) for t in (0.1, 0.9)]
    cases = [*within, *outside, (0.45, 2.5, short), (0.7, 1.0, short)]
    for t, w, (asked, interval) in cases:
        value = answer(eps_cond, eps_neg, asked, t, interval)
        if not isinstance(value, Tensor) or value.shape != eps_cond.shape:
            return "return the guided eps, a tensor of the same shape."
        value = value.double()
        if torch.allclose(value, eps_neg + w * (eps_cond - eps_neg), atol=1e-5):
            continue
        if w == 1 and torch.allclose(value, eps_neg, atol=1e-5):
            return f"at t = {t} you ignore the prompt. Guidance that is off means scale 1, the conditional answer."
        if torch.allclose(value, eps_cond + w * (eps_cond - eps_neg), atol=1e-5):
            return "you start from eps_cond, so w = 0 would be the conditional answer; start from eps_neg."
        return f"with w = {asked:g} in {interval}, at t = {t} it should be eps_neg + {w:g} (eps_cond - eps_neg)."
    return None


@exercise("4.4", "where the class is certain there is nothing left to insist on; guidance acts where classes meet.")
def far_on_its_own_side(answer: Any) -> str | None:
    """lim (w - 1) d/dx log p(c | x) = 0."""
    value = demand(number(answer), "give the limit as a number; nothing is 0.")
    if abs(value) > 1e-6:
        return "write p(c | x) for the two Gaussians: it is a logistic function of x. What is its slope far out?"
    return None
