"""Do few steps lose anything? `python tools/steps.py OUT` draws the test prompts at 12 and at 250 steps.

Both start from the same noise, so the marks are compared picture by picture. OUT/steps.json is written anew after
every repeat. On a CPU that has bf16, --bf16 draws twice as fast (both sides).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from paired import Contest
from torch import Tensor

from minidiff.common import check_int, pick_device
from minidiff.evaluate import generate_with
from minidiff.evaluate.tasks import Settings, draw


def main(out: Path, checkpoint: str, few: int, many: int, repeats: int, bf16: bool) -> None:
    """Draw, mark, write."""
    for name, value in (("few", few), ("many", many), ("repeats", repeats)):
        check_int(name, value, 1, 1000)
    contest = Contest(checkpoint, pick_device(None), bf16)
    prompts, styles = [task.prompt for task in contest.tasks], [task.style for task in contest.tasks]

    def at(steps: int, seeds: list[int]) -> Tensor:
        return draw(generate_with(contest.pipe), prompts, styles, Settings(steps), seeds)

    ways = {"few": partial(at, few), "many": partial(at, many)}
    settings = Settings(few, repeats=repeats)
    contest.run(ways, [("few", "many")], settings, out / "steps.json", few=few, many=many)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", default="emoji-64")
    parser.add_argument("--few", type=int, default=12)
    parser.add_argument("--many", type=int, default=250)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--bf16", action="store_true")
    main(**vars(parser.parse_args()))
