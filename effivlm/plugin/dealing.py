"""Deals groups of cases to xdist workers. xdist itself is only spoken to: its own schedulers leave sessions hanging after a loss.

What they get wrong: units that a lost worker had finished wait again, and whoever is handed such an empty one is never heard of
any more; a worker that replaces another is handed work before it has collected; one that waits to hear what comes next is not
told that nothing does. No pytest in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

AHEAD = 2
"""Cases that a worker needs: it begins one when it knows the next, or that none will come."""


class Dealer:
    """Keeps a group on one worker, and gives what a lost one had not finished to others.

    A worker holds no more than it needs to begin its next case, so that groups go to whoever is ready first. Once none waits,
    all are sent home: they finish what they hold, and help each other then.
    """

    collection_is_completed = True

    def __init__(
        self, group_of: Callable[[str], str], differs: Callable[[Any, Sequence[str], Sequence[str]], None]
    ) -> None:
        """`differs` hears of a worker that found other cases than the first one did, and of both lists; it gets no work."""
        self._group_of, self._differs = group_of, differs
        self._ids: list[str] | None = None
        self._waiting: dict[str, list[str]] = {}
        self._held: dict[Any, dict[str, None]] = {}
        self._places: dict[Any, dict[str, int]] = {}

    @property
    def nodes(self) -> list[Any]:
        return list(self._held)

    @property
    def has_pending(self) -> bool:
        return bool(self._waiting or any(self._held.values()))

    @property
    def tests_finished(self) -> bool:
        return self._ids is not None and not self.has_pending

    def add_node(self, node: Any) -> None:
        self._held[node] = {}

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        """What a worker found; one that was sent home while it looked is not known here any more."""
        if node not in self._held:
            return
        if self._ids is not None and list(collection) != self._ids:
            del self._held[node]
            node.shutdown()
            self._differs(node, self._ids, collection)
            return
        if self._ids is None:
            self._ids = list(collection)
            self._put_back(self._ids)
        self._places[node] = {nodeid: place for place, nodeid in enumerate(collection)}

    def schedule(self) -> None:
        """Deal: everybody has one group before anybody has two."""
        ready = [node for node in self._held if node in self._places and not node.shutting_down]
        for least in range(1, AHEAD + 1):
            for node in ready:
                while self._waiting and len(self._held[node]) < least:
                    self._give(node)
        for node in ready if not self._waiting else ():
            node.shutdown()

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        assert self._ids is not None, "nothing runs before it is dealt"
        self._held[node].pop(self._ids[item_index], None)
        self.schedule()

    def remove_node(self, node: Any) -> str | None:
        """The case that a worker was lost with, None where it had none; KeyError for one that is not known."""
        held = list(self._held.pop(node))
        self._places.pop(node, None)
        if not held:
            return None
        later, self._waiting = self._waiting, {}
        self._put_back(held)
        for group, nodeids in later.items():
            self._waiting.setdefault(group, []).extend(nodeids)
        self.schedule()
        return held[0]

    def mark_test_pending(self, item: str) -> None:
        self._put_back([item])
        self.schedule()

    def _put_back(self, nodeids: Sequence[str]) -> None:
        for nodeid in nodeids:
            self._waiting.setdefault(self._group_of(nodeid), []).append(nodeid)

    def _give(self, node: Any) -> None:
        group = next(iter(self._waiting))
        nodeids = self._waiting.pop(group)
        self._held[node].update(dict.fromkeys(nodeids))
        node.send_runtest_some([self._places[node][nodeid] for nodeid in nodeids])
