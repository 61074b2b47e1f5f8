"""`minidiff data`: the pictures that ship, to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minidiff.cli.options import check_file, refuse


def data(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(help="Emoji to look up, by name or as the character.")] = None,
    split: Annotated[str | None, typer.Option(help="Show a split: train, validation, test or unseen.")] = None,
    shapes: Annotated[bool, typer.Option("--shapes", help="Show generated scenes of shapes.")] = False,
    count: Annotated[int, typer.Option(help="Pictures of a split or of shapes, 1 to 1024.")] = 64,
    out: Annotated[Path, typer.Option(help="Where the sheet of pictures goes.")] = Path("data.png"),
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

    check_int("count", count, 1, 1024)
    check_file("out", out, [".png"])
    if sum(map(bool, (names, split is not None, shapes))) > 1:
        raise ValueError("`names`, `split` and `shapes` each show another sheet; give one of them.")
    if not (shapes or split is not None):
        refuse(context, "here, where it would change nothing", "count", *([] if names else ["out"]))
    if shapes:
        pictures, lines = shape_pictures(count)
    elif names:
        pictures, lines = emoji_pictures(names)
    elif split is not None:
        pictures, lines = split_pictures(split, count)
    else:
        pictures, lines = [], describe()
    print("\n".join(lines))
    if pictures:
        columns = 4 if names and not shapes else None
        save_png(grid(pictures, 2, columns), out, {})
        print(out)
