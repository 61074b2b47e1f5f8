"""The prior of unCLIP: from what CLIP makes of a sentence to what it might make of a picture that the sentence fits.

Many pictures fit one sentence, so the answer is a distribution, and a small diffusion model learns it: over vectors
of 128 numbers in place of pixels, with the schedules, denoisers and samplers of every other chapter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff.clip import CaptionTable, draw_variant, embed_images, one_per_base
from minidiff.common import Condition, TextEmbedding, check_int, randn, seeded
from minidiff.data.captions import canonical_caption, canonical_captions
from minidiff.data.emoji import STYLES, EmojiPictures, EmojiSet
from minidiff.denoisers import NetDenoiser
from minidiff.guidance import Guided
from minidiff.metrics import diversity
from minidiff.nets.mlp import MLP
from minidiff.samplers import dpmpp_2m_step, sample
from minidiff.schedules import RectifiedFlow, time_grid
from minidiff.text import PAD, MiniClip, unit_rms
from minidiff.training.objectives import Denoising
from minidiff.training.sources import fold_in

STEPS = 16  # calls of a network that costs next to nothing
PLAIN: dict[str, Any] = {"guidance": 1.0, "candidates": 1}
REPEATS = 4  # seeds that the prior is judged with
CHUNK = 512  # captions encoded at once


def sentence(pooled: Tensor) -> Condition:
    """The condition that holds sentences' vectors (B, P) and no single words."""
    empty = pooled.new_zeros(len(pooled), 0, 1)
    return Condition(text=TextEmbedding(empty, empty[..., 0].bool(), pooled))


class Prior(nn.Module):
    """A diffusion model of CLIP image embeddings (B, dim) given the text embedding: p(e | text).

    It answers with the embedding itself, not with the noise, as Ramesh et al. 2022 (arXiv:2204.06125, equation 2)
    found better: minimize |e - f(e_t, t, text)|^2. The network is a perceptron; theirs was a transformer.
    """

    def __init__(self, dim: int = 128, width: int = 384, depth: int = 4):
        super().__init__()
        self.shape = {"dim": dim, "width": width, "depth": depth}
        self.clip = ""  # the fingerprint of the CLIP that it was trained for, once that is known
        self.denoiser = NetDenoiser(MLP(dim, width, depth, pooled_dim=dim), RectifiedFlow(), "x0")

    @torch.no_grad()
    def forward(
        self, pooled: Tensor, seeds: Sequence[int], *, guidance: float = 1.5, candidates: int = 8, steps: int = STEPS
    ) -> Tensor:
        """Draw an image embedding, root-mean-square 1, for each text embedding (B, dim), with a seed for each.

        Of `candidates` draws the one is kept whose product with the text embedding is largest (Ramesh et al. 2022,
        section 2.2, who take two). Guidance and candidates were chosen on the validation split, for retrieval.
        """
        n = len(pooled)
        seeds = [fold_in(check_int("seed", seed, 0, 2**63 - 1), i) for i in range(candidates) for seed in seeds]
        text = pooled.repeat(check_int("candidates", candidates, 1, 64), 1)
        x = randn(text.shape, [seeded(seed) for seed in seeds], text.device)
        guided, times = Guided(self.denoiser, scale=guidance), time_grid(self.denoiser.schedule, steps)
        *_, x = sample(dpmpp_2m_step, guided, x, times, sentence(text))
        drawn = unit_rms(x)
        best = (drawn * text).sum(1).view(candidates, n).argmax(0)
        return drawn.view(candidates, n, -1)[best, torch.arange(n, device=best.device)]

    @torch.no_grad()
    def mean(self, pooled: Tensor) -> Tensor:
        """The network's answer at t = 1, where e_t is nothing but noise: its guess of E[e | text], (B, dim)."""
        x0, _ = self.denoiser(torch.zeros_like(pooled), 1.0, sentence(pooled))
        return unit_rms(x0)


class Regression(Denoising):
    """The prior's loss at t = 1 alone: the same network learns E[e | text] and nothing about what lies around it."""

    def forward(self, batch: tuple[Tensor, Condition | None], generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,)."""
        x0, cond = batch
        return self.denoiser.loss(x0, cond, generator, torch.ones(len(x0), device=x0.device))  # type: ignore[operator]


class PriorPairs:
    """A training source of (image embedding, sentence): the training split, read by a frozen CLIP."""

    def __init__(self, emoji: EmojiSet, captions: CaptionTable, clip: MiniClip, device: torch.device | str = "cpu"):
        self.pictures = EmojiPictures(emoji, size=1, device=device)
        self.order = self.pictures.order  # flat picture indices, a variant per base and style
        self.captions, self.rows = captions, self.pictures.indices
        self.place = torch.full((len(STYLES) * len(emoji),), -1, device=device)
        self.place[self.rows] = torch.arange(len(self.rows), device=device)
        self.images = embed_images(emoji, clip, self.rows)
        ids = captions.ids[self.rows.to(captions.ids.device)]
        self.sentences = embed_ids(clip, ids.flatten(0, 1)).view(*ids.shape[:2], -1)  # (M, V, dim)

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Condition]:
        """The embeddings of the pictures at flat indices (B,), each with one of its captions."""
        place = self.place[indices]
        return self.images[place], sentence(draw_variant(self.sentences, place, generator)[0])


@torch.no_grad()
def embed_ids(clip: MiniClip, ids: Tensor) -> Tensor:
    """Sentences' vectors (N, dim) of token ids (N, L), without the columns that are all padding."""
    order, rows = (ids != PAD).sum(1).argsort(), []
    for part in ids[order].split(CHUNK):
        part = part[:, : int((part != PAD).sum(1).max())].long()
        rows.append(clip.encode_ids(part, part != PAD).pooled)
    return torch.cat(rows)[order.argsort()]


def judge_prior(answers: dict[str, Tensor], wanted: Tensor, center: Tensor) -> dict[str, dict[str, float]]:
    """How near answers (M, dim) are to the wanted embeddings (M, dim), and whether they find them among all M.

    Answers may be several sets of M, one below the other.

    cosine: of e - center, since all embeddings share a direction that says nothing. retrieval_1, retrieval_5: whether
    the wanted one is the nearest, or among the five nearest.
    """
    known, table = F.normalize(wanted - center, dim=1), {}
    for name, answer in answers.items():
        cosines = (F.normalize(answer - center, dim=1) @ known.T).cpu()
        right = torch.arange(len(answer))[:, None] % len(wanted)
        noise = 1e-6 * randn(cosines.shape, seeded(0))  # an answer that is the same for all finds by chance only
        found = (cosines + noise).topk(min(5, len(wanted)), dim=1).indices == right
        table[name] = {
            "cosine": float(cosines.gather(1, right).mean()),
            "retrieval_1": float(found[:, 0].float().mean()),
            "retrieval_5": float(found.any(1).float().mean()),
        }
    return table


def spread(answers: Tensor, real: Tensor, center: Tensor) -> dict[str, float]:
    """Answers (C, K, dim) to captions that leave the style open, beside the artists' own pictures (C, S, dim).

    between: mean distance 1 - cos of two answers to one caption (centered); reached: how many of the S pictures are
    the nearest one of some answer, as a share; nearest: mean cosine of an answer to its nearest picture.
    """
    a, r = F.normalize(answers - center, dim=-1), F.normalize(real - center, dim=-1)
    cosines, which = (a @ r.transpose(1, 2)).max(-1)  # (C, K)
    reached = F.one_hot(which, r.shape[1]).amax(1).float().mean()
    return {"between": sum(map(diversity, a)) / len(a), "reached": float(reached), "nearest": float(cosines.mean())}


def evaluate_prior(
    prior: Prior, regression: Prior, clip: MiniClip, emoji: EmojiSet, source: PriorPairs, seed: int = 0
) -> dict[str, Any]:
    """The prior beside what is simpler: {"test" | "unseen": table of `judge_prior`, "spread": {...}}.

    mean embedding: the same for every caption; nearest caption: the picture of the training caption whose text
    embedding is nearest; text embedding: CLIP's own, taken for a picture's.
    """
    center, result = source.images.mean(0), {}
    for split in ("test", "unseen"):
        rows = one_per_base(emoji, split)
        captions = canonical_captions(emoji, rows)
        pooled = clip(captions).pooled
        near = (pooled @ source.sentences[:, 0].T).argmax(1)
        wanted = embed_images(emoji, clip, torch.tensor(rows))
        many = [range(seed + 1000 * r, seed + 1000 * r + len(rows)) for r in range(REPEATS)]
        answers = {
            "diffusion prior": torch.cat([prior(pooled, seeds) for seeds in many]),
            "one plain draw": torch.cat([prior(pooled, seeds, **PLAIN) for seeds in many]),
            "regression": regression.mean(pooled),
            "nearest caption": source.images[near],
            "mean embedding": center.expand(len(rows), -1),
            "text embedding": pooled,
        }
        result[split] = {"candidates": len(rows)} | judge_prior(answers, wanted, center)
    return result | {"spread": _spreads(prior, regression, clip, emoji, center, seed)}


def _spreads(
    prior: Prior, regression: Prior, clip: MiniClip, emoji: EmojiSet, center: Tensor, seed: int
) -> dict[str, Any]:
    whole = [record for record in emoji.records if set(record.split.values()) == {"train"}]
    records, draws = whole[:: max(1, len(whole) // 100)], 8
    pooled = clip([canonical_caption(record) for record in records]).pooled
    many = pooled.repeat_interleave(draws, 0)
    seeds = range(seed, seed + len(many))
    rows = torch.tensor([emoji.flat_index(record.index, style) for record in records for style in STYLES])
    real = embed_images(emoji, clip, rows).unflatten(0, (-1, len(STYLES)))
    return {
        "captions": len(records),
        "diffusion prior": spread(prior(many, seeds).unflatten(0, (-1, draws)), real, center),
        "one plain draw": spread(prior(many, seeds, **PLAIN).unflatten(0, (-1, draws)), real, center),
        "regression": spread(regression.mean(many).unflatten(0, (-1, draws)), real, center),
        "the four styles": spread(real, real, center),
    }
