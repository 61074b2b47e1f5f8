"""Several processes that train one model: who they are, and the few things they tell each other."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from minidiff.common import pick_device


def join(device: str | torch.device | None) -> tuple[Any, torch.device]:
    """Meet the other processes that `torchrun` or `accelerate launch` started, if any: (state, own device)."""
    from accelerate import PartialState

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return PartialState(), pick_device(device)
    state = PartialState(cpu=str(device) == "cpu" or not torch.cuda.is_available())
    return state, state.device if state.device.type == "cuda" else torch.device("cpu")  # of which there is one


@contextmanager
def random_kept(device: torch.device) -> Iterator[None]:
    """Give the global random generators, the device's own among them, back the state that they had."""
    kept = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        if kept is not None:
            torch.mps.set_rng_state(kept)


@torch.no_grad()
def same_weights(module: nn.Module) -> None:
    """Give every process the parameters and buffers of the first."""
    from accelerate.utils import broadcast

    for tensor in (*module.parameters(), *module.buffers()):
        tensor.copy_(broadcast(tensor.detach().contiguous().clone()))


@torch.no_grad()
def average(loss: Tensor, parameters: Iterable[nn.Parameter]) -> Tensor:
    """Replace each gradient by its mean over the processes, in one message, and return the mean loss.

    With equal shares of a batch these are the gradients of the whole batch, where the loss is a mean over samples;
    one over pairs, as a CLIP's, knows the pairs of each share alone. A parameter that this process did not use counts
    as zero.
    """
    from accelerate.utils import reduce

    trained = list(parameters)
    for p in trained:
        p.grad = torch.zeros_like(p) if p.grad is None else p.grad
    grads = [p.grad for p in trained if p.grad is not None]
    message = torch.cat([loss.reshape(1), *(grad.float().reshape(-1) for grad in grads)])
    mean = reduce(message, "mean")
    parts = mean[1:].split([grad.numel() for grad in grads])
    for grad, part in zip(grads, parts, strict=True):
        grad.copy_(part.view(grad.shape))
    return mean[0]


def stacked(row: Tensor, device: torch.device) -> Tensor:
    """One row of bytes from each process, in their order: (processes, length), on the CPU."""
    from accelerate.utils import gather

    return gather(row.to(device)[None]).cpu()


def first_says(value: float, device: torch.device) -> float:
    """The first process's value, for all: their clocks differ, and their learning rates must not."""
    from accelerate.utils import broadcast

    return float(broadcast(torch.tensor([value], device=device))[0])
