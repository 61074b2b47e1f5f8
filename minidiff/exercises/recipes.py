"""The checkers of chapter 5, two recipes: each looks at an answer and gives a hint or None."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minidiff.common import seeded
from minidiff.learn import demand, exercise, number, numbers


@exercise("5.1", "two bundles would have shown you 0.30 and 0.60, and you would have blamed whatever you liked.")
def effects(answer: Any) -> str | None:
    """Main effects of guidance (.15) and fine-tune (.15), and their interaction (.10), of the table .3 .4 .4 .6."""
    hint = "give three numbers: the effect of guidance, of the fine-tune, and their interaction."
    values = demand(numbers(answer, 3), hint)
    if abs(values[0] - 0.15) > 1e-6 or abs(values[1] - 0.15) > 1e-6:
        return "a main effect is the mean of two differences: one for each level of the other factor."
    if abs(values[2] - 0.05) < 1e-6:
        return "that is half of it: take the whole difference between the two differences."
    if abs(values[2] - 0.1) > 1e-6:
        return "the interaction is how much larger the effect of one factor is when the other one is on."
    return None


@exercise("5.2", "so the regression wins, with an answer that is nobody's embedding.")
def cosine_of_draw_and_mean(answer: Any) -> str | None:
    """Unit vectors u, v at 120 degrees: a draw has the mean cosine (1 + cos 120) / 2, their middle cos 60."""
    hint = "give two numbers: the mean cosine of a draw, and that of the normalized mean."
    values = demand(numbers(answer, 2), hint)
    if abs(values[0] - 0.25) > 1e-3:
        return "a draw is right half of the time (cosine 1), and the other half it is 120 degrees off."
    if abs(values[1] - 0.5) > 1e-3:
        return "the normalized mean lies half-way: which angle is that to either of them?"
    return None


@exercise("5.3", "a fourteenth of the weights, which is why a look can be passed around as a file of a megabyte.")
def weights_of_a_lora(answer: Any) -> str | None:
    """Rank 8 beside a 3x3 convolution of 128 channels: 8 (128 * 9) + 128 * 8."""
    value = demand(number(answer))
    if value == 128 * 128 * 9:
        return "that is the convolution itself; count A (8 rows) and B (8 columns)."
    if value == 8 * 128 * 2:
        return "the kernel is 3 x 3: as a matrix, the convolution has 128 * 9 columns."
    return None if value == 8 * 128 * 9 + 128 * 8 else "A is 8 x (128 * 9), B is 128 x 8."


@exercise("5.4", "what is told with noise is not believed to the last digit, so the faults of a prior do less harm.")
def noised_embedding(answer: Callable[..., Any]) -> str | None:
    """A function (e, n, a) -> sqrt(1 - a^2) e + a n."""
    e, n = torch.randn(2, 3, 128, generator=seeded(0), dtype=torch.float64)
    for a in (0.0, 0.2, 1.0):
        value = answer(e.clone(), n.clone(), a)
        if not isinstance(value, Tensor) or value.shape != e.shape:
            return "return a tensor of the same shape as e."
        value = value.double()
        if torch.allclose(value, (1 - a) * e + a * n, atol=1e-6) and a == 0.2:
            return "the mean square must stay 1: the two shares' squares add up to 1, not the shares."
        if not torch.allclose(value, (1 - a**2) ** 0.5 * e + a * n, atol=1e-6):
            return f"at a = {a} this is not what the U-Net was trained with; what must the mean square be?"
    return None
