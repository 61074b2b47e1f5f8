"""Ctrl-C during a training: the step is finished and saved before the run ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupt:
    """Remembers that Ctrl-C was pressed; pressed once more, it interrupts at once."""

    pressed = False

    def __call__(self, *_signal: Any) -> None:
        """What Python calls when SIGINT comes."""
        if self.pressed:
            raise KeyboardInterrupt
        self.pressed = True
        os.write(2, b"\nFinishing this step and saving. Ctrl-C again ends the run at once.\n")


@contextmanager
def held_back(wanted: bool) -> Iterator[Interrupt]:
    """Within this block Ctrl-C is noted, not raised: where `wanted`, and where Python would raise it here."""
    interrupt = Interrupt()
    here = threading.current_thread() is threading.main_thread()
    if not (wanted and here and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
