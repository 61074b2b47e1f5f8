"""`minidiff train`, `evaluate` and `data`: what they show, and what they refuse before they begin."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from program import Run, program, sentence
from small_models import small_pipe, styles_pipe

from minidiff import __version__
from minidiff.checkpoints import fingerprint, load_judge
from minidiff.pipeline import TextToImage
from minidiff.text import WordEncoder


@pytest.fixture
def minidiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return program(monkeypatch, capsys, tmp_path)


@pytest.mark.parametrize("command", ["generate", "train", "evaluate", "data", "export", "new"])
def test_the_help_of_each_command_teaches_by_example(minidiff: Run, command: str) -> None:
    done = minidiff(command, "--help")
    assert done.code == 0 and re.search(r"Examples?:", done.out) and f"minidiff {command} " in done.out
    assert not re.search(r"--[a-z-]+ +<\w+> *│?$", done.out, re.M)  # every option says what it does


def test_the_program_names_its_commands(minidiff: Run) -> None:
    done = minidiff("--help")
    assert done.code == 0 and all(
        name in done.out for name in ("generate", "train", "evaluate", "data", "new", "make book")
    )
    assert "generate" in "".join(minidiff()[1:])  # and so does calling it without any


def test_the_program_says_its_version_and_knows_the_short_word_for_help(minidiff: Run) -> None:
    assert minidiff("--version") == (0, f"minidiff {__version__}\n", "")
    module = subprocess.run(
        [sys.executable, "-m", "minidiff", "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == f"minidiff {__version__}\n"
    assert minidiff("new", "-h") == minidiff("new", "--help") and minidiff("new", "-h").code == 0


def test_help_does_not_wait_for_torch() -> None:
    """It takes 0.1 seconds without, and 1.5 with it."""
    asked = [sys.executable, "-X", "importtime", "-m", "minidiff", "train", "--help"]
    done = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "minidiff.cli" in done.stderr and "| torch" not in re.sub(r"\|\s+", "| ", done.stderr)


def test_the_data_can_be_looked_at_in_every_form(minidiff: Run) -> None:
    counts = minidiff("data")
    assert counts.code == 0 and "3025 concepts" in counts.out and "people-body" in counts.out and os.listdir() == []
    heart = minidiff("data", "Red Heart", "🐼")
    assert heart.code == 0 and "red heart (" in heart.out and "panda (" in heart.out
    with Image.open("data.png") as image:
        assert image.size == (4 * 128, 2 * 128)
    split = minidiff("data", "--split", "test", "--count", 3, "--out", "test.png")
    assert split.code == 0 and split.out.count(" style\n") == 3 and Path("test.png").exists()
    shapes = minidiff("data", "--shapes", "--count", 2, "--out", "shapes.png")
    assert shapes.code == 0 and re.search("circle|square|triangle|heart|star", shapes.out)
    with Image.open("shapes.png") as image:
        assert image.size == (2 * 64, 64)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (
            ["read heart"],
            "`name` must be the name of an emoji of the table; got 'read heart'. Did you mean 'red heart'",
        ),
        (["--split", "tests"], "`split` must be one of train, .*; got 'tests'. Did you mean 'test'"),
        (["--count", 0], "`count` must be an integer from 1 to 1024; got 0"),
        (["--out", "x.jpg"], "`out` must end in .png; got 'x.jpg'"),
        (["--out", "no/x.png"], "`out` must lie in a folder that exists"),
        (["panda", "--count", 3], "`count` must be left out here, where it would change nothing; got 3"),
        (["--out", "x.png"], "`out` must be left out here, where it would change nothing; got x.png"),
        (["panda", "--shapes"], "`names`, `split` and `shapes` each show another sheet; give one of them"),
    ],
)
def test_data_that_is_not_there_is_refused(minidiff: Run, arguments: list[Any], pattern: str) -> None:
    sentence(minidiff("data", *arguments), 2, pattern)
    assert os.listdir() == []


def test_train_lists_the_presets_and_suggests_the_nearest(minidiff: Run) -> None:
    from minidiff.presets import PRESETS

    done = minidiff("train")
    assert done.code == 0 and [line.split()[0] for line in done.out.splitlines()] == list(PRESETS)
    assert all(entry.summary in done.out for entry in PRESETS.values())
    sentence(minidiff("train", "shape-cpu"), 2, "`preset` must be one of .*Did you mean 'shapes-cpu'")
    sentence(minidiff("train", "shapes-cpu", "--steps", 0), 2, "`steps` must be an integer from 1 to 99999999; got 0")
    sentence(minidiff("train", "shapes-cpu", "--device", "cuda:99"), 2, "`device` must be one of")
    Path("file").write_text("")
    sentence(minidiff("train", "shapes-cpu", "--out", "file/x"), 2, "`out` must be a folder.*/file is a file")
    assert os.listdir() == ["file"]


def test_train_trains_and_says_how_to_use_the_model(minidiff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(name: str, folder: Path, **settings: Any) -> dict[str, Any]:
        asked.update(settings, name=name, folder=folder)
        return dict.fromkeys(("device", "parameters", "steps", "seconds", "images_per_second", "measured"), 1)

    monkeypatch.setattr("minidiff.presets.run", run)
    done = minidiff(
        "train", "shapes-cpu", "--steps", 5, "--minutes", 0.5, "--compile", "--precision=bf16", "--start=a"
    )
    assert done.code == 0 and "generate PROMPT --checkpoint runs/shapes-cpu" in done.out.replace("\\", "/")
    assert asked.pop("folder") == Path("runs/shapes-cpu") and asked.pop("name") == "shapes-cpu"
    assert {name: value for name, value in asked.items() if value is not None} == {
        "steps": 5, "minutes": 0.5, "compiled": True, "precision": "bf16", "start": "a"
    }  # fmt: skip
    assert "train emoji-64 --clip a" in minidiff("train", "clip", "--out", "a").out


def test_evaluate_counts_shapes_with_the_oracle(minidiff: Run) -> None:
    done = minidiff("evaluate", "shapes", "--size", 4, "--steps", 2, "--out", "counted")
    *marks, page_path = done.out.strip().splitlines()
    assert done.code == 0 and page_path == str(Path("counted") / "index.html")
    found = json.loads(Path("counted/evaluation.json").read_text())
    assert [line.split()[-3] for line in marks] == [
        f"{found[split]['model']['all']:.3f}" for split in ("seen", "held_out")
    ]
    assert found["settings"]["n"] == 4 and found["checkpoint"] == "shapes" and "pictures" not in found
    assert found["seen"]["ceiling"]["all"] == found["held_out"]["ceiling"]["all"] == 1
    page = Path("counted/index.html").read_text()
    assert "Held out pairs" in page and Path("counted/held-out-pairs.png").exists()


def test_evaluate_prints_the_marks_of_every_split(minidiff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    marks = {"n": 6, "style": {"mean": 0.5, "low": 0.41, "high": 0.6}}  # as `summarize` gives them
    result = {"splits": {split: {"rows": {"model": {"all": marks}}} for split in ("test", "validation")}}
    monkeypatch.setattr("minidiff.evaluate.evaluate", lambda *_, **__: result)
    monkeypatch.setattr("minidiff.evaluate.report.write_report", lambda result, folder: folder / "index.html")
    test, validation, page = minidiff("evaluate").out.splitlines()
    assert test.split() == ["test,", "style", "0.500", "[0.410,", "0.600]"] and page == "evaluation/index.html"
    assert validation.split()[:2] == ["validation,", "style"]


def test_evaluate_compares_settings_on_the_validation_split(minidiff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(generate: object, judge: object, **settings: object) -> dict[str, object]:
        return {"best": {"guidance": 4.0}, "asked": settings}

    monkeypatch.setattr("minidiff.evaluate.sweep", quick)
    done = minidiff("evaluate", "--sweep", "--repeats", 2, "--out", "compared")
    assert done.code == 0 and "the best is {'guidance': 4.0}" in done.out
    found = json.loads(Path("compared/sweep.json").read_text())
    weights = fingerprint(TextToImage.from_pretrained("emoji-64").denoiser.net)
    measured = {"checkpoint": "emoji-64", "weights": weights, "shift": 3.0, "judge": fingerprint(load_judge())}
    assert found == measured | {"precision": "fp32", "best": {"guidance": 4.0}, "asked": {"repeats": 2}}
    sentence(minidiff("train", "--steps", 5), 2, "`steps` must be left out without a preset; got 5")
    sentence(minidiff("evaluate", "shapes", "--sweep"), 2, "`sweep` must be left out for shapes")
    sentence(minidiff("evaluate", "shapes", "--repeats", 2), 2, "`repeats` must be left out for shapes")
    for option in ("steps", "guidance", "size"):
        sentence(minidiff("evaluate", "--sweep", f"--{option}", 4), 2, f"`{option}` must be left out with --sweep")


def test_evaluate_refuses_what_it_could_not_do(minidiff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextToImage, "from_pretrained", None)  # calling it would be a TypeError
    Path("file").write_text("")
    for arguments, pattern in (
        (["--steps", 0], "`steps` must be an integer from 1 to 1000; got 0"),
        (["--size", 0], "`size` must be an integer from 4 to 3025; got 0"),
        (["--guidance", "nan"], "`guidance` must be a number from 0 to 100; got nan"),
        (["--repeats", 0], "`repeats` must be an integer from 1 to 1000; got 0"),
        (["--size", 10**9], "`size` must be an integer from 4 to 3025; got 1000000000"),
        (["--precision", "fp16"], "`precision` must be one of fp32, bf16; got 'fp16'"),
        (["--out", "file"], "`out` must be a folder"),
        (["--device", "cuda:99"], "`device` must be one of"),
    ):
        sentence(minidiff("evaluate", *arguments), 2, pattern)


def test_a_training_that_was_stopped_says_where_it_goes_on(minidiff: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt("step 7 is saved")

    monkeypatch.setattr("minidiff.presets.run", stopped)
    sentence(minidiff("train", "shapes-cpu"), 130, "stopped: step 7 is saved")


def test_words_that_are_neither_emoji_nor_shapes_cannot_be_marked(minidiff: Run) -> None:
    TextToImage(small_pipe().denoiser, WordEncoder.of(["a house"], dim=16, heads=2)).save_pretrained("houses")
    TextToImage(styles_pipe().denoiser, None, ["cat", "dog"]).save_pretrained("animals")
    for name in ("houses", "animals"):
        wanted = f"`checkpoint` {name} must know emoji, or all words for shapes, .*`minidiff.metrics.nearest`"
        sentence(minidiff("evaluate", name), 2, wanted)
