"""The experiment of chapter 5: its prompts, its cells and its measures are what the chapter says they are."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_models import small_pipe

from minidiff import factors
from minidiff.checkpoints import load_judge
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.data.pixels import to_float
from minidiff.factors import (
    FACTORIAL,
    FURTHER,
    LENGTHS,
    Cell,
    condition,
    describe,
    draw_cell,
    measure,
    on_white,
    targets,
)
from minidiff.metrics import diversity
from minidiff.prior import Prior
from minidiff.recipes_look import inks, two_inks


def test_the_factorial_has_every_combination_once() -> None:
    seen = {(c.conditioning, c.guidance, c.length, c.tuning) for c in FACTORIAL}
    assert len(FACTORIAL) == len(seen) == 2 * 2 * 4 * 2
    assert seen == set(
        itertools.product(("text", "text and image"), ("moderate", "high"), (3, 12, 48, 200), ("none", "lora"))
    )
    assert not set(FACTORIAL) & set(FURTHER) and len(set(FURTHER)) == len(FURTHER)
    for wrong in ({"guidance": "huge"}, {"reading": "aloud"}, {"length": 201}, {"tuning": "half"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            replace(Cell(), **wrong)


def test_a_longer_prompt_says_what_the_shorter_one_says_and_more() -> None:
    emoji = load_emoji()
    for name in targets():
        assert set(emoji.find(name).split.values()) == {"train"}, name  # drawn in every style in training
        prompts = [describe(name, length) for length in LENGTHS]
        assert [len(prompt.split()) for prompt in prompts] == list(LENGTHS)
        assert all(b.startswith(a) for a, b in itertools.pairwise(prompts))
    assert len({describe(name, 200)[-80:] for name in targets()}) > 8  # the filler begins elsewhere for each


def test_each_reading_and_conditioning_reaches_the_network() -> None:
    pipe = small_pipe()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        prior = Prior(pipe.encoder.pooled_dim, 8, 1)  # type: ignore[union-attr]
    long = Cell(length=200)
    sizes = {r: int(condition(pipe, replace(long, reading=r), "owl").text.mask.sum()) for r in factors.READINGS}  # type: ignore[union-attr]
    assert sizes["in parts"] > sizes["cut"] > sizes["keywords"]
    plain, told, alone, harder = (
        draw_cell(pipe, prior, cell, ["owl", "key"], [0, 5])
        for cell in (Cell(), Cell("text and image"), Cell("image"), Cell(guidance="high"))
    )
    assert plain.shape == (2, 2, 3, pipe.size, pipe.size)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations((plain, told, alone, harder), 2))
    assert torch.equal(plain, draw_cell(pipe, prior, Cell(), ["owl", "key"], [0, 5]))
    worded = draw_cell(pipe, prior, Cell("image", added="in blue"), ["owl", "key"], [0, 5])
    assert not torch.equal(alone, worded)  # the prior has read the words, though the network is told none


def test_bleached_paper_is_white_and_white_paper_stays() -> None:
    x = torch.full((1, 3, 64, 64), 1.0)
    x[..., 20:40, 20:40] = -0.5
    assert torch.equal(on_white(x), x)
    bleached = on_white(two_inks(x))
    assert bleached[..., :5, :].mean() > 0.9 > two_inks(x)[..., :5, :].mean()
    assert on_white(-torch.ones(1, 3, 8, 8)).max() <= 0  # a dark picture is not stretched to white


def test_measures_find_what_is_there() -> None:
    judge, names = load_judge(), ["owl", "pizza", "key"]
    emoji = load_emoji()
    rows = [[to_float(emoji.pixels(style)[emoji.find(name).index]) for name in names] for style in STYLES[:3]]
    x = torch.stack([torch.stack(row) for row in rows])
    found = measure(judge, x, names)
    assert found["adherence"] == [[1.0] * 3] * 3 and torch.tensor(found["evidence"]).min() > -0.5
    wrong = measure(judge, x.roll(1, dims=1), names)
    assert torch.tensor(wrong["adherence"]).sum() == 0 and torch.tensor(wrong["evidence"]).max() < -2
    differences = torch.tensor(found["diversity"])  # of three pictures: three pairs
    assert differences.shape == (3, 3) and differences[0, 1] != differences[1, 1]
    assert differences[:, 1].mean() == pytest.approx(diversity(judge.features(on_white(x[:, 1]))), abs=1e-3)
    assert measure(judge, x[:1].repeat(2, 1, 1, 1, 1), names)["diversity"] == [[pytest.approx(0, abs=1e-3)] * 3]
    printed = two_inks(x.flatten(0, 1)).view(x.shape)
    assert (
        torch.tensor(measure(judge, printed, names)["look"]).min() > 0.99 > 0.5 + torch.tensor(found["look"]).mean()
    )


def test_results_of_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = factors.load_results()
    assert len(results["rows"]) == len(FACTORIAL) + len(FURTHER) and results["targets"] == targets()
    results["depends_on"]["judge"] = "another"
    monkeypatch.setattr(factors, "RESULTS", tmp_path / "results.json")
    factors.RESULTS.write_text(json.dumps(results))
    with pytest.raises(RuntimeError, match=r"another judge: run `python -m minidiff.factors"):
        factors.load_results()


def test_a_cell_can_be_drawn_again() -> None:
    """One picture of the stored table, drawn anew with the bundled weights, is marked as it was."""
    from minidiff.pipeline import TextToImage
    from minidiff.recipes import load_prior

    pipe, judge = TextToImage.from_pretrained("emoji-64"), load_judge()
    names = targets()[:2]
    x = draw_cell(pipe, load_prior(pipe=pipe), Cell(), names, [factors.SEED_STRIDE])
    found = measure(judge, x, names)
    (row,) = [r for r in factors.load_results()["rows"] if Cell(**{k: r[k] for k in vars(Cell())}) == Cell()]
    assert found["look"][0] == pytest.approx(row["look"][0][:2], abs=0.02)
    assert found["evidence"][0] == pytest.approx(row["evidence"][0][:2], abs=0.1)


def test_the_coral_is_printed_one_pixel_off_and_not_around_the_edge() -> None:
    x = torch.ones(1, 3, 8, 8)
    x[..., -1, :] = x[..., :, -1] = torch.tensor([1.0, -1.0, -1.0])[:, None]  # red at the bottom and on the right
    x[..., 3, 4] = torch.tensor([1.0, -1.0, -1.0])
    coral = inks(x)[0, 1]
    assert coral.nonzero().tolist() == [[4, 5]]
