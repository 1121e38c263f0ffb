"""How far a run on a cluster is: a line on a terminal that is written over, a line every half minute in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

ON_TERMINAL_S = 0.5
IN_LOG_S = 30.0


class Progress:
    """`done` of `total` samples are answered."""

    def __init__(self, say: Callable[[str], None], total: int, done: int) -> None:
        self._say, self.total, self.done = say, total, done
        self._first, self._began, self._shown = done, time.monotonic(), -IN_LOG_S
        self._told = -1

    def step(self) -> None:
        self.done += 1

    def show(self, workers: int) -> None:
        now, on_terminal = time.monotonic(), sys.stdout.isatty()
        over = self.done >= self.total > self._told  # which is told once, whatever is left to be written
        if not over and (self._told >= self.total or now - self._shown < (ON_TERMINAL_S if on_terminal else IN_LOG_S)):
            return
        self._shown, self._told = now, self.done
        new = self.done - self._first
        left = f", about {(now - self._began) / new * (self.total - self.done):.0f} s left" if new else ""
        text = f"effivlm: {self.done} of {self.total} samples, {workers} workers{left}"
        if on_terminal:
            sys.stdout.write(f"\r\x1b[K{text}" + "\n" * (self.done >= self.total))
            sys.stdout.flush()
        else:
            self._say(text)
