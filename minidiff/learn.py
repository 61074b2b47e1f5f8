"""What the chapters need to be read, run and practiced: quick sizes for tests, and a checker for the exercises."""

from __future__ import annotations

import functools
import importlib
import math
import os
import pkgutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from minidiff.common import check_choice

T = TypeVar("T")
Checker = Callable[[Any], str | None]

_EXERCISES: dict[str, tuple[Checker, str]] = {}


def fast(full: T, quick: T) -> T:
    """`full`, or `quick` where the environment sets MINIDIFF_FAST=1, as the tests of the chapters do.

    It chooses sizes and thresholds only; a chapter runs the same cells either way.
    """
    return quick if os.environ.get("MINIDIFF_FAST") == "1" else full


def exercise(exercise_id: str, right: str) -> Callable[[Checker], Checker]:
    """Register the checker of an exercise, say "2.1": a function of the answer that returns a hint, or None if right.

    An error that the answer raises counts as wrong and is shown; a returned or given None or ... counts as not
    filled in yet. right: what to say about a right answer, the reason why it is right.
    """

    def register(checker: Checker) -> Checker:
        if exercise_id in _EXERCISES:
            raise ValueError(f"`exercise_id` must be new for every exercise; {exercise_id!r} is taken.")
        _EXERCISES[exercise_id] = (checker, right)
        return checker

    return register


def numbers(answer: Any, count: int) -> list[float] | None:
    """The answer as so many numbers, or None if it is something else, or none (NaN)."""
    try:
        values = [float(value) for value in getattr(answer, "flatten", lambda: answer)()]  # a tensor of any shape
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and not any(map(math.isnan, values)) else None


def number(answer: Any) -> float | None:
    """The answer as one number, or None if it is something else."""
    found = numbers([answer], 1)
    return found[0] if found else None


class Hint(Exception):
    """What a checker says of an answer that is not of the kind that was asked for."""


def demand(found: T | None, hint: str = "give one number.") -> T:
    """What was found in an answer, say by `number`; raises `Hint` where that is nothing."""
    if found is None:
        raise Hint(hint)
    return found


def shaped(answer: Any, like: Tensor) -> Tensor | None:
    """The answer as a tensor of float64, or None if it is something else or not of that shape."""
    try:
        value = torch.as_tensor(answer, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        return None
    return value if value.shape == like.shape else None


def check(exercise_id: str, answer: Any) -> None:
    """Print at once whether `answer` solves the exercise, and if not, a hint. An unfilled answer is no failure."""
    print(verdict(exercise_id, answer)[1])


def verdict(exercise_id: str, answer: Any) -> tuple[bool | None, str]:
    """(True, False or, when there is no answer yet, None; the sentence to print).

    Raises ValueError for an exercise that does not exist.
    """
    _load_exercises()
    checker, right = _EXERCISES[check_choice("exercise_id", exercise_id, sorted(_EXERCISES))]
    waiting = f"Exercise {exercise_id} is waiting for you: replace the ... with your answer and run the cell again."
    if _unfilled(answer):
        return None, waiting
    try:
        hint = checker(_watched(answer) if callable(answer) else answer)
    except _Unfilled as empty:
        if empty.args[0] is Ellipsis:
            return None, waiting
        return False, "Not yet: your function returns nothing. Is a `return` missing, perhaps for some of its inputs?"
    except Hint as said:
        hint = str(said)
    except Exception as error:  # whatever a learner's code may raise
        return False, f"Not yet: your answer stops with {type(error).__name__}: {error}"
    return (True, f"Right: {right}") if hint is None else (False, f"Not yet: {hint}")


@functools.cache
def _load_exercises() -> None:
    """Import `minidiff.exercises`, a file per chapter: found by name, as they import this module's registry."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent / "exercises")]):
        importlib.import_module(f"minidiff.exercises.{module.name}")


class _Unfilled(Exception):
    """A learner's function returned ..., or nothing."""


def _unfilled(value: Any) -> bool:
    return value is None or value is Ellipsis


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The learner's function; what it returns must be something."""

    def call(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        if _unfilled(result):
            raise _Unfilled(result)
        return result

    return call
