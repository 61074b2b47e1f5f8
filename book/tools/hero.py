"""Draw the title picture, book/_static/hero.png, with the flagship: python book/tools/hero.py (needs minidiff)."""

from pathlib import Path

import oxipng

import minidiff
from minidiff.checkpoints import fingerprint
from minidiff.images import grid, save_png, to_images

DRAWN = (
    ("a red heart", "fluent-3d", 1),
    ("panda", "noto", 2),
    ("christmas tree", "noto", 3),
    ("ghost", "fluent-3d", 2),
)
SHOWN = (0, 2, 4, 6, 7, 8, 9, 10, 11)  # of the twelve states


def main() -> None:
    """One row per prompt, from noise on the left to the picture on the right."""
    pipe = minidiff.TextToImage.from_pretrained("emoji-64")
    rows = []
    for prompt, style, seed in DRAWN:
        states = []
        pipe(prompt, style=style, steps=12, seed=seed, callback=lambda i, x, states=states: states.append(x))
        rows += [to_images(states[i].clamp(-1, 1))[0] for i in SHOWN]
    path = Path(__file__).parents[1] / "_static" / "hero.png"
    picture = grid(rows, 2, len(SHOWN)).quantize(256, dither=0)  # a third of the size
    settings = {"prompts": [list(row) for row in DRAWN], "checkpoint": "emoji-64"}
    save_png(picture, path, settings | {"weights": fingerprint(pipe.denoiser.net)})
    oxipng.optimize(path, level=4)


if __name__ == "__main__":
    main()
