"""The gate of a session: the finished run against a stored baseline, and a new baseline from it. No pytest in here."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effivlm import registry
from effivlm.plugin.selection import Selection
from effivlm.plugin.session import Run
from effivlm.records import PARTS, dump
from effivlm.report.limits import POLICIES, Limits, tolerances
from effivlm.session.places import trial
from effivlm.session.record import task_versions

if TYPE_CHECKING:
    from effivlm.report.baseline import Key, Side

NAME = "effivlm-gate"
VERDICT, PAGE = "verdict.json", "verdict.html"
RULES = ("missing", "new", "device-change", "inconclusive")
BEGIN = b'{"kind":"baseline"'
TESTS_FAILED = 1  # pytest's own exit code for it
OPTIONS = {
    "baseline": ("FILE", "compare the run with this baseline and fail if a cell got worse"),
    "update-baseline": ("FILE", "write the run as a baseline, if it finished without failures"),
    "tolerance": ("TABLE", "what the gate allows, e.g. score=0.02,ttft=1.10,docvqa_micro.score=0.03"),
    "missing": ("POLICY", f"cells only in the baseline: {', '.join(POLICIES)} (default: fail, of those selected)"),
    "new": ("POLICY", f"cells only in the run: {', '.join(POLICIES)} (default: warn)"),
    "inconclusive": ("POLICY", f"looks worse, too few to tell: {', '.join(POLICIES)} (default: warn)"),
    "device-change": ("POLICY", f"another device, so no timing compares: {', '.join(POLICIES)} (default: warn)"),
}


@dataclass(eq=False)
class Gate:
    """Registered beside the controller; hooks are found by their names.

    Raises ValueError at once, before anything is collected, for an option or a baseline that cannot be used.
    """

    controller: Run
    verdict: dict[str, Any] | None = None
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        target = self._path("update-baseline")
        asked = any(self._option(name) for name in ("tolerance", *RULES))
        if asked and not (self.wanted or target):
            raise ValueError("--vlm-tolerance and the gate's policies need --vlm-baseline FILE to compare with")
        if (self.wanted or target) and self.controller.bench.config.option.vlm_shard:
            raise ValueError("a shard has no scores to compare: merge the shards, then python -m effivlm compare A B")
        if self.wanted:
            self.limits.check_names(self.before.names | set(_names()))
        if target:
            _check_target(target)

    @property
    def wanted(self) -> bool:
        return bool(self._option("baseline"))

    @cached_property
    def limits(self) -> Limits:
        asked = {name: self._option(name) for name in RULES}
        for name, policy in asked.items():
            if policy and policy not in POLICIES:
                raise ValueError(f"--vlm-{name}: {policy!r} is not one of {', '.join(POLICIES)}")
        table = tolerances(",".join(self._option("tolerance")))
        new, device, inconclusive = (asked[name] or "warn" for name in RULES[1:])
        return Limits(table, asked["missing"] or None, new, device, inconclusive)

    @cached_property
    def before(self) -> Side:
        from effivlm.report.baseline import load

        try:
            return load(self._path("baseline") or Path())
        except (OSError, ValueError) as error:
            raise ValueError(f"--vlm-baseline: {error}") from None

    def _option(self, name: str) -> Any:
        return getattr(self.controller.bench.config.option, f"vlm_{name.replace('-', '_')}")

    def _path(self, name: str) -> Path | None:
        given = self._option(name)
        return self.controller.bench.config.invocation_params.dir / Path(given).expanduser() if given else None

    def pytest_vlm_header(self, header: MutableMapping[str, Any]) -> None:
        """Versions of the tasks: scores of two versions are never compared."""
        header["task_versions"] = task_versions(self.controller.bench.plan().cells)

    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        """After the controller's, which wrote the report."""
        target = self._path("update-baseline")
        if self.controller.recorder is None or not (self.wanted or target):
            return
        try:
            good = not self.wanted or self._judge()
            if target:
                good = self._update(target, good, int(session.exitstatus)) and good
        except Exception as error:  # a gate that cannot tell must not let pass
            self.lines.append(f"gate failed: it could not compare ({type(error).__name__}: {error})")
            good = False
        if not good and not session.exitstatus:
            session.exitstatus = TESTS_FAILED

    @cached_property
    def after(self) -> Side:
        from effivlm.report.baseline import OUTCOMES, of_run
        from effivlm.report.document import read

        recorder, document = self.controller.recorder, self.controller.document
        assert recorder is not None, "a run was opened"
        if document is None:
            raise ValueError("the run has no report")
        _, outcomes, _ = read(recorder.folder / OUTCOMES)
        return of_run(document, outcomes, str(recorder.folder))

    def _judge(self) -> bool:
        from effivlm.report.differences import lines, page
        from effivlm.report.verdict import verdict

        found = self.verdict = verdict(self.before, self.after, self.limits, self._unselected())
        folder = Path(self.after.name)
        (folder / VERDICT).write_text(dump(found) + "\n", encoding="utf-8", errors="replace")
        (folder / PAGE).write_text(page(found), encoding="utf-8", errors="replace")
        self.lines += [*lines(found), f"{PAGE}: {folder / PAGE}"]
        return bool(found["status"] == "passed")

    def _unselected(self) -> set[Key]:
        """Parts of the baseline's cells that a session with a selection left out; none where the whole suite ran.

        What the selection names and the session does not have at all, such as a deleted method, is missing.
        """
        bench = self.controller.bench
        option, arguments = bench.config.option, bench.config.args
        narrowed = any("::" in one or one.endswith(".py") for one in arguments)
        if not (narrowed or option.keyword or option.markexpr or len(self.controller.planned) < bench.collected):
            return set()
        planned = {(cell.id, part) for cell, part in self.controller.planned}
        there = bench.plan().by_id
        here = bench.config.invocation_params.dir
        words = [one.partition("::") for one in arguments]
        paths = [((here / path).resolve(), rest) for path, _, rest in words]
        selection = Selection(option.keyword, option.markexpr, paths, bench.config.rootpath, bench.templates)
        left = {(name, part) for name in self.before.cells for part in PARTS} - planned
        return {(name, part) for name, part in left if name in there or not selection.takes(name, part)}

    def _update(self, target: Path, good: bool, status: int) -> bool:
        from effivlm.report.baseline import write_baseline

        if not good or status:
            self.lines.append(f"no baseline was written: {'the gate did not pass' if not good else 'the tests failed'}")
            return False
        try:
            write_baseline(target, self.after)
        except (OSError, ValueError) as error:
            self.lines.append(str(error))
            return False
        self.lines.append(f"baseline of {len(self.after.cells)} cells: {target}")
        return True

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self.lines:
            return
        terminalreporter.section("effivlm gate")
        for line in self.lines:
            bad = line.startswith(("FAIL", "REFUSED", "gate failed", "gate refused", "no baseline"))
            terminalreporter.write_line(line, red=bad, yellow=line.startswith("warn"))


def _names() -> list[str]:
    return [name for kind in ("models", "methods", "tasks") for name in registry.names(kind)]


def _check_target(path: Path) -> None:
    """ValueError where no baseline can be written to `path`, or where something else than a baseline would be lost."""
    option = "--vlm-update-baseline"
    try:
        around = next(one for one in path.absolute().parents if one.exists())
        if path.is_dir() or not around.is_dir():
            raise ValueError(f"{option}: {path} cannot be a file: a folder is needed around it")
        if not path.exists():
            trial(path)
            return
        with path.open("rb+") as file:
            begin = file.read(len(BEGIN)) if path.is_file() else b"?"
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be written: {error.strerror}") from None
    if begin and begin != BEGIN:
        raise ValueError(
            f"{option}: {path} holds something else than a baseline, which would be lost; name another file"
        )


def add_options(group: Any) -> None:
    """Add the gate's options to pytest's `group` of this plugin."""
    for name, (value, text) in OPTIONS.items():
        repeated: Mapping[str, Any] = {"action": "append"} if name == "tolerance" else {}
        group.addoption(f"--vlm-{name}", default=[] if repeated else "", metavar=value, help=text, **repeated)
