"""Put a new flagship in the place of the one that ships: `python tools/adopt.py COPY`.

COPY is the copy of the repository in which `tools/flagship.sh` ran, or what came back of it: its `runs` and its
`minidiff/assets/factorial/results.json`. Refuses a model that is not nearer to the true pictures of the validation
split. What is left to do afterwards is listed in CONTRIBUTING.md.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MODELS, PAGE = Path("minidiff", "assets", "models"), Path("book", "_static", "evaluation")
RESULTS, CARD = Path("minidiff", "assets", "factorial", "results.json"), MODELS / "emoji-64" / "card.json"
MARKS = ("base_100", "hard_20", "style", "similarity")


def read(path: Path) -> dict[str, Any]:
    """A JSON file."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def card_with_marks(card: dict[str, Any], before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The card of a run, with what of the old one is still true and rows of the new evaluation."""
    test, settings, old = found["splits"]["test"], found["settings"], before["evaluation"]
    rows = {who: {mark: v for mark, v in test["rows"][who]["all"].items() if mark != "n"} for who in old["rows"]}
    told = {"prompts": test["pictures"], "pictures_per_prompt": settings["repeats"], "shift": found["shift"]}
    told |= {name: settings[name] for name in ("steps", "guidance")}
    told["precision"] = f"{found['precision']} on {card['device']}"
    asked = f"minidiff evaluate emoji-64 --repeats {settings['repeats']} --precision {found['precision']}"
    again = f"`{asked}` draws and marks them again."
    told["note"] = f"Guidance and shift were chosen on the validation split. {again}"
    kept = {"text_encoder": before["text_encoder"]}
    if "start" in card:  # trained further: how the first weights came about, and what they reached, belong to it
        kept["begun_with"] = {name: v for name, v in before.items() if name not in kept}
    return card | kept | {"evaluation": old | told | {"rows": rows}}


def main(folder: Path) -> None:
    """Compare on the validation split, then copy all or nothing."""
    runs = folder / "runs"
    files = {folder / RESULTS: ROOT / RESULTS}
    files |= {
        runs / "evaluation" / name: ROOT / PAGE / name
        for name in ("evaluation.json", "steps.json", "sweep.json", "told.json")
    }
    for name in ("emoji-64", "midjourney"):
        for file in ("card.json", "config.json", "model.safetensors"):
            files[runs / name / file] = ROOT / MODELS / name / file
    if missing := [str(path) for path in files if not path.is_file()]:
        sys.exit(f"{folder} must hold what tools/flagship.sh makes; it lacks {', '.join(missing)}.")
    if folder.resolve() == ROOT:
        sys.exit("Give the copy of the repository in which tools/flagship.sh ran, not this one.")
    found, before = read(runs / "evaluation" / "evaluation.json"), read(ROOT / PAGE / "evaluation.json")
    new, old = (part["splits"]["validation"]["rows"]["model"]["all"] for part in (found, before))
    for mark in MARKS:
        print(f"{mark:10} {old[mark]['mean']:.3f} -> {new[mark]['mean']:.3f}", end=" ")
        print(f"[{new[mark]['low']:.3f}, {new[mark]['high']:.3f}] on the validation split")
    copied = {split: rate["copies"]["mean"] for split, rate in found["copies"].items() if "copies" in rate}
    print("copies of training pictures:", ", ".join(f"{split} {share:.3f}" for split, share in copied.items()))
    if new["similarity"]["mean"] <= old["similarity"]["mean"]:
        sys.exit("It is not nearer to the true pictures than the one that ships: nothing was copied.")
    card = card_with_marks(read(runs / "emoji-64" / "card.json"), read(ROOT / CARD), found)
    for path, place in files.items():
        shutil.copy(path, place)
    (ROOT / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    print("Copied. Look at its pictures before anything else.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
