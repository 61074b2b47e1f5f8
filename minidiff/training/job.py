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
    """A training run with a name. build(device, clip) prepares a Job."""

    summary: str
    config: TrainConfig
    build: Callable[[torch.device, str | None], Job]
