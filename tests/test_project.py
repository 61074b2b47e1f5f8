"""`minidiff new`: the written project trains, tests itself and draws; a name that would not work is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from program import Run, program, sentence

from minidiff.data.folder import FolderPictures
from minidiff.data.scenes import COLORS, HELD_OUT
from minidiff.project import write_project


@pytest.fixture
def minidiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return program(monkeypatch, capsys, tmp_path)


def python(folder: Path, *arguments: object) -> str:
    """What a new Python prints in the folder, as it runs for a student; it must succeed."""
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_project_tests_itself_trains_and_draws(minidiff: Run, tmp_path: Path) -> None:
    done = minidiff("new", "my_project")
    assert done.code == 0 and "cd my_project" in done.out and str(Path("my_project/my_project.py")) in done.out
    folder = tmp_path / "my_project"
    assert "5 passed" in python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    drawn = python(folder, "my_project.py", "--steps", 4)
    assert "samples.png: a blue circle, a blue heart" in drawn
    with Image.open(folder / "runs" / "samples.png") as image:
        assert image.size == (4 * 64, 4 * 64)
    assert minidiff("generate", "a red heart", "--checkpoint", folder / "runs", "--steps", 2).code == 0
    assert (tmp_path / "minidiff.png").exists()


def test_the_project_is_short_clean_and_named_throughout(tmp_path: Path) -> None:
    files = write_project("flowers", tmp_path)
    words = [path for path in files if path.suffix not in (".png", ".csv")]
    names = [path.relative_to(tmp_path).as_posix() for path in words]
    assert sorted(names) == [f"flowers/{name}" for name in (
        ".gitignore", "README.md", "flowers.py", "pyproject.toml", "test_flowers.py")]  # fmt: skip
    lines = [line for path in words for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) < 150 and not any("NAME" in line or "REQUIREMENT" in line for line in lines)
    assert '"minidiff @ https://github.com/' in (tmp_path / "flowers" / "pyproject.toml").read_text()
    for check in ("check", "format --check"):
        python(tmp_path, "-m", "ruff", *check.split(), "--isolated", "flowers")


def test_its_pictures_are_those_of_the_captions_and_leave_a_question_open(tmp_path: Path) -> None:
    write_project("flowers", tmp_path)
    data = FolderPictures(tmp_path / "flowers" / "data", 64)
    assert len(data) == 28 and len(set(data.captions)) == 14
    filled = {"circle": 0.79, "square": 1.0, "star": 0.4, "heart": 0.68}  # the share of its box
    for picture, caption in zip(data.pictures, data.captions, strict=True):
        _, color, shape = caption.split()
        assert (color, shape) not in HELD_OUT
        ink = (picture.int() - torch.tensor(COLORS[color])[:, None, None]).abs().amax(0) == 0
        rows, columns = ink.any(1).sum(), ink.any(0).sum()
        assert rows >= 25 and ink.sum() / (rows * columns) == pytest.approx(filled[shape], abs=0.08), caption
    assert len({picture.numpy().tobytes() for picture in data.pictures}) == 28


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "letters, digits and underscores"),
        ("two words", "letters, digits and underscores"),
        ("my-project", "as in my_project"),
        ("1st", "begin with a letter"),
        ("a/b", "letters, digits and underscores"),
        ("..", "letters, digits and underscores"),
        ("blümchen", "letters, digits and underscores"),
        ("x" * 300, "at most"),
        ("class", "a meaning of its own"),
        ("conftest", "a meaning of its own"),
        ("torch", "`import torch` already means another package"),
        ("json", "`import json` already means another package"),
        ("minidiff", "`import minidiff` already means another package"),
        ("there", "there is a file or folder of that name"),
    ],
)
def test_a_name_that_would_not_work_is_refused(minidiff: Run, tmp_path: Path, name: str, why: str) -> None:
    (tmp_path / "there").mkdir()
    sentence(minidiff("new", name), 2, f"`name` cannot be '{name[:40]}.*{why}")
    assert os.listdir() == ["there"]


def test_a_project_that_cannot_be_written_says_so(minidiff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    sentence(minidiff("new", "flowers"), 1, "No space left on device")
