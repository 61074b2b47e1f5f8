"""The gallery shows this checkpoint, unedited, on prompts that no training has seen."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from minidiff.checkpoints import find

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import gallery  # noqa: E402


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return json.loads((gallery.FOLDER / "gallery.json").read_text(encoding="utf-8"))


def test_the_gallery_was_drawn_by_the_model_that_ships(made: dict[str, Any]) -> None:
    weights = (find(made["checkpoint"]) / "model.safetensors").read_bytes()
    assert made["sha256"] == hashlib.sha256(weights).hexdigest(), "run `python book/tools/gallery.py`"
    assert made["settings"] == gallery.SETTINGS


def test_it_shows_all_prompts_and_no_others(made: dict[str, Any]) -> None:
    assert [line.rsplit(" (", 1)[0] for line in made["fifty"]] == list(gallery.PROMPTS)
    assert len(set(gallery.PROMPTS)) == 50
    assert made["held_out"] == [caption for caption, _ in gallery.held_out()]
    for name in ("fifty", "held_out"):
        assert (gallery.FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines() == made[name]
        with Image.open(gallery.FOLDER / f"{name}.png") as sheet:
            assert sheet.width > 500 and sheet.height > 500


def test_no_prompt_is_a_caption_of_the_training() -> None:
    known = gallery.known_captions()
    assert "red heart" in known
    assert not {gallery.bare(prompt) for prompt in gallery.PROMPTS} & known
