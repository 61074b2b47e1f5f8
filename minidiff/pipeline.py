"""From a prompt to a picture: the whole of minidiff in one call."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import ModelHubMixin
from torch import Tensor

from minidiff import checkpoints
from minidiff.common import (
    Condition,
    check_choice,
    check_int,
    pick_device,
    randn,
    seeded,
    seeds_from,
    shortened,
)
from minidiff.denoisers import READ_BY, NetDenoiser, check_condition, check_encoder, reads
from minidiff.guidance import Guided
from minidiff.hub import fetch, model_card
from minidiff.images import from_image, to_images
from minidiff.prompts import readable
from minidiff.samplers import Step, as_step, check_settings, sample
from minidiff.schedules import forward_jump, noise_end, time_grid
from minidiff.text import HubTextEncoder, MiniClip, TextEncoder, WordEncoder, as_list

if TYPE_CHECKING:
    from PIL.Image import Image

Callback = Callable[[int, Tensor], object]
STRENGTH = 0.6  # how far a given picture is noised, unless it is said


class TextToImage(ModelHubMixin):
    """A denoiser with the text encoder it was trained with, ready to draw.

    `from_pretrained(name)` takes a bundled name ("emoji-64"), a folder, or an id on the Hugging Face hub;
    `save_pretrained` and `push_to_hub` write one, of a `HubTextEncoder` its name alone. encoder None makes a model
    without words, drawn from by style. styles: names; of a model without words those of its labels 1, 2, ..., of
    another one what is said after a prompt ("noto" as the emoji's captions say it, "noto style"). card: facts for
    card.json. Raises ValueError for parts that do not fit each other.
    """

    def __init__(
        self,
        denoiser: NetDenoiser,
        encoder: TextEncoder | None = None,
        styles: Sequence[str] = (),
        card: dict[str, Any] | None = None,
    ):
        self.denoiser, self.encoder = denoiser, encoder
        if isinstance(encoder, torch.nn.Module):
            encoder.eval()
        self.styles, self.card = tuple(as_list(styles, "styles")), card or {}
        net = getattr(denoiser, "net", denoiser)
        shape: Any = getattr(net, "config", None) if hasattr(denoiser, "schedule") else None
        if not hasattr(shape, "size") or getattr(shape, "channels", 3) != 3:
            raise ValueError(
                "`denoiser` must be a NetDenoiser with a UNet for 3 channels, or a network that has config.size; "
                f"got {type(net).__name__}: draw from another one with `minidiff.samplers.sample`."
            )
        if encoder is not None:
            check_encoder(denoiser, encoder)
        if len(set(self.styles)) < len(self.styles) or not all(isinstance(style, str) for style in self.styles):
            raise ValueError(f"`styles` must be names, none twice; got {self.styles!r:.80}.")
        if isinstance(encoder, WordEncoder):
            encoder.tokenize([self.styled("", style) for style in self.styles])
        most, given = getattr(shape, "labels", None) or 0, len(self.styles)
        if given > most and not reads(denoiser, "text"):
            raise ValueError(f"`styles` must be at most as many as the network's labels, {most}; got {given}.")
        self.size = int(shape.size)

    def to(self, device: str | torch.device | None) -> TextToImage:
        """Move the model to a device, None for the best one here."""
        device = pick_device(device)
        self.denoiser.to(device)
        for part in (self.encoder, getattr(self.encoder, "model", None)):
            if isinstance(part, torch.nn.Module):
                part.to(device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.denoiser.parameters()).device

    def __call__(
        self,
        prompts: str | Sequence[str],
        *,
        style: str | None = None,
        steps: int = 12,
        guidance: float = 4.0,
        negative: str | None = None,
        seed: int = 0,
        sampler: str | Step = "dpmpp_2m",
        rescale: float = 0.0,
        interval: tuple[float, float] = (0.0, 1.0),
        shift: float | None = None,
        image: Image | None = None,
        strength: float | None = None,
        callback: Callback | None = None,
    ) -> list[Image]:
        """Draw one picture per prompt; under `torch.autocast` in bfloat16, where the device has it, faster.

        style: one of `styles`, or None to leave it to the prompt. steps: 1 to 1000, of the sampler, a name in `STEPS`
        or a step of your own. guidance: 0 to 100, 1 = off; above it, `negative` says what to move away from. seed:
        picture i is drawn with `seed + i`, so it does not depend on its batch. rescale and interval: see `Guided`.
        shift: see `time_grid`. image: start from this picture, noised to time `strength` (0.01 to 1; 0.6
        if it is not said). callback: after each step called as callback(i, x) with x (B, 3, H, W); it may return True
        to stop there. Raises ValueError for anything out of range.
        """
        prompts = self.check_prompts(prompts)
        cond = self.condition(prompts, style)
        x = self.generate(
            cond,
            len(prompts),
            steps=steps,
            guidance=guidance,
            null=self.null(negative),
            seeds=seeds_from(seed, len(prompts)),
            sampler=sampler,
            rescale=rescale,
            interval=interval,
            shift=shift,
            start=None if image is None else from_image(image, self.size),
            strength=strength,
            callback=callback,
        )
        return to_images(x)

    @torch.no_grad()
    def generate(
        self,
        cond: Condition | None,
        count: int,
        *,
        steps: int = 12,
        guidance: float = 4.0,
        null: Condition | None = None,
        seeds: Sequence[int],
        sampler: str | Step = "dpmpp_2m",
        rescale: float = 0.0,
        interval: tuple[float, float] = (0.0, 1.0),
        shift: float | None = None,
        start: Tensor | None = None,
        strength: float | None = None,
        callback: Callback | None = None,
    ) -> Tensor:
        """What a call does, on tensors: `count` pictures (B, 3, H, W) in [-1, 1] for a condition with 1 or B rows."""
        share = 1.0 if start is None else STRENGTH if strength is None else strength
        check_settings(steps=steps, guidance=guidance, sampler=sampler, rescale=rescale, strength=share)
        check_condition(cond)
        if strength is not None and start is None:
            raise ValueError(f"`strength` needs a picture to begin with; got {strength} without one.")
        if null is not None and guidance <= 1:  # below, it would move towards what is not wanted
            raise ValueError(f"`negative` needs guidance above 1; got {guidance:g}.")
        if not hasattr(seeds, "__len__") or len(seeds) != check_int("count", count, 1, 10**6):
            raise ValueError(f"`seeds` must be one per picture, as range({count}); got {seeds!r:.60}.")
        cond, null = (said and said.to(self.device) for said in (cond, null))
        denoiser = Guided(self.denoiser, null, guidance, rescale, interval)
        generators = [seeded(seed) for seed in seeds]
        x = randn((count, 3, self.size, self.size), generators, self.device)
        first = noise_end(self.denoiser.schedule) * share
        shape = getattr(start, "shape", None)
        if start is not None and shape not in (x.shape, (1, *x.shape[1:])):
            got = tuple(shape) if shape else type(start).__name__
            raise ValueError(f"`start` must be a tensor (1 or {count}, *{tuple(x.shape[1:])}); got {got}.")
        known = torch.zeros_like(x) if start is None else start.to(self.device).expand_as(x)
        x = forward_jump(self.denoiser.schedule, known, torch.full((count,), first, device=self.device), x)
        times = time_grid(self.denoiser.schedule, steps, start=first, shift=shift)
        states = sample(as_step(sampler), denoiser, x, times, cond and cond.expand(count), generators)
        for i, x in enumerate(states):
            if callback is not None and callback(i, x) is True:
                break
        if not bool(x.isfinite().all()):  # they would be black
            raise ValueError("`sampler` or the schedule gave NaN: try another one, or more steps.")
        return x.clamp(-1, 1)

    def condition(self, prompts: str | Sequence[str], style: str | None = None) -> Condition | None:
        """What the network is told for these prompts: encoded words, or the style's number for a model without."""
        prompts = [prompts] if isinstance(prompts, str) else prompts
        if self.encoder is None:
            return self.labeled([style] * len(prompts)) if self.styles or style else None
        if style is not None:
            prompts = [self.styled(prompt, style) for prompt in prompts]
        self._warn_of_cuts(prompts)
        cond = Condition(text=self.encoder(prompts)).to(self.device)
        empty = [not prompt.strip() for prompt in prompts]
        return cond.drop(text=torch.tensor(empty)) if any(empty) else cond

    def null(self, negative: str | None) -> Condition | None:
        """What guidance moves away from: a negative prompt, None for the absence of the condition."""
        if not isinstance(negative, str | None):
            raise ValueError(f"`negative` must be a string, one for all prompts; got {negative!r:.80}.")
        return self.condition(self.check_prompts(negative, "negative")) if negative else None

    def labeled(self, styles: Sequence[str | None]) -> Condition:
        """What a model without words is told: the numbers of styles, 0 for none."""
        labels = [0 if style is None else self.styles.index(self._known(style)) + 1 for style in styles]
        return Condition(label=torch.tensor(labels, device=self.device))

    def styled(self, prompt: str, style: str) -> str:
        """The prompt with the style's name, where it will be read."""
        from minidiff.data.captions import style_words

        words = style_words(self._known(style))
        said = ", ".join(filter(str.strip, (prompt, words)))
        return f"{words}, {prompt}" if self._cut(said) else said  # better lose the prompt's end

    def _known(self, style: str) -> str:
        if not self.styles:
            raise ValueError(f"`style` must be left out, as this model knows no styles; got {style!r}.")
        return check_choice("style", style, self.styles)

    def _cut(self, prompt: str) -> str:
        return getattr(self.encoder, "cut", lambda _: "")(prompt)  # a closed vocabulary refuses, and has none

    def _warn_of_cuts(self, prompts: Sequence[str]) -> None:
        for prompt in dict.fromkeys(prompts):
            if cut := self._cut(prompt):
                message = f"The prompt does not fit: its last {len(cut)} characters were not read, {shortened(cut)}"
                warnings.warn(message, stacklevel=4)

    def check_prompts(self, prompts: Any, name: str = "prompts") -> list[str]:
        """The prompts as a list; raises ValueError for what this model could not read."""
        prompts = readable(prompts, name)
        for prompt in prompts:
            if self.encoder is None and prompt.strip():
                why, way = "was trained without text", "choose a style, or a model with text such as emoji-64"
                if any(getattr(self.denoiser.net.config, size, None) for size in READ_BY["text"]):
                    why, way = "came without its encoder", "make it by TextToImage(load_denoiser(folder), encoder)"
                raise ValueError(f"`{name}` must be empty for this model, which {why}; got {prompt!r:.80}: {way}.")
        return prompts

    def save_pretrained(self, save_directory: str | Path, **hub: Any) -> Any:
        """Write the model into a folder; `hub` are options of huggingface_hub's `save_pretrained`.

        Raises ValueError for a model that cannot be saved, and then leaves a model that lies there as it is.
        """
        with tempfile.TemporaryDirectory() as trial:  # huggingface_hub removes config.json before it asks us to write
            self._save_pretrained(Path(trial))
        return super().save_pretrained(save_directory, **hub)

    def _save_pretrained(self, save_directory: Path) -> None:
        config, tensors = self._contents()
        tokenizer = self.encoder.tokenizer if isinstance(self.encoder, MiniClip) else None
        checkpoints.save_model(save_directory, config, tensors, tokenizer)
        (save_directory / "card.json").write_text(json.dumps(self.card, indent=2) + "\n")
        readme = save_directory / "README.md"
        if not readme.exists():  # one that its owner wrote is better than ours
            readme.write_text(model_card(self.size, self.styles, self.encoder), encoding="utf-8")

    def _contents(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What config.json and model.safetensors hold of this model; ValueError if they cannot hold it."""
        encoder = self.encoder
        if not isinstance(encoder, MiniClip | WordEncoder | HubTextEncoder | None):
            raise ValueError(
                "A model with a text encoder of your own cannot be saved: keep its denoiser, with "
                "`minidiff.checkpoints.save_denoiser`, and what was trained of the encoder, with "
                "`safetensors.torch.save_file`."
            )
        tensors = {f"denoiser.net.{k}": v for k, v in self.denoiser.net.state_dict().items()}
        config: dict[str, Any] = {
            "kind": "text-to-image",
            "denoiser": checkpoints.describe_denoiser(self.denoiser),
            "styles": list(self.styles),
        }
        if encoder is not None:
            if not isinstance(encoder, HubTextEncoder):  # of which the name is enough
                tensors |= {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
            config["encoder"] = checkpoints.describe_encoder(encoder)
        return config, tensors

    @classmethod
    def from_pretrained(cls, name: str | Path = "emoji-64", **hub: Any) -> TextToImage:  # type: ignore[override]
        """Load a bundled model, a folder, or ("owner/name") a model of the Hugging Face hub.

        `hub` are options of huggingface_hub's download (revision, token, cache_dir, ...). Only safetensors and JSON
        are read. Raises ValueError when there is no such model, or when it is damaged or of another kind.
        """
        config, tensors, folder = checkpoints.load_model(fetch(name, **hub), "checkpoint")
        card = folder / "card.json"
        with checkpoints.understanding(name):
            denoiser = checkpoints.read_denoiser(config, tensors, name)
            encoder = checkpoints.load_encoder(config["encoder"], tensors, folder) if "encoder" in config else None
            facts = json.loads(card.read_text()) if card.exists() else {}
            return cls(denoiser, encoder, config.get("styles", ()), facts)
