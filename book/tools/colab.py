"""Run chapters as Colab would: its Python, its versions (colab.txt), our wheel on top, an empty folder.

`colab.py WHEEL CHAPTER ...` makes .venv-colab with the Python that runs it, installs the wheel as a chapter's first
cell does, and fails if that changed anything that was there. `--borrow` takes torch (5 GB) from .venv, whichever
version is there; so it does, and says so, where the pinned one cannot be had.
"""

import argparse
import pathlib
import subprocess
import sys
import venv

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv-colab"
SITE = "import sysconfig; print(sysconfig.get_path('purelib'))"


def run(python: pathlib.Path, *arguments: object, may_fail: bool = False) -> str | None:
    """What the command prints, None where it fails and may."""
    done = subprocess.run([str(python), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode and not may_fail:
        sys.exit(done.stdout + done.stderr)
    return None if done.returncode else done.stdout


def main(wheel: str, chapters: list[str], borrow: bool) -> None:
    """Build the environment, compare it before and after, run the chapters."""
    if sys.version_info[:2] != (3, 13):
        print(f"NOT Colab's Python 3.13 but {sys.version.split()[0]}; make colab PYTHON=python3.13 would be nearer.")
    venv.create(HOME, clear=True, with_pip=True)
    python, pip = HOME / "bin" / "python", ("-m", "pip", "--quiet", "--disable-pip-version-check")
    pins = [line for line in (ROOT / "book/tools/colab.txt").read_text().split("\n") if line and line[0] != "#"]
    heavy = [pin for pin in pins if pin.startswith("torch")]
    if borrow or run(python, *pip, "install", *heavy, may_fail=True) is None:
        site = pathlib.Path(str(run(python, "-c", SITE)).strip())
        (site / "borrowed.pth").write_text(str(run(ROOT / ".venv/bin/python", "-c", SITE)))
        found = run(python, "-c", "import torch; print(torch.__version__)", may_fail=True)
        if found is None:
            sys.exit(f"{' and '.join(heavy)} cannot be had here, and .venv has none for this Python.")
        print(f"NOT Colab's {' and '.join(heavy)}: torch {found.strip()} and everything beside it, from .venv.")
    run(python, *pip, "install", *(pin for pin in pins if pin not in heavy))
    before = set(str(run(python, *pip, "freeze", "--exclude", "minidiff")).split("\n"))
    run(python, *pip, "install", "--no-deps", "--force-reinstall", wheel)
    run(python, *pip, "install", wheel)
    after = set(str(run(python, *pip, "freeze", "--exclude", "minidiff")).split("\n"))
    came = ", ".join(sorted(after - before)) or "nothing else"
    print(f"{len(before)} packages were there; with minidiff came {came}.")
    if before - after:
        sys.exit(f"Installing minidiff changed what was there: {', '.join(sorted(before - after))}")
    run(python, *pip, "install", "pytest", "pytest-xdist", "nbval")  # what runs the chapters, which Colab itself does
    check = [python, ROOT / "book/tools/chapters.py", "check", *chapters]
    sys.exit(subprocess.run(check, check=False).returncode)


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("wheel")
    options.add_argument("chapters", nargs="+")
    options.add_argument("--borrow", action="store_true", help="take torch from .venv")
    main(**vars(options.parse_args()))
