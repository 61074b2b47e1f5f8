"""What a training run writes beside its weights: a card with all that is needed to repeat it, and pictures.

The card is JSON: command, settings, data, device, speed, cost, the course of the loss, and what was measured.
"""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

import minidiff
from minidiff.common import seeded
from minidiff.images import grid
from minidiff.pipeline import TextToImage
from minidiff.text import WordEncoder
from minidiff.training.config import TrainConfig
from minidiff.training.cost import multiply_accumulates
from minidiff.training.loop import TrainResult

# The makers' figures for dense matrix products, in FLOP/s: bf16 where the loop uses it, fp32 on the T4.
PEAK = {"H100": 989e12, "H200": 989e12, "GH200": 989e12, "A100": 312e12, "T4": 8.1e12}
# What `minidiff train` can be given; minidiff.presets.run takes every setting of TrainConfig.
OPTIONS = {"minutes", "steps", "batch_size", "learning_rate", "seed", "clip", "start", "precision", "compile"}
DRAWN = {
    "emoji": ("red heart", "grinning face", "cat face", "house"),
    "shapes": (
        "a large red circle",
        "two small blue squares",
        "a small green star",
        "a yellow star above a black square",
    ),
}


def command(name: str, said: dict[str, Any]) -> str:
    """What makes the same run: a command line, or a call where a setting has no option there."""
    if said.keys() - OPTIONS or None in said.values():
        given = (f"{'compiled' if k == 'compile' else k}={v!r}" for k, v in said.items())
        return f"minidiff.presets.run({name!r}, folder, {', '.join(given)})"
    words = [f"--{k.replace('_', '-')}" + ("" if v is True else f" {shlex.quote(str(v))}") for k, v in said.items()]
    return " ".join(["minidiff train", name, *words])


def flops_per_picture(objective: nn.Module, source: Any, n: int = 2) -> int:
    """Floating-point operations of one training step, forward and backward, per picture; tried on a copy.

    Counted by torch for matrix products, convolutions and attention; a multiplication and an addition are two.
    """
    from accelerate.utils import send_to_device
    from torch.nn.attention import SDPBackend, sdpa_kernel

    trial, generator = copy.deepcopy(objective), seeded(0)
    batch = send_to_device(source.batch(source.order(0, 0)[:n], generator), next(trial.parameters()).device)
    # The plain kernel: not every fused one is counted.
    with sdpa_kernel(SDPBackend.MATH):
        macs = multiply_accumulates(lambda: trial(batch, generator).float().mean().backward())
    return 2 * macs // n


def facts(
    config: TrainConfig, result: TrainResult, device: torch.device, flops: int, processes: int = 1
) -> dict[str, Any]:
    """How the run was set up, how it went, and what it cost; utilization of each device where its peak is known."""
    on_gpu = device.type == "cuda"
    every = max(1, len(result.history) // 200)
    name = torch.cuda.get_device_name(device) if on_gpu else device.type.upper()
    speed = result.step * config.batch_size / max(result.seconds, 1e-9)
    peak = next((peak for chip, peak in PEAK.items() if re.search(rf"\b{chip}\b", name)), None)
    comparable = config.precision != "fp32" or name.endswith("T4")
    return {
        "config": asdict(config),
        "minidiff": minidiff.__version__,
        "commit": _commit(),
        "torch": torch.__version__,
        "device": name,
        "parameters": sum(p.numel() for p in result.objective.parameters() if p.requires_grad),
        "steps": result.step,
        "seconds": result.seconds,
        "minutes": result.seconds / 60,
        "images_per_second": speed,
        "flops_per_image": flops,
        "flops_per_second": flops * speed,
        "utilization": flops * speed / processes / peak if peak and comparable else None,
        "skipped_steps": result.skipped,
        "history": result.history[::every],
    }


def draw_samples(folder: Path, device: torch.device) -> None:
    """Write samples.png: what the model in the folder draws, a row per prompt; nothing where it cannot draw."""
    try:
        pipe = TextToImage.from_pretrained(folder).to(str(device))
    except ValueError:  # a text encoder or a classifier
        return
    kind = "shapes" if isinstance(pipe.encoder, WordEncoder) else "emoji"
    prompts = DRAWN[kind] if pipe.encoder is not None else ("",) * 4
    styles = pipe.styles or (None,) * 4
    rows = [pipe(list(prompts), style=style, seed=4 * i) for i, style in enumerate(styles)]
    grid([image for row in rows for image in row], 2, 4).save(folder / "samples.png", optimize=True)


def _commit() -> str | None:
    """The commit of the source tree that this minidiff runs from, None where it was installed."""
    here = Path(__file__).parent
    try:
        asked = ["git", "rev-parse", "--show-toplevel", "HEAD"]
        done = subprocess.run(asked, cwd=here, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    root, _, commit = done.stdout.strip().partition("\n")
    return commit or None if root and Path(root) == here.resolve().parent else None  # not of a project around .venv
