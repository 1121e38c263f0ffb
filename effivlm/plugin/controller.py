"""What the controller of a session does: opens the run folder, writes every outcome, closes it, and makes the report.

Registered in the one process that is no xdist worker. Everything arrives on test reports, with and without xdist.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pytest

from effivlm.plugin.session import Session
from effivlm.plugin.summary import WITHOUT_TABLE, announce, rates, show
from effivlm.records import Outcome, Settings
from effivlm.run.sharding import numbers_of, waits
from effivlm.session import record
from effivlm.session.groups import fit_engine, on_device
from effivlm.session.matrix import part_of
from effivlm.session.recorder import Key, Recorder, facts

CARGO = "effivlm_outcomes"
"""Attribute of a test report: outcomes that came to be since the report before, as lines, which any text survives."""


@dataclass(eq=False)
class Controller:
    """Everything that is written down about a session."""

    bench: Session
    recorder: Recorder | None = None
    planned: list[Key] = field(default_factory=list)
    passed_over: dict[Key, str] = field(default_factory=dict)
    reused: int = 0
    seconds: dict[Key, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stopped: str = ""
    document: dict[str, Any] | None = None
    _started: float = 0.0

    def begin_with(self, nodeids: Iterable[str]) -> None:
        """Open the run when the tests are known, and only if cells are among them.

        Raises UsageError where the device or the folder is no good: before any model loads.
        """
        if self.recorder is not None or self.bench.config.option.collectonly:
            return
        cells = [(self.bench.cell_of(nodeid), part_of(nodeid)) for nodeid in nodeids]
        if self.bench.refusal:  # beside workers, which know nothing of folders
            raise pytest.UsageError(self.bench.refusal)
        self.planned = [(cell, part) for cell, part in cells if cell is not None]
        if not self.planned:
            return
        try:
            self.recorder = self._opened()
        except OSError as error:
            raise pytest.UsageError(f"run folder {error.filename or ''} cannot be written: {error}") from None
        except ValueError as error:
            raise pytest.UsageError(str(error)) from None
        if self.bench.distributed:  # pytest says nothing of a collection that took place on workers
            for line in announce(self.bench, [f"{part}[{cell.id}]" for cell, part in self.planned]):
                self._say(line)

    def _opened(self) -> Recorder:
        """The run folder, held by this session, with its header written.

        Raises OSError where it cannot be written, ValueError where another session has it or its record is no run's.
        """
        settings = on_device(self.bench.plan().settings)
        fit_engine(settings)
        recorder = Recorder(self.bench.folder)
        recorder.hold()
        try:
            self._begin(recorder, settings)
        except BaseException:
            recorder.release()
            raise
        return recorder

    def _begin(self, recorder: Recorder, settings: Settings) -> None:
        bench, config = self.bench, self.bench.config
        if recorder.lock.note:
            self.notes.append(recorder.lock.note)
        plan = bench.plan()
        header = facts(config.rootpath, ["pytest", *config.invocation_params.args], asdict(settings))
        header["resumed"] = bench.resuming
        header["workers"] = bench.processes
        header["models"] = {name: source.to_json() for name, source in plan.sources.items()}
        header["checkpoints"] = record.identities(plan, self.planned, self._say)
        if bench.resuming:
            self.reused = record.go_on(recorder, plan, settings, header, self.planned, self._say)
        else:  # a session that was faster, and is done with it
            record.refuse_old(recorder.folder)
        config.hook.pytest_vlm_header(config=config, header=header)
        record.begin(recorder, header, bench.name)
        self._started = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        if not session.testsfailed and not self.bench.distributed:
            self.begin_with(item.nodeid for item in session.items)

    def pytest_report_collectionfinish(self, items: Sequence[pytest.Item]) -> list[str]:
        return announce(self.bench, [item.nodeid for item in items])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self.recorder is None:
            return
        for data in map(json.loads, getattr(report, CARGO, ())):
            self.record(Outcome.from_json(data) if data["kind"] == "outcome" else data)
        cell, part = self.bench.cell_of(report.nodeid), part_of(report.nodeid)
        if cell is None:
            return
        key = (cell, part)
        self.seconds[key] = self.seconds.get(key, 0.0) + report.duration
        if key in self.recorder.recorded:
            return
        if report.skipped:
            self.passed_over[key] = report.longrepr[2] if isinstance(report.longrepr, tuple) else "skipped"
        elif report.failed and report.when in ("setup", "call"):  # a crash says "???": those cells may run again
            self.record(Outcome(cell, "", "failed", part=part, reason=_reason(report)))

    def record(self, outcome: Outcome | dict[str, Any]) -> None:
        """Write one outcome, or what is known of a sample, now; a full disk ends the session with one sentence."""
        assert self.recorder is not None, "outcomes come after the run was opened"
        try:
            if isinstance(outcome, dict):
                self.recorder.add_sample(outcome)
                return
            new = self.recorder.add(outcome)
        except OSError as error:
            self.stopped = f"stopped, because outcomes can no longer be saved: {error.strerror}"
            pytest.exit(
                f"effivlm {self.stopped}. What was written before is safe: free some space, then"
                f" --vlm-resume {self.recorder.folder}",
                returncode=1,
            )
        if new:
            self.bench.config.hook.pytest_vlm_outcome(config=self.bench.config, outcome=outcome)

    def worker_down(self, name: str, error: str, refusal: str, collected: int) -> None:
        """An xdist worker ended: with an option it refuses, or without having said goodbye."""
        self.bench.collected = max(self.bench.collected, collected)
        if refusal:
            raise pytest.UsageError(refusal)
        if error and self.recorder is not None:
            self.notes.append(f"xdist worker {name} was lost ({error.strip().splitlines()[-1]})")

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if not self.stopped:
            by_hand = excinfo.errisinstance(KeyboardInterrupt)
            self.stopped = "interrupted from the keyboard" if by_hand else str(excinfo.value)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self.recorder is None:
            return
        try:
            self._close(session, exitstatus)
        except OSError as error:
            self._fail(session, f"the end of the run could not be written: {error.strerror}")
        if not any(map(self._told, self.recorder.recorded.values())) and exitstatus == pytest.ExitCode.OK:
            self._fail(session, "nothing was measured: every case was skipped, so the run counts as failed")
        self._report(session)

    def pytest_unconfigure(self) -> None:
        """The folder is held until the gate has written its verdict too."""
        if self.recorder is not None:
            self.recorder.release()

    def _told(self, outcome: Outcome) -> bool:
        """Whether something was measured; of more shards than samples, one that has none of them did all that it has to do."""
        shard = self.bench.plan().settings.shard
        return outcome.status == "ok" or bool(outcome.answers) or bool(shard and outcome.reason == waits(shard))

    def _fail(self, session: pytest.Session, note: str) -> None:
        self.notes.append(note)
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED

    def _close(self, session: pytest.Session, exitstatus: int) -> None:
        assert self.recorder is not None
        if not self.recorder.open_still:
            return
        for outcome in self.bench.drain():
            self.recorder.add(outcome)
        lost = "; ".join(self.notes)
        why = self.stopped or str(session.shouldfail or session.shouldstop or "") or lost
        asked = {
            key: outcome.n + outcome.broken for key, outcome in self.recorder.recorded.items() if key[1] == "quality"
        }
        settings = self.bench.plan().settings
        said = {
            "exit_code": int(exitstatus),
            "seconds": round(time.monotonic() - self._started, 3),
            "rates": rates(
                self.seconds, len(numbers_of(settings.shard, settings.limit)) or 1, asked
            ),  # a shard may be empty
            "reused": self.reused,
        }
        record.end(self.recorder, self.planned, self.passed_over, self.stopped, why, lost, settings.shard, said)

    def _report(self, session: pytest.Session) -> None:
        """A report that cannot be made never changes what the run found; one that cannot be written fails the session."""
        assert self.recorder is not None
        from effivlm.report.write import Unwritten, write

        try:
            self.document = write(self.recorder.folder)
        except Unwritten as error:
            self.document = error.document  # the table needs no disk
            self._fail(session, f"the report could not be written: {error.strerror}")
        except Exception as error:
            self.notes.append(f"the report could not be written ({type(error).__name__}: {error})")

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
        show(self, terminalreporter, exitstatus)

    def timed_without_table(self) -> int:
        """How many timings of this session pytest-benchmark holds no row of."""
        recorded = self.recorder.recorded.values() if self.recorder else ()
        return sum(any(remark.startswith(WITHOUT_TABLE) for remark in outcome.remarks) for outcome in recorded)

    def _say(self, text: str) -> None:
        reporter = self.bench.config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            reporter.ensure_newline()
            reporter.write_line(text)
        else:
            print(text, file=sys.stderr)


def _reason(report: pytest.TestReport) -> str:
    """Why a test failed, in a line."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text: str = crash.message if crash else report.longreprtext
    return (text.strip() or "the test failed before it measured").splitlines()[0]
