"""Ctrl-C, or a polite request to end, during a training: the step is finished and saved before the run ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Remembers that Ctrl-C was pressed, or SIGTERM came; once more, and it interrupts at once."""

    pressed: int = 0  # the signal

    def __call__(self, number: int, *_frame: Any) -> None:
        """What Python calls when the signal comes."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = number
        os.write(2, b"\nFinishing this step and saving. Ctrl-C again ends the run at once.\n")


@contextmanager
def held_back(wanted: bool) -> Iterator[Interrupt]:
    """Within this block Ctrl-C and SIGTERM are noted, not obeyed: where `wanted`, and where nobody else listens.

    A SIGTERM, which batch systems and `docker stop` send, is obeyed at the end of the block.
    """
    interrupt = Interrupt()
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    here = wanted and threading.current_thread() is threading.main_thread()
    before = {number: handler for number, handler in usual.items() if here and signal.getsignal(number) == handler}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if interrupt.pressed == signal.SIGTERM:
            signal.raise_signal(signal.SIGTERM)
