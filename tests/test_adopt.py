"""A new flagship takes the place of the old one only when it is better, and brings its card's marks along."""

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
FILES = ("card.json", "config.json", "model.safetensors")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A small copy of the repository, with runs/ as `tools/flagship.sh` leaves it: here, the model that ships."""
    for folder in (Path("tools"), PAGE, MODELS / "emoji-64", MODELS / "midjourney"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("emoji-64", "midjourney"):
        shutil.copytree(ROOT / MODELS / name, tmp_path / "runs" / name)
    shutil.copytree(ROOT / PAGE, tmp_path / "runs" / "evaluation")
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "-f", str(MODELS)], ["commit", "-q", "-m", "the old one"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    card = json.loads((tmp_path / "runs" / "emoji-64" / "card.json").read_text(encoding="utf-8"))
    del card["evaluation"], card["text_encoder"]  # a run's own card has neither
    (tmp_path / "runs" / "emoji-64" / "card.json").write_text(json.dumps(card | {"steps": 7}), encoding="utf-8")
    return tmp_path


def adopt(copy: Path, gain: float) -> subprocess.CompletedProcess:
    path = copy / "runs" / "evaluation" / "evaluation.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found["splits"]["validation"]["rows"]["model"]["all"]["similarity"]["mean"] += gain
    found["splits"]["test"]["rows"]["model"]["all"]["style"]["mean"] = 0.25
    path.write_text(json.dumps(found), encoding="utf-8")
    return subprocess.run([sys.executable, "tools/adopt.py", "."], cwd=copy, capture_output=True, text=True)


def test_a_better_model_brings_its_marks_into_the_card(copy: Path) -> None:
    before = json.loads((copy / MODELS / "emoji-64" / "card.json").read_text(encoding="utf-8"))
    shutil.copy(copy / "runs" / "emoji-64" / "card.json", copy / MODELS / "emoji-64")  # as flagship.sh does
    done = adopt(copy, 0.1)
    assert done.returncode == 0 and "on the validation split" in done.stdout, done.stderr
    card = json.loads((copy / MODELS / "emoji-64" / "card.json").read_text(encoding="utf-8"))
    assert card["steps"] == 7 and card["text_encoder"] == before["text_encoder"]
    assert card["evaluation"]["rows"]["model"]["style"]["mean"] == 0.25
    assert card["evaluation"]["rows"].keys() == before["evaluation"]["rows"].keys()
    page = json.loads((copy / PAGE / "evaluation.json").read_text(encoding="utf-8"))
    assert page["splits"]["test"]["rows"]["model"]["all"]["style"]["mean"] == 0.25


def test_one_that_is_not_better_is_refused_and_nothing_is_copied(copy: Path) -> None:
    before = {name: (copy / MODELS / "emoji-64" / name).read_bytes() for name in FILES}
    done = adopt(copy, 0.0)
    assert done.returncode == 1 and "nothing was copied" in done.stderr
    assert before == {name: (copy / MODELS / "emoji-64" / name).read_bytes() for name in FILES}
