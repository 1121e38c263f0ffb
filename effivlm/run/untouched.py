"""Methods work on tensors that other cells share, and may change none of them; which one did, and that others need not suffer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from effivlm.compression.base import Part
from effivlm.run.faults import FAULTS, Ill

SHOWN = 3  # names of changed tensors in a reason
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
KEY, FIELD, LAST = "key", "field", "field that is not shown"
KEPT = ".found"  # what was computed from a view
_Path = tuple[Any, ...]
"""How a value is reached: the path of what holds it, its key or number or field there, and which of them; () is the whole."""
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
    tensors = _tensors(shared)
    versions = [tensor._version for _, tensor in tensors]
    sums = [_sum(tensor) for _, tensor in tensors] if read else []
    try:
        yield
    finally:
        differs = [tensor._version != version for (_, tensor), version in zip(tensors, versions, strict=True)]
        if sums:
            pairs = zip(differs, tensors, sums, strict=True)
            differs = [counted or not torch.equal(_sum(tensor), known) for counted, (_, tensor), known in pairs]
        if any(differs):
            raise Blamed(part, _meddled(part, [one for one, other in zip(tensors, differs, strict=True) if other]))


def _meddled(part: Part, told: Sequence[tuple[_Path, Tensor]]) -> Meddled:
    """What was changed, told once by the first name that is no memory of a view: others are views of the same memory."""
    damaged = [(_name(path), tensor) for path, tensor in told]
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


def _tensors(value: Any) -> list[tuple[_Path, Tensor]]:
    """Every tensor in records and collections, under the path that leads to it: this is asked before and after all that methods
    do, so that names are made of paths only where one is told."""
    found: list[tuple[_Path, Tensor]] = []
    _collect(value, (), found)
    return found


def _collect(value: Any, path: _Path, found: list[tuple[_Path, Tensor]]) -> None:
    kind, names = _kind(type(value))  # type: ignore[arg-type]  # a class is hashable
    if kind is Tensor:
        if not value.is_inference():
            found.append((path, value))
    elif kind is Mapping:
        for key, inner in list(value.items()):
            _collect(inner, (path, key, KEY), found)
    elif kind is Sequence:
        for number, inner in enumerate(value):
            _collect(inner, (path, number, KEY), found)
    else:
        for name, shown in names:
            _collect(getattr(value, name), (path, name, FIELD if shown else LAST), found)


@cache
def _kind(of: type) -> tuple[object, tuple[tuple[str, bool], ...]]:
    """What values of a class are looked through as, and the fields of a record, with whether they are shown."""
    if issubclass(of, Tensor | Mapping):
        return (Tensor if issubclass(of, Tensor) else Mapping), ()
    if issubclass(of, Sequence) and not issubclass(of, str):
        return Sequence, ()
    return None, tuple((field.name, field.repr) for field in fields(of)) if is_dataclass(of) else ()


def _name(path: _Path) -> str:
    """A path in words; nothing is told of what lies inside a field that is not shown."""
    before, key, step = path
    if not before:
        return str(key)
    name = _name(before)
    if _hidden(before):
        return name
    return f"{name}[{key!r}]" if step == KEY else f"{name}.{key}"


def _hidden(path: _Path) -> bool:
    return bool(path) and (path[2] == LAST or _hidden(path[0]))
