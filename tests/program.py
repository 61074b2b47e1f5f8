"""The program as tests call it: in this process, in an empty folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from minidiff import cli


class Done(NamedTuple):
    code: Any
    out: str
    err: str


Run = Callable[..., Done]


def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    """`run("generate", "a cat", "--steps", 2)` gives the exit code and what was printed."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["minidiff", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Done(ended.value.code, *capsys.readouterr())

    return run


def sentence(done: Done, code: int, pattern: str) -> None:
    """The program ended with this code and one sentence that says this, and no traceback."""
    assert done.code == code, done
    assert re.search(pattern, done.err), done.err
    assert done.err.startswith("minidiff: ") and len(done.err.strip().split("\n")) == 1
