"""Samples asked side by side on a CPU: a small model's products are too small to be divided among cores, whole samples are not.

Every core gets a process of its own, forked with the model as it stands there, so that nothing is loaded twice and weights are
held once. Samples are read by the process they come from, and come back in their order. What one process cannot answer (it was
killed, or a sample cannot be sent) is left to the one that asked.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from effivlm.models._adapter import Adapter
from effivlm.models._pictures import plain
from effivlm.records import Sample
from effivlm.run.faults import told
from effivlm.run.gave import Asked

SMALL = 1_000_000_000
"""Bytes of weights up to which cores have less of a product's parts than of samples of their own."""
EACH = 4  # samples that a process has to answer at least: the last one waits for less than one
MOST = 16  # processes
Ask = Callable[[int, Sample], Asked]


def hands_for(model: Adapter, samples: int) -> int:
    """How many processes answer so many samples side by side; 1: there is nothing to divide.

    They are no more than the threads that this process computes with, which are all cores unless somebody says otherwise.
    """
    able = sys.platform == "linux" and model.device.type == "cpu" and model.weight_bytes() <= SMALL
    return max(1, min(torch.get_num_threads(), samples // EACH, MOST)) if able else 1


@dataclass(eq=False)
class _Hand:
    """One process; `number` is the sample that it is at, -1 while it waits."""

    process: BaseProcess
    pipe: Connection
    number: int = -1


class Hands:
    """Processes that answer samples, each one at a time."""

    def __init__(self, hands: Sequence[_Hand]) -> None:
        self._hands = list(hands)
        self._found: dict[int, Asked | str] = {}

    def asked(self, numbers: Sequence[int], read: Callable[[int], Sample]) -> Iterator[Asked | str]:
        """What each sample gave, in order; or why no process could tell, so that it has to be asked here."""
        waiting = deque(numbers)
        for number in numbers:
            self._collect(0)
            self._occupy(waiting, read)
            while number not in self._found:
                if not self._hands:
                    self._found[number] = "no process is left"
                self._collect(None)
                self._occupy(waiting, read)
            yield self._found.pop(number)

    def _occupy(self, waiting: deque[int], read: Callable[[int], Sample]) -> None:
        """Give every process that waits the next sample."""
        for hand in [hand for hand in self._hands if hand.number < 0]:
            while waiting and hand.number < 0 and hand in self._hands:
                number = waiting.popleft()
                try:
                    hand.pipe.send((number, _whole(read(number))))
                    hand.number = number
                except (BrokenPipeError, ConnectionResetError):
                    self._lost(hand, number)
                except Exception as error:  # no sample, or one that cannot be sent: asked here, it says so itself
                    self._found[number] = told(error)

    def _collect(self, timeout_s: float | None) -> None:
        """Take what processes have to tell, once one of those at work has; without `timeout_s` wait for it."""
        busy = {hand.pipe: hand for hand in self._hands if hand.number >= 0}
        for pipe in wait(list(busy), timeout_s) if busy else ():
            hand = busy[pipe]  # type: ignore[index]
            try:
                self._found[hand.number] = hand.pipe.recv()
                hand.number = -1
            except (EOFError, ConnectionResetError):
                self._lost(hand, hand.number)

    def _lost(self, hand: _Hand, number: int) -> None:
        """A process ended; whoever ended it, its sample is not answered."""
        hand.process.join()
        self._found[number] = f"its process ended with {hand.process.exitcode}"
        self._hands.remove(hand)
        hand.pipe.close()


@contextmanager
def hands(ask: Ask, count: int) -> Iterator[Hands]:
    """`count` processes that `ask`, as everything stands here now; they end with the context."""
    made: list[_Hand] = []
    try:
        made += [_forked(ask) for _ in range(count)]
        yield Hands(made)
    finally:
        for hand in made:
            hand.process.kill()  # between two samples, or at one that nobody waits for any more
            hand.process.join()
            hand.pipe.close()


def _forked(ask: Ask) -> _Hand:
    ours, theirs = get_context("fork").Pipe()
    process = get_context("fork").Process(target=_work, args=(ask, theirs), daemon=True)
    with warnings.catch_warnings():
        # of threads that live on in nobody: those of OpenMP, which a process that computes with one thread never asks for
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    theirs.close()
    return _Hand(process, ours)


def _work(ask: Ask, pipe: Connection) -> None:
    """Answer what comes through the pipe until nobody is at its other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is for the process that asks
    # locks of a run's folder, and other processes' pipes, must not outlive the one that asks
    os.closerange(3, pipe.fileno())
    os.closerange(pipe.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    gc.freeze()  # a collection that writes to what is here already would copy it
    torch.set_num_threads(1)
    while True:
        try:
            number, sample = pipe.recv()
        except EOFError:
            return
        pipe.send(_given(ask, number, sample))


def _given(ask: Ask, number: int, sample: Sample) -> Asked | str:
    try:
        return ask(number, sample)
    except Exception as error:  # asked again where it is wanted, it shows there
        return told(error)


def _whole(sample: Sample) -> Sample:
    """The sample with pictures that no file is needed for any more."""
    parts: dict[str, Any] = {name: tuple(map(plain, getattr(sample, name))) for name in ("images", "video")}
    return replace(sample, **parts)
