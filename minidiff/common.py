"""The types every floor shares: what a denoiser answers, what it may be told, and small helpers."""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn

Generators = torch.Generator | Sequence[torch.Generator] | None


class CheckpointError(ValueError):
    """A checkpoint cannot be written, read, or used here; the sentence says why and what to do."""


class Prediction(NamedTuple):
    """What a denoiser believes about x_t = alpha(t) x0 + sigma(t) eps: both unknowns, each of x_t's shape.

    The two always satisfy that equation together, so a sampler may use whichever is convenient.
    """

    x0: Tensor
    eps: Tensor


class TextEmbedding(NamedTuple):
    """A batch of encoded prompts: one vector per token for cross-attention, one per prompt for the rest.

    tokens: (B, L, D); mask: (B, L), True where a token is real and False where it is padding; pooled: (B, P).
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Condition:
    """Everything a network may be told besides x_t and t. Absence is zero.

    A *dropped* condition keeps its shape and holds nothing: mask all False, pooled 0, image 0, label 0. That is
    what the network sees when it learns to do without, and what guidance compares against.
    text: an encoded prompt, or None. image: (B, D) CLIP image embeddings. label: (B,) integers, 0 = no label.
    """

    text: TextEmbedding | None = None
    image: Tensor | None = None
    label: Tensor | None = None

    def __post_init__(self) -> None:
        text: Any = self.text
        if text is not None and not (isinstance(text, TextEmbedding) and text.tokens.shape[:-1] == text.mask.shape):
            raise ValueError(f"`text` must be what an encoder says, encoder([prompt]); got {text!r:.80}.")
        label: Any = self.label
        if label is not None and (not isinstance(label, Tensor) or label.is_floating_point() or label.dim() != 1):
            raise ValueError(f"`label` must be integers, one per row, as torch.tensor([1]); got {label!r:.80}.")
        if self.image is not None and not (isinstance(self.image, Tensor) and self.image.dim() == 2):
            raise ValueError(f"`image` must be a tensor (B, D); got {self.image!r:.80}.")
        # In a graph the number of rows stays open.
        if not torch.compiler.is_compiling() and len({leaf.shape[:1] for leaf in self._leaves()}) > 1:
            got = ", ".join(str(tuple(leaf.shape)) for leaf in self._leaves())
            raise ValueError(f"The parts of a condition must have equally many rows, one per sample; got {got}.")

    def __len__(self) -> int:
        return next((len(leaf) for leaf in self._leaves()), 0)

    def _leaves(self) -> Iterable[Tensor]:
        yield from self.text or ()
        yield from (leaf for leaf in (self.image, self.label) if leaf is not None)

    def _map(self, function: Any) -> Condition:
        text = TextEmbedding(*(function(leaf) for leaf in self.text)) if self.text is not None else None
        rest = (None if leaf is None else function(leaf) for leaf in (self.image, self.label))
        return Condition(text, *rest)

    def to(self, device: torch.device | str) -> Condition:
        """The same condition on another device."""
        return self._map(lambda leaf: leaf.to(device))

    def index(self, rows: Tensor | slice | Sequence[int]) -> Condition:
        """The rows named, as a condition of their own."""
        rows = list(rows) if isinstance(rows, Sequence) else rows  # a tuple would index other axes
        return self._map(lambda leaf: leaf[rows])

    def expand(self, n: int) -> Condition:
        """One condition, said to each of n samples; a condition that already has n rows is returned as it is."""
        if len(self) == n:
            return self
        if len(self) != 1:
            raise ValueError(f"`cond` must have 1 row or one per sample ({n}); got {len(self)}.")
        return self._map(lambda leaf: leaf.expand(n, *leaf.shape[1:]))

    def null(self) -> Condition:
        """The absence of this condition, in the same shapes."""
        return self._map(torch.zeros_like)

    def drop(self, text: Tensor | None = None, image: Tensor | None = None, label: Tensor | None = None) -> Condition:
        """Forget single parts row by row: each argument is (B,) booleans, True = forget."""

        def forget(leaf: Tensor | None, rows: Tensor | None) -> Any:
            if leaf is None or rows is None:
                return leaf
            return leaf.masked_fill(rows.to(leaf.device).view(-1, *[1] * (leaf.dim() - 1)), 0)

        told = self.text and TextEmbedding(*(forget(leaf, text) for leaf in self.text))
        return Condition(told, forget(self.image, image), forget(self.label, label))

    @staticmethod
    def cat(conditions: Sequence[Condition]) -> Condition:
        """Stack conditions as torch.cat does tensors; shorter texts are padded, what some lack is absent there."""

        def joined(part: str, join: Any) -> Any:
            given: Any = next((cond for cond in conditions if getattr(cond, part) is not None), None)
            rows = (
                cond if getattr(cond, part) is not None else given.index(slice(1)).null().expand(len(cond))
                for cond in conditions
            )
            return join([getattr(row, part) for row in rows]) if given is not None else None

        return Condition(joined("text", _stacked), joined("image", torch.cat), joined("label", torch.cat))


def _stacked(texts: Sequence[TextEmbedding]) -> TextEmbedding:
    length, pad = max(text.mask.shape[1] for text in texts), torch.nn.functional.pad
    rows = []
    for tokens, mask, pooled in texts:
        more = length - mask.shape[1]
        rows.append((pad(tokens, (0, 0, 0, more)), pad(mask, (0, more)), pooled))
    return TextEmbedding(*map(torch.cat, zip(*rows, strict=True)))


class NoiseSchedule(Protocol):
    """How much signal and noise x_t = alpha(t) x0 + sigma(t) eps holds, for t from 0 (data) to 1 (noise)."""

    def alpha(self, t: Tensor) -> Tensor:
        """The share of the signal."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """The standard deviation of the noise."""
        ...


class Denoiser(Protocol):
    """Anything that looks at x_t (B, ...) and says what it thinks x0 and eps are: learned, exact or guided."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The schedule whose x_t it was made for."""
        ...

    def __call__(self, x_t: Tensor, t: Tensor, cond: Condition | None = None) -> Prediction:
        """Predict x0 and eps for samples x_t (B, ...) at times t, a number or (B,)."""
        ...


def as_times(t: Tensor | float, x: Tensor) -> Tensor:
    """One time per sample: a number or a tensor of shape () or (B,) becomes (B,), on x's device.

    Raises ValueError for what `check_times` refuses, and for another number of times.
    """
    check_times(t)
    if isinstance(t, Tensor) and t.shape not in ((), (1,), (len(x),)):
        raise ValueError(f"`t` must be one time, or one per sample ({len(x)}); got shape {tuple(t.shape)}.")
    if not isinstance(t, Tensor):  # filled in there: copying a number would wait for a GPU
        return torch.full((len(x),), t, dtype=torch.float32, device=x.device)
    return t.to(x.device, torch.float32).expand(len(x))


def check_times(t: Any) -> None:
    """Raise ValueError unless t is a number, or a floating-point tensor, within [0, 1] (rounding aside)."""
    ends: tuple[Any, ...] = (t,)
    if isinstance(t, Tensor) and t.is_floating_point():  # asked several times in every step, so in one pass
        ends = tuple(end.item() for end in t.aminmax()) if seen(t) and t.numel() else ()
    if not all(isinstance(end, numbers.Real) and -1e-4 <= float(end) <= 1 + 1e-4 for end in ends):
        raise ValueError(f"`t` must be from 0 (data) to 1 (noise), i / T for step i of T; got {shortened(t)}.")


def seen(x: Tensor) -> bool:
    """Whether the values can be looked at for free: not on a GPU, where one would have to wait, nor in a graph."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def per_sample(values: Tensor | float, x: Tensor) -> Tensor:
    """Give (B,) values the shape (B, 1, ..., 1), type and device by which they multiply x (B, ...) row by row.

    A number stands for all rows: alpha(t) may be 1.0. Raises ValueError for an x of integers.
    """
    if not (x.is_floating_point() or x.is_complex()):
        raise ValueError(f"`x0` and `x_t` must be floating-point numbers; got {x.dtype}: uint8 needs `to_float`.")
    return torch.as_tensor(values).to(x.dtype).to(x.device).view(-1, *[1] * (x.dim() - 1))


def alpha_sigma(schedule: NoiseSchedule, t: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """alpha(t) and sigma(t) at times t (B,), each in the shape (B, 1, ..., 1) that multiplies x row by row."""
    check_times(t)
    return per_sample(schedule.alpha(t), x), per_sample(schedule.sigma(t), x)


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A random generator of its own, so that no result depends on what was drawn before."""
    return torch.Generator(device).manual_seed(check_int("seed", seed, 0, 2**63 - 1))


def seeds_from(seed: int, n: int) -> list[int]:
    """n consecutive seeds, of which the first is given: one for each picture, whatever its batch."""
    check_int("seed", seed, 0, 2**63 - n)
    return list(range(seed, seed + n))


def randn(shape: Sequence[int], generator: Generators = None, device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise (B, ...); with a list of generators, sample i is drawn from generator i alone.

    Each generator draws where it lives, and the noise is then moved: a seed means the same picture everywhere.
    """
    if generator is None or isinstance(generator, torch.Generator):
        home = generator.device if generator is not None else device
        return torch.randn(tuple(shape), generator=generator, device=home).to(device)
    if len(generator) != shape[0]:
        raise ValueError(f"`generator` must be one or a list with one per sample ({shape[0]}); got {len(generator)}.")
    rows = [torch.randn(tuple(shape[1:]), generator=g, device=g.device) for g in generator]
    return torch.stack(rows).to(device)


def noise_like(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise of x's shape, type and device, as `randn` draws it."""
    return randn(x.shape, generator, x.device).to(x.dtype)


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Give each part of the module back, whatever happens within, the mode that it had: training or not."""
    modes = {part: part.training for part in module.modules()}
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device called `name`, or the best one here: CUDA, then Apple's MPS, then the CPU.

    Raises ValueError with the devices at hand when the one asked for is not among them.
    """
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here[:0] = ["mps", "mps:0"]
    if torch.cuda.is_available():
        here[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name is None:
        return torch.device(here[0])
    return torch.device(check_choice("device", str(name), here))


def check_int(name: str, value: Any, low: int, high: int) -> int:
    """Return value if it is an integer in [low, high]; otherwise say what was expected."""
    integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not integer or not low <= int(value) <= high:
        raise ValueError(f"`{name}` must be an integer from {low} to {high}; got {shortened(value)}.")
    return int(value)


def check_number(name: str, value: Any, low: float, high: float) -> float:
    """Return value if it is a finite number in [low, high]; otherwise say what was expected."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"`{name}` must be a number from {low:g} to {high:g}; got {shortened(value)}.")
    return float(value)


Choice = TypeVar("Choice", bound=str)


def check_choice(name: str, value: Any, choices: Iterable[Choice], besides: str = "") -> Choice:
    """Return value if it is among the choices; otherwise name them, what else would do, and the nearest one."""
    known = list(choices)
    for choice in known:
        if value == choice:
            return choice
    small = {str(choice).lower(): choice for choice in known}  # who types DDIM means ddim
    near = difflib.get_close_matches(str(value).lower(), small, n=1)
    hint = f" Did you mean {small[near[0]]!r}?" if near else ""
    named = ", ".join(known[:40]) + ", ..." * (len(known) > 40)
    raise ValueError(f"`{name}` must be one of {named}{besides}; got {shortened(value)}.{hint}")


def shortened(value: Any) -> str:
    """A value as it would be written in Python, in at most 80 characters: the beginning and the end."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]} ... {text[-15:]}"
