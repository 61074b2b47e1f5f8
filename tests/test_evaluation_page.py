"""The page of measured numbers is about the model that ships, and shows what was measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minidiff.pipeline import TextToImage
from minidiff.recipes_look import fingerprint

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))

import evaluation_tables as evaluation  # noqa: E402


@pytest.mark.parametrize("name", ["evaluation", "sweep"])
def test_the_numbers_are_those_of_the_model_that_ships(name: str) -> None:
    found = evaluation.load(name)
    pipe = TextToImage.from_pretrained(found["checkpoint"])
    now = (fingerprint(pipe.denoiser.net), pipe.denoiser.schedule.shift)  # type: ignore[attr-defined]
    assert (found["weights"], found["shift"]) == now, f"run `minidiff evaluate` again for {name}.json"


def test_a_table_shows_the_numbers_of_its_file() -> None:
    rows = evaluation.load("evaluation")["splits"]["test"]["rows"]
    lines = {line.split(" | ")[0].strip("| *"): line for line in evaluation.TABLES["test"]()}
    assert f" {rows['model']['all']['base_100']['mean']:.2f} [" in lines["the model"]
    assert f" {rows['ceiling']['all']['style']['mean']:.2f} [" in lines["the true pictures"]
    assert len(evaluation.TABLES["settings"]()) == 2 + len(evaluation.load("sweep")["rows"])
    for table in evaluation.TABLES.values():
        assert len({line.count("|") for line in table()}) == 1 and len(table()) > 3
