"""The mini-CLIP's training: its loss is CLIP's, several captions may be true, and held-out pictures stay out."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_emoji import SmallEmoji, sixty
from small_models import small_clip
from torch import Tensor

from minidiff.clip import (
    CaptionTable,
    ClipPairs,
    ConditionedEmoji,
    ContrastiveObjective,
    Pairs,
    clip_score,
    contrastive_loss,
    embed_images,
    emoji_captions,
    keyword_retrieval,
    one_per_base,
    retrieval,
    train_tokenizer,
)
from minidiff.common import TextEmbedding, randn, seeded
from minidiff.data.captions import canonical_caption, canonical_captions
from minidiff.data.emoji import STYLES, EmojiPictures, load_emoji
from minidiff.data.pixels import to_float
from minidiff.evaluate.tasks import Problem, best_by_clip
from minidiff.text import EOS, PAD, MiniClip, MiniClipConfig, unit_rms

CONFIG = MiniClipConfig(
    dim=16, context=32, vocabulary=400, text_width=16, text_layers=1, text_heads=2,
    image_size=16, image_patch=8, image_width=16, image_layers=1, image_heads=2, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def emoji() -> SmallEmoji:
    """Twelve concepts; two are held out in one style each, one altogether."""
    whole = load_emoji()
    plain = [r.index for r in whole.records if not r.tone and r.gender is None and r.held_out_keyword]
    splits: list[dict[str, str]] = [{} for _ in range(12)]
    splits[0], splits[1], splits[2] = {"noto": "test"}, {"fluent-3d": "validation"}, dict.fromkeys(STYLES, "unseen")
    return SmallEmoji(whole, plain[:: len(plain) // 12][:12], splits)


@pytest.fixture(scope="module")
def clip(emoji: SmallEmoji) -> MiniClip:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MiniClip(CONFIG, train_tokenizer([canonical_caption(r) for r in emoji.records], 400)).eval()


def test_with_one_true_caption_each_the_loss_is_clips() -> None:
    """(CE(logits, i) + CE(logits^T, i)) / 2: Radford et al. 2021, figure 3."""
    logits, i = 3 * randn((6, 6), seeded(0)), torch.arange(6)
    wanted = (F.cross_entropy(logits, i) + F.cross_entropy(logits.T, i)) / 2
    assert contrastive_loss(logits, torch.eye(6) > 0) == pytest.approx(float(wanted), abs=1e-6)


def test_a_second_true_caption_is_not_punished() -> None:
    truth = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]) > 0
    both, one = 20.0 * truth.float(), 20.0 * torch.eye(3)
    assert contrastive_loss(both, truth) < contrastive_loss(one, truth)
    assert contrastive_loss(both, truth) == pytest.approx(2 / 3 * torch.log(torch.tensor(2.0)).item(), abs=1e-4)
    logits = both.clone().requires_grad_()
    (slope,) = torch.autograd.grad(contrastive_loss(logits, truth), logits)
    assert float(slope.abs().max()) < 1e-6  # nothing left to pull apart


def test_a_picture_with_two_captions_is_scored_on_both_alike() -> None:
    truth = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]]) > 0
    logits = randn((3, 3), seeded(1))
    rows = -logits.log_softmax(1)
    columns = -logits.log_softmax(0)
    wanted = (rows[0, :2].mean() + rows[1, :2].mean() + rows[2, 2]) / 6
    wanted = wanted + (columns[:2, 0].mean() + columns[:2, 1].mean() + columns[2, 2]) / 6
    assert contrastive_loss(logits, truth) == pytest.approx(float(wanted), abs=1e-6)


def test_the_objective_compares_unit_vectors(clip: MiniClip) -> None:
    x = randn((4, 3, 16, 16), seeded(0))
    ids, mask = clip.tokenize(["cat", "red heart", "dog", "keycap 3"])
    image = F.normalize(clip.encode_image(x), dim=1)
    text = F.normalize(clip.encode_ids(ids, mask).pooled, dim=1)
    logits = clip.model.logit_scale.exp() * image @ text.T
    wanted = contrastive_loss(logits, torch.eye(4) > 0)
    got = ContrastiveObjective(clip)(Pairs(x, ids, torch.eye(4) > 0), seeded(0))
    assert got.item() == pytest.approx(wanted.item(), abs=1e-5)


def test_the_scale_of_the_cosines_ends_at_one_hundred() -> None:
    clip, losses = small_clip(), []
    batch = Pairs(randn((3, 3, 16, 16), seeded(0)), clip.tokenize(["cat", "rocket", "face"])[0], torch.eye(3) > 0)
    for scale in (100.0, 200.0):
        clip.model.logit_scale.data.fill_(math.log(scale))
        losses.append(ContrastiveObjective(clip)(batch, seeded(0)).item())
    assert losses[0] == pytest.approx(losses[1])


def test_in_half_precision_the_cosines_are_taken_in_single(clip: MiniClip, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = Pairs(torch.zeros(8, 3, 16, 16), clip.tokenize(["cat"] * 8)[0], torch.eye(8) > 0)
    image, text = (unit_rms(randn((8, 16), seeded(seed))) for seed in (0, 1))
    monkeypatch.setattr(clip, "encode_image", lambda pictures: image)
    monkeypatch.setattr(clip, "encode_ids", lambda ids, mask: TextEmbedding(text, mask, text))
    whole = ContrastiveObjective(clip)(batch, seeded(0))
    with torch.autocast("cpu", torch.bfloat16):
        half = ContrastiveObjective(clip)(batch, seeded(0))
    assert half.item() == pytest.approx(whole.item(), abs=1e-6)


def test_a_caption_is_true_of_its_concept_in_every_style_that_it_allows(emoji: SmallEmoji, clip: MiniClip) -> None:
    row = {(s, c): s * len(emoji) + c for s in range(4) for c in range(len(emoji))}
    captions = emoji_captions(emoji, 2, seed=0)
    for (style, concept), index in row.items():
        named = "" if (style, concept) == (1, 5) else f", {STYLES[style].replace('-', ' ')} style"
        captions[index] = [f"{emoji.records[concept].name}{named}"] * 2
    source = ClipPairs(EmojiPictures(emoji, size=16), captions, clip)
    batch = torch.tensor([row[0, 4], row[0, 5], row[1, 5], row[3, 5]])
    pairs = source.batch(batch, seeded(0))
    assert pairs.pictures.shape == (4, 3, 16, 16) and pairs.ids.shape == (4, CONFIG.context)
    assert pairs.truth.int().tolist() == [
        [1, 0, 0, 0],
        [0, 1, 1, 0],  # the second picture is also what the third caption says
        [0, 0, 1, 0],
        [0, 0, 1, 1],
    ]


def test_the_source_knows_which_captions_name_their_style(emoji: SmallEmoji, clip: MiniClip) -> None:
    captions = emoji_captions(emoji, 40, seed=0)
    source = ClipPairs(EmojiPictures(emoji, size=16), captions, clip)
    assert source.captions.ids.shape == (4 * len(emoji), 40, CONFIG.context)
    assert source.says_style.shape == (4 * len(emoji), 40)
    for index, (row, says) in enumerate(zip(captions, source.says_style.tolist(), strict=True)):
        style = STYLES[index // len(emoji)].replace("-", " ")
        ends = re.compile(rf"(, {style} style| in {style} style| im {style}-stil)$")
        assert says == [bool(ends.search(caption)) for caption in row]
        assert not any("fluent" in text or "twemoji" in text for text, s in zip(row, says, strict=True) if not s)
    assert 0.9 < float(source.says_style.float().mean()) < 1.0


def test_it_is_the_drawn_caption_that_names_the_style_or_does_not(emoji: SmallEmoji, clip: MiniClip) -> None:
    captions = emoji_captions(emoji, 2, seed=0)
    captions[5] = ["cat, noto style", "cat"]
    source = ClipPairs(EmojiPictures(emoji, size=16), captions, clip)
    pairs = source.batch(torch.tensor([5] * 20 + [5 + len(emoji)]), seeded(0))  # and the same thing by Twemoji
    named = (pairs.ids[:20] == source.captions.ids[5, 0]).all(1)
    assert named.any() and not named.all()
    assert torch.equal(pairs.truth[20, :20], ~named)


def test_drawing_gives_every_variant_of_the_right_picture(emoji: SmallEmoji, clip: MiniClip) -> None:
    table = CaptionTable(emoji_captions(emoji, 3, seed=0), clip)
    ids, variants = table.draw(torch.full((200,), 7), seeded(0))
    assert set(variants.tolist()) == {0, 1, 2}
    assert torch.equal(ids, table.ids[7, variants].long())
    assert all(EOS in row and row[0] != PAD for row in ids.tolist())


def test_held_out_pictures_are_in_no_training_source(emoji: SmallEmoji, clip: MiniClip) -> None:
    held_out = torch.cat([emoji.split_indices(split) for split in ("validation", "test", "unseen")]).tolist()
    assert len(held_out) == 6
    captions, pictures = emoji_captions(emoji, 2, seed=0), EmojiPictures(emoji, size=16)
    for source in (
        ClipPairs(pictures, captions, clip),
        ConditionedEmoji(pictures, CaptionTable(captions, clip), clip),
    ):
        shown = torch.cat([source.order(seed=0, epoch=epoch) for epoch in range(8)]).unique().tolist()
        assert set(shown) == set(range(4 * len(emoji))) - set(held_out)


def test_the_generator_hears_the_caption_and_a_noisy_embedding_of_its_picture(
    emoji: SmallEmoji, clip: MiniClip
) -> None:
    table = CaptionTable(emoji_captions(emoji, 2, seed=0), clip)
    pictures, rows = EmojiPictures(emoji, size=16), torch.arange(3, 40)
    clean = embed_images(emoji, clip, torch.arange(4 * len(emoji)))
    assert torch.allclose(clean[2 * len(emoji) + 5], clip.encode_image(to_float(emoji.pixels(STYLES[2])[5:6]))[0])
    x, cond = ConditionedEmoji(pictures, table, clip, image_noise=0.0).batch(rows, seeded(0))
    assert cond.text is not None and cond.image is not None
    assert torch.allclose(cond.image, clean[rows], atol=1e-5)
    assert torch.allclose(x, pictures.batch(rows, seeded(0))[0])
    ids, _ = table.draw(rows, seeded(0))
    assert torch.allclose(cond.text.pooled, clip.encode_ids(ids, ids != PAD).pooled, atol=1e-5)
    _, noisy = ConditionedEmoji(pictures, table, clip, image_noise=0.9).batch(rows, seeded(0))
    assert noisy.image is not None and not torch.allclose(noisy.image, clean[rows], atol=0.1)
    alike = torch.cosine_similarity(noisy.image, clean[rows])
    assert alike.max() > 0.97 and alike.min() < 0.7  # each has a share of its own, from nearly none to nearly all
    assert float(noisy.image.square().mean()) == pytest.approx(1.0, abs=0.15)  # the mixture keeps its size


class Oracle:
    """Knows every picture and every caption: concept and style are written into its vectors."""

    def __init__(self, emoji: SmallEmoji) -> None:
        self.device = torch.device("cpu")
        pixels = torch.cat([emoji.pixels(style) for style in STYLES])
        self.known = {picture.numpy().tobytes(): i for i, picture in enumerate(to_float(pixels))}
        captions = [canonical_caption(r, style) for style in STYLES for r in emoji.records]
        self.captions = {caption: i for i, caption in enumerate(captions)}
        self.captions |= {str(r.held_out_keyword): r.index for r in emoji.records}  # drawn in the first style

    def encode_image(self, x: Tensor) -> Tensor:
        rows = torch.tensor([self.known[picture.numpy().tobytes()] for picture in to_float(x)])
        return F.one_hot(rows, len(self.known)).float()

    def __call__(self, prompts: list[str]) -> TextEmbedding:
        rows = torch.tensor([self.captions[prompt] for prompt in prompts])
        pooled = F.one_hot(rows, len(self.known)).float()
        return TextEmbedding(pooled[:, None], torch.ones(len(rows), 1, dtype=torch.bool), pooled)


def test_a_perfect_encoder_retrieves_everything(emoji: SmallEmoji) -> None:
    oracle: Any = Oracle(emoji)
    for split, candidates in (("test", 1), ("unseen", 4), ("train", 42)):
        found = retrieval(oracle, emoji, split)
        assert found.pop("candidates") == candidates
        assert len(found) == 4 and all(share == 1.0 for share in found.values())
    assert keyword_retrieval(oracle, emoji)["top_1"] == 1.0


def test_each_way_of_the_retrieval_has_its_own_number() -> None:
    """By counting who is nearer; a perfect encoder cannot tell the two ways apart, a poor one can."""
    emoji, clip = sixty(), small_clip()
    rows = one_per_base(emoji, "train")
    scores = embed_images(emoji, clip, torch.tensor(rows)) @ clip(canonical_captions(emoji, rows)).pooled.T

    def in_five(scores: Tensor) -> float:
        return float(((scores > scores.diagonal()[:, None]).sum(1) < 5).float().mean())

    found = retrieval(clip, emoji, "train")
    assert found["picture_to_text_5"] == pytest.approx(in_five(scores))
    assert found["text_to_picture_5"] == pytest.approx(in_five(scores.T))
    assert found["picture_to_text_5"] != found["text_to_picture_5"]
    keywords = keyword_retrieval(clip, emoji)
    assert keywords["top_1"] < keywords["top_5"]


def test_an_encoder_that_is_one_off_retrieves_nothing_first(emoji: SmallEmoji) -> None:
    oracle: Any = Oracle(emoji)
    oracle.captions = {text: (i + len(emoji)) % (4 * len(emoji)) for text, i in oracle.captions.items()}  # next style
    found = retrieval(oracle, emoji, "unseen")
    assert found["picture_to_text_1"] == 0.0 and found["text_to_picture_1"] == 0.0


def test_of_several_drawings_clip_chooses_the_nearest_to_the_prompt(emoji: SmallEmoji, clip: MiniClip) -> None:
    tasks = [Problem(record, "noto", (), ()) for record in emoji.records]
    prompts = [task.prompt for task in tasks]
    drawn = [(128 + 60 * randn((12, 3, 64, 64), seeded(i))).clamp(0, 255).to(torch.uint8) for i in range(3)]
    scores = torch.stack([clip_score(clip, prompts, to_float(x)) for x in drawn])
    with torch.no_grad():
        image, text = (F.normalize(e) for e in (clip.encode_image(to_float(drawn[1])), clip(prompts).pooled))
    assert torch.allclose(scores[1], (image * text).sum(1), atol=1e-5) and scores.abs().max() <= 1
    best = best_by_clip(clip, tasks, drawn)
    assert len(set(scores.argmax(0).tolist())) > 1
    assert torch.equal(clip_score(clip, prompts, to_float(best)), scores.amax(0))
