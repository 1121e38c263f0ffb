"""The xdist side: cases of a group stay on one worker, and workers learn the run folder. Registered only where xdist is loaded.

Its samples do not stay there: a worker that is done with its own cases takes blocks of others' (`session.together`).

xdist is imported inside, so that nothing breaks where it is not installed. No pytest in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from effivlm.plugin.dealing import Dealer
from effivlm.plugin.session import Distributed

REFUSAL = "vlm_refusal"
COLLECTED = "vlm_collected"
FOLDER = "vlm_folder"
SESSION = "vlm_session"
TEMPLATED = "vlm_templates"
TROUBLES = "vlm_troubles"


class Xdist:
    """Hooks of xdist, on the controller."""

    def __init__(self, controller: Distributed) -> None:
        self.controller = controller

    def pytest_configure_node(self, node: Any) -> None:
        bench = self.controller.bench
        node.workerinput[FOLDER], node.workerinput[SESSION] = str(bench.folder), bench.name

    def pytest_xdist_make_scheduler(self, config: Any, log: Any) -> Any:
        bench = self.controller.bench

        def group_of(nodeid: str) -> str:
            cell = bench.cell_of(nodeid)
            return " ".join(cell.group) if cell else nodeid

        def differs(node: Any, first: Sequence[str], other: Sequence[str]) -> None:
            missing, more = len(set(first) - set(other)), len(set(other) - set(first))
            self.controller.notes.append(
                f"xdist worker {node.gateway.id} found other cases than the first one did, {missing} fewer and {more} more:"
                " it was sent home"
            )

        theirs = config.pluginmanager.get_plugin("dsession").pytest_xdist_make_scheduler(config, log)
        return Late(theirs, Dealer(group_of, differs), lambda nodeid: bench.cell_of(nodeid) is not None)

    def pytest_xdist_node_collection_finished(self, node: Any, ids: Sequence[str]) -> None:
        self.controller.begin_with(ids)

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        output = getattr(node, "workeroutput", {})
        self.controller.bench.templates.update(output.get(TEMPLATED, {}))
        self.controller.notes += [f"xdist worker {node.gateway.id}: {one}" for one in output.get(TROUBLES, ())]
        self.controller.worker_down(
            node.gateway.id, str(error or ""), output.get(REFUSAL, ""), output.get(COLLECTED, 0)
        )


class Late:
    """Two schedulers, one of them chosen when tests are known: a session without cells keeps the one it asked for.

    Until then neither hears of workers, of which some may come and go before all have collected.
    """

    def __init__(self, theirs: Any, ours: Any, is_cell: Callable[[str], bool]) -> None:
        self._both = (theirs, ours)
        self._is_cell = is_cell
        self._chosen: Any = None
        self._there: dict[Any, Sequence[str] | None] = {}

    @property
    def nodes(self) -> list[Any]:
        return list(self._chosen.nodes if self._chosen else self._there)

    @property
    def collection_is_completed(self) -> bool:
        if self._chosen:
            return bool(self._chosen.collection_is_completed)
        collected = [ids for ids in self._there.values() if ids is not None]
        return len(collected) >= int(self._both[0].numnodes)

    @property
    def tests_finished(self) -> bool:
        return bool(self._chosen and self._chosen.tests_finished)

    @property
    def has_pending(self) -> bool:
        return bool(self._chosen and self._chosen.has_pending)

    def add_node(self, node: Any) -> None:
        if self._chosen:
            self._chosen.add_node(node)
        else:
            self._there[node] = None

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        if self._chosen:
            self._chosen.add_node_collection(node, collection)
        elif node in self._there:
            self._there[node] = list(collection)

    def remove_node(self, node: Any) -> Any:
        """KeyError for a worker that is not known."""
        if self._chosen:
            return self._chosen.remove_node(node)
        del self._there[node]
        return None

    def schedule(self) -> None:
        if self._chosen is None:
            self._choose()
        self._chosen.schedule()

    def _choose(self) -> None:
        theirs, ours = self._both
        ids = next((ids for ids in self._there.values() if ids is not None), ())
        self._chosen = ours if any(map(self._is_cell, ids)) else theirs
        for node in self._there:
            self._chosen.add_node(node)
        for node, collected in self._there.items():
            if collected is not None:
                self._chosen.add_node_collection(node, collected)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chosen or self._both[0], name)
