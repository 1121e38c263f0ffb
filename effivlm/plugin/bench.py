"""The pytest plugin: options, the matrix, and every outcome on its way to the controller.

Does nothing at all in a session without a test that takes a `cell`. What is written down is in `controller.py`.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from effivlm.budget import names_one
from effivlm.plugin import gate, hookspec, options
from effivlm.plugin.controller import CARGO, Controller
from effivlm.plugin.progress import Progress
from effivlm.plugin.scheduler import COLLECTED, FOLDER, REFUSAL, SESSION, TEMPLATED, TROUBLES, Xdist
from effivlm.records import PARTS, Cell, Outcome, dump
from effivlm.session import matrix
from effivlm.session.blocks import place
from effivlm.session.groups import Groups, on_device
from effivlm.session.matrix import Plan, part_of
from effivlm.session.places import claim
from effivlm.session.recorder import FILE
from effivlm.session.shelf import Shelf, seed_all, settle

BENCH = "effivlm-bench"
ARGUMENT = "cell"
TEMPLATES = 8  # kinds of tests of one part that are told apart


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspec)


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    if not pluginmanager.hasplugin("effivlm") and _installed():
        raise pytest.UsageError(_twice("-p or PYTEST_PLUGINS"))
    group = parser.getgroup("effivlm", "effivlm: acceleration of vision-language models")
    options.add(group)
    gate.add_options(group)


def pytest_plugin_registered(plugin: object, plugin_name: str) -> None:
    wanted = getattr(plugin, "pytest_plugins", ()) or ()
    if __name__ in ([wanted] if isinstance(wanted, str) else wanted) and _installed():
        raise pytest.UsageError(_twice(f"pytest_plugins in {plugin_name}"))


def _installed() -> bool:
    """Whether pytest loads the plugin by itself."""
    off = os.environ.get("PYTEST_DISABLE_PLUGIN_AUTOLOAD") or "--disable-plugin-autoload" in sys.argv
    return not off and any(point.name == "effivlm" for point in entry_points(group="pytest11"))


def _twice(place: str) -> str:
    return (
        f"effivlm is loaded twice: by its installation (entry point pytest11) and by {place};"
        f" take {__name__!r} out of {place}"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "benchmark: settings of pytest-benchmark; declared here too for sessions without it"
    )
    bench = Bench(config)
    config.pluginmanager.register(bench, BENCH)
    if bench.worker:
        return
    controller = Controller(bench)
    try:  # before the controller: what is registered first speaks last, and the verdict belongs at the end
        config.pluginmanager.register(gate.Gate(controller), gate.NAME)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(controller, "effivlm-controller")
    if config.pluginmanager.hasplugin("dsession") or config.pluginmanager.hasplugin("xdist"):
        config.pluginmanager.register(Xdist(controller), "effivlm-xdist")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    from effivlm.session.recorder import devices

    machine_info["gpus"] = devices()["gpus"]


def bench_of(config: pytest.Config) -> Bench:
    """The session's state, for fixtures."""
    bench = config.pluginmanager.get_plugin(BENCH)
    assert isinstance(bench, Bench), "the effivlm plugin is loaded"
    return bench


@dataclass(eq=False)
class Bench:
    """One session in one process: what was asked for, which cells are selected, and what has been measured."""

    config: pytest.Config
    collected: int = 0
    selected: dict[str, list[Cell]] = field(default_factory=lambda: {part: [] for part in PARTS})
    templates: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    refusal: str = ""
    troubles: list[str] = field(default_factory=list)
    _plan: Plan | None = None
    _groups: Groups | None = None
    _shelf: Shelf | None = None

    @property
    def worker(self) -> dict[str, Any]:
        """What the controller told this xdist worker; empty in any other process."""
        return getattr(self.config, "workerinput", {})

    @property
    def workers(self) -> int:
        return int(self.worker.get("workercount", 1))

    @cached_property
    def name(self) -> str:
        """The name by which the workers of this session know each other."""
        return str(self.worker[SESSION]) if SESSION in self.worker else uuid4().hex[:12]

    @property
    def distributed(self) -> bool:
        return self.config.pluginmanager.hasplugin("dsession")

    @property
    def processes(self) -> int:
        """How many processes run cases."""
        return int(self.config.getoption("numprocesses", None) or 1) if self.distributed else 1

    @property
    def resuming(self) -> bool:
        return bool(self.config.option.vlm_resume)

    @property
    def runs(self) -> Path:
        """The folder in which run folders stand."""
        return self._named.parent if self._named else self.config.rootpath / "reports"

    @property
    def _named(self) -> Path | None:
        given = self.config.option.vlm_resume or self.config.option.vlm_run
        return self.config.invocation_params.dir / Path(given).expanduser() if given else None

    @cached_property
    def folder(self) -> Path:
        """The run folder. One that nobody named is made here, for this session alone; OSError where it cannot be.

        Beside xdist it is only named, by the process too: workers hear of it before it is known whether there is a run.
        """
        if FOLDER in self.worker:
            return Path(self.worker[FOLDER])
        stamp = time.strftime("%Y%m%d-%H%M%S")
        if self.distributed and not self._named:
            return self.runs / f"{stamp}-{os.getpid()}"
        return self._named or claim(self.runs, stamp)

    def plan(self) -> Plan:
        """The matrix, made on first use. Raises ValueError naming the option, the value and the choices."""
        if self._plan is None:
            plan = matrix.build(options.asked_of(self.config.option))
            cells = list(plan.cells)
            self.config.hook.pytest_vlm_cells(config=self.config, cells=cells)
            self._plan = replace(plan, cells=tuple(cells))
            self._check_folder()
        return self._plan

    def _check_folder(self) -> None:
        option = self.config.option
        if self.worker:
            return
        if option.vlm_resume and option.vlm_run:
            raise ValueError("--vlm-run names a new folder and --vlm-resume an old one: give one of them")
        if not self._named:
            return
        recorded = (self.folder / FILE).exists()
        if option.vlm_resume and not recorded:
            raise ValueError(f"--vlm-resume: {self.folder} holds no {FILE}, so there is no run to go on with")
        if option.vlm_run and recorded:
            raise ValueError(
                f"--vlm-run: {self.folder} holds a run already; go on with --vlm-resume, or name another folder"
            )

    def cell_of(self, nodeid: str) -> Cell | None:
        """The cell of a test by its node id; None for any other test, and when the options are refused anyway."""
        collects_here = not self.distributed
        if self.refusal or not names_one(nodeid) or (collects_here and self._plan is None):
            return None  # the options of a session without cells are not even looked at
        try:
            return self.plan().cell_of(nodeid)
        except ValueError as error:
            self.refusal = str(error)
            return None

    def groups(self) -> Groups:
        """What runs cells in this process."""
        if self._groups is None:
            settings = on_device(self.plan().settings, self._worker_number())
            self._groups = Groups(self.plan(), settings, self.folder, self.selected, self.workers, self.name)
        return self._groups

    def shelf(self) -> Shelf:
        """What opens models in this process."""
        if self._shelf is None:
            groups = self.groups()
            self._shelf = Shelf(self.plan().sources, groups.settings, groups.forget_model)
        return self._shelf

    def _worker_number(self) -> int:
        return int(self.worker.get("workerid", "gw0").removeprefix("gw")) % max(1, self.workers)

    def drain(self) -> list[Outcome]:
        return self._groups.drain() if self._groups else []

    def progress(self, title: str) -> Callable[[int, int], None]:
        return Progress(self.config, title)

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if ARGUMENT not in metafunc.fixturenames or _has_its_own(metafunc):
            return
        try:
            cells = self.plan().cells
        except ValueError as error:
            self.refusal = str(error)
            cells = ()
        metafunc.parametrize(ARGUMENT, [pytest.param(cell, id=cell.id) for cell in cells])

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.refusal:
            items.clear()
            if not self.worker:  # a worker tells the controller, which refuses once for all of them
                raise pytest.UsageError(self.refusal)
            return
        ours = [item for item in items if _cell(item) is not None]
        self.collected = len(ours)
        for item in ours:  # before anything is deselected
            kinds = self.templates.setdefault(part_of(item.nodeid), [])
            if len(kinds) < TEMPLATES and (one := _template(item)) not in kinds:
                kinds.append(one)
        if ours:
            order = self.plan().order
            groups: dict[tuple[str, str], int] = {}
            for cell, place in order.items():
                groups.setdefault(cell.group, place)
            others = [item for item in items if _cell(item) is None]
            items[:] = others + sorted(ours, key=lambda item: _place(item, order, groups))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            cell = _cell(item)
            if cell is not None:
                self.selected[part_of(item.nodeid)].append(cell)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """An xdist worker that is done with its own groups answers blocks of others' before it ends."""
        try:
            done = yield
            stopped = session.shouldfail or session.shouldstop
            if self.workers > 1 and self.selected["quality"] and not stopped and place(self.folder, self.name).exists():
                settle(self.groups().settings.device, self.workers)
                seed_all(self.groups().settings.seed)
                self.troubles += self.groups().help(self.shelf().open)
            return done
        finally:
            if self._shelf:
                self._shelf.close()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Outcomes ride on the next report, a whole group's on its first one: written before anything else runs."""
        report = yield
        if self._groups:
            waiting = [outcome.to_json() for outcome in self._groups.drain()] + self._groups.drain_samples()
            if waiting:
                setattr(report, CARGO, [dump(record) for record in waiting])
            if self._groups.trace and report.failed:
                report.sections.append(("effivlm: where the group failed", self._groups.trace))
                self._groups.trace = ""
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if self.worker:
            output = self.config.workeroutput  # type: ignore[attr-defined]
            output[REFUSAL], output[COLLECTED] = self.refusal, self.collected
            output[TEMPLATED], output[TROUBLES] = self.templates, self.troubles


def _has_its_own(metafunc: pytest.Metafunc) -> bool:
    """Whether `cell` is somebody else's word in this test: parametrized by a mark, or a fixture of their own."""
    marks = metafunc.definition.iter_markers("parametrize")
    named = [mark.args[0] if mark.args else mark.kwargs.get("argnames", "") for mark in marks]
    words = [name.strip() for names in named for name in (names.split(",") if isinstance(names, str) else names)]
    # No public way tells where a fixture comes from; without this attribute we would only be less polite.
    fixtures = getattr(metafunc, "_arg2fixturedefs", {})
    return ARGUMENT in words or ARGUMENT in fixtures


def _cell(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    cell = callspec.params.get(ARGUMENT) if callspec else None
    return cell if isinstance(cell, Cell) else None


def _template(item: pytest.Item) -> dict[str, Any]:
    """How a test of this kind is named and marked, whatever its cell; see `selection`."""
    cell = _cell(item)
    assert cell is not None, "only tests of cells have a template"
    before, _, behind = item.nodeid.rpartition(cell.id)
    around = [node.name for node in item.listchain()[2:-1]]  # neither the session nor its root folder
    attributes = getattr(getattr(item, "function", None), "__dict__", {})
    names = {*around, *item.listextrakeywords(), *(name for name in attributes if not name.startswith("_"))}
    return {"nodeid": [before, behind], "names": sorted(names), "marks": sorted(m.name for m in item.iter_markers())}


def _place(item: pytest.Item, order: Any, groups: Any) -> tuple[int, bool, int, int]:
    """Groups together, quality before timings, the timings of a cell side by side."""
    cell, part = _cell(item), part_of(item.nodeid)
    return groups[cell.group], part != "quality", order[cell], PARTS.index(part)  # type: ignore[union-attr]
