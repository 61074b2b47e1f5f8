"""`minidiff new`: a project of one's own."""

from __future__ import annotations

from typing import Annotated

import typer


def new(
    name: Annotated[str, typer.Argument(help="The project's name, which is also its folder's and its module's.")],
) -> None:
    """Write a small project that trains and tests itself, to begin your own from.

    Example:

        minidiff new my_project
    """
    from minidiff.project import write_project

    files = write_project(name)
    for path in (path for path in files if path.suffix != ".png"):
        print(path)
    print(f"Next: cd {name}, then: pip install pytest, python -m pytest, python {name}.py. README.md says the rest.")
