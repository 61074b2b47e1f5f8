"""The judge learns bases and styles from the training split alone, and survives being written down."""

from __future__ import annotations

import json
from typing import cast

import pytest
import torch
from small_emoji import SmallEmoji

from minidiff.checkpoints import load_judge, save_judge
from minidiff.common import seeded
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.judge import FEATURES, Judge, JudgeObjective, JudgePictures, augment, training_bases
from minidiff.training import TrainConfig, train

SMALL = (8, 8, 8)


def small_judge(bases: list[str] | None = None) -> Judge:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Judge(bases or ["cat", "dog", "fish"], widths=SMALL)


def pictures(n: int, seed: int = 0, size: int = 64) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=seeded(seed)) * 2 - 1


def test_the_judge_that_ships_fits_its_budget() -> None:
    judge = Judge(training_bases(load_emoji()))
    assert sum(p.numel() for p in judge.parameters()) <= 900_000


def test_features_have_mean_square_one_and_answers_are_distributions() -> None:
    judge, x = small_judge(), pictures(5)
    features = judge.features(x)
    assert features.shape == (5, FEATURES)
    assert torch.allclose(features.square().mean(1), torch.ones(5), atol=1e-5)
    bases, styles = judge.log_probs(x)
    assert torch.allclose(bases.exp().sum(1), torch.ones(5), atol=1e-5) and bases.shape == (5, 3)
    assert torch.allclose(styles.exp().sum(1), torch.ones(5), atol=1e-5) and styles.shape == (5, len(STYLES))


def test_features_do_not_depend_on_the_company_and_leave_the_mode_as_it_was() -> None:
    judge, x = small_judge().train(), pictures(6)
    assert torch.allclose(judge.features(x)[2:3], judge.features(x[2:3]), atol=1e-5)
    assert judge.training


def test_features_are_of_single_precision_whatever_surrounds_them() -> None:
    judge, x = small_judge(), pictures(3)
    with torch.autocast("cpu", torch.bfloat16):
        inside = judge.features(x)
    assert torch.equal(inside, judge.features(x))


@pytest.mark.parametrize("size", [32, 128])
def test_other_sizes_are_scaled(size: int) -> None:
    flat = torch.full((1, 3, size, size), 0.3)
    assert torch.allclose(
        small_judge().features(flat), small_judge().features(flat[:, :, :1, :1].expand(1, 3, 64, 64))
    )


def test_a_saved_judge_says_the_same_to_half_precision(tmp_path) -> None:
    judge, x = small_judge(), pictures(4)
    judge.train()(x)  # so that the statistics it centers by are not the initial ones
    save_judge(tmp_path, judge)
    again = load_judge(tmp_path)
    assert again.bases == judge.bases and not again.training
    assert torch.allclose(again.log_probs(x)[0], judge.log_probs(x)[0], atol=0.05)
    assert (tmp_path / "model.safetensors").stat().st_size < 2 * sum(p.numel() for p in judge.parameters()) + 8000


def test_a_folder_without_a_fitting_judge_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        load_judge(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="`judge` must be one of judge, or the folder of a model; got 'prior'"):
        load_judge("prior")
    save_judge(tmp_path, small_judge())
    config = json.loads((tmp_path / "config.json").read_text())
    config["shape"]["bases"] = ["cat"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not fit this architecture"):
        load_judge(tmp_path)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="none twice"):
        Judge(["cat", "cat"])
    with pytest.raises(ValueError, match=r"shape \(B, 3, H, W\)"):
        small_judge()(torch.zeros(3, 64, 64))


def test_augmented_pictures_keep_their_place_and_are_not_mirrored() -> None:
    left = torch.ones(64, 3, 64, 64)
    left[:, 1:, 24:40, 4:20] = -1  # a red square at the left edge
    x = augment(left, seeded(0))
    ink = (1 - x).sum(1)
    assert x.min() >= -1 and x.max() <= 1
    assert (ink[:, :, :32].sum((1, 2)) > 2 * ink[:, :, 32:].sum((1, 2))).all()
    assert not torch.equal(x[0], x[1]) and torch.equal(x, augment(left, seeded(0)))


def test_one_picture_in_four_is_left_as_it_is_and_half_of_the_others_have_noise() -> None:
    gray = torch.zeros(600, 3, 64, 64)
    x = augment(gray, seeded(0))
    assert float((x == gray).flatten(1).all(1).float().mean()) == pytest.approx(1 / 4, abs=0.06)
    middle = x[:, 0, 24:40, 24:40].flatten(1)  # where nothing comes in from outside
    assert float((middle.std(1) > 1e-4).float().mean()) == pytest.approx(3 / 8, abs=0.07)


def test_however_sure_the_judge_becomes_its_logits_stay_below_the_fourth_power_of_e() -> None:
    judge = small_judge()
    judge.scale.data.fill_(10.0)
    bases, _ = judge.logits(judge.features(pictures(4)))
    assert float(bases.detach().abs().max()) <= 54.7


def test_only_training_pictures_are_ever_drawn_and_their_labels_are_right() -> None:
    emoji = load_emoji()
    source, bases = JudgePictures(emoji), training_bases(emoji)
    order = torch.cat([source.order(0, epoch) for epoch in range(3)])
    assert not set(order.tolist()) - set(emoji.split_indices("train").tolist())
    pairs = [(emoji.base_of(emoji.concept_of(i)), emoji.style_of(i)) for i in source.order(0, 0).tolist()]
    assert len(set(pairs)) == len(pairs) == len(source)
    x, base, style = source.batch(order[:16], seeded(0))
    assert x.shape == (16, 3, 64, 64)
    for i, index in enumerate(order[:16].tolist()):
        assert bases[int(base[i])] == emoji.records[emoji.concept_of(index)].base
        assert STYLES[int(style[i])] == emoji.style_of(index)


def test_unseen_bases_are_unknown_to_the_judge() -> None:
    emoji = load_emoji()
    unseen = {r.base for r in emoji.records if set(r.split.values()) == {"unseen"}}
    assert unseen and not unseen & set(training_bases(emoji))


def test_the_loss_is_the_sum_of_both_cross_entropies() -> None:
    judge, x = small_judge().eval(), pictures(4)
    base, style = torch.tensor([0, 1, 2, 0]), torch.tensor([3, 2, 1, 0])
    bases, styles = judge.log_probs(x)
    expected = -(bases.gather(1, base[:, None]) + styles.gather(1, style[:, None]))[:, 0]
    loss = JudgeObjective(judge, smoothing=0.0)((x, base, style), seeded(0))
    assert loss.shape == (4,) and torch.allclose(loss, expected, atol=1e-5)
    assert not torch.allclose(JudgeObjective(judge)((x, base, style), seeded(0)), expected, atol=1e-3)


def test_it_learns_to_tell_a_few_emoji_apart() -> None:
    whole = load_emoji()
    names = ("red heart", "pig face", "pizza", "cactus", "bicycle", "full moon", "ship", "envelope")
    few = SmallEmoji(whole, [whole.find(name).index for name in names], [{}] * 8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = JudgeObjective(Judge(training_bases(few), SMALL))
    config = TrainConfig(80, 32, 5e-3, weight_decay=0.05, warmup=8, decay=0.6, progress=False)
    judge = cast(Judge, train(objective, JudgePictures(few), config, device="cpu").ema_objective.judge)
    x = torch.cat([few.pixels(style) for style in STYLES]).float() / 127.5 - 1
    answers = judge.log_probs(x)[0].argmax(1).tolist()
    right = sum(judge.bases[a] == few.records[i % 8].base for i, a in enumerate(answers))
    assert right >= 24  # of 32; by luck 4
