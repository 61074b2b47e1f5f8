"""What training minimizes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, is_dataclass
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import Condition, check_number
from minidiff.denoisers import READ_BY, NetDenoiser, check_encoder, net_config, reads
from minidiff.schedules import levels


@dataclass(frozen=True)
class ConditionDropout:
    """How often a sample is shown its text only, its image embedding only, both, or neither.

    The two are drawn *jointly*, so that one network learns every case it will be asked for: the conditional and
    the unconditional answer that classifier-free guidance mixes (Ho & Salimans 2022, arXiv:2207.12598), with
    text, with an image embedding, and with both. For text alone, (0.9, 0, 0, 0.1). The four shares add up to 1, or
    ValueError is raised.
    """

    text: float = 0.45
    image: float = 0.25
    both: float = 0.20
    none: float = 0.10

    def __post_init__(self) -> None:
        shares = {name: check_number(name, getattr(self, name), 0, 1) for name in ("text", "image", "both", "none")}
        total = sum(shares.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"`text`, `image`, `both` and `none` must add up to 1; got {total:g}.")

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw for n samples: (keep_text, keep_image), each (n,) booleans on the generator's device."""
        u = torch.rand(n, generator=generator, device=generator.device)
        keep_text = (u < self.text) | ((u >= self.text + self.image) & (u < 1 - self.none))
        keep_image = (u >= self.text) & (u < 1 - self.none)
        return keep_text, keep_image


class Denoising(nn.Module):
    """The denoiser's own loss on a batch (x0, cond), with conditions dropped as it must learn to do without.

    drop: the shares of text and image, or None to keep both always. label_drop: the probability that a label is
    replaced by 0, drawn on its own; 0.1, say, if it shall draw without a label or be guided, which both ask label 0.

    `forward` returns one loss per sample, (B,), and raises ValueError for a batch that holds something else. `task`
    says what is learned; a run does not go on from the checkpoint of another one, and warns of other `details`.
    Raises ValueError for shares of what the network does not read.
    """

    def __init__(self, denoiser: nn.Module, drop: ConditionDropout | None = None, label_drop: float = 0.0) -> None:
        super().__init__()
        if type(self).forward is Denoising.forward and not hasattr(denoiser, "loss"):
            raise ValueError(f"`denoiser` must have a loss, as a NetDenoiser has; got {type(denoiser).__name__}.")
        if not isinstance(drop, ConditionDropout | None):
            way = "ConditionDropout(text=0.9, image=0, both=0, none=0.1)"
            raise ValueError(f"`drop` must be a ConditionDropout, as {way}; got {drop!r:.60}.")
        self.denoiser, self.drop = denoiser, drop
        self.label_drop = check_number("label_drop", label_drop, 0, 1)
        if 0 < label_drop < 1 and not reads(denoiser, "label"):
            raise ValueError("`label_drop` must be 0 for a network without labels; UNetConfig(labels=N) reads N.")
        shares = {"text": drop.text + drop.both, "image": drop.image + drop.both} if drop else {}
        for part, share in shares.items():
            if share and not reads(denoiser, part):  # the other shares would be other ones
                way = "text alone has ConditionDropout(text=0.9, image=0, both=0, none=0.1), neither has drop=None"
                raise ValueError(f"`drop` must show no {part} to a network that reads none: {way}.")
        self.start = ""
        shape = net_config(denoiser)
        told = any(getattr(shape, size, None) for part in ("text", "image") for size in READ_BY[part])
        never = ""
        if getattr(shape, "labels", 0) and not label_drop:
            never = "`label_drop` is 0"
        elif drop and not drop.none:
            never = "`drop.none` is 0"
        elif told and drop is None:
            never = "`drop` is None, whose `none` would be 0"
        if never:
            said = "guidance and drawing unasked need a network that has met the empty condition"
            warnings.warn(f"{never}: {said}. 0.1 teaches it.", stacklevel=2)

    @property
    def task(self) -> str:
        """The network's target, the schedule, and the weights that training was given, if any."""
        kind, schedule = (getattr(self.denoiser, name, None) for name in ("parameterization", "schedule"))
        begun = f", begun with {self.start}" if self.start else ""
        return f"{kind} under {type(schedule).__name__}{begun}"

    @property
    def details(self) -> dict[str, Any]:
        """How it is learned: the weights of errors and times, what is dropped, and the schedule at three times."""
        denoiser = self.denoiser
        said = {"objective": type(self).__name__, "drop": str(self.drop), "label_drop": self.label_drop}
        shape = net_config(denoiser)
        said |= {"network": str(shape) if is_dataclass(shape) else None, "clip": getattr(denoiser, "clip", None)}
        if not isinstance(denoiser, NetDenoiser) or isinstance(denoiser.schedule, nn.Module):  # one's own, or learned
            return said
        home = next(denoiser.parameters(), torch.empty(0)).device
        return said | denoiser.learned_by | {"schedule": levels(denoiser.schedule, home)}

    def forward(self, batch: tuple[Tensor, Condition | None], generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,), with its time and its noise drawn from `generator`."""
        parts = batch if isinstance(batch, tuple | list) else (batch,)
        if len(parts) != 2 or not isinstance(parts[1], Condition | None):
            got = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(
                "`source` must give pairs of x0 and a Condition or None: for labels write Condition(label=labels), "
                f"for captions use JointDenoising; got {got}."
            )
        x0, cond = parts
        if x0.is_floating_point():  # arrays are often float64
            x0 = x0.to(next(self.denoiser.parameters(), x0).dtype)
        if cond is not None:
            cond = self.forget(cond, len(x0), generator)
        return self.denoiser.loss(x0, cond, generator)  # type: ignore[operator]

    def forget(self, cond: Condition, n: int, generator: torch.Generator) -> Condition:
        """The condition of n samples with the parts dropped that each must learn to do without."""
        if self.drop is not None:
            keep_text, keep_image = self.drop.sample(n, generator)
            cond = cond.drop(text=~keep_text, image=~keep_image)
        if self.label_drop > 0:
            u = torch.rand(n, generator=generator, device=generator.device)
            cond = cond.drop(label=u < self.label_drop)
        return cond


class JointDenoising(Denoising):
    """The denoiser's loss with its text encoder inside, so that words get the meaning that pictures need.

    A batch is (x0, captions), a list or tuple of the words or, from encoder.tokenize, their (ids, mask).
    """

    def __init__(self, denoiser: nn.Module, encoder: nn.Module, drop: ConditionDropout) -> None:
        check_encoder(denoiser, encoder)
        super().__init__(denoiser, drop)
        if not (hasattr(encoder, "tokenize") and hasattr(encoder, "encode_ids")):
            raise ValueError("`encoder` must have tokenize and encode_ids; one without belongs to the source.")
        self.encoder = encoder

    @property
    def details(self) -> dict[str, Any]:
        """Those of `Denoising`, and the encoder's settings, if it says them."""
        settings: dict[str, Any] = getattr(self.encoder, "settings", dict)()
        return super().details | {"encoder": settings}

    def forward(self, batch: tuple[Tensor, Any], generator: torch.Generator) -> Tensor:
        """The loss of each sample, (B,)."""
        x0, captions = batch
        if not isinstance(captions, list | tuple):
            raise ValueError(f"`source` must give pairs of x0 and captions here; got {type(captions).__name__}.")
        words = isinstance(captions[0], str)
        ids, mask = self.encoder.tokenize(list(captions)) if words else captions  # type: ignore
        text = self.encoder.encode_ids(ids.to(x0.device), mask.to(x0.device))  # type: ignore
        return super().forward((x0, Condition(text=text)), generator)
