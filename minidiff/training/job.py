"""What a training run with a name consists of; `minidiff.presets` and `minidiff.presets_recipes` hold them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from minidiff.training.config import TrainConfig


class Job(NamedTuple):
    """What to train, on what, and how to write the result: finish(averaged objective, folder) -> measurements."""

    objective: nn.Module
    source: Any
    finish: Callable[[Any, Path], dict[str, Any]]


@dataclass(frozen=True)
class Preset:
    """A training run with a name. build(device, clip) prepares a Job.

    takes: which of the options clip and start it may be given. needs: which it must be.
    """

    summary: str
    config: TrainConfig
    build: Callable[[torch.device, str | None], Job]
    takes: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    def check(self, name: str, **options: Any) -> None:
        """Raise ValueError for an option that the preset of this name does not take, or needs and was not given."""
        why = {"clip": "only emoji models and recipes use one", "start": "only models that draw begin with one"}
        if "clip" in self.takes and "start" not in self.takes:
            why["start"] = "it builds upon its `clip`"
        for option, value in options.items():
            if value is None and option in self.needs:
                raise ValueError(f"`{option}` must be given for {name}, which trains a model further: emoji-64, say.")
            if value is not None and option not in self.takes:
                raise ValueError(f"`{option}` must be left out for {name}: {why[option]}; got {value!r}.")
