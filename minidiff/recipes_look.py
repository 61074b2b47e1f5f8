"""A look of our own for the Midjourney recipe: two inks on paper, and a model fine-tuned on it by LoRA or in full.

It stands in for the curated collection of art that a picture service may have. No style of the data looks like it, so
the base model cannot have seen it, and whether a picture has it can be measured: its colors are known.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minidiff import checkpoints
from minidiff.checkpoints import fingerprint
from minidiff.clip import CaptionTable
from minidiff.common import CheckpointError, Condition, check_number, randn, seeded
from minidiff.data.captions import training_captions
from minidiff.data.emoji import EmojiRecord, EmojiSet, load_emoji
from minidiff.data.pixels import to_float
from minidiff.pipeline import TextToImage
from minidiff.text import PAD, MiniClip
from minidiff.training.job import Job
from minidiff.training.objectives import ConditionDropout, Denoising
from minidiff.training.sources import shuffled

PAPER, BLUE, CORAL = (0.97, 0.94, 0.86), (0.16, 0.20, 0.48), (1.0, 0.42, 0.36)  # RGB in [0, 1]
COLLECTION = "twemoji"  # the drawings that the collection is printed from: flat and clear
RANK = 8  # of LoRA's matrices


def inks(x: Tensor) -> Tensor:
    """How much of the two inks pictures (B, 3, H, W) in [-1, 1] are printed with: (B, 2, H, W) in [0, 1].

    Blue takes what is dark and the outline; coral takes what is warm, and is printed one pixel off, as a cheap press
    would. The grain of the paper is the same in every picture.
    """
    r, g, b = ((x + 1) / 2).clamp(0, 1).unbind(1)
    light = 0.299 * r + 0.587 * g + 0.114 * b
    drawn = ((1 - torch.stack([r, g, b], 1).amin(1)) > 0.08).float()[:, None]
    outline = (F.max_pool2d(drawn, 3, 1, 1) - drawn)[:, 0]
    blue = torch.maximum(((1 - light) * 1.25).clamp(0, 1) ** 1.2, outline)
    coral = F.pad(((r - b) * 1.3).clamp(0, 1), (1, 0, 1, 0))[:, :-1, :-1]
    grain = 1 - 0.12 * randn(x.shape[-2:], seeded(3)).abs().clamp(max=2).to(x.device)
    return torch.stack([blue, coral], 1) * grain


def two_inks(x: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] printed with two inks: paper (1 - blue (1 - BLUE)) (1 - coral (1 - CORAL))."""
    return _print(inks(x).movedim(1, -1)).movedim(-1, 1)


def _print(densities: Tensor) -> Tensor:
    paper, *colors = (torch.tensor(color, device=densities.device) for color in (PAPER, BLUE, CORAL))
    light = paper
    for i, color in enumerate(colors):
        light = light * (1 - densities[..., i : i + 1] * (1 - color))
    return 2 * light - 1


def in_the_look(x: Tensor) -> Tensor:
    """The share of a picture's pixels (B, 3, H, W) whose color the two inks can make, to 0.1 in [-1, 1]: (B,)."""
    steps = torch.linspace(0, 1, 24, device=x.device)
    palette = _print(torch.cartesian_prod(steps, steps))  # (576, 3)
    pixels = x.movedim(1, -1).flatten(1, 2)  # (B, H*W, 3)
    near = torch.stack([torch.cdist(row, palette).amin(1) < 0.1 for row in pixels])
    return near.float().mean(1)


def collection(emoji: EmojiSet) -> list[EmojiRecord]:
    """The concepts of the collection: training pictures of things with a name of one word, a variant per base."""
    chosen: dict[str, EmojiRecord] = {}
    for record in emoji.records:
        if record.split[COLLECTION] == "train" and record.name.isalpha() and not record.tone:
            chosen.setdefault(record.base, record)
    return list(chosen.values())


class Collection:
    """A training source of the collection in the look, with captions that name no style, read by a frozen CLIP."""

    def __init__(self, emoji: EmojiSet, clip: Any, size: int = 64, device: torch.device | str = "cpu"):
        self.clip, self.records = clip.eval(), collection(emoji)
        pixels = emoji.pixels(COLLECTION, size)[[record.index for record in self.records]]
        self.prints = two_inks(to_float(pixels)).to(device)
        with torch.no_grad():  # of the drawings as they were: what a prior would say of the caption
            self.images = torch.cat([clip.encode_image(to_float(part).to(device)) for part in pixels.split(256)])
        rows = [training_captions(record, None, 8, seed=2) for record in self.records]
        self.captions = CaptionTable(rows, clip, device)

    def order(self, seed: int, epoch: int) -> Tensor:
        """A fresh shuffle in each epoch."""
        return shuffled(len(self.records), seed, epoch, self.prints.device)

    @torch.no_grad()
    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Condition]:
        """Printed pictures (B, 3, size, size) with a caption and the image embedding of each."""
        ids, _ = self.captions.draw(indices, generator)
        return self.prints[indices], Condition(self.clip.encode_ids(ids, ids != PAD), self.images[indices])


def build_look(device: torch.device, clip: str | None = None, *, full: bool) -> Job:
    """Fine-tune a text-to-image model on the look: all weights, or by LoRA (Hu et al. 2022) with `peft`."""
    pipe = TextToImage.from_pretrained(clip or "emoji-64").to(device)
    if not isinstance(pipe.encoder, MiniClip):
        raise ValueError(f"`clip` must be a model that draws and has a mini-CLIP, as emoji-64; {clip} is none.")
    net, before = pipe.denoiser.net, fingerprint(pipe.denoiser.net)
    if full:
        net.requires_grad_(True)
    else:
        add_lora(net)

    def finish(objective: Any, folder: Path) -> dict[str, Any]:
        if full:
            TextToImage(objective.denoiser, pipe.encoder, pipe.styles).save_pretrained(folder)
        else:
            save_lora(folder, objective.denoiser.net)
        return {"pictures": len(source.records), "base": before}

    source = Collection(load_emoji(), pipe.encoder, pipe.size, device)
    objective = Denoising(pipe.denoiser, ConditionDropout())
    objective.start = before  # on other weights a run cannot go on
    return Job(objective, source, finish)


def add_lora(net: nn.Module) -> None:
    """Freeze a network and give its linear layers and convolutions a trainable B A of rank 8, with `peft`.

    So a fine-tune on pictures of one's own begins; `save_lora` keeps it, and `with_lora` draws with it.
    """
    _check_bare(net)
    if hasattr(net, "peft_config"):
        raise ValueError("`net` must be without LoRA; this one was given to `add_lora` before.")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise RuntimeError("LoRA is trained with the library peft, which is not here: pip install peft") from error
    layers = [name for name, layer in net.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=layers), net)


def _check_bare(net: Any) -> None:
    if hasattr(net, "net") or hasattr(net, "denoiser"):
        raise ValueError(f"`net` must be the network itself, `pipe.denoiser.net`; got {type(net).__name__}.")


def save_lora(folder: str | Path, net: nn.Module) -> None:
    """Write what `add_lora` gave a network, for `with_lora`, with the `fingerprint` of the network before."""
    _check_bare(net)
    if not hasattr(net, "peft_config"):
        raise ValueError("`net` must be a network that was given to `add_lora`; this one has no LoRA.")
    from peft import get_peft_model_state_dict

    config = {"kind": "lora", "scale": 1.0, "base": fingerprint(net)}
    checkpoints.save_model(folder, config, get_peft_model_state_dict(net))


def with_lora(pipe: TextToImage, look: str | Path = "midjourney", strength: float = 1.0) -> TextToImage:
    """The same pipeline with a fine-tune added to its weights: W + strength scale B A (Hu et al. 2022, equation 3).

    A convolution's kernels count as rows of a matrix. Needs no `peft`. look: the bundled fine-tune or a folder.
    strength: 0 = none of it, 1 = as trained, at most 2. Raises CheckpointError when the fine-tune was made for other
    weights than the pipeline's.
    """
    check_number("strength", strength, 0, 2)
    config, tensors, _ = checkpoints.load_model(look, "look")
    if config.get("kind") != "lora" or config.get("base") != fingerprint(pipe.denoiser.net):
        raise CheckpointError(
            f"`look` must be a fine-tune of this very model; {look} is not: load the one that it was made from, "
            "without a look, or make one by `minidiff train midjourney --clip CHECKPOINT`."
        )
    denoiser = copy.deepcopy(pipe.denoiser)
    weights = dict(denoiser.net.named_parameters())
    for name in tensors:
        if name.endswith(".lora_A.weight"):
            a, b = tensors[name], tensors[name.replace("lora_A", "lora_B")]
            weight = weights[name.replace("lora_A.", "")]
            change = (b.flatten(1) @ a.flatten(1)).view_as(weight).to(weight.device)
            weight.data += strength * config["scale"] * change
    return TextToImage(denoiser, pipe.encoder, pipe.styles, pipe.card)
