"""What users of picture services know, in our own words: variations, interpolation, inpainting.

Each is a few lines around `TextToImage.generate`. Image-to-image and negative prompts are options of the pipeline.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minidiff.common import Condition, as_times, check_int, randn, seeded, seeds_from
from minidiff.data.decode import on_paper
from minidiff.images import from_image, to_images
from minidiff.pipeline import TextToImage
from minidiff.samplers import Step, as_step
from minidiff.schedules import forward_jump
from minidiff.text import MiniClip, unit_rms

if TYPE_CHECKING:
    from PIL.Image import Image


def embed(pipe: TextToImage, images: Sequence[Image]) -> Tensor:
    """The CLIP image embeddings of pictures, (B, dim), root-mean-square 1.

    Raises ValueError for a model that is not told any.
    """
    if not isinstance(pipe.encoder, MiniClip) or not getattr(pipe.denoiser.net.config, "image_dim", None):
        raise ValueError("`pipe` must be a model that is told CLIP image embeddings, such as emoji-64; got another.")
    x = torch.cat([from_image(image, pipe.size) for image in images])
    with torch.no_grad():
        return pipe.encoder.encode_image(x.to(pipe.device))


def variations(pipe: TextToImage, image: Image, count: int = 4, *, seed: int = 0, **settings: Any) -> list[Image]:
    """Pictures that mean the same: drawn from the CLIP embedding of `image` alone, from `count` noises.

    What the embedding holds stays, the rest is drawn anew (Ramesh et al. 2022, section 3.1). settings: those of
    `TextToImage.generate`.
    """
    check_int("count", count, 1, 64)
    seeds = seeds_from(seed, count)
    return to_images(pipe.generate(Condition(image=embed(pipe, [image])), count, seeds=seeds, **settings))


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Points on the great circle from a (1, D) to b (1, D) at the shares (N,), 0 = a, 1 = b: (N, D), RMS 1.

        sin((1 - s) w) / sin(w) a + sin(s w) / sin(w) b

    With the angle w between them (Shoemake 1985). Directions are what an embedding means; the straight line would
    cut through the sphere.
    """
    a, b, s = F.normalize(a, dim=1), F.normalize(b, dim=1), share[:, None].to(a)
    w = torch.acos((a * b).sum().clamp(-1 + 1e-6, 1 - 1e-6))
    return unit_rms((torch.sin((1 - s) * w) * a + torch.sin(s * w) * b) / torch.sin(w))


def interpolate(
    pipe: TextToImage, first: Image, second: Image, count: int = 6, *, seed: int = 0, **settings: Any
) -> list[Image]:
    """`count` pictures on the way from one to another: `slerp` of their embeddings, the same noise for all.

    Ramesh et al. 2022, section 3.2. settings: those of `TextToImage.generate`.
    """
    check_int("count", count, 2, 64)
    ends = embed(pipe, [first, second])
    between = slerp(ends[:1], ends[1:], torch.linspace(0, 1, count))
    seeds = seeds_from(seed, 1) * count
    return to_images(pipe.generate(Condition(image=between), count, seeds=seeds, **settings))


def inpaint(
    pipe: TextToImage,
    prompt: str,
    image: Image,
    mask: Image,
    *,
    style: str | None = None,
    negative: str | None = None,
    sampler: str | Step = "dpmpp_2m",
    count: int = 1,
    seed: int = 0,
    **settings: Any,
) -> list[Image]:
    """Draw anew what is white in `mask`, to fit the prompt and the rest of `image`, which stays.

    After each step to time s, the known part is put back as it would look there: alpha(s) x0 + sigma(s) eps, with
    the noise that the drawing began with (the idea is Lugmayr et al. 2022, RePaint, equation 8, there with fresh
    noise). negative: what to move away from. settings: those of `TextToImage.generate`.
    """
    from PIL import Image

    check_int("count", count, 1, 64)
    seeds = seeds_from(seed, count)
    if not isinstance(mask, Image.Image):
        raise ValueError(
            f"`mask` must be a PIL image, white where the picture shall be drawn anew; got {mask!r:.80}."
        )
    if mask.mode in ("I", "F") and mask.format is None:  # made of an array; from files "I" means 16 bits
        mask = mask.convert("L")
    known = from_image(image, pipe.size).to(pipe.device)
    hole = from_image(on_paper(mask, "black"), pipe.size).mean(1, keepdim=True).to(pipe.device) > 0
    if not bool(hole.any()):
        raise ValueError("`mask` must be white where the picture shall be drawn anew; it is black everywhere.")
    eps = randn((count, *known.shape[1:]), [seeded(s) for s in seeds], pipe.device)  # as `generate` begins
    step = as_step(sampler)

    def kept(denoiser: Any, x_t: Tensor, t: Any, s: Any, *rest: Any, **more: Any) -> tuple[Tensor, Any]:
        x_s, memory = step(denoiser, x_t, t, s, *rest, **more)
        there = forward_jump(denoiser.schedule, known.expand_as(x_s), as_times(s, x_s), eps)
        return torch.where(hole, x_s, there), memory

    cond = pipe.condition(pipe.check_prompts(prompt), style)
    return to_images(pipe.generate(cond, count, null=pipe.null(negative), seeds=seeds, sampler=kept, **settings))
