"""Methods work on tensors that other cells share, and may change none of them; which one did, and that others need not suffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from effivlm.compression.base import Part
from effivlm.run.faults import FAULTS, Ill

SHOWN = 3  # names of changed tensors in a reason


class Meddled(Ill):
    """A method changed in place what it shares with other cells."""


class Blamed(Exception):
    """What one part of a method did to work that other cells share: it broke there, or changed it."""

    def __init__(self, part: Part, error: BaseException) -> None:
        super().__init__(str(error))
        self.part, self.error = part, error


@contextmanager
def tracked() -> Iterator[None]:
    """Inside, tensors count their changes, as those of inference mode do not; gradients stay off."""
    with torch.inference_mode(False), torch.no_grad():
        yield


@contextmanager
def untouched(part: Part, **shared: Any) -> Iterator[None]:
    """Inside, `part` works on what is `shared`: tensors, or records and collections that hold some.

    Every view of a tensor counts for it. What no counter sees: writing through `.data` or NumPy. Where tensors count nothing
    (inference mode, where cells run alone to be timed) nothing is asked.

    Raises:
        Blamed: it changed one of them, also where it broke afterwards.
    """
    if torch.is_inference_mode_enabled():
        yield
        return
    before = [(name, tensor, tensor._version) for name, tensor in _tensors(shared)]
    try:
        yield
    finally:
        damaged = [(name, tensor) for name, tensor, version in before if tensor._version != version]
        if damaged:  # told once, by the first name: others are views of the same memory
            named = {tensor.untyped_storage().data_ptr(): name for name, tensor in reversed(damaged)}
            changed = [name for name, _ in damaged if name in named.values()]
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            raise Blamed(
                part,
                Meddled(
                    f"{type(part).__name__} changed {', '.join(changed[:SHOWN])}{more} in place, which other cells share;"
                    " clone() what is to be changed (float() of float32 is no copy)"
                ),
            )


@contextmanager
def observing(part: Part, **shared: Any) -> Iterator[None]:
    """As `untouched`, amid work that other cells share: whatever `part` does wrong is put down to it.

    Raises:
        Blamed: it broke, or changed something.
    """
    try:
        with untouched(part, **shared):
            yield
    except Blamed:
        raise
    except FAULTS as error:
        raise Blamed(part, error) from error


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in records and collections, under the path that leads to it."""
    if isinstance(value, Tensor):
        if not value.is_inference():
            yield name, value
    elif isinstance(value, Mapping):
        for key, inner in list(value.items()):
            yield from _tensors(inner, f"{name}[{key!r}]" if name else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inner in enumerate(value):
            yield from _tensors(inner, f"{name}[{number}]")
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name), f"{name}.{field.name}")
