"""What the commands share: options, and the refusal of paths that could not be written afterwards."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

Checkpoint = Annotated[str, typer.Option(help="A bundled model, a folder, or owner/name on the Hugging Face hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...; the best one here if not given.")]


def refuse(context: typer.Context, why: str, *names: str) -> None:
    """Raise ValueError for the first of these options that was given: where it would be ignored."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ValueError(f"`{name}` must be left out {why}; got {context.params[name]}.")


def is_folder(path: Path) -> bool:
    """Whether a path is, or shall become, a folder: it has no ending."""
    return path.is_dir() or not path.suffix


def check_file(name: str, path: Path, endings: list[str], or_folder: bool = False) -> None:
    """Refuse, before anything is computed, a path that could not be written afterwards."""
    kinds = " or ".join(endings) + (", or be a folder" if or_folder else "")
    if or_folder and is_folder(path):
        check_folder(name, path)
    elif path.suffix.lower() not in endings or path.is_dir():
        raise ValueError(f"`{name}` must end in {kinds}; got {str(path)!r}.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"`{name}` must lie in a folder that exists; {path.absolute().parent} does not: create it.")
    _check_writable(name, path.absolute().parent)


def check_folder(name: str, path: Path) -> None:
    """Refuse, before anything is computed, a folder that is a file, or that lies in one."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"`{name}` must be a folder, there already or not; {there} is a file.")
    _check_writable(name, there)


def _check_writable(name: str, folder: Path) -> None:
    if not os.access(folder, os.W_OK):
        raise ValueError(f"`{name}` must lie in a folder that you may write to; {folder} is none.")
