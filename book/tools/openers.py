"""Draw the strips with which chapters open, book/_static/openers: python book/tools/openers.py (needs minidiff).

openers.json says what they show and which weights drew them; the extension `opening` puts them on the pages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import oxipng
import torch
from PIL import Image, ImageDraw

from minidiff import TextToImage
from minidiff.checkpoints import find, fingerprint, load_denoiser, sha256
from minidiff.common import Condition, randn, seeded
from minidiff.data.emoji import load_emoji
from minidiff.data.pixels import to_float
from minidiff.denoisers import NetDenoiser
from minidiff.images import grid, to_images
from minidiff.plotting import COOL, GOLD, PLUM, WARM
from minidiff.recipes_look import with_lora
from minidiff.samplers import ddim_step, sample
from minidiff.schedules import CosineSchedule, LinearSchedule, forward_jump, time_grid
from minidiff.toy import ExactDenoiser, points

FOLDER = Path(__file__).parents[1] / "_static" / "openers"
SIDE, GAP = 128, 12  # pixels of a picture, twice what is shown, and between two
SAID = {
    "01_basics": (
        "From noise on the left to data on the right: 1,000 points walk back, each in the color of the peak where it "
        "will end.",
        "Seven panels of colored points: a round cloud on the left parts, panel by panel, into eight small clusters "
        "on a circle, each of one color.",
    ),
    "02_forward": (
        "One picture and one noise: above faded by the linear schedule, below by the cosine.",
        "Two rows of ten pictures of a fox's face that fades into colored noise, in the upper row much earlier.",
    ),
    "03_reverse": (
        "One noise, drawn in two styles by the model of this chapter. (We picked it: not all look like this.)",
        "Two rows of ten pictures, colored noise on the left that clears into a yellow face on the right.",
    ),
    "04_text": (
        "One and the same noise, ten prompts: {prompts}.",
        "Ten drawings in a row, one of each prompt; the heart, the panda, the crown, the rainbow and the Christmas "
        "tree are plain to see.",
    ),
    "05_dalle_midjourney": (
        "The same words and the same noise; from left to right more of a fine-tune that changes the "
        "look. (We picked two that came out well.)",
        "Two rows of ten pictures, an apple and a Christmas tree. On the left they have clean colors on white; to "
        "the right they turn into prints in plum, coral and blue on cream paper.",
    ),
}
PROMPTS = (
    "red heart",
    "panda",
    "octopus",
    "crown",
    "snowman",
    "rainbow",
    "ghost",
    "christmas tree",
    "strawberry",
    "tiger face",
)
COLORS = {"01_basics": 24, "02_forward": 48, "03_reverse": 64, "04_text": 128, "05_dalle_midjourney": 96}
STATES = (0, 30, 40, 46, 51, 55, 60)  # of the points' sixty steps: most is decided late
TUNED = (("a red apple", "fluent-3d", 6), ("christmas tree", "noto", 3))


def points_walk_back(n: int = 1000) -> Image.Image:
    """The eight peaks of chapter 1, by their exact denoiser."""
    denoiser, x = ExactDenoiser(points("eight"), CosineSchedule()), randn((n, 2), seeded(0))
    states = [x, *sample(ddim_step, denoiser, x, time_grid(denoiser.schedule, 60))]
    ends = torch.cdist(states[-1].double(), denoiser.mixture.means).argmin(1).tolist()
    side, fine = 196, 4  # drawn large, then made small: soft edges
    sheet = Image.new("RGB", (len(STATES) * (side + GAP) * fine, side * fine), "white")
    draw = ImageDraw.Draw(sheet)
    for panel, state in enumerate(STATES):
        for (a, b), end in zip(states[state].tolist(), ends, strict=True):
            if max(abs(a), abs(b)) < 1.95:  # few points of the noise lie farther out
                across, down = (panel * (side + GAP) + side * (0.5 + a / 4)) * fine, side * (0.5 - b / 4) * fine
                color = (COOL, WARM, PLUM, GOLD)[end % 4]
                draw.ellipse((across - 8, down - 8, across + 8, down + 8), fill=color)
    return sheet.resize((sheet.width // fine, sheet.height // fine))


def fox_fades() -> Image.Image:
    """Chapter 2's fox, ten times noised, by two schedules."""
    emoji = load_emoji()
    fox = to_float(emoji.pixels("noto")[emoji.find("fox").index]).expand(10, -1, -1, -1)
    noise = randn((1, 3, 64, 64), seeded(0)).expand_as(fox)
    times = torch.linspace(0, 0.9, 10)
    return strip(torch.cat([forward_jump(s, fox, times, noise) for s in (LinearSchedule(), CosineSchedule())]))


def faces_appear(denoiser: NetDenoiser) -> Image.Image:
    """Drawn by the teaching model, every other state of twenty."""
    noise, rows = randn((1, 3, 32, 32), seeded(2)), []
    for style in (1, 4):
        told = Condition(label=torch.tensor([style]))
        states = [*sample(ddim_step, denoiser, noise, time_grid(denoiser.schedule, 20), told)]
        rows += states[1::2]
    return strip(torch.cat(rows))


def words_steer(pipe: TextToImage) -> Image.Image:
    """One noise, ten prompts, by the flagship."""
    return strip(pipe.generate(pipe.condition(PROMPTS, "noto"), len(PROMPTS), seeds=[0] * len(PROMPTS)))


def the_look_comes(pipe: TextToImage) -> Image.Image:
    """More and more of the fine-tune."""
    columns = [with_lora(pipe, "midjourney", ninths / 9) for ninths in range(10)]
    rows = (
        tuned.generate(tuned.condition([prompt], style), 1, seeds=[seed])
        for prompt, style, seed in TUNED
        for tuned in columns
    )
    return strip(torch.cat([*rows]))


def strip(x: Any) -> Image.Image:
    """Pictures (B, 3, H, W) in rows of ten."""
    return grid(to_images(x), SIDE // x.shape[-1], 10, GAP)


def main() -> None:
    """Draw all, and write down what is seen and by which weights."""
    pipe, teaching = TextToImage.from_pretrained("emoji-64"), load_denoiser("teaching")
    drawn = (points_walk_back(), fox_fades(), faces_appear(teaching), words_steer(pipe), the_look_comes(pipe))
    FOLDER.mkdir(exist_ok=True)
    said: dict[str, Any] = {}
    for (name, (caption, alt)), picture in zip(SAID.items(), drawn, strict=True):
        picture.quantize(COLORS[name], dither=0).save(FOLDER / f"{name}.png")
        oxipng.optimize(FOLDER / f"{name}.png", level=4)
        said[name] = {"caption": caption.format(prompts=", ".join(PROMPTS)), "alt": alt, "size": picture.size}
    weights = {
        "emoji-64": fingerprint(pipe.denoiser.net),
        "teaching": fingerprint(teaching.net),
        "midjourney": sha256(find("midjourney") / "model.safetensors"),
    }
    text = json.dumps({"chapters": said, "weights": weights}, indent=1)
    (FOLDER / "openers.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
