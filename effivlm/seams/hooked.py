"""Hooks on somebody else's modules, for as long as they are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from torch.utils.hooks import RemovableHandle


@contextmanager
def hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Hooks that are registered as `handles` are taken, and removed on exit, also after an error while registering them."""
    with ExitStack() as registered:
        for handle in handles:
            registered.enter_context(handle)
        yield
