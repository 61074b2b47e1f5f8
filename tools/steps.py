"""Do few steps lose anything? `python tools/steps.py OUT` draws the test prompts at 12 and at 250 steps.

Both start from the same noise, so the marks are compared picture by picture. OUT/steps.json is written anew after
every repeat. On a CPU that has bf16, --bf16 draws twice as fast (both sides).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from minidiff.checkpoints import fingerprint
from minidiff.common import check_int, pick_device
from minidiff.data.emoji import load_emoji, to_float
from minidiff.evaluate import generate_with
from minidiff.evaluate_tasks import SEED_STRIDE, Settings, draw, mark, problems, summarize, true_features
from minidiff.judge import Judge
from minidiff.pipeline import TextToImage
from minidiff.schedules import own_shift


def main(out: Path, checkpoint: str, few: int, many: int, repeats: int, bf16: bool) -> None:
    """Draw, mark, write."""
    for name, value in (("few", few), ("many", many), ("repeats", repeats)):
        check_int(name, value, 1, 1000)
    device = pick_device(None)
    pipe, judge = TextToImage.from_pretrained(checkpoint).to(device), Judge.load(device=str(device))
    emoji = load_emoji()
    tasks = problems(emoji, "test", judge.bases)
    prompts, styles = [task.prompt for task in tasks], [task.style for task in tasks]
    known, settings = true_features(judge, emoji, tasks), Settings(few)
    told: dict[str, Any] = {"checkpoint": checkpoint, "weights": fingerprint(pipe.denoiser.net)}
    told |= {"judge": fingerprint(judge), "shift": own_shift(pipe.denoiser.schedule), "few": few, "many": many}
    told |= {"precision": "bf16" if bf16 else "fp32", "pictures": len(tasks)}
    marks: dict[str, list[dict[str, torch.Tensor]]] = {"few": [], "many": [], "few minus many": []}
    out.mkdir(parents=True, exist_ok=True)
    for repeat in range(1, repeats + 1):
        drawn = {}
        for name, steps in (("few", few), ("many", many)):
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                how = replace(settings, steps=steps)
                drawn[name] = draw(generate_with(pipe), prompts, styles, how, SEED_STRIDE * repeat)
            marks[name].append(mark(judge, emoji, tasks, drawn[name], right=known))
        a, b = (judge.features(to_float(drawn[name])) for name in ("few", "many"))
        difference = {k: marks["few"][-1][k] - marks["many"][-1][k] for k in marks["few"][-1]}
        marks["few minus many"].append(difference | {"alike": torch.cosine_similarity(a, b).cpu()})
        rows = {name: summarize(tasks, found)["all"] for name, found in marks.items()}
        found = told | {"settings": asdict(replace(settings, repeats=repeat)), "rows": rows}
        (out / "steps.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(repeat, end=" ")
        for name in ("base_100", "style", "similarity", "alike"):
            value = rows["few minus many"][name]
            print(f"{name} {value['mean']:.3f} [{value['low']:.3f}, {value['high']:.3f}]", end=" ")
        print(flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", default="emoji-64")
    parser.add_argument("--few", type=int, default=12)
    parser.add_argument("--many", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    main(**vars(parser.parse_args()))
