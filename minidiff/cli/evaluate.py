"""`minidiff evaluate`: a model measured on what it has never seen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minidiff.cli.options import Device, check_folder, refuse


def evaluate(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="The model to measure: a bundled name or a folder.")] = "emoji-64",
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and the page of pictures.")] = Path(
        "evaluation"
    ),
    steps: Annotated[int, typer.Option(help="Calls of the network per picture.")] = 12,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 4.0,
    repeats: Annotated[int, typer.Option(help="Pictures per prompt of the emoji, with different seeds.")] = 8,
    size: Annotated[
        int, typer.Option(help="Pictures on each side of the distances between distributions; scenes of shapes.")
    ] = 600,
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Compare guidance, shift, steps and interval instead, on the validation split."),
    ] = False,
    precision: Annotated[
        str, typer.Option(help="Of the drawing: fp32 or bf16, faster where the device has it.")
    ] = "fp32",
    device: Device = None,
) -> None:
    """Measure a model on what it has never seen, beside ceiling and chance (and, for emoji, other baselines).

    Emoji are marked by a classifier that ships with minidiff, shapes by an exact oracle. Without a GPU the emoji take
    half an hour with --repeats 4 --size 300, the shapes a minute or two.

    Examples:

        minidiff evaluate emoji-64 --repeats 2 --size 200

        minidiff evaluate shapes --guidance 3 --size 500

        minidiff evaluate emoji-64 --sweep --repeats 4 --precision bf16
    """
    import json

    from minidiff.checkpoints import fingerprint, load_judge
    from minidiff.common import check_choice, check_int, pick_device
    from minidiff.data.emoji import STYLES
    from minidiff.data.scenes import VOCABULARY
    from minidiff.evaluate import PRECISIONS, Settings, evaluate_shapes, generate_with
    from minidiff.evaluate import evaluate as measure
    from minidiff.evaluate import sweep as compare
    from minidiff.evaluate.report import write_report
    from minidiff.pipeline import TextToImage
    from minidiff.samplers import check_settings
    from minidiff.schedules import own_shift
    from minidiff.text import MiniClip, WordEncoder

    if sweep:
        refuse(context, "with --sweep, which tries values of its own", "steps", "guidance", "size")
    check_settings(steps=steps, guidance=guidance)
    check_int("size", size, 4, 3025)
    check_choice("precision", precision, PRECISIONS)
    settings = Settings(steps, guidance, repeats=check_int("repeats", repeats, 1, 1000))
    check_folder("out", out)
    target = pick_device(device)
    pipe = TextToImage.from_pretrained(checkpoint).to(target)
    generate = generate_with(pipe, precision)
    shift = own_shift(pipe.denoiser.schedule)  # what a setting "shift": null stands for
    measured = {"checkpoint": checkpoint, "weights": fingerprint(pipe.denoiser.net), "shift": shift}
    measured["precision"] = precision
    wanted = VOCABULARY if isinstance(pipe.encoder, WordEncoder) else STYLES
    if not {*wanted} <= {*pipe.styles, *getattr(pipe.encoder, "vocabulary", ())}:
        raise ValueError(
            f"`checkpoint` {checkpoint} must know emoji, or all words for shapes, to be marked: measure pictures of "
            "your own by `minidiff.metrics.nearest` and `kernel_distance`."
        )
    if isinstance(pipe.encoder, WordEncoder):
        refuse(context, "for shapes: it is for the emoji, which are asked for one by one", "sweep", "repeats")
        result = evaluate_shapes(generate, size, steps=steps, guidance=guidance)
        kinds = {"seen": "trained pairs", "held_out": "new pairs"}
        marks = {f"all right, {words}": result[kind]["model"]["all_interval"] for kind, words in kinds.items()}
    else:
        judge = load_judge(device=target)
        measured["judge"] = fingerprint(judge)
        if sweep:
            out.mkdir(parents=True, exist_ok=True)
            compared = measured | compare(generate, judge, repeats=repeats)
            (out / "sweep.json").write_text(json.dumps(compared, indent=1) + "\n", encoding="utf-8")
            print(f"{out / 'sweep.json'}: the best is {compared['best']}")
            return
        clip = pipe.encoder if isinstance(pipe.encoder, MiniClip) else None
        result = measure(generate, judge, settings=settings, clip=clip, distribution_size=size)
        marks = {
            f"{split}, {name}": value
            for split, found in result["splits"].items()
            for name, value in found["rows"]["model"]["all"].items()
            if name != "n"  # the number of pictures
        }
    page = write_report(result | measured, out)
    for name, value in marks.items():
        print(f"{name:28} {value['mean']:6.3f} [{value['low']:.3f}, {value['high']:.3f}]")
    print(page)
