"""Several ways to draw the test prompts, each from the same noise, and the marks' differences picture by picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minidiff.checkpoints import fingerprint, load_judge
from minidiff.data.emoji import EmojiSet, load_emoji
from minidiff.data.pixels import to_float
from minidiff.evaluate.tasks import SEED_STRIDE, Problem, Settings, mark, problems, summarize, true_features
from minidiff.pipeline import TextToImage
from minidiff.schedules import own_shift

SHOWN = ("base_100", "style", "similarity", "alike")


class Contest:
    """The test prompts, who marks their drawings, and in `told` what a file of results says of both."""

    def __init__(self, checkpoint: str, device: torch.device, bf16: bool):
        self.pipe = TextToImage.from_pretrained(checkpoint).to(device)
        self.judge, self.bf16 = load_judge(device=device), bf16
        self.emoji: EmojiSet = load_emoji()
        self.tasks: list[Problem] = problems(self.emoji, "test", self.judge.bases)
        self.told: dict[str, Any] = {
            "checkpoint": checkpoint,
            "weights": fingerprint(self.pipe.denoiser.net),
            "judge": fingerprint(self.judge),
            "shift": own_shift(self.pipe.denoiser.schedule),
            "precision": "bf16" if bf16 else "fp32",
            "pictures": len(self.tasks),
        }

    def run(
        self,
        ways: Mapping[str, Callable[[list[int]], Tensor]],
        minus: Sequence[tuple[str, str]],
        settings: Settings,
        path: Path,
        **told: Any,
    ) -> None:
        """Draw in each way (seeds to uint8 pictures), mark, compare; `path` is written anew after every repeat."""
        right = true_features(self.judge, self.emoji, self.tasks)
        marks: dict[str, list[dict[str, Tensor]]] = {name: [] for name in ways}
        marks |= {f"{a} minus {b}": [] for a, b in minus}
        path.parent.mkdir(parents=True, exist_ok=True)
        for repeat in range(1, settings.repeats + 1):
            first, looks = SEED_STRIDE * repeat, {}
            for name, draw in ways.items():
                with torch.autocast(self.pipe.device.type, torch.bfloat16, enabled=self.bf16):
                    drawn = draw(list(range(first, first + len(self.tasks))))
                marks[name].append(mark(self.judge, self.emoji, self.tasks, drawn, right=right))
                looks[name] = self.judge.features(to_float(drawn))
            for a, b in minus:
                difference = {key: marks[a][-1][key] - marks[b][-1][key] for key in marks[a][-1]}
                alike = torch.cosine_similarity(looks[a], looks[b]).cpu()
                marks[f"{a} minus {b}"].append(difference | {"alike": alike})
            rows = {name: summarize(self.tasks, found)["all"] for name, found in marks.items()}
            found = self.told | told | {"settings": asdict(replace(settings, repeats=repeat)), "rows": rows}
            path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            for name, row in rows.items():
                said = (
                    "{} {mean:.3f} [{low:.3f}, {high:.3f}]".format(key, **row[key]) for key in SHOWN if key in row
                )
                print(repeat, name, *said, flush=True)
