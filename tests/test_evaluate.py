"""The evaluation gives full marks to the truth, luck's marks to noise, and catches a copier."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scene_words import held_out, parse
from small_emoji import SmallEmoji, everything_known, noise
from small_models import small_clip
from torch import Tensor

from minidiff.data.captions import canonical_caption
from minidiff.data.emoji import SPLITS, STYLES, load_emoji
from minidiff.data.shapes import render
from minidiff.denoisers import NetDenoiser
from minidiff.evaluate import evaluate, evaluate_shapes, generate_with, sweep
from minidiff.evaluate.report import write_report
from minidiff.evaluate.sets import copy_rates, trained_pairs
from minidiff.evaluate.tasks import (
    TWINS,
    Settings,
    draw,
    foreground_error,
    lookup,
    mark,
    other_styles,
    plainest,
    problems,
    summarize,
    true_pictures,
)
from minidiff.metrics import wilson
from minidiff.nets.unet import UNet, UNetConfig
from minidiff.pipeline import TextToImage
from minidiff.schedules import RectifiedFlow


@pytest.fixture(scope="module")
def emoji() -> SmallEmoji:
    return everything_known()[0]


@pytest.fixture(scope="module")
def judge() -> Any:
    return everything_known()[1]


@pytest.fixture(scope="module")
def truth(emoji: SmallEmoji):
    """Draws the true picture of a prompt, held out or not; what it is not asked in a caption is white."""
    wanted = [(r, style) for style in (*STYLES, None) for r in emoji.records]
    answers = {canonical_caption(r, s): emoji.pixels(s or "noto")[r.index].float() / 127.5 - 1 for r, s in wanted}

    def generate(prompts, styles, seeds, **how) -> Tensor:
        return torch.stack([answers.get(prompt, torch.ones(3, 64, 64)) for prompt in prompts])

    return generate


def test_problems_ask_for_exactly_the_held_out_pictures_of_a_split() -> None:
    emoji = load_emoji()
    bases = [r.base for r in emoji.records if "train" in r.split.values()]
    known = sorted(set(bases))
    for split in SPLITS[1:]:
        tasks = problems(emoji, split, known)
        held_out = {(emoji.records[emoji.concept_of(i)].base, emoji.style_of(i)) for i in emoji.split_indices(split)}
        assert {(t.record.base, t.style) for t in tasks} == held_out and len(tasks) == len(held_out)
        assert all(t.record.split[t.style] == split for t in tasks)
    for task in problems(emoji, "test", known):
        assert task.candidates[0] == task.record.base and len(set(task.candidates)) == 100
        assert task.hard[0] == task.record.base and len(set(task.hard)) == len(task.hard) <= 20
        assert {r.group for r in emoji.records if r.base in task.hard} == {task.record.group}
        assert task.record is plainest([r for r in emoji.records if r.base == task.record.base])


def test_candidates_depend_on_the_base_and_the_seed_alone(emoji: SmallEmoji, judge: Any) -> None:
    assert problems(emoji, "test", judge.bases, 3) == problems(emoji, "test", judge.bases, 3)
    assert problems(emoji, "test", judge.bases, 3) != problems(emoji, "test", judge.bases, 4)


def test_the_true_pictures_get_full_marks_and_noise_gets_luck_s(emoji: SmallEmoji, judge: Any) -> None:
    tasks = problems(emoji, "test", judge.bases)
    full = mark(judge, emoji, tasks, true_pictures(emoji, tasks))
    for name in ("base_all", "base_100", "hard_20", "style", "similarity"):
        assert torch.allclose(full[name], torch.ones(6), atol=1e-5), name
    assert full["pixel_error"].max() == 0
    many = [mark(judge, emoji, tasks, noise([], [], [10 * k + i for i in range(6)])) for k in range(5)]
    assert torch.stack([m["base_100"] for m in many]).mean() < 0.3
    assert torch.stack([m["pixel_error"] for m in many]).min() > 0.5


def test_a_base_the_judge_does_not_know_is_marked_by_similarity_alone(emoji: SmallEmoji, judge: Any) -> None:
    tasks = problems(emoji, "unseen", judge.bases)
    assert len(tasks) == 8
    marks = mark(judge, emoji, tasks, true_pictures(emoji, tasks))
    assert set(marks) == {"style", "similarity", "pixel_error"}


def test_baselines_use_training_pictures_only(emoji: SmallEmoji, judge: Any) -> None:
    tasks = problems(emoji, "test", judge.bases)
    training = {picture.numpy().tobytes() for picture in emoji.at(emoji.split_indices("train").tolist())}
    for found in (*lookup(emoji, tasks, turns=2), *(other_styles(emoji, tasks, turn) for turn in range(3))):
        assert len(found) == 6 and all(x.numpy().tobytes() in training for x in found)
    turns = [other_styles(emoji, tasks, turn)[0].numpy().tobytes() for turn in range(3)]
    assert len(set(turns)) == 3


def test_lookup_answers_with_the_nearest_caption(emoji: SmallEmoji, judge: Any) -> None:
    tasks = problems(emoji, "test", judge.bases)

    def last_is_nearest(prompts: list[str], captions: list[str]) -> Tensor:
        return torch.arange(len(captions)).expand(len(prompts), -1).float()

    last = int(emoji.split_indices("train")[-1])
    expected = emoji.pixels(emoji.style_of(last))[emoji.concept_of(last)]
    assert all(torch.equal(x, expected) for x in lookup(emoji, tasks, last_is_nearest)[0])


def test_foreground_error_compares_picture_by_picture() -> None:
    a, b = torch.ones(2, 3, 64, 64), torch.ones(2, 3, 64, 64)
    a[1, :, :8], b[1, :, :8] = -1, 1
    assert foreground_error(a, b).tolist() == pytest.approx([0, 2], abs=1e-6)


def test_twins_flags_and_styles_are_reported_apart(emoji: SmallEmoji, judge: Any) -> None:
    tasks = problems(emoji, "test", judge.bases)
    marks = [{"similarity": torch.full((6,), value)} for value in (0.2, 0.6)]
    summary = summarize(tasks, marks)
    assert summary["all"]["n"] == 6 and summary["twins"]["n"] + summary["no twins"]["n"] == 6
    assert sum(summary[style]["n"] for style in STYLES) == 6
    found = summary["all"]["similarity"]
    assert found["mean"] == pytest.approx(0.4) == found["low"] == found["high"]
    assert found["seed_std"] == pytest.approx(0.2 * math.sqrt(2))
    flag = load_emoji().find("rainbow flag")
    assert "flags" in problems_of(flag, "noto").subsets and "no twins" not in problems_of(flag, "noto").subsets


def problems_of(record, style):
    from minidiff.evaluate.tasks import Problem

    return Problem(record, style, (), ())


def test_prompts_are_drawn_in_batches_with_a_seed_each() -> None:
    calls: list[tuple[int, list[int]]] = []

    def generate(prompts, styles, seeds, **how) -> Tensor:
        calls.append((len(prompts), seeds))
        return torch.full((len(prompts), 3, 2, 2), float("nan"))

    x = draw(generate, ["a"] * 700, [None] * 700, Settings(), 5)
    assert [n for n, _ in calls] == [128] * 5 + [60]
    assert [s for _, seeds in calls for s in seeds] == list(range(5, 705))
    assert x.dtype == torch.uint8 and x.shape == (700, 3, 2, 2)
    with pytest.raises(ValueError, match="must return shape"):
        draw(lambda *a, **k: torch.zeros(1, 3, 2, 2), ["a", "b"], [None] * 2, Settings())


def test_prompts_and_reference_of_the_distances_share_no_base(emoji: SmallEmoji) -> None:
    for seed in range(8):
        asked, reference = trained_pairs(emoji, 29, seed)
        assert len(asked) == len(reference) == 29
        assert not {c for _, c in asked} & {c for _, c in reference}
        assert all(emoji.records[c].split[STYLES[s]] == "train" for s, c in asked + reference)


def test_one_who_repeats_training_pictures_is_caught_and_an_artist_is_not(emoji: SmallEmoji, judge: Any) -> None:
    tasks = problems(emoji, "test", judge.bases)
    anything = ((noise([], [], [1, 2, 3, 4]) + 1) * 127.5).to(torch.uint8), 2
    drawn = {"test": (lookup(emoji, tasks)[0], 3), "validation": anything}
    found, (captions, sheet) = copy_rates(judge, emoji, drawn)
    assert found["test"]["copies"]["mean"] == 1
    assert found["validation"]["copies"]["mean"] == 0
    assert found["validation"]["copies"] == wilson(0.0, 2).as_dict()  # of the two concepts, not of the four pictures
    assert found["test"]["copies"] == wilson(1.0, 3).as_dict()
    assert len(captions) == len(sheet) == 12
    n = 8 + sum(STYLES[i % 4] not in TWINS for i in range(6))  # unseen, and test without the same drawing in training
    assert found["real pictures that nobody trained on"]["n"] == n


@pytest.fixture(scope="module")
def result(emoji: SmallEmoji, judge: Any, truth) -> dict:
    def generate(*asked, **how) -> Tensor:
        assert how["shift"] == 2.0, "one of the rows is drawn in another way"
        return how["start"] if "start" in how else truth(*asked, **how)  # the former: real copies, drawn again

    settings = Settings(repeats=2, shift=2.0)
    clip = small_clip()
    return evaluate(
        generate, judge, settings=settings, emoji=emoji, clip=clip, distribution_size=20, diversity_prompts=3
    )


def test_a_generator_that_draws_the_truth_reaches_the_ceiling(result: dict) -> None:
    moved, again = (row for name, row in result["copies"].items() if "training" in name or "again" in name)
    assert moved == again and moved["copies"]["mean"] > 0.3
    for split in ("test", "validation", "unseen"):
        rows = result["splits"][split]["rows"]
        for name, value in rows["ceiling"]["all"].items():
            if name != "n":
                assert rows["model"]["all"][name]["mean"] == pytest.approx(value["mean"], abs=1e-6), (split, name)
        assert rows["unconditional"]["all"]["similarity"]["mean"] < 0.9
        best = {k: v["mean"] for k, v in rows["best by CLIP"]["all"].items() if k != "n"}
        assert best == {k: pytest.approx(v["mean"]) for k, v in rows["model"]["all"].items() if k != "n"}
    assert result["splits"]["trained prompts"]["rows"]["model"]["all"]["similarity"]["mean"] == pytest.approx(1)
    assert "other style" not in result["splits"]["unseen"]["rows"]


def test_the_truth_gets_full_marks_and_whoever_is_ahead_a_difference_above_zero(result: dict) -> None:
    found = result["splits"]["test"]
    for name in ("similarity", "style", "base_100"):
        assert found["rows"]["ceiling"]["all"][name]["mean"] == pytest.approx(1, abs=1e-5)
    assert found["model_minus"]["unconditional"]["similarity"]["mean"] > 0


def test_its_distance_is_the_floor_and_its_diversity_nil(result: dict) -> None:
    found = result["distribution"]["trained prompts"]
    assert found["model"]["kernel"]["mean"] == pytest.approx(found["floor: real pictures"]["kernel"]["mean"])
    assert found["unconditional"]["kernel"]["mean"] > found["floor: real pictures"]["kernel"]["high"]
    assert result["diversity"]["model"]["mean"] == pytest.approx(0, abs=1e-5)
    assert result["diversity"]["the four styles"]["mean"] > 0.001


def test_a_report_is_json_and_a_page_with_every_sheet(result: dict, tmp_path) -> None:
    page = write_report(result, tmp_path).read_text(encoding="utf-8")
    numbers = json.loads((tmp_path / "evaluation.json").read_text())
    assert "pictures" not in numbers and "pictures" in result
    assert numbers["splits"] == json.loads(json.dumps(result["splits"]))
    sheets = sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(sheets) == len(result["pictures"]) and all(f"src='{name}'" in page for name in sheets)
    with pytest.raises(ValueError, match="`evaluate` or `evaluate_shapes` returns"):
        write_report({}, tmp_path)


def test_a_sweep_looks_at_validation_only_and_picks_the_best(emoji: SmallEmoji, judge: Any, truth) -> None:
    asked: set[str] = set()

    def best_at_3(prompts, styles, seeds, *, steps=0, guidance=0.0, interval=None, shift=None, **_) -> Tensor:
        asked.update(prompts)
        x = truth(prompts, styles, seeds)
        dirt = 0.1 * abs(guidance - 3) + 1 / steps + 0.05 * (interval == (0.0, 1.0)) + 0.04 * (shift != 2)
        return torch.lerp(x, noise(prompts, styles, seeds), min(1.0, dirt))

    axes: dict[str, Any] = {"guidances": (1, 3, 6), "shifts": (2,), "steps": (6, 12), "intervals": ((0.2, 0.8),)}
    found = sweep(best_at_3, judge, **axes, repeats=2, emoji=emoji)
    assert found["best"] == {"steps": 12, "guidance": 3.0, "interval": (0.2, 0.8), "shift": 2.0, "repeats": 2}
    assert [(row["guidance"], row["steps"], row["interval"], row["shift"]) for row in found["rows"]] == [
        *((g, 12, (0.0, 1.0), None) for g in (1.0, 3.0, 6.0)),
        (3.0, 12, (0.0, 1.0), 2.0),
        (3.0, 6, (0.0, 1.0), 2.0),
        (3.0, 12, (0.2, 0.8), 2.0),
    ]
    assert asked == {task.prompt for task in problems(emoji, "validation", judge.bases)}
    *others, best = (row["beside_best"]["similarity"] for row in found["rows"])
    assert set(best.values()) == {0}
    assert all(row["low"] < row["mean"] < row["high"] < 0 for row in others)  # pair by pair, it is certain


def test_shapes_are_counted_by_the_oracle() -> None:
    def draws_what_is_said(prompts, styles, seeds, **how) -> Tensor:
        scenes = [render(parse(p), np.random.default_rng(s)) for p, s in zip(prompts, seeds, strict=True)]
        return torch.stack(scenes).float() / 127.5 - 1

    found = evaluate_shapes(draws_what_is_said, 20)
    shown = found.pop("pictures")
    captions, pictures = shown["held-out pairs"]
    assert all(held_out(parse(c)) for c in captions) and not any(held_out(parse(c)) for c in shown["seen pairs"][0])
    assert len(captions) == len(pictures) == 20 and pictures.dtype == torch.uint8
    json.dumps(found, allow_nan=False)
    for part in ("seen", "held_out"):
        assert found[part]["model"]["all"] == found[part]["ceiling"]["all"] == 1
        assert found[part]["chance"]["all"] < 0.3
    blank = evaluate_shapes(lambda prompts, *rest, **more: torch.ones(len(prompts), 3, 32, 32), 20)
    assert blank["seen"]["model"]["all"] == blank["seen"]["model"]["readable"] == 0


def test_a_pipeline_without_words_is_told_the_style_by_its_label() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = UNet(UNetConfig(8, patch=1, widths=(8, 8), attention=(False, False), blocks=1, embedding=8, labels=4))
        for parameter in net.parameters():  # some layers start at zero, and say nothing yet
            torch.nn.init.normal_(parameter, std=0.3)
    pipe = TextToImage(NetDenoiser(net, RectifiedFlow(), "flow"), None, STYLES)
    generate = generate_with(pipe)
    both = generate(["", ""], ["noto", "twemoji"], [5, 5], steps=2, guidance=2.0)
    alone = generate([""], ["twemoji"], [5], steps=2, guidance=2.0)
    assert both.shape == (2, 3, 8, 8) and both.abs().max() <= 1
    assert torch.allclose(both[1:], alone, atol=1e-4) and not torch.allclose(both[0], both[1], atol=1e-3)
    assert torch.allclose(alone, pipe.generate(pipe.condition([""], "twemoji"), 1, steps=2, guidance=2.0, seeds=[5]))
    quick = generate_with(pipe, "bf16")([""], ["twemoji"], [5], steps=2, guidance=2.0)
    assert 0 < (quick - alone).abs().max() < 0.1  # rounded, and the same picture
    with pytest.raises(ValueError, match="`precision` must be one of fp32, bf16; got 'fp16'"):
        generate_with(pipe, "fp16")
