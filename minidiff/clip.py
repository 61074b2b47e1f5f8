"""Training the mini-CLIP: a tokenizer, pictures beside captions, and the loss that pulls the two together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.common import Condition, randn
from minidiff.data.captions import canonical_captions, training_captions
from minidiff.data.emoji import STYLES, EmojiPictures, EmojiSet
from minidiff.data.pixels import to_float
from minidiff.text import BOS, EOS, PAD, MiniClip, as_list


def train_tokenizer(captions: Iterable[str], vocabulary: int = 4096) -> Any:
    """A byte-level BPE tokenizer (Sennrich et al. 2016) from captions; it lower-cases and knows every byte."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=["<pad>", "<bos>", "<unk>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(as_list(captions, "captions"), trainer)
    assert [tokenizer.token_to_id(token) for token in ("<pad>", "<bos>", "<eos>")] == [PAD, BOS, EOS]
    return tokenizer


def emoji_captions(emoji: EmojiSet, variants: int, seed: int) -> list[list[str]]:
    """Training captions of every picture, in the order of flat indices: a row of `variants` for each."""
    return [training_captions(record, style, variants, seed) for style in STYLES for record in emoji.records]


class CaptionTable:
    """Equally many captions for every picture, as token ids (P, V, L) on the device, ready to be drawn."""

    def __init__(self, rows: Sequence[Sequence[str]], clip: MiniClip, device: torch.device | str = "cpu"):
        ids, _ = clip.tokenize([caption for row in rows for caption in row], full=True)
        self.ids = ids.view(len(rows), -1, ids.shape[1]).int().to(device)

    def draw(self, pictures: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """One random caption for each of the pictures (B,): its ids (B, L), and which of the V it is (B,)."""
        ids, variant = draw_variant(self.ids, pictures, generator)
        return ids.long(), variant


def draw_variant(table: Tensor, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Of a table (P, V, ...) one of the V at random for each of the rows (B,): (B, ...), and which it is (B,)."""
    variant = torch.randint(table.shape[1], (len(rows),), generator=generator, device=generator.device)
    variant = variant.to(table.device)
    return table[rows.to(table.device), variant], variant


class Pairs(NamedTuple):
    """Pictures (B, 3, H, W), captions' ids (B, L), and which caption is true of which picture (B, B)."""

    pictures: Tensor
    ids: Tensor
    truth: Tensor


class ClipPairs:
    """A training source of pictures with captions, a row of them for each flat index, and of who describes whom."""

    def __init__(self, pictures: EmojiPictures, captions: Sequence[Sequence[str]], clip: MiniClip):
        self.pictures, self.captions = pictures, CaptionTable(captions, clip, pictures.device)
        self.order = pictures.order  # flat picture indices
        names = [style.replace("-", " ") for style in STYLES for _ in pictures.emoji.records]  # in German, too
        said = [[name in caption for caption in row] for name, row in zip(names, captions, strict=True)]
        self.says_style = torch.tensor(said, device=pictures.device)  # (P, V)

    def batch(self, indices: Tensor, generator: torch.Generator) -> Pairs:
        """A caption is true of a picture of its concept, in any style if it names none."""
        x, label = self.pictures.batch(indices, generator)
        ids, variant = self.captions.draw(indices, generator)
        says_style = self.says_style[indices.to(x.device), variant]
        style, concept = label.label, indices.to(x.device) % len(self.pictures.emoji)
        assert style is not None
        same_concept = concept[:, None] == concept[None, :]
        fits = (style[:, None] == style[None, :]) | ~says_style[None, :]
        return Pairs(x, ids, same_concept & fits)


class ContrastiveObjective(nn.Module):
    """The symmetric cross-entropy of CLIP (Radford et al. 2021, figure 3), with several right answers allowed.

    logits = exp(s) image text^T for unit vectors; each row's target is uniform over the captions true of that
    picture, each column's over the pictures of that caption (Khosla et al. 2020, equation 2, averaged outside the
    logarithm). Styles of one concept are thus told apart only by captions that name them.
    """

    def __init__(self, clip: MiniClip):
        super().__init__()
        self.clip = clip

    def forward(self, batch: Pairs, generator: torch.Generator) -> Tensor:
        """The loss of a batch, a scalar."""
        image = self.clip.encode_image(batch.pictures)
        text = self.clip.encode_ids(batch.ids, batch.ids != PAD).pooled
        scale = self.clip.model.logit_scale.exp().clamp(max=100) / image.shape[1]  # the vectors have RMS 1
        with torch.autocast(image.device.type, enabled=False):  # e^s would amplify the rounding of bf16
            return contrastive_loss(scale * image @ text.T, batch.truth)


def contrastive_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross-entropy of logits (B, B) against truth (B, B) normalized by rows, and the same by columns."""
    right = truth.float()
    rows = F.cross_entropy(logits, right / right.sum(1, keepdim=True))
    columns = F.cross_entropy(logits.T, (right / right.sum(0)).T)
    return (rows + columns) / 2


class ConditionedEmoji:
    """A training source for the generator: pictures with what a frozen CLIP makes of their captions and of them.

    image_noise: the embedding is mixed with noise of a share drawn up to this, e <- sqrt(1 - a^2) e + a n, so that
    a prior's imperfect embeddings serve as well (chapter 5).
    """

    def __init__(self, pictures: EmojiPictures, captions: CaptionTable, clip: MiniClip, image_noise: float = 0.5):
        self.pictures, self.captions, self.clip = pictures, captions, clip.eval().requires_grad_(False)
        self.image_noise = image_noise
        self.order = pictures.order  # flat picture indices
        everything = torch.arange(len(STYLES) * len(pictures.emoji))
        self.embeddings = embed_images(pictures.emoji, clip, everything)

    @torch.no_grad()
    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Condition]:
        """x0 (B, 3, H, W) in [-1, 1] and its Condition(text, image)."""
        x, _ = self.pictures.batch(indices, generator)
        ids, _ = self.captions.draw(indices, generator)
        image = self.embeddings[indices.to(x.device)]
        a = torch.rand(len(image), 1, generator=generator, device=generator.device).to(x.device) * self.image_noise
        image = (1 - a**2).sqrt() * image + a * randn(image.shape, generator, x.device)
        return x, Condition(text=self.clip.encode_ids(ids, ids != PAD), image=image)


@torch.no_grad()
def embed_images(emoji: EmojiSet, clip: MiniClip, indices: Tensor) -> Tensor:
    """CLIP image embeddings (M, dim) of the pictures at flat indices (M,), on the CLIP's device."""
    return torch.cat([clip.encode_image(emoji.at(part.tolist()).to(clip.device)) for part in indices.split(512)])


def one_per_base(emoji: EmojiSet, split: str) -> list[int]:
    """A split's flat indices, the first variant of each (base, style)."""
    chosen: dict[tuple[int, int], int] = {}
    for index in emoji.split_indices(split).tolist():
        chosen.setdefault((emoji.base_of(emoji.concept_of(index)), index // len(emoji)), index)
    return sorted(chosen.values())


@torch.no_grad()
def clip_score(clip: MiniClip, prompts: Sequence[str], pictures: Tensor) -> Tensor:
    """The cosine between each prompt and its picture, (B,), to a CLIP; pictures (B, 3, H, W) in [-1, 1].

    Hessel et al. 2021, section 3, without its factor 2.5 and its cut at 0.
    """
    image = clip.encode_image(to_float(pictures).to(clip.device))
    return torch.cosine_similarity(image, clip(prompts).pooled)


@torch.no_grad()
def retrieval(clip: MiniClip, emoji: EmojiSet, split: str = "test") -> dict[str, float]:
    """How often the right partner is found among a split's pictures and captions, both ways, first and in five.

    One picture per (base, style), the first variant; captions are the canonical ones, with the style's name.
    """
    indices = one_per_base(emoji, split)
    captions = canonical_captions(emoji, indices)
    pictures = embed_images(emoji, clip, torch.tensor(indices))
    scores = pictures @ clip(captions).pooled.T
    return {
        "candidates": float(len(indices)),
        "picture_to_text_1": found_in_first(scores, 1),
        "picture_to_text_5": found_in_first(scores, 5),
        "text_to_picture_1": found_in_first(scores.T, 1),
        "text_to_picture_5": found_in_first(scores.T, 5),
    }


def held_out_keywords(emoji: EmojiSet) -> dict[str, int]:
    """The keywords that no training caption ever held -> the concept that each was kept from, one of a base."""
    kept: dict[str, int] = {}
    bases: set[int] = set()
    for record in emoji.records:
        base = emoji.base_of(record.index)
        if record.held_out_keyword and base not in bases and record.held_out_keyword not in kept:
            kept[record.held_out_keyword] = record.index
            bases.add(base)
    return kept


@torch.no_grad()
def keyword_retrieval(clip: MiniClip, emoji: EmojiSet, style: str = "noto") -> dict[str, float]:
    """The same for the held-out keywords, on pictures of one style.

    A keyword may fit several bases, and only one counts here: read it beside chance, k / candidates.
    """
    kept = held_out_keywords(emoji)
    device = clip.device
    pictures = to_float(emoji.pixels(style)[list(kept.values())].to(device))
    scores = clip(list(kept)).pooled @ clip.encode_image(pictures).T
    first, five = found_in_first(scores, 1), found_in_first(scores, 5)
    return {"candidates": float(len(kept)), "top_1": first, "top_5": five}


def found_in_first(scores: Tensor, k: int) -> float:
    """The share of rows of scores (N, N) whose own column, the diagonal, is among the k with the highest scores."""
    right = torch.arange(len(scores), device=scores.device)[:, None]
    return float((scores.topk(min(k, scores.shape[1]), dim=1).indices == right).any(1).float().mean())
