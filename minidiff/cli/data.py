"""`minidiff data`: the pictures that ship, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minidiff.cli.options import check_file


def data(
    names: Annotated[list[str] | None, typer.Argument(help="Emoji to look up, by name or as the character.")] = None,
    split: Annotated[str | None, typer.Option(help="Show a split: train, validation, test or unseen.")] = None,
    shapes: Annotated[bool, typer.Option("--shapes", help="Show generated scenes of shapes.")] = False,
    count: Annotated[
        int | None, typer.Option(help="Pictures of a split or of shapes, 1 to 1024 [default: 64].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where the sheet of pictures goes [default: data.png].")] = None,
) -> None:
    """Look at the data: counts, an emoji in its four styles, a split, or shapes.

    Examples:

        minidiff data

        minidiff data "red heart" panda

        minidiff data --split test --count 200 --out test.png
    """
    from minidiff.cli.sheets import describe, emoji_pictures, shape_pictures, split_pictures
    from minidiff.common import check_int
    from minidiff.images import grid, save_png

    number, sheet = check_int("count", 64 if count is None else count, 1, 1024), out or Path("data.png")
    check_file("out", sheet, [".png"])
    if sum(map(bool, (names, split is not None, shapes))) > 1:
        raise ValueError("`names`, `split` and `shapes` each show another sheet; give one of them.")
    for name, value in {"count": count, "out": out}.items():
        if value is not None and not (shapes or split is not None or (names and name == "out")):
            raise ValueError(f"`{name}` must be left out here, where it would change nothing; got {value}.")
    if shapes:
        pictures, lines = shape_pictures(number)
    elif names:
        pictures, lines = emoji_pictures(names)
    elif split is not None:
        pictures, lines = split_pictures(split, number)
    else:
        pictures, lines = [], describe()
    print("\n".join(lines))
    if pictures:
        columns = 4 if names and not shapes else None
        save_png(grid(pictures, 2, columns), sheet, {})
        print(sheet)
