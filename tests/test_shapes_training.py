"""Text to shapes, trained for real: a short run already draws what it is told, and words are heard in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minidiff.data.scenes import CAPTION_LENGTH, COLORS, SHAPES, VOCABULARY
from minidiff.pipeline import TextToImage
from minidiff.presets import run
from minidiff.text import WordEncoder


def inked(pictures: torch.Tensor) -> torch.Tensor:
    """The mean color (B, 3) of the 24 pixels farthest from white: a color can be told before a shape can be read."""
    far = (1 - pictures).norm(dim=1).flatten(1).topk(24).indices
    return pictures.flatten(2).gather(2, far[:, None].expand(-1, 3, -1)).mean(2)


def test_a_short_training_draws_the_colors_that_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The preset shapes-cpu, cut to 500 steps: a minute and a half on one core. By chance one in seven is right."""
    run("shapes-cpu", tmp_path, device="cpu", steps=500, minutes=30, progress=False)
    pipe = TextToImage.from_pretrained(tmp_path)
    asked = [(color, shape) for color in range(len(COLORS)) for shape in SHAPES] * 2
    prompts = [f"a large {list(COLORS)[color]} {shape}" for color, shape in asked]
    x = pipe.generate(pipe.condition(prompts), len(prompts), guidance=3, seeds=range(len(prompts)))
    palette = torch.tensor(list(COLORS.values())) / 127.5 - 1
    drawn = torch.cdist(inked(x), palette).argmin(1)
    right = (drawn == torch.tensor([color for color, _ in asked])).double().mean()
    with capsys.disabled():
        print(
            f"\nshapes-cpu, 500 steps: {right:.2f} of {len(asked)} pictures have the color of the prompt (chance .14)"
        )
    assert right > 0.4


def test_the_word_encoder_hears_the_order_of_words_from_the_first_step() -> None:
    """With positions much quieter than words, training hears a bag of words for thousands of steps."""
    apart = []
    for seed in range(5):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            encoder = WordEncoder(VOCABULARY, CAPTION_LENGTH).eval()
        one, other = encoder(["a red heart left of a blue star", "a blue heart left of a red star"]).pooled
        apart.append(1 - torch.cosine_similarity(one, other, dim=0))
    assert torch.stack(apart).mean() > 3e-4
