"""What the tests of the live demos share: the demos' data, as the library's mixtures, and how near is near enough."""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from browser import ROOT

from minidiff.toy import Mixture

sys.path.insert(0, str(ROOT / "book" / "tools"))

import demo_data

SCRIPTS = ROOT / "book" / "_static" / "demos"
DATA = json.loads((SCRIPTS / "data.js").read_text(encoding="utf-8").removeprefix(demo_data.HEAD).rstrip(";\n"))
IN_JS = {"linear": "linearSchedule", "cosine": "cosineSchedule", "flow": "rectifiedFlow"}


def mixture_of(name: str) -> Mixture:
    """A mixture as the demos have it."""
    data = DATA["mixtures"][name]
    return Mixture(data["weights"], data["means"], data["stds"], data["labels"])


def close(got: Any, wanted: torch.Tensor, within: float = 1e-5) -> bool:
    """Whether numbers from the page are the library's."""
    return np.allclose(np.array(got, dtype=float), wanted.double().numpy(), rtol=within, atol=within)
