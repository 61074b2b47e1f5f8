"""Does drawing need the prior? `python tools/told.py OUT` draws the test prompts, telling the model different things.

The words, the prior's image embedding, in its place the sentence's own or that of the true picture (which no prior
can know: the most that any could give), alone and together with the words. All begin with the same noise, and all
embeddings are mixed with the same. OUT/told.json is written anew after every repeat.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from paired import Contest
from torch import Tensor

from minidiff.common import Condition, check_int, pick_device
from minidiff.data.pixels import to_float, to_uint8
from minidiff.evaluate.tasks import Settings, true_pictures
from minidiff.recipes import NOISE, load_prior, noised, sample_prior
from minidiff.text import MiniClip

EMBEDDINGS = ("prior", "sentence", "picture")
MINUS = [
    *((f"words and {name}", "words") for name in EMBEDDINGS),
    *((name, "words") for name in EMBEDDINGS),
    ("prior", "sentence"),
    ("words and picture", "words and prior"),
]


def main(out: Path, checkpoint: str, prior: str, repeats: int, bf16: bool) -> None:
    """Draw, mark, write."""
    check_int("repeats", repeats, 1, 1000)
    contest = Contest(checkpoint, pick_device(None), bf16)
    pipe, encoder = contest.pipe, contest.pipe.encoder
    if not isinstance(encoder, MiniClip):
        raise ValueError(f"`checkpoint` must be a model that reads with a mini-CLIP; got {checkpoint!r}.")
    text = encoder([task.prompt for task in contest.tasks])
    true = encoder.encode_image(to_float(true_pictures(contest.emoji, contest.tasks)).to(pipe.device))
    guess, settings = load_prior(prior, pipe=pipe), Settings(repeats=repeats)

    embedding = {
        "prior": partial(sample_prior, guess, text.pooled),
        "sentence": partial(noised, text.pooled),
        "picture": partial(noised, true),
    }

    def told(words: bool, what: str | None, seeds: list[int]) -> Tensor:
        cond = Condition(text=text if words else None, image=embedding[what](seeds) if what else None)
        x = pipe.generate(cond, len(seeds), steps=settings.steps, guidance=settings.guidance, seeds=seeds)
        return to_uint8(x.float()).cpu()

    ways = {"words": partial(told, True, None)}
    ways |= {f"words and {name}": partial(told, True, name) for name in EMBEDDINGS}
    ways |= {name: partial(told, False, name) for name in EMBEDDINGS}
    contest.run(ways, MINUS, settings, out / "told.json", noise=NOISE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", default="emoji-64")
    parser.add_argument("--prior", default="prior")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--bf16", action="store_true")
    main(**vars(parser.parse_args()))
