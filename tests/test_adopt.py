"""A new flagship takes the place of the old one only when it is better and complete, and brings its marks along."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODELS, PAGE = Path("minidiff", "assets", "models"), Path("book", "_static", "evaluation")
RESULTS = Path("minidiff", "assets", "factorial", "results.json")
CARD = MODELS / "emoji-64" / "card.json"


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A small repository, and a copy of it in which `tools/flagship.sh` has made the very model that ships."""
    here, copy = tmp_path / "here", tmp_path / "copy"
    for folder in (Path("tools"), PAGE, RESULTS.parent, MODELS / "emoji-64", MODELS / "midjourney"):
        shutil.copytree(ROOT / folder, here / folder)
    for name in ("emoji-64", "midjourney"):
        shutil.copytree(ROOT / MODELS / name, copy / "runs" / name)
    shutil.copytree(ROOT / PAGE, copy / "runs" / "evaluation")
    shutil.copytree(ROOT / RESULTS.parent, copy / RESULTS.parent)
    (copy / RESULTS).write_text("{}", encoding="utf-8")
    for name in ("steps.json", "told.json"):
        (copy / "runs" / "evaluation" / name).write_text("{}", encoding="utf-8")
    card = read(copy / "runs" / "emoji-64" / "card.json")
    for name in ("evaluation", "text_encoder", "start", "begun_with"):
        card.pop(name, None)  # the run of a first training has none of them
    (copy / "runs" / "emoji-64" / "card.json").write_text(json.dumps(card | {"steps": 7}), encoding="utf-8")
    return here


def adopt(here: Path, gain: float, copy: str = "../copy") -> subprocess.CompletedProcess:
    path = here.parent / "copy" / "runs" / "evaluation" / "evaluation.json"
    found = read(path)
    found["splits"]["validation"]["rows"]["model"]["all"]["similarity"]["mean"] += gain
    found["splits"]["test"]["rows"]["model"]["all"]["style"]["mean"] = 0.25
    path.write_text(json.dumps(found), encoding="utf-8")
    return subprocess.run([sys.executable, "tools/adopt.py", copy], cwd=here, capture_output=True, text=True)


def test_a_better_model_brings_its_marks_into_the_card(here: Path) -> None:
    before = read(here / CARD)
    done = adopt(here, 0.1)
    assert done.returncode == 0 and "on the validation split" in done.stdout, done.stderr
    assert "copies of training pictures: " in done.stdout and "test 0.000" in done.stdout
    card, page = read(here / CARD), read(here / PAGE / "evaluation.json")
    assert card["steps"] == 7 and card["text_encoder"] == before["text_encoder"]
    assert card["evaluation"]["rows"]["model"]["style"]["mean"] == 0.25
    assert card["evaluation"]["rows"].keys() == before["evaluation"]["rows"].keys()
    assert page["splits"]["test"]["rows"]["model"]["all"]["style"]["mean"] == 0.25
    assert read(here / RESULTS) == read(here / PAGE / "steps.json") == read(here / PAGE / "told.json") == {}
    assert "begun_with" not in card


def test_one_that_was_trained_further_keeps_the_card_of_its_first_weights(here: Path) -> None:
    before, path = read(here / CARD), here.parent / "copy" / "runs" / "emoji-64" / "card.json"
    path.write_text(json.dumps(read(path) | {"start": "3d93"}), encoding="utf-8")
    assert adopt(here, 0.1).returncode == 0
    card = read(here / CARD)
    assert card["begun_with"] == {k: v for k, v in before.items() if k != "text_encoder"}
    assert card["text_encoder"] == before["text_encoder"] and card["steps"] == 7


def test_one_that_is_not_better_or_not_whole_is_refused_and_nothing_is_copied(here: Path) -> None:
    before = everything(here)
    for done, said in (
        (adopt(here, 0.0), "nothing was copied"),
        (adopt(here, 0.1, "../nowhere"), "must hold what tools/flagship.sh makes; it lacks"),
    ):
        assert done.returncode == 1 and said in done.stderr
    (here.parent / "copy" / "runs" / "evaluation" / "sweep.json").unlink()
    done = adopt(here, 0.1)
    assert done.returncode == 1 and "sweep.json" in done.stderr and done.stderr.count(".json") == 1
    assert before == everything(here)
