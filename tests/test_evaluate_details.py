"""What an evaluation could get wrong without anybody noticing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_emoji import everything_known, noise, sixty
from torch import Tensor

from minidiff.common import seeded
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.evaluate import sets
from minidiff.evaluate.tasks import AGAIN, Problem, Settings, draw, mark, plainest, problems, summarize


def test_the_hard_candidates_are_twenty_and_of_the_same_subgroup_while_it_has_any() -> None:
    emoji = load_emoji()
    known = sorted({record.base for record in emoji.records if "train" in record.split.values()})
    home = {base: plainest(records).subgroup for base, records in emoji.families.items()}
    tasks = problems(emoji, "test", known)[:80]
    for task in tasks:
        subgroup = home[task.record.base]
        others = sum(home[base] == subgroup for base in known) - 1
        assert sum(home[base] == subgroup for base in task.hard[1:]) == min(19, others)
    assert max(len(task.hard) for task in tasks) == 20


def test_the_log_probability_is_that_of_the_right_base_among_the_hundred() -> None:
    emoji, judge = everything_known()
    tasks, x = problems(emoji, "test", judge.bases), noise([], [], range(6))
    logits, _ = judge.logits(judge.features(x))
    rows = [logits[i, [judge.bases.index(b) for b in task.candidates]] for i, task in enumerate(tasks)]
    wanted = torch.stack([row.log_softmax(0)[0] for row in rows]).float()
    assert torch.allclose(mark(judge, emoji, tasks, x)["log_prob"], wanted, atol=1e-4)


def test_two_styles_of_one_base_are_one_piece_of_evidence() -> None:
    tasks = [Problem(sixty().records[20], style, (), ()) for style in STYLES[:2]]
    found = summarize(tasks, [{"right": torch.tensor([0.0, 1.0])}])["all"]["right"]
    assert found["low"] == found["mean"] == found["high"] == 0.5


def test_seeds_that_fail_at_different_problems_and_equally_often_do_not_spread() -> None:
    tasks = [Problem(record, "noto", (), ()) for record in sixty().records[20:22]]
    marks = [{"right": torch.tensor(right)} for right in ([0.0, 1.0], [1.0, 0.0])]
    assert summarize(tasks, marks)["all"]["right"]["seed_std"] == 0


def test_the_control_that_is_drawn_again_is_noised_so_little_that_it_stays_a_copy() -> None:
    asked: list[dict[str, Any]] = []

    def generate(prompts: list[str], styles: list[str | None], seeds: list[int], **how: Any) -> Tensor:
        asked.append(how)
        return torch.zeros(len(prompts), 3, 2, 2)

    start = torch.ones(1, 3, 2, 2)
    draw(generate, ["a"], [None], Settings(), 0, start)
    assert asked[0]["strength"] == AGAIN == 0.3 and torch.equal(asked[0]["start"], start)


def test_a_copy_is_looked_for_in_every_place_that_training_moved_it_to() -> None:
    x = torch.randint(256, (1, 3, 64, 64), generator=seeded(0), dtype=torch.uint8)
    found = {moved.numpy().tobytes() for moved in sets._moved(x)}
    places = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]
    wanted = {F.pad(x, (right, -right, down, -down), value=255).numpy().tobytes() for down, right in places}
    assert found == wanted and len(found) == 25


def test_the_distances_of_the_test_prompts_are_to_training_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    emoji, judge = everything_known()
    tasks = problems(emoji, "test", judge.bases)
    training = {picture.numpy().tobytes() for picture in emoji.at(emoji.split_indices("train").tolist())}
    monkeypatch.setattr(sets, "_distances", lambda judge, rows, reference, seed: reference)
    for seed in range(20):
        reference: Any = sets.test_distances(judge, emoji, tasks, {"ceiling": [torch.zeros(1)]}, seed)
        assert len(reference) == len(tasks)
        assert all(picture.numpy().tobytes() in training for picture in reference)
