"""`minidiff export`: a trained model for other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from minidiff.cli.options import check_folder


def export(
    kind: Annotated[str, typer.Argument(help="onnx: two graphs with int8 weights, which a web page can run.")],
    out: Annotated[Path, typer.Option(help="Folder for the files; those of an earlier export are replaced.")],
    checkpoint: Annotated[
        str, typer.Option(help="emoji-64, or a folder with a model that reads by a mini-CLIP.")
    ] = "emoji-64",
) -> None:
    """Write a text-to-image model as files that run without Python: in a web page, for one.

    text.onnx and unet.onnx hold the networks, tokenizer.json cuts prompts into tokens, manifest.json says the rest.
    The book's playground draws with such a folder; its page says how it draws with yours.

    Examples:

        minidiff export onnx --checkpoint emoji-64 --out emoji-64-onnx

        minidiff export onnx --checkpoint runs/emoji-64 --out book/_static/playground/emoji-64
    """
    from minidiff.common import check_choice
    from minidiff.export import export_onnx

    check_choice("kind", kind, ["onnx"])
    check_folder("out", out)
    manifest = export_onnx(checkpoint, out, lambda text: print(text, file=sys.stderr))
    for name, facts in manifest["files"].items():
        print(f"{facts['bytes'] / 1e6:8.2f} MB  {out / name}")
