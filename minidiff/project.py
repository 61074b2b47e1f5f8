"""What `minidiff new NAME` writes: a project of one's own that trains and tests itself, ready to be changed."""

from __future__ import annotations

import csv
import importlib.util
import keyword
import re
from importlib import metadata
from itertools import product
from pathlib import Path

import numpy as np

import minidiff
from minidiff.data.scenes import HELD_OUT
from minidiff.data.shapes import COLORS, SUBPIXELS, stamp

TEMPLATES = Path(__file__).parent / "assets" / "project"
WRITTEN_AS = {"project.txt": "NAME.py", "test.txt": "test_NAME.py", "gitignore": ".gitignore"}
PAIRS = product(("red", "yellow", "green", "blue"), ("circle", "square", "star", "heart"))
SHOWN = [pair for pair in PAIRS if pair not in HELD_OUT] * 2  # two pictures of each color and shape


def check_name(name: str, parent: str | Path) -> Path:
    """The folder that a project of this name gets in `parent`; raises ValueError for a name that would not work."""
    folder = Path(parent, name)
    if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9_]{,48}[A-Za-z0-9])?", name):
        why = "it must be at most 50 letters, digits and underscores, as in my_project, and begin with a letter"
    elif keyword.iskeyword(name) or name in ("setup", "conftest"):
        why = "that word has a meaning of its own in Python's tools"
    elif folder.exists() or folder.is_symlink():
        why = "there is a file or folder of that name here: choose another, or move that one away"
    elif importlib.util.find_spec(name) is not None:
        why = f"`import {name}` already means another package, which your project would hide"
    else:
        return folder
    raise ValueError(f"`name` cannot be {name!r:.80}: {why}.")


def write_project(name: str, parent: str | Path = ".") -> list[Path]:
    """Write the project `name` into a new folder of `parent` and return its files.

    The pictures of data/ are drawn here: colored shapes, without the pairs `HELD_OUT`. Raises ValueError, see
    `check_name`, and OSError where nothing can be written.
    """
    folder = check_name(name, parent)
    (folder / "data").mkdir(parents=True)
    files = []
    for template in sorted(TEMPLATES.iterdir()):
        path = folder / WRITTEN_AS.get(template.name, template.name).replace("NAME", name)
        text = template.read_text(encoding="utf-8").replace("REQUIREMENT", _requirement()).replace("NAME", name)
        path.write_text(text, encoding="utf-8")
        files.append(path)
    return [*files, *_draw_data(folder / "data")]


def _requirement() -> str:
    """This version of minidiff as pip finds it, with the address that the installed package gives as its own."""
    urls = dict(entry.split(", ", 1) for entry in metadata.metadata("minidiff").get_all("Project-URL") or ())
    return f"minidiff @ {urls['Repository']}/archive/refs/tags/v{minidiff.__version__}.tar.gz"


def _draw_data(folder: Path) -> list[Path]:
    from PIL import Image

    rng = np.random.default_rng(0)
    rows = []
    for i, (color, shape) in enumerate(SHOWN):
        shift_y, shift_x = rng.integers(-8, 9, 2) * SUBPIXELS
        coverage = stamp(shape, float(rng.integers(36, 47)), int(shift_y), int(shift_x), 64)[:, :, None]
        picture = 255 - coverage * (255 - np.array(COLORS[color]))
        rows.append((f"{i:02d}.png", f"a {color} {shape}"))
        Image.fromarray(np.rint(picture).astype(np.uint8)).save(folder / rows[-1][0])
    with (folder / "captions.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "caption"), *rows])
    return [folder / "captions.csv", *(folder / name for name, _ in rows)]
