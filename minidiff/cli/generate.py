"""`minidiff generate`: pictures from prompts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from minidiff.cli.options import Checkpoint, Device, check_file, is_folder


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(help="What to draw: prompts in quotes.")] = None,
    style: Annotated[str | None, typer.Option(help="noto, twemoji, fluent-flat or fluent-3d.")] = None,
    count: Annotated[int, typer.Option(help="Pictures per prompt, 1 to 64.")] = 1,
    steps: Annotated[
        int, typer.Option(help="Steps of the sampler, 1 to 1000. More is slower and a little better.")
    ] = 12,
    guidance: Annotated[
        float | None,
        typer.Option(help="0 to 100: 0 ignores the prompt, 1 follows it, more insists [default: 4, midjourney 8]."),
    ] = None,
    negative: Annotated[str | None, typer.Option(help="What to move away from.")] = None,
    seed: Annotated[int, typer.Option(help="Picture i is drawn with seed + i; the same seed, the same picture.")] = 0,
    sampler: Annotated[str, typer.Option(help="dpmpp_2m, ddim, heun or ddpm.")] = "dpmpp_2m",
    rescale: Annotated[
        float | None, typer.Option(help="0 to 1: undo the glare of strong guidance [default: 0, midjourney 0.7].")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="dalle or midjourney: how the prompt is prepared and the picture drawn.")
    ] = None,
    rewriter: Annotated[
        str | None, typer.Option(help="For dalle: expand, or a text-generation model of transformers by name.")
    ] = None,
    prior: Annotated[
        str | None, typer.Option(help="For dalle: the folder of another prior, see minidiff train prior.")
    ] = None,
    look: Annotated[
        str | None, typer.Option(help="For midjourney: the folder of another fine-tune, or none.")
    ] = None,
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

        minidiff generate "a panda that eats bamboo" --recipe dalle --rewriter expand

        minidiff generate --checkpoint teaching --style noto --sampler ddim --steps 50
    """
    from minidiff.checkpoints import reads_words
    from minidiff.common import check_int, pick_device
    from minidiff.denoisers import reads
    from minidiff.images import animation, grid, save_png, to_images
    from minidiff.pipeline import TextToImage
    from minidiff.recipes import DALLE, MIDJOURNEY, check_recipe, dalle, midjourney
    from minidiff.samplers import check_settings

    check_int("count", count, 1, 64)
    check_int("scale", scale, 1, 16)
    given = {k: v for k, v in {"guidance": guidance, "rescale": rescale}.items() if v is not None}
    check_settings(steps=steps, sampler=sampler, **given)  # type: ignore[arg-type]
    options = {"rewriter": rewriter, "prior": prior, "look": look}
    check_recipe(recipe, style=style, **options)
    check_int("seed", seed, 0, 2**63 - 1)
    check_file("out", out, [".png"], or_folder=True)
    if animate is not None:
        check_file("animate", animate, [".gif", ".webp"])
    target = pick_device(device)
    nothing = ValueError('`prompts` must hold at least one prompt; try: minidiff generate "a red heart"')
    if not prompts and reads_words(checkpoint):
        raise nothing
    pipe = TextToImage.from_pretrained(checkpoint).to(target)
    if not prompts and pipe.encoder is not None:  # it came from the hub
        raise nothing
    wanted = [prompt for prompt in prompts or [""] for _ in range(count)]
    if reads(pipe.denoiser, "text") and recipe is None and not all(map(str.strip, wanted)):
        what = f"its style, {style}, alone" if style else "noise alone"
        print(f"minidiff: An empty prompt asks for nothing: its picture comes from {what}.", file=sys.stderr)
    frames: list[Any] = []

    def show(i: int, x: Any) -> None:
        if animate is not None:
            frames.append(grid(to_images(x), scale))
        print(f"step {i + 1} of {steps}", end="\n" if i + 1 == steps else "\r", file=sys.stderr, flush=True)

    usual = {"guidance": 4.0, "rescale": 0.0} | {"dalle": DALLE, "midjourney": MIDJOURNEY}.get(recipe or "", {})
    settings: dict[str, Any] = {"steps": steps, "seed": seed, "sampler": sampler, **usual, **given}
    settings |= {"negative": negative}
    if recipe is None:
        settings |= {"style": style}
        images = pipe(wanted, callback=show, **settings)
    else:
        options |= {"style": style}
        told: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        draw: Any = dalle if recipe == "dalle" else midjourney
        images, said = draw(pipe, wanted, callback=show, **told, **settings)
        settings |= {"recipe": recipe, **options}
        print("\n".join(f"prompt {i + 1}: {line}" for i, line in enumerate(said[::count])), file=sys.stderr)
    settings |= {"checkpoint": checkpoint}
    if not is_folder(out):
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
