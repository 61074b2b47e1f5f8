"""The command line, a module per command: `minidiff generate | train | evaluate | data | export | new`."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

import minidiff
from minidiff.cli.data import data
from minidiff.cli.evaluate import evaluate
from minidiff.cli.export import export
from minidiff.cli.generate import generate
from minidiff.cli.new import new
from minidiff.cli.train import train

app = typer.Typer(
    help="Text-to-image diffusion, small enough to read and real enough to work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="The book *Diffusion Models Demystified* explains every part: run `make book`.",
)
for command in (generate, train, evaluate, data, export, new):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"minidiff {minidiff.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and stop.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; errors are sentences, with exit code 2 for wrong usage and 1 for failures."""
    import warnings

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no emoji shows "?" in place of a traceback
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_args, **_more: print(f"minidiff: {message}", file=sys.stderr)
        try:
            app()
        except ValueError as error:
            from minidiff.common import CheckpointError

            print(f"minidiff: {error}", file=sys.stderr)
            sys.exit(1 if isinstance(error, CheckpointError) else 2)
        except (OSError, RuntimeError) as error:
            print(f"minidiff: {error}", file=sys.stderr)
            sys.exit(1)
