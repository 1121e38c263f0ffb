"""Samples made ahead of whoever asks for them: pictures and videos are decoded while a GPU works on the ones before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, overload

T = TypeVar("T")

DEPTH = 4  # samples waiting at most; twenty pages of a document are some 500 MB decoded
WORKERS = 2


class Ahead(Sequence[T]):
    """The items of a sequence, of which up to `depth` behind the last one asked for are being made in threads.

    They will be asked for in the order of `order`, all of them without one; an item that is not in it is made when asked for.

    Item i is the sequence's own, or its own error, raised when that item is asked for; the others are as without it. An item is
    forgotten once it was handed out, so no more than `depth` + 1 are held.
    """

    def __init__(
        self, items: Sequence[T], pool: ThreadPoolExecutor, depth: int = DEPTH, order: range | None = None
    ) -> None:
        self._items, self._pool, self._depth = items, pool, depth
        self._order = range(len(items)) if order is None else order
        self._made: dict[int, Future[T]] = {}

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        if place not in self._order:
            return self._items[place]
        at = self._order.index(place)
        wanted = self._order[at : at + self._depth + 1]
        for number in [number for number in self._made if number not in wanted]:
            self._made.pop(number).cancel()
        for number in wanted:
            if number not in self._made:
                self._made[number] = self._pool.submit(self._items.__getitem__, number)
        return self._made.pop(place).result()


@contextmanager
def ahead(items: Sequence[T], depth: int = DEPTH, order: range | None = None) -> Iterator[Sequence[T]]:
    """The same items, made ahead by threads that end with the context, in `order`. A `depth` of 0 makes none ahead."""
    if depth < 1:
        yield items
        return
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="samples")
    try:
        yield Ahead(items, pool, depth, order)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
