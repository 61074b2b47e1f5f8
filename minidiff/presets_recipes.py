"""What the recipes of chapter 5 are trained for: DALL·E's prior, and the fine-tune on a look of its own."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minidiff import checkpoints
from minidiff.checkpoints import fingerprint
from minidiff.clip import CaptionTable, emoji_captions
from minidiff.data.emoji import load_emoji
from minidiff.prior import Prior, PriorPairs, Regression, evaluate_prior
from minidiff.recipes_look import build_look
from minidiff.training.config import TrainConfig
from minidiff.training.job import Job, Preset
from minidiff.training.objectives import ConditionDropout, Denoising

CAPTIONS = 8  # variants per picture


class _Both(nn.Module):
    """The prior and the regression that it is compared with: two networks of one size, trained on equal batches."""

    def __init__(self, prior: Prior, regression: Prior, task: str):
        super().__init__()
        self.task = task  # with another CLIP a run cannot go on
        self.prior, self.regression = prior, regression
        only_text = ConditionDropout(text=0.9, image=0.0, both=0.0, none=0.1)
        self.losses = nn.ModuleList([Denoising(prior.denoiser, only_text), Regression(regression.denoiser)])

    def forward(self, batch: Any, generator: torch.Generator) -> torch.Tensor:
        """The sum of both losses, (B,)."""
        return sum(loss(batch, generator) for loss in self.losses)  # type: ignore[return-value]


def build_prior(device: torch.device, clip: str | None = None) -> Job:
    """The prior of a checkpoint's mini-CLIP, and a regression of the same size to judge it by."""
    emoji, encoder = load_emoji(), checkpoints.load_clip(clip or "emoji-64").to(device)
    table = CaptionTable(emoji_captions(emoji, CAPTIONS, seed=1), encoder, device)
    source = PriorPairs(emoji, table, encoder, device)

    def finish(objective: Any, folder: Path) -> dict[str, Any]:
        prior = objective.prior
        config = {"kind": "prior", "shape": prior.shape, "clip": fingerprint(encoder)}
        checkpoints.save_model(folder, config, prior.state_dict())
        return evaluate_prior(prior, objective.regression, encoder, emoji, source) | {"clip": config["clip"]}

    task = f"prior of CLIP {fingerprint(encoder)}"
    return Job(_Both(Prior(encoder.pooled_dim), Prior(encoder.pooled_dim), task), source, finish)


RECIPE_PRESETS: dict[str, Preset] = {
    "prior": Preset(
        "DALL·E's prior: from text to CLIP image embedding (some ten minutes on a CPU)",
        TrainConfig(2000, 256, learning_rate=1e-3, weight_decay=1.0, save_every=500),
        build_prior,
        takes=("clip",),
    ),
    "midjourney": Preset(
        "the flagship's fine-tune on a look of its own, by LoRA (needs peft; some ten minutes on a CPU)",
        TrainConfig(300, 12, learning_rate=2e-3, weight_decay=0.0, warmup=15, ema_decay=0.96, save_every=25),
        partial(build_look, full=False),
        takes=("clip",),
    ),
    "midjourney-full": Preset(
        "the same with all weights, for comparison",
        TrainConfig(300, 12, learning_rate=3e-4, weight_decay=0.0, warmup=15, ema_decay=0.96, save_every=25),
        partial(build_look, full=True),
        takes=("clip",),
    ),
}
