"""The checkers of chapter 1, the basics: each looks at an answer and gives a hint or None."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import torch

from minidiff.learn import demand, exercise, number, numbers
from minidiff.schedules import CosineSchedule, RectifiedFlow
from minidiff.toy import ExactDenoiser, Mixture


@exercise("1.1", "two points pull with weights that depend on x_t, and their balance is a hyperbolic tangent.")
def two_points(answer: Callable[..., Any]) -> str | None:
    """A function (x_t, alpha, sigma) -> E[x0 | x_t] for data that are -1 or +1, each half of the time."""
    data = Mixture([1, 1], [[-1.0], [1.0]], [0.0, 0.0])
    cases = [(0.0, 0.5), (0.3, 0.5), (-0.8, 0.7), (0.1, 0.2), (2.0, 0.9)]
    for schedule, (x, time) in product((RectifiedFlow(), CosineSchedule()), cases):
        x_t, t = torch.tensor([x, time], dtype=torch.float64)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        value = demand(number(answer(x_t, alpha, sigma)), "return one number.")
        right = float(ExactDenoiser(data, schedule)(x_t.view(1, 1), t).x0)
        if abs(value - right) < 1e-4:
            continue
        case = f"for x_t = {x_t:.1f}, alpha = {alpha:.3f}, sigma = {sigma:.3f}"
        if abs(value) > 1:
            return f"{case} you answer {value:.3f}, but an average of -1 and +1 lies between them."
        if abs(value - math.tanh(alpha * x_t / sigma)) < 1e-4:
            return f"{case}: the exponents of the two Gaussians hold sigma squared."
        return f"{case} it should be {right:.4f}: weigh -1 and +1 by how well each explains x_t."
    return None


@exercise("1.2", "at pure noise x_t says nothing, and the best guess for the squared error is the mean of the data.")
def one_step(answer: Any) -> str | None:
    """What a network trained with the squared error answers at t = 1, for 30% at -1 and 70% at +1: 0.4."""
    value = demand(number(answer))
    if abs(value - 0.4) < 1e-3:
        return None
    if abs(abs(value) - 1) < 0.01:
        return (
            f"{value:+.0f} costs a squared error of 4 whenever the truth is the other one; a compromise costs less."
        )
    if abs(value) < 0.01:
        return "that is the middle between the two; but one of them is more frequent."
    return "which number is nearest, in mean squared distance, to draws that are -1 in 30% and +1 in 70% of cases?"


@exercise("1.3", "every sample is perfect, and seven of eight peaks are missing: read on_data and overlap together.")
def collapsed(answer: Any) -> str | None:
    """(on_data, modes, overlap) when all samples lie on one of eight equal peaks: (1, 1, 1/8)."""
    on_data, modes, overlap = demand(numbers(answer, 3), "give three numbers, (on_data, modes, overlap).")
    if abs(on_data - 1) > 1e-3:
        return "on_data: is any sample farther than 3 standard deviations from a peak?"
    if modes != 1:
        return "modes: how many of the peaks get at least a quarter of what they are due?"
    if abs(overlap - 1 / 8) > 1e-3:
        return "overlap: for each peak take the smaller of the share found and the share due, and add up."
    return None
