"""Python's collector of reference circles stands still while a report is made."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Collect nothing inside; also a decorator.

    A million answers hold no circle, and every round of the collector walks over all of them: a fifth of the time to a report.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
