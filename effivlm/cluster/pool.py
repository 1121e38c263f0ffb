"""Workers in a Ray cluster: as many as it has GPUs (CPUs where none), replaced where a node is lost, more where one joins.

Ray is imported here alone, and when a pool is made.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effivlm.cluster.worker import Worker
from effivlm.records import Settings

TRIES = 5  # workers in a row that end before they begin
MOST = 500  # characters of the reason: its end is what went wrong
LOOK_S = 2.0  # between two looks at what the cluster has
FULL = 0.85  # of a GPU's memory, that weights may fill
GPU, CPU = "GPU", "CPU"


def connect(address: str, setup: Callable[[], None] | None = None) -> Any:
    """The module of Ray, connected to the cluster at `address`; "" is the one that RAY_ADDRESS names, or a new local one.

    `setup` runs in every process of a worker before anything else does.

    Raises:
        ValueError: Ray is not installed, or no cluster answers.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("--on ray needs the package ray: pip install -e '.[cluster]'") from None
    how: dict[str, Any] = {"runtime_env": {"worker_process_setup_hook": setup}} if setup else {}
    try:
        ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR, **how)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--on ray{'://' if address else ''}{address}: no cluster answers ({error})") from None
    return ray


def needed(weights: int, memory: int) -> int:
    """How many GPUs of so many bytes a model takes."""
    return max(1, math.ceil(weights / (FULL * memory))) if memory else 1


@dataclass(eq=False)
class Hand:
    """One worker: Ray's handle of it, the placement group that it stands in, if any, and what it has open.

    `streams` are what its jobs answer, the one at work in front: a second one waits with it, so that it never waits itself.
    """

    actor: Any
    place: Any = None
    here: Settings | None = None
    memory: int = 0
    model: tuple[str, str] = ("", "")
    streams: list[Any] = field(default_factory=list)


@dataclass(eq=False)
class Pool:
    """Workers of `gpus` GPUs each; of none, where the cluster has no GPU or the CPU was asked for, a CPU each."""

    ray: Any
    arguments: tuple[Any, ...]
    gpus: int
    kind: type = Worker
    hands: list[Hand] = field(default_factory=list)
    lost: int = 0
    stillborn: int = 0
    _coming: dict[Any, Hand] = field(default_factory=dict)
    _busy: dict[Any, tuple[Hand, Any]] = field(default_factory=dict)
    _looked: float = -math.inf
    _slots: int = 0

    @property
    def size(self) -> int:
        return len(self.hands)

    def free(self, jobs: int) -> list[Hand]:
        """Workers that have fewer jobs than that, those with the fewest first."""
        return sorted((hand for hand in self.hands if len(hand.streams) < jobs), key=lambda hand: len(hand.streams))

    def slots(self) -> int:
        """How many workers the cluster has room for."""
        if time.monotonic() - self._looked > LOOK_S:
            self._looked = time.monotonic()
            self._slots = sum(self._on(node["Resources"]) for node in self.ray.nodes() if node["Alive"])
        return self._slots

    def _on(self, resources: Mapping[str, float]) -> int:
        return int(resources.get(GPU, 0)) // self.gpus if self.gpus else int(resources.get(CPU, 0))

    def staff(self, wanted: int) -> None:
        """Have workers come until so many are there or on their way, if there is room."""
        for _ in range(min(wanted, self.slots()) - self.size - len(self._coming)):
            hand = self._hired()
            self._coming[hand.actor.here.remote()] = hand

    def _hired(self) -> Hand:
        """A worker, one that takes several GPUs in a placement group, so that all are of one node."""
        options: dict[str, Any] = {"num_gpus": self.gpus, "num_cpus": 0 if self.gpus else 1, "max_restarts": 0}
        place = None
        if self.gpus > 1:
            from ray.util.placement_group import placement_group
            from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

            place = placement_group([{GPU: self.gpus}], strategy="STRICT_PACK")
            options["scheduling_strategy"] = PlacementGroupSchedulingStrategy(placement_group=place)
        return Hand(self.ray.remote(self.kind).options(**options).remote(*self.arguments), place)

    def answer(self, hand: Hand, job: Any, *arguments: Any) -> None:
        """Give a worker a job, which it begins when it is done with those before; what it answers comes as events."""
        stream = hand.actor.answer.options(num_returns="streaming").remote(*arguments)
        hand.streams.append(stream)
        self._busy[stream] = (hand, job)

    def events(self, timeout: float) -> Iterator[tuple[Any, Any]]:
        """What has come about since the last call, waiting for something: a job and a line of its answers, or None where it is
        done, or the error that ended it. `lost` counts workers that were gone with a job."""
        waiting = [*self._coming, *self._busy]
        if not waiting:
            time.sleep(timeout)
            return
        ready, _ = self.ray.wait(waiting, num_returns=1, timeout=timeout)
        for one in ready:
            if one in self._coming:
                yield from self._came(one)
            else:
                yield from self._told(one)

    def _came(self, one: Any) -> Iterator[tuple[Any, Any]]:
        hand = self._coming.pop(one)
        try:
            hand.here, hand.memory = self.ray.get(one)
        except self.ray.exceptions.RayError as error:
            self._dismiss(hand)
            self.stillborn += 1
            if self.stillborn >= TRIES:  # the same would happen to the next
                raise ValueError(
                    f"workers of the cluster cannot begin: {' '.join(str(error).split())[-MOST:]}"
                ) from None
            return
        self.stillborn = 0
        self.hands.append(hand)
        yield None, hand

    def _told(self, stream: Any) -> Iterator[tuple[Any, Any]]:
        hand, job = self._busy[stream]
        try:
            yield job, self.ray.get(next(stream))
            return
        except StopIteration:
            self._done(stream, hand)
            yield job, None
        except self.ray.exceptions.RayTaskError as error:
            self._done(stream, hand)
            yield job, error.cause if isinstance(error.cause, Exception) else error
        except self.ray.exceptions.RayError as error:  # its node, its process or what it sent is gone
            at_work = hand.streams[0] is stream
            if hand in self.hands:
                self.hands.remove(hand)
                self.lost += 1
                self._dismiss(hand)
            del self._busy[stream]  # its other job comes with an event of its own
            yield job, Lost(str(error).strip().partition("\n")[0], at_work)

    def _done(self, stream: Any, hand: Hand) -> None:
        del self._busy[stream]
        hand.streams.remove(stream)

    def _dismiss(self, hand: Hand) -> None:
        self.ray.kill(hand.actor)
        if hand.place is not None:
            from ray.util.placement_group import remove_placement_group

            remove_placement_group(hand.place)

    def close(self) -> None:
        """End all workers and give back what they held."""
        hands: Sequence[Hand] = [*self.hands, *self._coming.values()]
        self.hands, self._coming, self._busy = [], {}, {}
        for hand in hands:
            self._dismiss(hand)


class Lost(Exception):
    """A worker went with its job; what it had answered is there. `at_work`: it had begun the job, or was about to."""

    def __init__(self, reason: str, at_work: bool) -> None:
        super().__init__(reason)
        self.at_work = at_work
