"""Text to shapes, trained for real: a short run already draws what it is told, and words are heard in their order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from minidiff.data.shapes import CAPTION_LENGTH, VOCABULARY
from minidiff.evaluate import evaluate_shapes, generate_with
from minidiff.pipeline import TextToImage
from minidiff.presets import run
from minidiff.text import WordEncoder


def test_a_short_training_draws_the_colors_that_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The preset shapes-cpu, cut to 700 steps: about two minutes on one core."""
    card = run("shapes-cpu", tmp_path, device="cpu", steps=700, minutes=30, progress=False)
    assert card["steps"] == 700
    found = evaluate_shapes(generate_with(TextToImage.from_pretrained(tmp_path)), 80, steps=12, guidance=3.0)
    share = {who: (found["seen"][who]["color"] + found["held_out"][who]["color"]) / 2 for who in ("model", "chance")}
    with capsys.disabled():
        print(
            f"\nshapes-cpu, 700 steps: right colors {share['model']:.3f}, by chance {share['chance']:.3f}; "
            f"all right: seen {found['seen']['model']['all']:.3f}, held out {found['held_out']['model']['all']:.3f}"
        )
    assert share["model"] > share["chance"] + 0.05


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
