"""What a computation costs, in multiply-accumulates: the same on every machine, however busy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _Counter(TorchDispatchMode):
    """Adds up what torch's own formulas say of each operation. (`FlopCounterMode` stumbles over R1.)"""

    macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.macs += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out) // 2
        return out


def multiply_accumulates(work: Callable[[], object]) -> int:
    """How many multiplications with an addition the matrix products and convolutions of `work()` take.

    Forward and backward, as often as they are done. Everything else (activations, the optimizer) is not counted.
    """
    with _Counter() as counter:
        work()
    return counter.macs
