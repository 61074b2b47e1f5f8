"""Where training batches come from: an order for each epoch, and the samples at given places."""

from __future__ import annotations

import hashlib
import warnings
from copy import copy
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from minidiff.common import Condition, seeded


class Source(Protocol):
    """What `train` asks of its data. A method `to(device)`, if there is one, is called once before the start.

    A `digest`, a string that says which data these are, lets a run that goes on with others say so.
    """

    def order(self, seed: int, epoch: int) -> Tensor:
        """The epoch's samples in order, (N,) long: a function of (seed, epoch) and of nothing else."""
        ...

    def batch(self, indices: Tensor, generator: torch.Generator) -> Any:
        """The samples at `indices` (B,), which are a slice of `order`, on the device that `order` lives on."""
        ...


def fold_in(seed: int, *numbers: int) -> int:
    """A new seed from a seed and what it is for (an epoch, a process): neighbors share nothing.

    The name is JAX's. 31 bits, so that every device's generator takes it whole.
    """
    text = ",".join(str(number) for number in (seed, *numbers))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") >> 1


def epoch_order(source: Source, batch_size: int, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, in which at least one batch must fit, as the last incomplete one is dropped."""
    order = source.order(seed, epoch)
    if len(order) < batch_size:
        raise ValueError(
            f"`batch_size` must be at most the number of samples in an epoch ({len(order)}), since the last "
            f"incomplete batch is dropped; got {batch_size}: use a smaller one, or more samples."
        )
    return order


def shuffled(count: int, seed: int, epoch: int, device: torch.device | str = "cpu") -> Tensor:
    """A permutation of 0 ... count - 1 that depends on (seed, epoch) alone, (count,) long, on `device`."""
    return sent(torch.randperm(count, generator=seeded(fold_in(seed, epoch))), device)  # drawn the same everywhere


def sent(order: Tensor, device: torch.device | str) -> Tensor:
    """An order that lies on the CPU, on `device`; to a GPU from pinned memory, so that a new epoch does not wait."""
    cuda = torch.device(device).type == "cuda"
    return order.pin_memory().to(device, non_blocking=True) if cuda else order.to(device)


class InMemory:
    """A source that holds its samples as tensors, (N, ...) each: they move together, and an epoch is a shuffle."""

    def to(self, device: torch.device | str) -> Self:
        """The same samples on another device."""
        moved = copy(self)
        vars(moved).update({name: tensor.to(device) for name, tensor in self._tensors().items()})
        return moved

    def order(self, seed: int, epoch: int) -> Tensor:
        """The epoch's order, a permutation (N,) that depends on `seed` and `epoch` alone."""
        # On the samples' device, so that picking a batch there never waits for the host.
        first = next(iter(self._tensors().values()))
        return shuffled(len(first), seed, epoch, first.device)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the samples and of their captions, if any: a run that goes on with others says so."""
        digest = hashlib.sha256(repr(getattr(self, "captions", None)).encode())
        for tensor in self._tensors().values():
            digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


class TensorSource(InMemory):
    """Samples that fit in memory: x (N, ...), and optionally labels (N,), integers with 0 = no label.

    A batch is (x0, cond) with cond = Condition(label=...) or None. Raises ValueError if the lengths differ, or
    if x holds integers.
    """

    def __init__(self, x: Tensor, labels: Tensor | None = None) -> None:
        if not isinstance(x, Tensor) or not isinstance(labels, Tensor | None):
            raise ValueError("`x` and `labels` must be tensors; torch.as_tensor makes them of arrays and lists.")
        if labels is not None and labels.shape != x.shape[:1]:
            wanted, got = tuple(x.shape[:1]), tuple(labels.shape)
            raise ValueError(f"`labels` must have one entry per sample, shape {wanted}; got shape {got}.")
        if not x.is_floating_point():
            raise ValueError(
                f"`x` must be floating-point numbers, pictures in [-1, 1]; got {x.dtype}: for uint8 pictures write "
                "minidiff.data.pixels.to_float(x)."
            )
        if labels is not None and (labels.is_floating_point() or bool((labels < 0).any())):
            raise ValueError("`labels` must be integers, 1 and up for the classes, 0 for no label; got others.")
        if labels is not None and not labels.all():
            warnings.warn("`labels` holds 0, which means no label: count classes from 1.", stacklevel=2)
        if x.dim() == 4 and x.any() and x.min() >= 0:
            warnings.warn("`x` is nowhere below 0; pictures lie in [-1, 1]: of [0, 1] take 2 * x - 1.", stacklevel=2)
        self.x, self.labels = x, None if labels is None else labels.long()

    def batch(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, Condition | None]:
        """The samples at `indices` and their condition."""
        return self.x[indices], None if self.labels is None else Condition(label=self.labels[indices])
