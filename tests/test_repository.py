"""What holds for the whole tree: who imports whom, how long files are, what must never be in them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

import minidiff

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted((ROOT / "minidiff").rglob("*.py"))
FLOORS = {
    "common": 0,
    **dict.fromkeys(("schedules", "nets.layers", "data.pixels"), 1),
    **dict.fromkeys(("nets.unet", "nets.mlp", "text", "denoisers"), 2),
    **dict.fromkeys(("toy", "data", "guidance", "samplers", "training"), 3),
    **dict.fromkeys(("clip", "prior", "judge", "gan", "versus", "metrics", "plotting", "frames", "learn"), 4),
    **dict.fromkeys(("cards", "checkpoints", "exercises", "hub", "images", "pipeline"), 5),
    **dict.fromkeys(("editing", "evaluate", "export", "factors", "presets", "project", "prompts", "recipes"), 5),
    "cli": 6,
    "__main__": 7,
    "__init__": 7,  # the front door may name anything
}


def floor(module: str) -> int:
    """The floor of a module of the library, by the longest name that fits."""
    name = module.removeprefix("minidiff").removeprefix(".") or "__init__"
    fitting = [known for known in FLOORS if re.match(rf"{re.escape(known)}([._]|$)", name)]
    if not fitting and name == "nets":
        return 2
    assert fitting, f"{module} has no floor yet: give it one here and in book/api/index.md"
    return FLOORS[max(fitting, key=len)]


def module_name(path: Path) -> str:
    """minidiff/nets/unet.py is minidiff.nets.unet."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports() -> dict[str, set[str]]:
    """For every module, those of the library that it imports, at the top or inside functions, types aside."""
    modules = {module_name(path): path for path in LIBRARY}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        targets = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for_types = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
        skipped = {inner for node in for_types for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if node in skipped:
                continue
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{name} has a relative import"
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (inner & set(modules)) or {node.module}
        found[name] = {t for t in targets if t.split(".")[0] == "minidiff" and t in modules} - {name, "minidiff"}
    return found


@cache
def tracked() -> list[Path]:
    """The files that git tracks or would track."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def texts(*suffixes: str) -> list[tuple[Path, str]]:
    """The tracked text files, or those with these endings."""
    result = []
    for path in tracked():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            result.append((path, path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:
            continue
    return result


def test_imports_only_go_down_the_floors() -> None:
    up = [(a, b) for a, targets in imports().items() for b in targets if floor(b) > floor(a)]
    assert up == []


def test_no_module_imports_itself_through_others() -> None:
    def reach(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path, name))
        for target in imports()[name]:
            reach(target, (*path, name))

    for name in imports():
        reach(name, ())


@pytest.mark.parametrize("path", LIBRARY + sorted((ROOT / "tests").glob("*.py")), ids=lambda path: path.stem)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")
    assert lines < 300


def test_the_library_stays_small() -> None:
    """At most 7,450 lines of code: growing beyond is a decision. Docstrings, comments and blank lines not counted."""
    count = 0
    for path in LIBRARY:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        quiet: set[int] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
                words = node.body[0]
                quiet |= set(range(words.lineno, (words.end_lineno or words.lineno) + 1))
        lines = text.splitlines()
        count += sum(
            1
            for i, line in enumerate(lines, 1)
            if i not in quiet and line.strip() and not line.strip().startswith("#")
        )
    assert count <= 7450, f"{count} lines"


def test_nothing_can_run_code_from_a_file_of_weights() -> None:
    for path in LIBRARY:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
                assert not any(n.split(".")[0] in ("pickle", "cPickle", "dill", "joblib") for n in names), path
            if isinstance(node, ast.Attribute):
                assert (ast.unparse(node)) not in ("torch.load", "torch.save", "np.load", "yaml.load"), path
            if isinstance(node, ast.keyword):
                assert node.arg not in ("trust_remote_code", "allow_pickle"), path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    hosts = ["pypi" + ".org", "python" + "hosted", "registry." + "npmjs", "download." + "pytorch", "deb." + "debian"]
    places = ["/root" + "/", "/work" + "/", "/opt/" + "wheels", "/opt/" + "pypi", ".." + "/shared"]
    for path, text in texts():
        for word in [*hosts, *places]:
            assert word not in text, f"{path.relative_to(ROOT)} names {word}"


def test_actions_are_pinned_by_commit_and_may_do_little() -> None:
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        for used in re.findall(r"uses: (\S+)", text):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", used), used
        assert re.search(r"^permissions:\n  contents: read$", text, re.M)
        assert "pull_request_target" not in text


def test_the_tree_is_easy_to_clone() -> None:
    assert sum(path.stat().st_size for path in tracked()) <= 65e6


def test_the_address_and_the_version_agree_everywhere() -> None:
    command = [sys.executable, "book/tools/address.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert minidiff.__version__ == declared


def test_the_tested_versions_satisfy_the_floors() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    exact = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in lines if "==" in line}
    wanted = [*project["dependencies"], *(r for group in project["optional-dependencies"].values() for r in group)]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(exact[canonicalize_name(requirement.name)]), requirement


def test_every_module_has_its_place_in_the_reference() -> None:
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "api").glob("*.md"))
    shown = re.findall(r"^```\{api\} (\S+)$", pages, re.M)
    hidden = re.compile(r"minidiff(\.(__main__|data|nets|training|(cli|exercises)(\..*)?))?")
    wanted = [name for name in map(module_name, LIBRARY) if not hidden.fullmatch(name)]
    assert sorted(shown) == sorted(wanted)


def test_every_citation_in_the_reference_list_is_numbered_once() -> None:
    keys = re.findall(r"^@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.M)
    assert len(keys) == len(set(keys)) >= 31


def test_importing_minidiff_costs_little_more_than_torch() -> None:
    """At most 0.5 s more, best of three, and nothing heavy comes along."""
    script = (
        "import json, sys, time; import torch; t = time.perf_counter(); import minidiff; "
        "print(json.dumps([time.perf_counter() - t, sorted(sys.modules)]))"
    )
    times = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
        seconds, modules = json.loads(done.stdout)
        times.append(seconds)
        heavy = {"transformers", "accelerate", "matplotlib", "torchvision", "torchmetrics", "diffusers", "PIL"}
        assert not heavy & set(modules)
    assert min(times) <= 0.5
