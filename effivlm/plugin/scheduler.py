"""The xdist side: cases of a group stay on one worker, and workers learn the run folder. Registered only where xdist is loaded.

Its samples do not stay there: a worker that is done with its own cases takes blocks of others' (`session.together`).

xdist is imported inside, so that nothing breaks where it is not installed. No pytest in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

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
        from xdist.scheduler import LoadScopeScheduling

        class ByGroup(LoadScopeScheduling):  # type: ignore[misc]
            def _split_scope(self, nodeid: str) -> str:
                return scope_of(nodeid)

        bench = self.controller.bench

        def scope_of(nodeid: str) -> str:
            cell = bench.cell_of(nodeid)
            return " ".join(cell.group) if cell else nodeid

        theirs = config.pluginmanager.get_plugin("dsession").pytest_xdist_make_scheduler(config, log)
        return Late(theirs, ByGroup(config, log), lambda nodeid: bench.cell_of(nodeid) is not None)

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
    """Two schedulers, one of them chosen when tests are known: a session without cells keeps the one it asked for."""

    def __init__(self, theirs: Any, ours: Any, is_cell: Callable[[str], bool]) -> None:
        self._both = (theirs, ours)
        self._is_cell = is_cell
        self._chosen: Any = None

    def add_node(self, node: Any) -> None:
        for scheduler in self._live():
            scheduler.add_node(node)

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        for scheduler in self._live():
            scheduler.add_node_collection(node, collection)

    def remove_node(self, node: Any) -> Any:
        return [scheduler.remove_node(node) for scheduler in self._live()][-1]

    def schedule(self) -> None:
        if self._chosen is None:
            theirs, ours = self._both
            collections = ours.registered_collections.values()
            ids = next(iter(collections), ())
            self._chosen = ours if any(map(self._is_cell, ids)) else theirs
        self._chosen.schedule()

    def _live(self) -> Sequence[Any]:
        return self._both if self._chosen is None else (self._chosen,)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chosen or self._both[0], name)
