"""The command line: `minidiff generate | train | evaluate | data`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Text-to-image diffusion, small enough to read and real enough to work.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog="The book *Diffusion Models Demystified* explains every part: run `make book`.",
)

Checkpoint = Annotated[str, typer.Option(help="A bundled model, a folder, or owner/name on the Hugging Face hub.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...; the best one here if not given.")]


@app.command()
def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="What to draw, one picture per prompt.")] = None,
    style: Annotated[str | None, typer.Option(help="noto, twemoji, fluent-flat or fluent-3d.")] = None,
    count: Annotated[int, typer.Option(help="Pictures per prompt, 1 to 64.")] = 1,
    steps: Annotated[
        int, typer.Option(help="Calls of the network, 1 to 1000. More is slower and a little better.")
    ] = 12,
    guidance: Annotated[
        float, typer.Option(help="0 to 100: 0 ignores the prompt, 1 follows it, more insists.")
    ] = 4.0,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    seed: Annotated[int, typer.Option(help="Picture i is drawn with seed + i; the same seed, the same picture.")] = 0,
    sampler: Annotated[str, typer.Option(help="dpmpp_2m, ddim, heun or ddpm.")] = "dpmpp_2m",
    rescale: Annotated[float, typer.Option(help="0 to 1: undo the glare of strong guidance.")] = 0.0,
    scale: Annotated[int, typer.Option(help="Enlarge the picture this many times, 1 to 16.")] = 4,
    out: Annotated[
        Path, typer.Option(help="A .png (several pictures become a grid), or a folder for single ones.")
    ] = Path("minidiff.png"),
    animate: Annotated[Path | None, typer.Option(help="Also write the denoising as a .gif or .webp.")] = None,
    checkpoint: Checkpoint = "emoji-64",
    device: Device = None,
) -> None:
    """Draw pictures from prompts.

    Examples:

        minidiff generate "a red heart" --style fluent-3d

        minidiff generate "panda" "rocket" --count 4 --guidance 6 --animate panda.gif

        minidiff generate --checkpoint teaching --style noto --sampler ddim --steps 50
    """
    from minidiff.common import check_int, pick_device
    from minidiff.images import animation, grid, save_png
    from minidiff.pipeline import TextToImage, check_settings, to_images

    check_int("count", count, 1, 64)
    check_int("scale", scale, 1, 16)
    check_settings(steps=steps, guidance=guidance, sampler=sampler, rescale=rescale)
    check_int("seed", seed, 0, 2**63 - 1)
    _check_file("out", out, [".png"], or_folder=True)
    if animate is not None:
        _check_file("animate", animate, [".gif", ".webp"])
    target = pick_device(device)
    pipe = TextToImage.from_pretrained(checkpoint).to(target)
    wanted = [prompt for prompt in prompts or [""] for _ in range(count)]
    if pipe.encoder is not None and not prompts:
        raise ValueError('`prompts` must hold at least one prompt; try: minidiff generate "a red heart"')
    frames: list[Any] = []

    def show(i: int, x: Any) -> None:
        if animate is not None:
            frames.append(grid(to_images(x), scale))
        print(f"step {i + 1} of {steps}", end="\n" if i + 1 == steps else "\r", file=sys.stderr, flush=True)

    settings = {"style": style, "steps": steps, "guidance": guidance, "negative": negative, "seed": seed}
    settings |= {"sampler": sampler, "rescale": rescale}
    images = pipe(wanted, callback=show, **settings)  # type: ignore[arg-type]
    settings |= {"checkpoint": checkpoint}
    if not _is_folder(out):
        save_png(grid(images, scale), out, settings | {"prompts": wanted})
        print(out)
    else:
        out.mkdir(exist_ok=True)
        for i, (prompt, image) in enumerate(zip(wanted, images, strict=True)):
            path = out / f"{i:03d}.png"
            save_png(grid([image], scale), path, settings | {"prompts": [prompt], "seed": seed + i})
            print(path)
    if animate is not None:
        animation(frames, animate)
        print(animate)


@app.command()
def train(
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
        str | None, typer.Option(help="The mini-CLIP for an emoji model: a checkpoint that holds one.")
    ] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile fuse the network (pays on a GPU).")
    ] = False,
    device: Device = None,
) -> None:
    """Train a preset; run the same command again to go on where it was cut off.

    Examples:

        minidiff train shapes-cpu

        minidiff train clip && minidiff train emoji-64 --clip runs/clip --compile
    """
    from minidiff.common import check_choice
    from minidiff.presets import PRESETS, run

    if preset is None:
        for name, entry in PRESETS.items():
            print(f"{name:12} {entry.summary}")
        return
    check_choice("preset", preset, PRESETS)
    folder = out or Path("runs") / preset
    _check_folder("out", folder)
    changes: dict[str, Any] = {
        "minutes": minutes,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    card = run(preset, folder, device=device, clip=clip, compiled=compiled, **changes)
    facts = {
        name: card[name] for name in ("device", "parameters", "steps", "seconds", "images_per_second", "measured")
    }
    print(json.dumps(facts, indent=2))
    use = {"clip": "train emoji-64 --clip", "judge": "", "teaching": "generate --style noto --checkpoint"}
    how = use.get(preset, "generate PROMPT --checkpoint")
    print(f"written to {folder}" + (f"; use it with: minidiff {how} {folder}" if how else ""))


@app.command()
def evaluate(
    checkpoint: Annotated[str, typer.Argument(help="The model to measure: a bundled name or a folder.")] = "emoji-64",
    out: Annotated[Path, typer.Option(help="Folder for evaluation.json and the page of pictures.")] = Path(
        "evaluation"
    ),
    steps: Annotated[int, typer.Option(help="Calls of the network per picture.")] = 12,
    guidance: Annotated[float, typer.Option(help="Guidance scale.")] = 4.0,
    repeats: Annotated[int, typer.Option(help="Pictures per prompt, with different seeds.")] = 8,
    size: Annotated[int, typer.Option(help="Pictures on each side of the distances between distributions.")] = 600,
    device: Device = None,
) -> None:
    """Measure a text-to-emoji model on pictures it has never seen, beside ceiling and baselines.

    Example:

        minidiff evaluate emoji-64 --repeats 2 --size 200
    """
    from minidiff.common import check_int, pick_device
    from minidiff.evaluate import Settings, generate_with
    from minidiff.evaluate import evaluate as measure
    from minidiff.evaluate_report import write_report
    from minidiff.judge import Judge
    from minidiff.pipeline import TextToImage, check_settings

    check_settings(steps=steps, guidance=guidance)
    check_int("size", size, 4, 3025)
    settings = Settings(steps, guidance, repeats=check_int("repeats", repeats, 1, 1000))
    _check_folder("out", out)
    target = pick_device(device)
    judge = Judge.load(device=str(target))
    pipe = TextToImage.from_pretrained(checkpoint).to(target)
    result = measure(generate_with(pipe), judge, settings=settings, distribution_size=size)
    result["checkpoint"] = checkpoint
    print(write_report(result, out))


@app.command()
def data(
    names: Annotated[list[str] | None, typer.Argument(help="Emoji to look up, by name or as the character.")] = None,
    split: Annotated[str | None, typer.Option(help="Show a split: train, validation, test or unseen.")] = None,
    shapes: Annotated[bool, typer.Option("--shapes", help="Show generated scenes of shapes.")] = False,
    count: Annotated[int, typer.Option(help="Pictures on the sheet, 1 to 1024.")] = 64,
    out: Annotated[Path, typer.Option(help="Where the sheet of pictures goes.")] = Path("data.png"),
) -> None:
    """Look at the data: counts, an emoji in its four styles, a split, or shapes.

    Examples:

        minidiff data

        minidiff data "red heart" panda

        minidiff data --split test --count 200 --out test.png
    """
    from minidiff.common import check_int
    from minidiff.images import grid, save_png
    from minidiff.look import describe, emoji_pictures, shape_pictures, split_pictures

    check_int("count", count, 1, 1024)
    _check_file("out", out, [".png"])
    if sum(map(bool, (names, split is not None, shapes))) > 1:
        raise ValueError("`names`, `split` and `shapes` each show another sheet; give one of them.")
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
            from minidiff.training.checkpoint import CheckpointError

            print(f"minidiff: {error}", file=sys.stderr)
            sys.exit(1 if isinstance(error, CheckpointError) else 2)
        except (OSError, RuntimeError) as error:
            print(f"minidiff: {error}", file=sys.stderr)
            sys.exit(1)


def _is_folder(path: Path) -> bool:
    return path.is_dir() or not path.suffix


def _check_file(name: str, path: Path, endings: list[str], or_folder: bool = False) -> None:
    """Refuse, before anything is computed, a path that could not be written afterwards."""
    kinds = " or ".join(endings) + (", or be a folder" if or_folder else "")
    if or_folder and _is_folder(path):
        _check_folder(name, path)
    elif path.suffix.lower() not in endings or path.is_dir():
        raise ValueError(f"`{name}` must end in {kinds}; got {str(path)!r}.")
    if not path.absolute().parent.is_dir():
        raise ValueError(f"`{name}` must lie in a folder that exists; {path.absolute().parent} does not: create it.")


def _check_folder(name: str, path: Path) -> None:
    """Refuse, before anything is computed, a folder that is a file, or that lies in one."""
    there = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not there.is_dir():
        raise ValueError(f"`{name}` must be a folder, there already or not; {there} is a file.")
