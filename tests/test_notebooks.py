"""The committed chapters, without running them: their outputs are whole, current, and small enough to read."""

from __future__ import annotations

import ast
import base64
import builtins
import dis
import io
import json
import re
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "book" / "tools"))

from address import project, setup_cell  # noqa: E402
from chapters import smaller, stamp_of  # noqa: E402

CHAPTERS = sorted((ROOT / "notebooks").rglob("*.ipynb"))  # and the recipes


@pytest.fixture(params=CHAPTERS, ids=lambda path: path.stem)
def chapter(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads(request.param.read_text(encoding="utf-8"))


def _code(chapter: dict[str, Any]) -> list[dict[str, Any]]:
    return [cell for cell in chapter["cells"] if cell["cell_type"] == "code"]


def test_every_chapter_of_the_contents_is_there_and_no_other() -> None:
    contents = yaml.safe_dump(yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8")))
    assert CHAPTERS
    for path in CHAPTERS:
        assert path.relative_to(ROOT).with_suffix("").as_posix() in contents
    assert contents.count("notebooks/") == len(CHAPTERS)


def test_the_first_cell_is_the_setup_cell_and_hidden(chapter: dict[str, Any]) -> None:
    first = chapter["cells"][0]
    assert "".join(first["source"]) == setup_cell(*project()), "run `make address`"
    assert first["metadata"]["tags"] == ["remove-cell"]
    assert not first["outputs"]


def test_colab_opens_it_with_a_gpu_and_a_python_it_knows(chapter: dict[str, Any]) -> None:
    assert chapter["metadata"]["accelerator"] == "GPU"
    assert chapter["metadata"]["kernelspec"]["name"] == "python3"


def test_the_outputs_belong_to_this_code_data_and_checkpoint(chapter: dict[str, Any]) -> None:
    assert chapter["metadata"].get("minidiff") == stamp_of(chapter), "run `make notebooks`"


def test_it_was_run_once_from_top_to_bottom(chapter: dict[str, Any]) -> None:
    counts = [cell["execution_count"] for cell in _code(chapter) if "".join(cell["source"]).strip()]
    assert counts == list(range(1, len(counts) + 1))


def test_no_output_is_an_error_a_warning_or_a_dead_widget(chapter: dict[str, Any]) -> None:
    assert "widgets" not in chapter["metadata"]
    for cell in _code(chapter):
        for output in cell["outputs"]:
            assert output["output_type"] != "error"
            assert output.get("name") != "stderr", "".join(output["text"])[:300]
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {})


def test_no_output_holds_anything_from_elsewhere(chapter: dict[str, Any]) -> None:
    for cell in _code(chapter):
        for output in cell["outputs"]:
            page = "".join(output.get("data", {}).get("text/html", ""))
            assert 'src="http' not in page and "src='http" not in page and "url(http" not in page
            assert str(Path.home()) not in json.dumps(output) and "/tmp/" not in json.dumps(output)


def _names(code: str) -> tuple[set[str], set[str]]:
    """What a piece of code looks up, and what it binds."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [node for node in nodes if isinstance(node, ast.Name)]
    bound = {node.id for node in names if isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {(node.asname or node.name).split(".")[0] for node in nodes if isinstance(node, ast.alias)}
    return {node.id for node in names} - bound, bound


def _taken_and_set(source: str) -> tuple[set[str], set[str]]:
    """What a cell takes from others, or a function in it at any time, and what it sets, imports aside."""
    taken: set[str] = set()
    bound: set[str] = set()

    def read(code: types.CodeType, later: bool) -> None:
        before = ""
        for step in dis.get_instructions(code):
            if step.opname in ("LOAD_NAME", "LOAD_GLOBAL") and (later or step.argval not in bound):
                taken.add(step.argval)
            elif step.opname == "STORE_NAME" and code.co_name == "<module>" and not before.startswith("IMPORT"):
                bound.add(step.argval)
            before = step.opname
        for inner in code.co_consts:
            if isinstance(inner, types.CodeType):
                read(inner, later or not inner.co_name.startswith("<"))  # <listcomp> and its like run at once

    read(compile(source, "a cell", "exec"), False)
    return taken, bound


def test_a_cell_can_be_run_again_when_the_whole_chapter_has_run(chapter: dict[str, Any]) -> None:
    """Who goes back, changes a number and runs the cell has all as it was there: what is taken from another cell is
    set in one cell alone."""
    cells = [_taken_and_set("".join(cell["source"])) for cell in _code(chapter)[1:]]
    for name in set[str]().union(*(taken for taken, _ in cells)):
        setters = [i for i, (_, bound) in enumerate(cells, 1) if name in bound]
        assert len(setters) < 2, (name, setters)


def test_a_solution_runs_on_what_the_chapter_has_defined_so_far(chapter: dict[str, Any]) -> None:
    known = set(dir(builtins))
    for cell in chapter["cells"]:
        source = "".join(cell["source"])
        solution = cell["cell_type"] == "markdown" and "<summary>Solution" in source
        for code in re.findall(r"```python\n(.*?)```", source, re.S) if solution else [source]:
            if solution or cell["cell_type"] == "code":
                wanted, bound = _names(code)
                assert not solution or not wanted - known, code
                known |= bound


def test_its_text_is_plain_markdown_that_needs_no_book(chapter: dict[str, Any]) -> None:
    """Colab and GitHub know no directives and no roles: see book/tools/asides.py, quiz.py and references.py."""
    for cell in chapter["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            assert not re.search(r"\{[a-z:]+\}`|^(`{3,}|:{3,})\s*\{", source, re.M), source
            assert source.count("<details>") == source.count("</details>")


def test_a_paper_is_cited_as_the_list_of_papers_has_it(chapter: dict[str, Any]) -> None:
    listed: dict[str | None, tuple[str, str]] = {}
    for entry in (ROOT / "book" / "references.bib").read_text(encoding="utf-8").split("\n@")[1:]:
        found = dict(re.findall(r"^\s*(\w+)\s*=\s*\{+(.*?)\}+,?$", entry, re.M))
        ways = f"https://arxiv.org/abs/{found.get('eprint')}", f"https://doi.org/{found.get('doi')}", found.get("url")
        listed |= dict.fromkeys(ways, (found["author"].partition(",")[0].strip("{}"), found["year"]))
    text = "".join("".join(cell["source"]) for cell in chapter["cells"] if cell["cell_type"] == "markdown")
    for words, address in re.findall(r"\[([^][]* \(?\d{4}\)?)\]\((http[^()\s]+)\)", text):
        author, year = listed[address]
        assert words.startswith(author) and year in words, (words, address)


# What reads a measurement that was stored: where there is much of it, it would hide the argument.
STORED = re.compile(r"\b(values|cube|effect|interaction|of_both|changes|effects|gains)\b")


def test_only_figures_imports_and_the_reading_of_stored_measurements_are_folded(chapter: dict[str, Any]) -> None:
    cells = _code(chapter)
    for cell in cells[2:]:
        if "hide-input" in cell["metadata"].get("tags", []):
            source = "".join(cell["source"])
            shown = {kind for output in cell["outputs"] for kind in output.get("data", {})}
            assert shown & {"image/png", "text/html"} or STORED.search(source), source
    assert cells[1]["metadata"]["tags"] == ["hide-input"] and "import" in "".join(cells[1]["source"])


def test_figures_have_twice_the_pixels_of_their_place_for_sharp_screens(chapter: dict[str, Any]) -> None:
    for output in (output for cell in _code(chapter) for output in cell["outputs"]):
        data = output.get("data", {})
        if "image/png" in data and "text/html" not in data:  # a slider brings its own pictures
            pixels = struct.unpack(">II", base64.b64decode(data["image/png"])[16:24])
            size = output["metadata"]["image/png"]
            assert [side // 2 for side in pixels] == [size["width"], size["height"]]


def test_cells_are_short(chapter: dict[str, Any]) -> None:
    lengths = [len("".join(cell["source"]).splitlines()) for cell in _code(chapter)[1:]]
    assert max(lengths) <= 25
    assert sorted(lengths)[len(lengths) // 2] <= 8, "the middle one is longer than 8 lines"


def test_cells_hold_no_magics_and_leave_their_folder_alone(chapter: dict[str, Any]) -> None:
    for cell in _code(chapter):
        source = "".join(cell["source"])
        assert "../" not in source
        assert not any(line.startswith(("%", "!")) for line in source.splitlines())


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapter_is_light(path: Path) -> None:
    assert path.stat().st_size < 1_500_000


def test_pictures_are_written_smaller_and_look_the_same() -> None:
    """See book/tools/chapters.py: a chart gets a palette, a picture 64 levels, and transparency is left alone."""
    chart = np.full((300, 400, 3), 255, dtype=np.uint8)
    chart[20:290:3, :, 0] = np.linspace(0, 255, 400)  # red to yellow, on white
    chart[20:290:3, :, 2] = 0
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    for pixels, mode, most in ((chart, "P", 4), (noise, "RGB", 2)):
        written = io.BytesIO()
        Image.fromarray(pixels).save(written, "PNG")
        after = Image.open(io.BytesIO(smaller(written.getvalue())))
        moved = np.abs(np.asarray(after.convert("RGB")).astype(int) - pixels)
        assert after.mode == mode and moved.max() <= most
    glass = io.BytesIO()
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(glass, "PNG")
    assert smaller(glass.getvalue()) == glass.getvalue()
