"""Methods work on tensors that other cells share, and may change none of them; which one did, and that others need not suffer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import cache, partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from effivlm.compression.base import Part
from effivlm.run.faults import FAULTS, Ill

SHOWN = 3  # names of changed tensors in a reason
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
PLAIN = frozenset({str, int, float, bool, type(None), FunctionType, partial})
KEPT = ".found"  # what was computed from a view
_READ: ContextVar[set[Part] | None] = ContextVar("effivlm_read", default=None)
"""Parts whose first work was looked at entry by entry."""


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
    token = _READ.set(set())
    try:
        with torch.inference_mode(False), torch.no_grad():
            yield
    finally:
        _READ.reset(token)


@contextmanager
def untouched(part: Part, **shared: Any) -> Iterator[None]:
    """Inside, `part` works on what is `shared`: tensors, or records and collections that hold some.

    Every view of a tensor counts for it. What is written through `.data` or NumPy changes no counter, so that the first time
    that a part works here, what the entries add up to is compared too. Where tensors count nothing (inference mode, where cells
    run alone to be timed) nothing is asked.

    Raises:
        Blamed: it changed one of them, also where it broke afterwards.
    """
    read = _READ.get()
    first = read is not None and part not in read
    if read is not None:
        read.add(part)
    with _watched(part, shared, first):
        yield


@contextmanager
def observing(part: Part, **shared: Any) -> Iterator[None]:
    """As `untouched`, amid work that other cells share: whatever `part` does wrong is put down to it.

    Entries are not read here, because that is to wait for the device.

    Raises:
        Blamed: it broke, or changed something.
    """
    try:
        with _watched(part, shared, False):
            yield
    except Blamed:
        raise
    except FAULTS as error:
        raise Blamed(part, error) from error


@contextmanager
def _watched(part: Part, shared: Mapping[str, Any], read: bool) -> Iterator[None]:
    if torch.is_inference_mode_enabled():
        yield
        return
    tensors: list[Tensor] = []
    _gather(shared, tensors)
    versions = [tensor._version for tensor in tensors]
    sums = [_sum(tensor) for tensor in tensors] if read else []
    try:
        yield
    finally:
        differs = [tensor._version != version for tensor, version in zip(tensors, versions, strict=True)]
        if sums:
            pairs = zip(differs, tensors, sums, strict=True)
            differs = [counted or not torch.equal(_sum(tensor), known) for counted, tensor, known in pairs]
        if any(differs):
            changed = [tensor for tensor, other in zip(tensors, differs, strict=True) if other]
            raise Blamed(part, _meddled(part, _named(shared, changed)))


def _meddled(part: Part, damaged: Sequence[tuple[str, Tensor]]) -> Meddled:
    """What was changed, told once by the first name that is no memory of a view: others are views of the same memory."""
    kept_last = sorted(damaged, key=lambda one: KEPT in one[0])
    named = {tensor.untyped_storage().data_ptr(): name for name, tensor in reversed(kept_last)}
    changed = list(dict.fromkeys(name for name, _ in damaged if name in named.values()))
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return Meddled(
        f"{type(part).__name__} changed {', '.join(changed[:SHOWN])}{more} in place, which other cells share;"
        " clone() what is to be changed (float() of float32 is no copy)"
    )


def _sum(tensor: Tensor) -> Tensor:
    """What the bits of a tensor's entries come to, each row weighed by its place, so that rows that change places differ too."""
    bits = tensor.view(BITS[tensor.element_size()])
    rows = bits.sum(-1, dtype=torch.int64) if bits.dim() > 1 else bits.long()
    return (rows.flatten() * torch.arange(1, rows.numel() + 1, device=rows.device)).sum()


def _gather(value: Any, found: list[Tensor]) -> None:
    """Add every tensor in records and collections that counts its changes; done around all that methods do, so without names.

    Raises:
        RecursionError: a method keeps in a view what holds itself.
    """
    for one in _inner(type(value), value):
        if isinstance(one, Tensor):
            if not one.is_inference():
                found.append(one)
        elif type(one) not in PLAIN:
            _gather(one, found)


def _inner(kind: type, value: Any) -> Iterable[Any]:
    """What a record or a collection holds."""
    if kind in (list, tuple):
        return value  # type: ignore[no-any-return]
    if (names := _field_names(kind)) is not None:
        return [getattr(value, name) for name in names]
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, Sequence) and not isinstance(value, str) else ()


@cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else None


def _named(shared: Mapping[str, Any], changed: Sequence[Tensor]) -> list[tuple[str, Tensor]]:
    """Tensors with the paths that lead to them; one that nothing leads to any more was taken out of what is shared."""
    wanted = {id(tensor): tensor for tensor in changed}
    found = [(name, tensor) for name, tensor in _tensors(shared) if id(tensor) in wanted]
    for _, tensor in found:
        wanted.pop(id(tensor), None)
    return found + [("what was computed before", tensor) for tensor in wanted.values()]


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
            inner = f"{name}.{field.name}"
            for path, tensor in _tensors(getattr(value, field.name), inner):
                yield (path if field.repr else inner), tensor
