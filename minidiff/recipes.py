"""Two recipes for one model: what is published of DALL·E 2 and 3, and what is said of Midjourney."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from minidiff import checkpoints
from minidiff.checkpoints import fingerprint
from minidiff.common import (
    CheckpointError,
    Condition,
    TextEmbedding,
    check_choice,
    check_number,
    randn,
    seeded,
    seeds_from,
    shortened,
)
from minidiff.images import to_images
from minidiff.pipeline import TextToImage
from minidiff.prior import Prior
from minidiff.prompts import HubRewriter, expand, keywords, split
from minidiff.recipes_look import with_lora
from minidiff.text import MiniClip, unit_rms
from minidiff.training.sources import fold_in

if TYPE_CHECKING:
    from PIL.Image import Image

RECIPES = ("dalle", "midjourney")
MIDJOURNEY = {"guidance": 8.0, "rescale": 0.7}  # high, and the glare taken out again
DALLE = {"guidance": 4.0}
NOISE = 0.2  # share of noise in an embedding of the prior; the U-Net saw shares up to 0.5


class Drawing(NamedTuple):
    """Pictures, and for each the sentence that says what was done with its prompt."""

    images: list[Image]
    said: list[str]


def read_all(pipe: TextToImage, prompt: str) -> tuple[Condition, int]:
    """A prompt of any length, (1 row), and into how many parts it was split: no word is left unread.

    Each part is encoded on its own. The words of all parts stand side by side for cross-attention, which takes any
    number of them; the parts' vectors are averaged, weighted by their words.
    """
    parts = split(prompt, pipe.encoder.cut) if isinstance(pipe.encoder, MiniClip) else [prompt]
    rows = [pipe.condition([part]) for part in parts]
    texts = [row.text for row in rows if row is not None and row.text is not None]
    weights = torch.tensor([float(text.mask.sum()) for text in texts], device=pipe.device)
    pooled = unit_rms((weights[:, None] * torch.cat([text.pooled for text in texts])).sum(0, keepdim=True))
    tokens, mask = torch.cat([text.tokens for text in texts], 1), torch.cat([text.mask for text in texts], 1)
    return Condition(text=TextEmbedding(tokens, mask, pooled)), len(parts)


def dalle(
    pipe: TextToImage,
    prompts: str | Sequence[str],
    *,
    style: str | None = None,
    negative: str | None = None,
    seed: int = 0,
    rewriter: Callable[[str], str] | str | None = None,
    prior: Prior | str | Path = "prior",
    noise: float = NOISE,
    **settings: Any,
) -> Drawing:
    """Draw as DALL·E 2 and 3 are described: the prompt rewritten, read whole, and turned into a picture's embedding.

    text -> prior -> CLIP image embedding, noised, which the U-Net is told together with the words (Ramesh et al.
    2022). Picture i has the seed `seed + i`. negative: what to move away from. rewriter: what makes a prompt more
    detailed (Betker et al. 2023), a function, "expand", or a text-generation model of `transformers` by name; None
    for none; `style` is said after it. prior: the bundled one, or another or its folder. noise: its share in the
    embedding, 0 to 1. settings: those of `TextToImage.generate`, guidance 4 unless said otherwise.
    """
    check_number("noise", noise, 0, 1)
    prompts, seeds = _asked("dalle", pipe, prompts, seed, settings)
    if not getattr(pipe.denoiser.net.config, "image_dim", None):
        raise ValueError(
            "The recipe needs a model that is told CLIP image embeddings, such as emoji-64; got another."
        )
    if isinstance(prior, Prior):
        _check_prior(prior, pipe)
    else:
        prior = load_prior(prior, pipe=pipe)
    if isinstance(rewriter, str):
        rewriter = expand if rewriter == "expand" else HubRewriter(rewriter)
    write = cache(lambda prompt: rewriter(prompt) if rewriter is not None and prompt.strip() else prompt)
    texts = [write(prompt) for prompt in prompts]
    styled = texts if style is None else [pipe.styled(text, style) for text in texts]
    read = [*map(cache(partial(read_all, pipe)), styled)]
    cond = Condition.cat([row for row, _ in read])
    assert cond.text is not None
    image = sample_prior(prior, cond.text.pooled, seeds, noise)
    cond, null = Condition(cond.text, image), pipe.null(negative)
    x = pipe.generate(cond, len(prompts), null=null, seeds=seeds, **DALLE | settings)
    said = [
        _count(prompt)
        + (f", rewritten as {shortened(text)}" if text != prompt else "")
        + (f", read in {parts} parts" if parts > 1 else ", read at once")
        for prompt, text, (_, parts) in zip(prompts, texts, read, strict=True)
    ]
    return Drawing(to_images(x), said)


def midjourney(
    pipe: TextToImage,
    prompts: str | Sequence[str],
    *,
    negative: str | None = None,
    seed: int = 0,
    look: str | Path | None = "midjourney",
    **settings: Any,
) -> Drawing:
    """Draw as Midjourney is said to: few words, strong guidance, and a U-Net fine-tuned on a look of its own.

    Nothing of this is published: it is our guess at a recipe. Prompts are reduced to keywords. negative: what to move
    away from (Midjourney's --no). Picture i has the seed `seed + i`. look: a fine-tune, the bundled one or a folder
    (`minidiff train midjourney`), None or "none" for none. settings: those of `TextToImage.generate`, guidance 8
    rescaled by 0.7 unless said otherwise.
    """
    prompts, seeds = _asked("midjourney", pipe, prompts, seed, settings)
    pipe = pipe if look in (None, "none") else with_lora(pipe, look)
    texts = [keywords(prompt) for prompt in prompts]
    cond, null = pipe.condition(texts), pipe.null(negative)
    x = pipe.generate(cond, len(prompts), null=null, seeds=seeds, **MIDJOURNEY | settings)
    said = [
        f"{_count(prompt)}, " + (f"reduced to {shortened(text)}" if text != prompt else "kept as it is")
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    return Drawing(to_images(x), said)


def check_recipe(recipe: str | None, **options: Any) -> None:
    """Raise ValueError for an unknown recipe, or for an option that does not go with it."""
    if recipe is not None:
        check_choice("recipe", recipe, RECIPES)
    refused = {
        "style": (recipe == "midjourney", "its look is its own"),
        "rewriter": (recipe != "dalle", "only the recipe dalle rewrites"),
        "prior": (recipe != "dalle", "only the recipe dalle has one"),
        "look": (recipe != "midjourney", "only the recipe midjourney has one"),
    }
    for name, value in options.items():
        if value is not None and name in refused and refused[name][0]:
            raise ValueError(f"`{name}` must be left out here, as {refused[name][1]}; got {str(value)!r}.")


def sample_prior(prior: Prior, pooled: Tensor, seeds: Sequence[int], noise: float = NOISE, **settings: Any) -> Tensor:
    """The prior's image embeddings (B, dim), mixed with noise as in training, see `noised`."""
    return noised(prior(pooled, [fold_in(seed, 1) for seed in seeds], **settings), seeds, noise)


def noised(image: Tensor, seeds: Sequence[int], noise: float = NOISE) -> Tensor:
    """Image embeddings (B, dim) that the U-Net is not to believe to the last digit: sqrt(1 - a^2) e + a n."""
    n = randn(image.shape, [seeded(fold_in(seed, 2)) for seed in seeds], image.device)
    return (1 - noise**2) ** 0.5 * image + noise * n


def load_prior(name: str | Path = "prior", *, pipe: TextToImage | None = None) -> Prior:
    """A trained prior, bundled or from a folder; raises CheckpointError when it is for another CLIP than pipe's."""
    config, tensors, _ = checkpoints.load_model(name, "prior")
    if config.get("kind") != "prior":
        raise CheckpointError(f"`prior` must be a model of `minidiff train prior`; {name} is none.")
    with checkpoints.understanding(name):
        prior = Prior(**config["shape"])
        checkpoints.load_weights(prior, tensors, name)
    prior.clip = config.get("clip") or "unknown"  # and so of no CLIP that is at hand
    if pipe is not None:
        _check_prior(prior, pipe)
    return prior.eval().requires_grad_(False).to(pipe.device if pipe is not None else "cpu")


def _check_prior(prior: Prior, pipe: TextToImage) -> None:
    if prior.clip and not (isinstance(pipe.encoder, MiniClip) and fingerprint(pipe.encoder) == prior.clip):
        way = "run `minidiff train prior --clip CHECKPOINT` and give its folder"
        raise CheckpointError(f"`prior` must be one for this model's CLIP; this is another's: {way}.")


def _asked(
    recipe: str, pipe: TextToImage, prompts: Any, seed: int, settings: dict[str, Any]
) -> tuple[list[str], list[int]]:
    check_recipe(recipe, **settings)
    prompts = pipe.check_prompts(prompts)
    if not isinstance(pipe.encoder, MiniClip):
        raise ValueError("The recipe needs a model with a CLIP, such as emoji-64; got one that reads no free text.")
    return prompts, seeds_from(seed, len(prompts))


def _count(prompt: str) -> str:
    n = len(prompt.split())
    return f"{n} word{'' if n == 1 else 's'}"
