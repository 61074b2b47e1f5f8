"""The checkers of chapter 3, the reverse process: each looks at an answer and gives a hint or None."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from minidiff.common import seeded
from minidiff.learn import demand, exercise, number, numbers, shaped
from minidiff.schedules import CosineSchedule


@exercise("3.1", "predicting the noise leaves the picture open where there is hardly any picture: hence the clip.")
def error_of_the_picture(answer: Any) -> str | None:
    """0.02 sigma / alpha at t = 0.999 of the cosine schedule."""
    t = torch.tensor(0.999, dtype=torch.float64)
    factor = float(CosineSchedule().sigma(t) / CosineSchedule().alpha(t))
    value = demand(number(answer))
    if abs(value - 0.02 / factor) < 1e-6:
        return "that is the other way round: the picture is divided by alpha, not by sigma."
    if abs(value - (0.02 * factor) ** 2) < 0.02 * (0.02 * factor) ** 2:
        return "that is the mean square; the question is about its root."
    if abs(value - 0.02 * factor**2) < 0.01 * 0.02 * factor**2:
        return "that is the factor for squared errors; the question is about their root."
    if abs(value - 0.02 * factor) > 0.02 * 0.02 * factor:
        return "solve x_t = alpha x0 + sigma eps for x0: what multiplies an error of eps?"
    return None


@exercise("3.2", "every answer of a network becomes the pair (x0, eps) first, and then all samplers are the same.")
def ddim_from_the_picture(answer: Callable[..., Any]) -> str | None:
    """A function (x_t, x0_hat, alpha_t, sigma_t, alpha_s, sigma_s) -> x_s."""
    x_t, x0_hat = torch.randn(2, 4, generator=seeded(0), dtype=torch.float64)
    alpha_t, sigma_t, alpha_s, sigma_s = 0.5, 0.9, 0.8, 0.3  # all different: to mistake one is to be wrong
    hint = f"return x_s, a tensor of x_t's shape {tuple(x_t.shape)}."
    value = demand(shaped(answer(x_t, x0_hat, alpha_t, sigma_t, alpha_s, sigma_s), x_t), hint)
    if torch.allclose(value, alpha_s * x0_hat + sigma_s * x_t):
        return "x_t is not the noise: take alpha_t x0_hat away from it, and divide by sigma_t."
    if torch.allclose(value, alpha_s * x0_hat + sigma_s * (x_t - alpha_t * x0_hat)):
        return "nearly: what is left of x_t without the picture is sigma_t eps, so divide by sigma_t."
    right = alpha_s * x0_hat + sigma_s * (x_t - alpha_t * x0_hat) / sigma_t
    if not torch.allclose(value, right):
        return "find eps_hat from x_t = alpha_t x0_hat + sigma_t eps_hat, then put both guesses together at s."
    return None


@exercise("3.3", "all noise at t = 1, where sigma = 1, and hardly any of it near t = 0.")
def best_guess_for_a_gaussian(answer: Callable[..., Any]) -> str | None:
    """A function (x_t, sigma_t) -> E[eps | x_t] for x0 ~ N(0, 1) and alpha^2 + sigma^2 = 1."""
    x_t = torch.linspace(-2, 2, 5, dtype=torch.float64)
    for sigma in torch.tensor([0.3, 0.8], dtype=torch.float64):
        value = demand(shaped(answer(x_t, sigma), x_t), "return one guess for each x_t.")
        if torch.allclose(value, -sigma * x_t):
            return "mind the sign: the score of a Gaussian is -x_t, and the equation has a minus of its own."
        if torch.allclose(value, x_t):
            return "that would take everything for noise. Multiply the score by -sigma."
        if not torch.allclose(value, sigma * x_t):
            return "what is the variance of x_t? Write log p(x_t) of that Gaussian and take its slope."
    return None


@exercise("3.4", "one divided by (1 - decay) is how far an average looks back, 70% of that is its half-life.")
def half_life(answer: Any) -> str | None:
    """(n, m) with 0.99^n = 0.999^m = 1/2."""
    steps = demand(numbers(answer, 2), "give two numbers.")
    for value, decay in zip(steps, (0.99, 0.999), strict=True):
        right = math.log(2) / -math.log(decay)
        if abs(value - 1 / (1 - decay)) < 1e-6:
            return f"after {value:.0f} steps it counts 1/e, 37%. The question is about one half."
        if abs(value - right) > max(1.0, 0.015 * right):
            return f"for {decay}, solve {decay}^n = 1/2 with logarithms; {value:g} steps leave {decay**value:.0%}."
    return None
