"""A line that shows how far a group is. No pytest in here: the session's config is handed in."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import Any

WIDTH = 30
ON_TERMINAL_S = 0.2
IN_LOG_S = 30.0


class Progress:
    """Called with (done, total) after every sample.

    A bar on a terminal, a line every half minute in a log, nothing on an xdist worker.
    """

    def __init__(self, config: Any, title: str) -> None:
        self._reporter = None if hasattr(config, "workerinput") else config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._title = title
        self._began = self._shown = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if self._reporter is None or self._reporter.verbosity < 0:
            return
        on_terminal = self._reporter.isatty
        last = done >= total
        if not (now - self._shown >= (ON_TERMINAL_S if on_terminal else IN_LOG_S) or (last and on_terminal)):
            return
        self._shown = now
        left = (now - self._began) / max(1, done) * (total - done)
        # Tests run with their output captured; the terminal is only there while that is suspended.
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            if on_terminal:
                bar = "#" * (WIDTH * done // total)
                self._reporter.rewrite(f"{self._title} [{bar:.<{WIDTH}}] {done}/{total}, {left:.0f} s left", erase=True)
                if last:
                    self._reporter.rewrite("", erase=True)
            else:
                self._reporter.ensure_newline()
                self._reporter.write_line(f"{self._title}: {done} of {total} samples, {left:.0f} s left")
