"""`minidiff generate`: it draws, its files say how, and what cannot be is refused in a sentence, and early."""

from __future__ import annotations

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

from minidiff.images import read_settings, save_png
from minidiff.pipeline import TextToImage


@pytest.fixture
def minidiff(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return program(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    small_pipe().save_pretrained(folder / "small")
    styles_pipe().save_pretrained(folder / "styles")
    return folder


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is refused now was refused before a model was loaded."""

    def load(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(TextToImage, "from_pretrained", load)


def test_the_installed_program_draws_from_the_bundled_model(tmp_path: Path) -> None:
    """Once for real: another process, the flagship, and a terminal that knows no emoji."""
    command = [sys.executable, "-c", "import minidiff.cli; minidiff.cli.main()"]
    command += ["generate", "a red heart ❤️", "--style", "fluent-3d", "--steps", "2", "--device", "cpu"]
    plain = os.environ | {"PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", "❤️.png"], cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0 and done.stdout.strip() == "??.png", done.stderr
    with Image.open(tmp_path / "❤️.png") as image:
        assert image.size == (256, 256)


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        (["--steps", 0], "`steps` must be an integer from 1 to 1000; got 0."),
        (["--steps", -1], "`steps` must be an integer from 1 to 1000; got -1."),
        (["--steps", 10**9], "`steps` must be an integer from 1 to 1000; got 1000000000."),
        (["--guidance", "nan"], "`guidance` must be a number from 0 to 100; got nan."),
        (["--guidance", "inf"], "`guidance` must be a number from 0 to 100; got inf."),
        (["--guidance", -1], "`guidance` must be a number from 0 to 100; got -1.0."),
        (["--rescale", 1.5], "`rescale` must be a number from 0 to 1; got 1.5."),
        (["--seed", -1], "`seed` must be an integer from 0 to 9223372036854775807; got -1."),
        (["--seed", 2**63], "`seed` must be an integer from 0 to 9223372036854775807; got"),
        (["--count", 0], "`count` must be an integer from 1 to 64; got 0."),
        (["--count", 65], "`count` must be an integer from 1 to 64; got 65."),
        (["--scale", 0], "`scale` must be an integer from 1 to 16; got 0."),
        (["--sampler", "dpmpp2m"], "`sampler` must be one of .*; got 'dpmpp2m'. Did you mean 'dpmpp_2m'?"),
        (["--out", "no/such/x.png"], "`out` must lie in a folder that exists; .*/no/such does not: create it"),
        (["--out", "no/such"], "`out` must lie in a folder that exists; .*/no does not: create it"),
        (["--out", "x.jpg"], "`out` must end in .png, or be a folder; got 'x.jpg'"),
        (["--out", "file"], "`out` must be a folder, there already or not; .*/file is a file"),
        (["--animate", "x.mp4"], "`animate` must end in .gif or .webp; got 'x.mp4'"),
        (["--animate", "x"], "`animate` must end in .gif or .webp; got 'x'"),
        (["--animate", "no/x.gif"], "`animate` must lie in a folder that exists; .*/no does not"),
        (["--device", "cuda:99"], "`device` must be one of .*cpu; got 'cuda:99'"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("no_model")
def test_wrong_settings_are_refused_before_a_model_is_loaded(
    minidiff: Run, arguments: list[Any], pattern: str
) -> None:
    Path("file").write_text("not a folder")
    sentence(minidiff("generate", "a red heart", *arguments), 2, pattern)
    assert os.listdir() == ["file"]


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize(("option", "place"), [("--out", "x.png"), ("--out", "x"), ("--animate", "x.gif")])
def test_a_place_that_is_not_ours_is_refused_before_a_model_is_loaded(
    minidiff: Run, monkeypatch: pytest.MonkeyPatch, option: str, place: str
) -> None:
    Path("theirs").mkdir()
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "theirs")  # root may write everywhere
    refused = f"`{option[2:]}` must lie in a folder that you may write to; .*/theirs"
    sentence(minidiff("generate", "a red heart", option, f"theirs/{place}"), 2, refused)


@pytest.mark.usefixtures("no_model")
def test_no_prompt_is_refused_before_a_model_that_reads_words_is_loaded(minidiff: Run, models: Path) -> None:
    pattern = '`prompts` must hold at least one prompt; try: minidiff generate "a red heart"'
    for checkpoint in ("emoji-64", "shapes", models / "small"):
        sentence(minidiff("generate", "--checkpoint", checkpoint), 2, pattern)
    for checkpoint in ("teaching", models / "styles"):
        with pytest.raises(AssertionError, match="a model was loaded"):
            minidiff("generate", "--checkpoint", checkpoint)


def test_an_empty_prompt_is_drawn_and_the_program_says_from_what(minidiff: Run, models: Path) -> None:
    small = ("--steps", 1, "--checkpoint", models / "small")
    for arguments, basis in (([""], "noise alone"), (["  ", "--style", "noto"], "its style, noto, alone")):
        done = minidiff("generate", *arguments, *small)
        assert done.code == 0
        assert (
            done.err.splitlines()[0] == f"minidiff: An empty prompt asks for nothing: its picture comes from {basis}."
        )
    assert "asks for nothing" not in minidiff("generate", "cat", *small).err
    assert "asks for nothing" not in minidiff("generate", "--steps", 1, "--checkpoint", models / "styles").err


def test_what_only_the_model_knows_is_refused_before_it_draws(
    minidiff: Run, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minidiff.nets.unet.UNet.forward", None)
    small, styles = ("--checkpoint", models / "small"), ("--checkpoint", models / "styles")
    nearest = "`style` must be one of noto, .*; got 'fluent3d'. Did you mean 'fluent-3d'"
    sentence(minidiff("generate", "cat", "--style", "fluent3d", *small), 2, nearest)
    sentence(minidiff("generate", "\udcff\udcfe", *small), 2, "`prompts` must be text that UTF-8 can write")
    sentence(minidiff("generate", *small), 2, '`prompts` must hold at least one prompt; try: minidiff generate "')
    sentence(
        minidiff("generate", "cat", *styles), 2, "`prompts` must be empty for this model.*without text; got 'cat'"
    )
    sentence(minidiff("generate", "--negative", "cat", *styles), 2, "`negative` must be empty for this model")
    sentence(minidiff("generate", "cat", "--seed", 2**63 - 1, "--count", 2, *small), 2, "`seed` must be an integer")
    assert os.listdir() == []


@pytest.mark.parametrize("prompt", ["", "   ", "красное сердце", "赤いハート", "❤️👩🏿‍🚀", "-", "[bold]x[/bold]"])
def test_any_prompt_can_be_drawn(minidiff: Run, models: Path, prompt: str) -> None:
    done = minidiff("generate", "--steps", 1, "--checkpoint", models / "small", "--", prompt)
    assert done.code == 0 and done.out.strip() == "minidiff.png"
    assert read_settings("minidiff.png")["prompts"] == [prompt]


def test_a_very_long_prompt_is_cut_and_the_program_says_what_was_lost(minidiff: Run, models: Path) -> None:
    done = minidiff("generate", "cat face " * 1111, "--steps", 1, "--checkpoint", models / "small")
    assert done.code == 0 and Path("minidiff.png").exists()
    (line,) = (line for line in done.err.splitlines() if line.startswith("minidiff:"))
    assert re.search(r"its last 9\d\d\d characters were not read, '.*face'", line)
    refused = minidiff("generate", "x" * 20_001, "--checkpoint", models / "small")
    sentence(refused, 2, "`prompts` must have at most 20000 characters each; got 20001")


def test_failures_of_a_checkpoint_end_with_1(minidiff: Run, models: Path, tmp_path: Path) -> None:
    small_pipe().save_pretrained(tmp_path / "model")
    weights, config = tmp_path / "model/model.safetensors", tmp_path / "model/config.json"
    whole, said = weights.read_bytes(), config.read_text()
    weights.write_bytes(whole[:5000])
    sentence(minidiff("generate", "cat", "--checkpoint", "model"), 1, "`checkpoint` model is incomplete or damaged")
    weights.write_bytes(whole)
    for old, new, pattern in (
        ('"blocks": 1', '"wings": 2', "`checkpoint` model .* unknown or wrong value: .*'wings'.*update minidiff"),
        ('"format": 1', '"format": 9', "`checkpoint` model has format 9, this minidiff reads 1: update minidiff"),
        ('"text-to-image"', '"clip"', "`checkpoint` model holds a clip, which cannot draw"),
        ('"embedding": 16', '"embedding": 8', r"`checkpoint` model does not fit this architecture: \d+ weights"),
    ):
        assert old in said
        config.write_text(said.replace(old, new))
        sentence(minidiff("generate", "cat", "--checkpoint", "model"), 1, pattern)
    sentence(minidiff("generate", "cat", "--checkpoint", "emoji64"), 2, "Did you mean 'emoji-64'")


def test_a_failure_while_drawing_ends_with_1(minidiff: Run, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr("minidiff.nets.unet.UNet.forward", fail)
    sentence(minidiff("generate", "cat", "--checkpoint", models / "small"), 1, "out of memory, say")


def test_what_is_no_number_is_wrong_usage(minidiff: Run) -> None:
    for arguments in (["--steps", "many"], ["--speed", "3"], ["--guidance", ""]):
        done = minidiff("generate", "cat", *arguments)
        assert done.code == 2 and arguments[0] in done.err and "Traceback" not in done.err
    assert minidiff("paint").code == 2


def test_a_picture_remembers_how_it_was_made(minidiff: Run, models: Path) -> None:
    settings = {"style": "noto", "steps": 2, "guidance": 2.5, "negative": "❤️", "seed": 7, "sampler": "ddim"}
    options = [part for name, value in settings.items() for part in (f"--{name}", value)]
    done = minidiff("generate", "cat", "rocket", *options, "--scale", 2, "--checkpoint", models / "small")
    assert done.code == 0 and done.err.replace("\r", "\n").split("\n") == ["step 1 of 2", "step 2 of 2", ""]
    said = read_settings("minidiff.png")
    assert said.pop("version") and said.pop("checkpoint") == str(models / "small") and said.pop("rescale") == 0.0
    assert said == settings | {"prompts": ["cat", "rocket"]}
    with Image.open("minidiff.png") as image:
        assert image.size == (64, 32)
    Image.new("RGB", (2, 2)).save("other.png")
    with pytest.raises(ValueError, match=r"`path` must be a PNG that minidiff wrote; other\.png holds no settings"):
        read_settings("other.png")
    save_png(Image.new("RGB", (2, 2)), "other.png", {"prompts": ["ж"]})
    assert read_settings("other.png")["prompts"] == ["ж"]


def test_picture_i_is_the_single_picture_of_seed_plus_i(minidiff: Run, models: Path) -> None:
    common = ("cat", "--steps", 2, "--checkpoint", models / "small", "--out")
    done = minidiff("generate", *common, "many", "--seed", 5, "--count", 3)
    assert done.code == 0 and done.out.split() == [str(Path("many", f"00{i}.png")) for i in range(3)]
    files = [Path("many", f"00{i}.png").read_bytes() for i in range(3)]
    for i, content in enumerate(files):
        minidiff("generate", *common, "one.png", "--seed", 5 + i)
        assert Path("one.png").read_bytes() == content
    assert len(set(files)) == 3
    assert minidiff("generate", *common, "many").code == 0  # a folder that is there is used again


@pytest.mark.parametrize("name", ["x.gif", "x.webp"])
@pytest.mark.parametrize("steps", [1, 4])
def test_an_animation_has_a_frame_per_step(minidiff: Run, models: Path, name: str, steps: int) -> None:
    small = ("--checkpoint", models / "small")
    done = minidiff("generate", "cat", "rocket", "--steps", steps, "--animate", name, "--scale", 2, *small)
    assert done.code == 0 and done.out.split() == ["minidiff.png", name]
    with Image.open(name) as image:
        assert getattr(image, "n_frames", 1) == steps and image.size == (64, 32)


def test_a_model_without_words_is_drawn_from_by_style(minidiff: Run, models: Path) -> None:
    assert minidiff("generate", "--style", "noto", "--steps", 1, "--checkpoint", models / "styles").code == 0
    assert read_settings("minidiff.png")["style"] == "noto"
