"""What an environment needs, read from pyproject.toml.

`requirements.py book` prints the requirements of that extra, one a line: enough to build the book, without torch.
`requirements.py python` says in one sentence when this Python is too old. Runs on any Python 3.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(what: str) -> None:
    """Print the requirements of the extra `what`, or check this Python's version."""
    if sys.version_info < (3, 11):  # noqa: UP036 (this is where an older Python is told so)
        version = ".".join(str(part) for part in sys.version_info[:3])
        sys.exit(f"Python must be 3.11 or newer; this one is {version}. Name another: make PYTHON=python3.13")
    if what == "python":
        return
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    print("\n".join(project["optional-dependencies"][what]))


if __name__ == "__main__":
    main(sys.argv[1])
