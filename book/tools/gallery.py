"""Draw the gallery: fifty prompts that are in no caption, and ten pictures that were held out, eight times each.

`gallery.py` writes book/_static/gallery/: two sheets, their prompts, and what they were drawn with. Nothing is
selected: the prompts stand here, picture i has the seed i, and a test fails when the model has changed since.
"""

import hashlib
import json
import pathlib
import re
from typing import Any

import oxipng
import torch
from PIL import Image, ImageDraw, ImageFont

from minidiff import TextToImage
from minidiff.checkpoints import find
from minidiff.data.captions import canonical_caption, training_captions
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.images import grid
from minidiff.presets import CAPTIONS

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "_static" / "gallery"
SETTINGS: dict[str, Any] = {"steps": 12, "guidance": 4.0}  # those of the pipeline
PROMPTS = (
    *(
        "a happy yellow face",
        "a very sad face",
        "an angry red face",
        "a face with big sunglasses",
        "a face that wants to sleep",
    ),
    *(
        "a heart as blue as the sky",
        "a burning black heart",
        "a broken pink heart",
        "a green and yellow heart",
        "a heart made of gold",
    ),
    *(
        "an orange cat face",
        "a cat with black fur",
        "a panda that smiles",
        "a pink pig face",
        "a green frog with big eyes",
    ),
    *("a brown bear face", "a purple octopus", "a blue whale in the sea", "a yellow chick", "a red fish"),
    *("a bowl of noodles", "a slice of cake", "a fresh green apple", "a bunch of grapes", "a cheese burger"),
    *("a cup of hot coffee", "a red strawberry", "a lemon cut in half", "a loaf of bread", "a glass of beer"),
    *(
        "a small house with a tree",
        "a tall building at night",
        "a snowy mountain",
        "the moon and two stars",
        "a rainbow after the rain",
    ),
    *("a red sports car", "a yellow school bus", "a boat on the water", "a plane in the sky", "a rocket to the moon"),
    *("a golden trophy", "a wrapped present", "a thick blue book", "a pair of scissors", "a ringing phone"),
    *(
        "a cat driving a car",
        "a blue banana",
        "a robot eating pizza",
        "two dogs playing chess",
        "the end of the world",
    ),
)
LETTERS = 20  # px, of a sheet whose pictures are twice enlarged
HELD_OUT = 10  # bases of the test split, evenly spaced


def held_out() -> list[tuple[str, int]]:
    """(caption, flat index of the true picture) of one held-out picture for each of ten bases of the test split."""
    emoji = load_emoji()
    first: dict[int, int] = {}
    for index in emoji.split_indices("test").tolist():
        first.setdefault(emoji.base_of(emoji.concept_of(index)), index)
    chosen = [list(first.values())[i * len(first) // HELD_OUT] for i in range(HELD_OUT)]
    return [(canonical_caption(emoji.records[emoji.concept_of(i)], emoji.style_of(i)), i) for i in chosen]


def bare(prompt: str) -> str:
    """A prompt without its article."""
    return re.sub(r"^(an?|the) ", "", prompt)


def known_captions() -> set[str]:
    """Every caption that a training of the flagship may have seen, without articles."""
    emoji, known = load_emoji(), set()
    for record in emoji.records:
        for style in (None, *STYLES):
            for seed in (0, 1):  # the seeds of the mini-CLIP's and the generator's tables
                known.update(map(bare, training_captions(record, style, CAPTIONS, seed)))
    return known


def wrapped(words: str, width: int, font: Any) -> str:
    """The words, broken into two lines as equal as can be if they are wider than that."""
    parts = words.split(" ")
    if font.getlength(words) <= width or len(parts) == 1:
        return words
    halves = [(" ".join(parts[:i]), " ".join(parts[i:])) for i in range(1, len(parts))]
    return "\n".join(min(halves, key=lambda pair: max(map(font.getlength, pair))))


def sheet(rows: list[list[Image.Image]], words: list[list[str]]) -> Image.Image:
    """Pictures in rows, each with its words beneath, in two lines where one is too narrow; phones halve it all."""
    font, side = ImageFont.load_default(size=LETTERS), 128
    broken = [[wrapped(caption, side + 8, font) for caption in row] for row in words]
    lines = max(caption.count("\n") + bool(caption) for row in broken for caption in row)
    width, height = side + 12, side + 8 + (LETTERS + 3) * lines
    page = Image.new("RGB", (width * max(map(len, rows)), height * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for y, (pictures, captions) in enumerate(zip(rows, broken, strict=True)):
        for x, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            left, top = x * width + 6, y * height + 2
            page.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, top))
            draw.text(
                (left + side / 2, top + side + 3), caption, "#333333", font, anchor="ma", align="center", spacing=2
            )
    return page


def named(rows: list[list[Image.Image]], names: list[str]) -> Image.Image:
    """Pictures in rows, twice enlarged, each row under its name and with its last picture in front, apart."""
    font, room, apart = ImageFont.load_default(size=30), 44, 24
    strips = [(grid(row[-1:], 2, 1, gap=8), grid(row[:-1], 2, len(row) - 1, gap=8)) for row in rows]
    true, drawn = strips[0]
    height = room + true.height
    page = Image.new("RGB", (true.width + apart + drawn.width, height * len(rows)), "white")
    draw = ImageDraw.Draw(page)
    for y, (name, (true, drawn)) in enumerate(zip(names, strips, strict=True)):
        draw.text((4, y * height + room - 8), name, "#333333", font, anchor="ls")
        page.paste(true, (0, y * height + room))
        page.paste(drawn, (true.width + apart, y * height + room))
    return page


def write(picture: Image.Image, name: str) -> None:
    """Write a sheet with 256 colors."""
    picture.quantize(256, dither=0).save(FOLDER / name)
    oxipng.optimize(FOLDER / name, level=4)


def main() -> None:
    """Draw both sheets, with whatever device is there."""
    FOLDER.mkdir(exist_ok=True)
    pipe = TextToImage.from_pretrained("emoji-64").to(None)
    styles = [STYLES[i % 4] for i in range(len(PROMPTS))]
    fifty = [pipe(p, style=s, seed=i, **SETTINGS)[0] for i, (p, s) in enumerate(zip(PROMPTS, styles, strict=True))]
    rows = [fifty[i : i + 5] for i in range(0, 50, 5)]
    write(sheet(rows, [list(PROMPTS[i : i + 5]) for i in range(0, 50, 5)]), "fifty.png")

    emoji = load_emoji()
    problems = held_out()
    rows = []
    for caption, index in problems:
        true = Image.fromarray(emoji.at([index])[0].permute(1, 2, 0).numpy())
        rows.append([*pipe([caption] * 8, seed=0, **SETTINGS), true])
    write(named(rows, [caption.removesuffix(" style") for caption, _ in problems]), "held_out.png")
    made: dict[str, Any] = {
        "command": "python book/tools/gallery.py",
        "checkpoint": "emoji-64",
        "sha256": hashlib.sha256((find("emoji-64") / "model.safetensors").read_bytes()).hexdigest(),
        "settings": SETTINGS,
        "device": str(pipe.device),
        "torch": torch.__version__,
        "fifty": [f"{prompt} ({style})" for prompt, style in zip(PROMPTS, styles, strict=True)],
        "held_out": [caption for caption, _ in problems],
    }
    for name in ("fifty", "held_out"):
        (FOLDER / f"{name}.txt").write_text("\n".join(made[name]) + "\n", encoding="utf-8")
    (FOLDER / "gallery.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
