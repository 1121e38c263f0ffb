"""A line that shows how far a group is. No pytest in here: the session's config is handed in."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

WIDTH = 30
ON_TERMINAL_S = 0.2
IN_LOG_S = 30.0


class Progress:
    """Called with (0, total) when a group begins, and with (done, total) after every sample.

    A bar on a terminal, a line at once and every half minute in a log, nothing on an xdist worker.
    """

    def __init__(self, config: Any, title: str) -> None:
        self._reporter = None if hasattr(config, "workerinput") else config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._title = title
        self._first = self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if done <= 1:
            self._first = now  # what went before, opening the model above all, says nothing of the samples
        if self._reporter is None or self._reporter.verbosity < 0:
            return
        on_terminal = self._reporter.isatty
        last = 0 < total <= done
        due = now - self._shown >= (ON_TERMINAL_S if on_terminal else IN_LOG_S)
        if not (due or done == 0 or (last and on_terminal)):
            return
        self._shown = now
        # Tests run with their output captured; the terminal is only there while that is suspended.
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            if on_terminal:
                self._reporter.rewrite(self._line(done, total, now, bar=True), erase=True)
                if last:
                    self._reporter.rewrite("", erase=True)
            else:
                self._reporter.ensure_newline()
                self._reporter.write_line(self._line(done, total, now))

    def _line(self, done: int, total: int, now: float, bar: bool = False) -> str:
        if done == 0:
            return f"{self._title}: opening the model"
        left = f", {(now - self._first) / (done - 1) * (total - done):.0f} s left" if done > 1 else ""
        if bar:
            filled = "#" * (WIDTH * done // total)
            return f"{self._title} [{filled:.<{WIDTH}}] {done}/{total}{left}"
        return f"{self._title}: {done} of {total} samples{left}"
