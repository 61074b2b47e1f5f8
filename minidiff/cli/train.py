"""`minidiff train`: the presets."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from minidiff.cli.options import Device, check_folder, refuse


def train(
    context: typer.Context,
    preset: Annotated[str | None, typer.Argument(help="What to train; without it, the presets are listed.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for model, card and checkpoints [default: runs/PRESET].")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall-clock budget; the learning rate fits itself to it.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="At most this many updates.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per update.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="AdamW's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Order of the data, noise, first weights.")] = None,
    clip: Annotated[
        str | None, typer.Option(help="The checkpoint with the mini-CLIP; for midjourney, the model to tune.")
    ] = None,
    start: Annotated[str | None, typer.Option(help="A model to begin with, for emoji, shapes, teaching.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or auto: bf16 where a GPU has it.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse the network (pays on a GPU).")
    ] = False,
    device: Device = None,
) -> None:
    """Train a preset; the same command, given again, goes on where it was cut off. Ctrl-C saves first.

    Examples:

        minidiff train shapes-cpu

        minidiff train clip && minidiff train emoji-64 --clip runs/clip --compile

        minidiff train emoji-64 --start emoji-64 --minutes 60 --batch-size 32 --learning-rate 3e-4
    """
    from minidiff.common import check_choice
    from minidiff.presets import PRESETS, run

    if preset is None:
        refuse(context, "without a preset", *context.params)
        for name, entry in PRESETS.items():
            print(f"{name:12} {entry.summary}")
        return
    check_choice("preset", preset, PRESETS)
    folder = out or Path("runs") / preset
    check_folder("out", folder)
    options: dict[str, Any] = {
        "minutes": minutes,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": precision,
    }
    changes = {name: value for name, value in options.items() if value is not None}
    try:
        card = run(preset, folder, device=device, clip=clip, start=start, compiled=compiled, **changes)
    except KeyboardInterrupt as stop:
        print(f"minidiff: stopped{f': {stop}' if str(stop) else '.'}", file=sys.stderr)
        raise typer.Exit(130) from None
    if not card:  # another process has it
        return
    facts = {
        name: card[name] for name in ("device", "parameters", "steps", "seconds", "images_per_second", "measured")
    }
    print(json.dumps(facts, indent=2))
    use = {"clip": "train emoji-64 --clip", "judge": "", "teaching": "generate --style noto --checkpoint"}
    use |= {"prior": "generate PROMPT --recipe dalle --prior"}
    use |= {"midjourney": "generate PROMPT --recipe midjourney --look"}
    how = use.get(preset, "generate PROMPT --checkpoint")
    print(f"written to {folder}" + (f"; use it with: minidiff {how} {folder}" if how else ""))
