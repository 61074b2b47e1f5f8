"""The prior: a diffusion model of vectors, whose answers have known right ones where the data are known."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from small_emoji import SmallEmoji
from small_models import small_clip

from minidiff import TextToImage, checkpoints
from minidiff.clip import CaptionTable, emoji_captions, one_per_base
from minidiff.common import Condition, randn, seeded
from minidiff.data.captions import canonical_captions
from minidiff.data.emoji import STYLES, load_emoji
from minidiff.prior import Prior, PriorPairs, Regression, embed_ids, evaluate_prior, judge_prior, sentence, spread
from minidiff.recipes import load_prior
from minidiff.text import PAD, unit_rms
from minidiff.training import ConditionDropout, Denoising, TrainConfig, train

A, B = unit_rms(torch.eye(8)[:2]).unbind()  # two pictures' embeddings, and below a sentence's that fits both
TEXT = unit_rms(torch.eye(8)[2:3])


class TwoPictures:
    """One sentence, two pictures, equally often."""

    def order(self, seed: int, epoch: int) -> torch.Tensor:
        return torch.arange(256)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, Condition]:
        return torch.stack([A, B])[indices % 2], sentence(TEXT.expand(len(indices), -1))


@pytest.fixture(scope="module")
def trained() -> tuple[Prior, Prior]:
    """A prior and a regression of what `TwoPictures` shows."""
    config = TrainConfig(400, 64, 3e-3, ema_decay=0.98, warmup=20, progress=False)
    priors = []
    for kind in (Denoising, Regression):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            prior = Prior(8, 64, 2)
        result = train(kind(prior.denoiser), TwoPictures(), config, device="cpu")
        prior.denoiser = result.ema_objective.denoiser  # type: ignore[assignment]
        priors.append(prior.eval().requires_grad_(False))
    return priors[0], priors[1]


def test_the_prior_draws_one_or_the_other_and_the_regression_the_mean(trained: tuple[Prior, Prior]) -> None:
    prior, regression = trained
    drawn = prior(TEXT.expand(100, -1), range(100), candidates=1)
    cosines = drawn @ torch.stack([A, B]).T / 8
    assert float((cosines.amax(1) > 0.95).float().mean()) > 0.9
    assert 25 < int((cosines[:, 0] > cosines[:, 1]).sum()) < 75
    mean = unit_rms((A + B)[None] / 2)
    for answer in (regression.mean(TEXT), prior.mean(TEXT)):  # at t = 1 the prior, too, can say no more
        assert float((answer * mean).mean()) > 0.98
    table = judge_prior({"prior": drawn[:2], "mean": mean.expand(2, -1)}, torch.stack([A, B]), torch.zeros(8))
    assert table["mean"]["cosine"] == pytest.approx(math.sqrt(0.5), abs=1e-4)


def test_an_embedding_depends_on_its_seed_and_not_on_its_batch(trained: tuple[Prior, Prior]) -> None:
    prior, _ = trained
    whole = prior(TEXT.expand(6, -1), range(6))
    assert torch.allclose(prior(TEXT.expand(2, -1), [4, 5]), whole[4:], atol=1e-5)
    assert torch.allclose(whole.square().mean(1), torch.ones(6), atol=1e-4)
    with pytest.raises(ValueError, match="`seed` must be an integer"):
        prior(TEXT, [-1])


def test_of_several_candidates_the_one_nearest_to_the_text_is_kept(trained: tuple[Prior, Prior]) -> None:
    prior, _ = trained
    text = unit_rms(TEXT + 0.1 * A)
    one, many = (prior(text.expand(50, -1), range(50), candidates=n) for n in (1, 8))
    assert float((many @ A).mean()) > float((one @ A).mean()) + 0.5


def untrained(dim: int) -> Prior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Prior(dim, 16, 1).eval()


def test_the_prior_draws_with_the_guidance_and_candidates_that_validation_chose() -> None:
    text = randn((2, 8), seeded(0))
    prior = untrained(8)
    assert torch.equal(prior(text, [0, 1]), prior(text, [0, 1], guidance=1.5, candidates=8))


def test_the_naive_rivals_of_the_prior_answer_as_they_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[dict[str, str]] = [{}, {"noto": "test"}, {"twemoji": "test"}, dict.fromkeys(STYLES, "unseen")]
    emoji, clip = SmallEmoji(load_emoji(), range(0, 400, 20), splits + [{}] * 16), small_clip()
    source = PriorPairs(emoji, CaptionTable(emoji_captions(emoji, 2, seed=0), clip), clip)
    judged: list[dict[str, torch.Tensor]] = []

    def listening(answers: dict[str, torch.Tensor], wanted: torch.Tensor, center: torch.Tensor) -> Any:
        judged.append(answers)
        return judge_prior(answers, wanted, center)

    monkeypatch.setattr("minidiff.prior.judge_prior", listening)
    found = evaluate_prior(untrained(16), untrained(16), clip, emoji, source)
    pooled = clip(canonical_captions(emoji, one_per_base(emoji, "test"))).pooled
    near = (pooled @ source.sentences[:, 0].T).argmax(1)  # by what the captions say, not by their pictures
    assert torch.equal(judged[0]["nearest caption"], source.images[near])
    between = found["spread"]["regression"]["between"]  # it has one answer to a caption, however often it is asked
    assert between == pytest.approx(0, abs=1e-5)


def test_centered_cosine_and_retrieval_on_answers_known_by_hand() -> None:
    wanted, center = torch.eye(6) + 5.0, torch.full((6,), 5.0 + 1 / 6)
    swapped = wanted[[1, 0, 2, 3, 4, 5]]
    table = judge_prior({"right": wanted, "swapped": swapped, "mean": center.expand(6, -1)}, wanted, center)
    assert table["right"] == {"cosine": pytest.approx(1.0), "retrieval_1": 1.0, "retrieval_5": 1.0}
    assert table["swapped"]["retrieval_1"] == pytest.approx(4 / 6)
    assert table["swapped"]["cosine"] == pytest.approx((4 - 2 / 5) / 6, abs=1e-5)
    assert table["mean"]["cosine"] == 0.0 and table["mean"]["retrieval_1"] < 0.6


def test_spread_tells_one_answer_from_many() -> None:
    real = torch.eye(4)[None]
    same, all_four = real[:, :1].expand(1, 8, 4), real.repeat(1, 2, 1)
    zero = torch.zeros(4)
    assert spread(same, real, zero) == {"between": pytest.approx(0.0), "reached": 0.25, "nearest": 1.0}
    assert spread(all_four, real, zero) == {"between": pytest.approx(1 - 8 / 56), "reached": 1.0, "nearest": 1.0}


def test_the_prior_is_trained_on_the_training_split_alone() -> None:
    whole, clip = load_emoji(), small_clip()
    splits: list[dict[str, str]] = [{}, {"noto": "test"}, {"twemoji": "validation"}, dict.fromkeys(STYLES, "unseen")]
    emoji = SmallEmoji(whole, [0, 1, 2, 3], splits)
    table = CaptionTable(emoji_captions(emoji, 3, seed=0), clip)
    source = PriorPairs(emoji, table, clip)
    assert len(source.images) == 10 and source.sentences.shape == (10, 3, 16)
    order = source.order(0, 0)
    assert sorted(order.tolist()) == emoji.split_indices("train").tolist()
    x0, cond = source.batch(order[:4], seeded(0))
    assert cond.text is not None and x0.shape == cond.text.pooled.shape == (4, 16)
    ids = table.ids.flatten(0, 1)
    assert torch.allclose(embed_ids(clip, ids), clip.encode_ids(ids, ids != PAD).pooled, atol=1e-4)


def test_a_dropped_sentence_leaves_the_network_on_its_own() -> None:
    prior = Prior(8, 16, 1).eval()
    x, t = randn((3, 8), seeded(0)), torch.full((3,), 0.5)
    cond = sentence(TEXT.expand(3, -1)).drop(text=torch.tensor([True, False, True]))
    told, alone = prior.denoiser(x, t, cond).x0, prior.denoiser(x, t).x0
    assert torch.allclose(told[[0, 2]], alone[[0, 2]], atol=1e-6) and not torch.allclose(told[1], alone[1], atol=1e-4)
    drop = ConditionDropout(text=0.9, image=0.0, both=0.0, none=0.1)
    assert Denoising(prior.denoiser, drop)((x, cond), seeded(0)).shape == (3,)


# --- what ships


def test_the_prior_that_ships_belongs_to_the_flagship_that_ships() -> None:
    """When this fails, the flagship's CLIP has changed: run `minidiff train prior` and keep what it writes."""
    load_prior(pipe=TextToImage.from_pretrained("emoji-64"))
    folder = checkpoints.find("prior")
    assert (folder / "model.safetensors").stat().st_size <= 2e6
    assert json.loads((folder / "card.json").read_text())["preset"] == "prior"


def test_the_prior_that_ships_beats_both_naive_baselines_in_retrieval() -> None:
    """At first place and among five, on the test split and on bases never seen."""
    measured = json.loads((checkpoints.find("prior") / "card.json").read_text())["measured"]
    for split in ("test", "unseen"):
        for naive in ("mean embedding", "nearest caption"):
            for score in ("retrieval_1", "retrieval_5"):
                assert measured[split]["diffusion prior"][score] > measured[split][naive][score]
