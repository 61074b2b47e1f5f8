"""A running average of the weights: what a diffusion model is sampled with."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from minidiff.common import check_number


def trained_parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training changes, by the names they have without torch.compile's wrapper."""
    named = module.named_parameters()
    return {name.replace("_orig_mod.", ""): p for name, p in named if p.requires_grad}


def kept_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that a state dict holds, since training may change them, by the same names."""
    kept = module.state_dict().keys()
    return {name.replace("_orig_mod.", ""): buffer for name, buffer in module.named_buffers() if name in kept}


class EMA:
    """An exponential moving average of a module's trained parameters, kept beside the module.

        shadow <- d shadow + (1 - d) weight
        d = min(decay, (1 + n) / (10 + n))

    n counts the earlier updates: a young average forgets the initial weights quickly (the rule of TensorFlow's
    ExponentialMovingAverage, also used by `diffusers`). Frozen parameters and buffers have no average: a copy
    takes them from the module. Raises ValueError unless 0 <= decay <= 1.
    """

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay = check_number("ema_decay", decay, 0.0, 1.0)
        self.updates = 0
        self._source = module
        weights = trained_parameters(module)
        self._weights: list[Tensor] = list(weights.values())
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in weights.items()}
        self._shadows = list(self.shadow.values())

    def decay_now(self) -> float:
        """The decay that the next update uses."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the module's present weights, in one fused call and without a GPU sync."""
        torch._foreach_lerp_(self._shadows, self._weights, 1.0 - self.decay_now())
        self.updates += 1

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Write the average into a module that has the same parameters."""
        into = trained_parameters(module)
        for name, average in self.shadow.items():
            into[name].copy_(average)

    def module(self) -> nn.Module:
        """A copy of the module that holds the average, in evaluation mode and without gradients."""
        twin = copy.deepcopy(self._source)
        self.copy_to(twin)
        return twin.eval().requires_grad_(False)
