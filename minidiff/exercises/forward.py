"""The checkers of chapter 2, the forward process: each looks at an answer and gives a hint or None."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from minidiff.learn import demand, exercise, number, numbers
from minidiff.schedules import CosineSchedule, LinearSchedule


@exercise("2.1", "the kept shares multiply, and the variances add after the older one has shrunk.")
def two_steps_are_one(answer: Any) -> str | None:
    """(a, b) with x_2 = a x_0 + b z for beta_1 = 0.1, beta_2 = 0.2: a^2 = 0.9 * 0.8, b^2 = 1 - a^2."""
    a, b = demand(numbers(answer, 2), "give two numbers, (a, b).")
    if abs(a - 0.72) < 1e-3:
        return "0.72 is the share of the variance; a multiplies x_0 itself, so take a root."
    if abs(a - math.sqrt(0.72)) > 5e-3:
        return "a is what two steps leave of x_0: the product of the two factors sqrt(1 - beta)."
    if abs(b - (math.sqrt(0.1) + math.sqrt(0.2))) < 1e-3:
        return "standard deviations do not add; variances do, and step 2 shrinks the noise of step 1 as well."
    if abs(b**2 - 0.3) < 1e-3:
        return "nearly: step 2 multiplies the noise of step 1 by sqrt(1 - beta_2) before it adds its own."
    if abs(b - math.sqrt(0.28)) > 5e-3:
        return "a is right. For b, write the variance of the two noises added up, or use a^2 + b^2 = 1."
    return None


@exercise("2.2", "that is `markov_step`, and it takes any s < t, not only neighbors.")
def any_step(answer: Callable[..., Any]) -> str | None:
    """A function (alpha_s, sigma_s, alpha_t, sigma_t) -> (a, std) of the transition from s to t."""
    cases = [(1.0, 0.0, 0.6, 0.8), (0.8, 0.6, 0.6, 0.8), (0.9, 0.1, 0.5, 0.5)]
    for case in cases:
        alpha_s, sigma_s, alpha_t, sigma_t = case
        given = answer(*(torch.tensor(v, dtype=torch.float64) for v in case))
        a, std = demand(numbers(given, 2), "return two numbers, (a, std).")
        told = f"for alpha_s, sigma_s, alpha_t, sigma_t = {', '.join(map(str, case))}"
        if abs(a - alpha_t / alpha_s) > 1e-6:
            return f"{told}, a should be {alpha_t / alpha_s:.4f}: it turns alpha_s x_0 into alpha_t x_0."
        right = math.sqrt(sigma_t**2 - (a * sigma_s) ** 2)
        if abs(std - right**2) < 1e-6:
            return f"{told}, you return the variance; std is its root."
        if abs(std - right) > 1e-6:
            return f"{told}, std should be {right:.4f}: the variance still missing after a sigma_s."
    return None


@exercise("2.3", "half is gone just after a quarter of the linear schedule, and just before half of the cosine one.")
def half_signal(answer: Any) -> str | None:
    """(t_linear, t_cosine) at which alpha_bar = 1/2, so that the signal-to-noise ratio is 1."""
    pair = demand(numbers(answer, 2), "give two times between 0 and 1, (t_linear, t_cosine).")
    for name, schedule, t in zip(("linear", "cosine"), (LinearSchedule(), CosineSchedule()), pair, strict=True):
        if not 0 <= t <= 1:
            return f"{name}: times run from 0 to 1, so divide the number of the step by T."
        kept = float(schedule.alpha_bar(torch.tensor(t, dtype=torch.float64)))
        if abs(kept - 0.5) > 0.01:
            side = "later" if kept > 0.5 else "earlier"
            return f"{name}: at t = {t:.3f} alpha_bar is {kept:.2f}; look {side}."
    return None


@exercise("2.4", "four copies of a pixel average the noise's variance down to a quarter: log 4 = 1.39.")
def twice_the_size(answer: Any) -> str | None:
    """By how much log-SNR must fall when every pixel is doubled along both edges: log 4."""
    shift = abs(demand(number(answer)))
    if abs(shift - math.log(2)) < 0.02:
        return "that is for twice the pixels along one edge only; there are two edges."
    if any(abs(shift - other) < 0.02 for other in (math.log10(4), math.log2(4), 10 * math.log10(4))):
        return "right idea; take the natural logarithm, as log-SNR does."
    if abs(shift - 4) < 0.02:
        return "the question asks for a difference of logarithms, so take the (natural) logarithm."
    if abs(shift - math.log(4)) > 0.02:
        return "average the copies of one pixel: what happens to their signal, and to the variance of their noise?"
    return None
