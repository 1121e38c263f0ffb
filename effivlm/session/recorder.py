"""The run folder: one JSON line per event, flushed as it happens, the facts of the run in front. No pytest in here."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from effivlm.models._pictures import POLICY
from effivlm.records import SCHEMA, Cell, Outcome, dump
from effivlm.report.strict import records
from effivlm.session.places import Lock, trial

FILE = "outcomes.jsonl"
LIBRARIES = (
    "effivlm",
    "torch",
    "transformers",
    "accelerate",
    "numpy",
    "pytest",
    "pytest-benchmark",
    "pytest-xdist",
    "kvpress",
)
Key = tuple[Cell, str]


class Recorder:
    """Appends to `outcomes.jsonl`.

    Every line is flushed before the next test starts, so a killed run keeps what it finished. The folder is held from
    `hold` to `release`: nobody else writes into it meanwhile.

    Raises OSError with the file's name when the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self.recorded: dict[Key, Outcome] = {}
        self._shown: set[tuple[Cell | None, str, str]] = set()
        self.lock = Lock(folder)
        self._file: IO[str] | None = None

    def hold(self) -> None:
        """Make the folder and take it for this session; ValueError where another one has it, OSError where it cannot be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lock.hold()

    def release(self) -> None:
        """Let others have the folder; one in which nothing was written is taken away again."""
        self.lock.release()
        if not self.path.exists():
            with suppress(OSError):  # it was there before, with something in it
                self.folder.rmdir()

    def open(self, header: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        trial(self.folder / f".probe-{os.getpid()}")
        ignore = self.folder / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n", encoding="utf-8")
        mend(self.path)
        self._file = self.path.open("a", encoding="utf-8", buffering=1)
        self._write({"kind": "run", "schema": SCHEMA, **header})

    def add(self, outcome: Outcome) -> bool:
        """Write one outcome; False where the same one stands there already (dense comes with every group)."""
        key = (outcome.cell, outcome.part)
        before = self.recorded.get(key)
        if before and before.fingerprint == outcome.fingerprint and before.status in ("ok", "unsupported"):
            return False
        self._write(outcome.to_json())
        self.recorded[key] = outcome
        return True

    def add_sample(self, sample: Mapping[str, Any]) -> None:
        """Write what the report shows of one sample, or of what a cell kept of it, once a session."""
        of_cell = sample["kind"] == "kept"
        cell = Cell.from_json(sample["cell"]) if of_cell else None
        key = (cell, sample["task"], sample["sample" if of_cell else "id"])
        if key not in self._shown:
            self._shown.add(key)
            self._write(sample)

    def close(self, end: Mapping[str, Any]) -> None:
        if self._file:
            self._write({"kind": "end", **end})
            self._file.close()
            self._file = None

    @property
    def open_still(self) -> bool:
        """False once the file could not be written any more: it has no end line then, which says interrupted."""
        return self._file is not None

    def _write(self, record: Mapping[str, Any]) -> None:
        assert self._file is not None, "the recorder is open while a run lasts"
        try:
            self._file.write(dump(record) + "\n")
            self._file.flush()
        except OSError as error:
            self._abandon()
            raise OSError(error.errno, f"{error.strerror}: cannot write {self.path}") from error

    def _abandon(self) -> None:
        """Let go of a file that cannot be written: closing it would try once more, and fail in a destructor."""
        file, self._file = self._file, None
        try:
            if file:
                file.close()
        except OSError:
            pass  # said already


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """All records of a run folder in order; a line that is no JSON object, such as one cut by a kill, is left out."""
    path = folder / FILE
    if path.exists():
        yield from (record for _, record in records(path) if record is not None)


def mend(path: Path) -> None:
    """End a last line that a kill cut short, so that the next one starts on its own."""
    if path.exists() and path.stat().st_size:
        with path.open("rb+") as file:
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")


def facts(root: Path, command: Sequence[str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The header: what ran, where, on what. Asks git and nvidia-smi, imports nothing heavy."""
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "settings": dict(settings),
        "pictures": POLICY,
        "versions": {"python": platform.python_version(), **_versions()},
        "commit": commit(root),
        "platform": platform.platform(),
        **devices(str(settings.get("device", ""))),
    }


def commit(root: Path) -> str:
    """The commit that a working tree stands on, with "+changes" behind it where tracked files differ from it; "" outside git."""
    return _said("git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty=+changes", "--exclude=*")


def devices(used: str = "") -> dict[str, Any]:
    """Name of the processor, and of each GPU with its driver (an empty list without any); `device` is the one of them that is
    `used` ("cpu", "cuda:1"), without that the first GPU."""
    query = _said("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    rows = [[part.strip() for part in line.split(",")] for line in query.splitlines() if line.count(",") == 2]
    number = used.partition(":")[2]
    place = min(int(number), len(rows) - 1) if number.isdecimal() and rows else 0
    on_gpu = bool(rows) and used != "cpu"
    return {
        "device": rows[place][0] if on_gpu else _processor(),
        "driver": rows[place][1] if on_gpu else "",
        "gpus": [{"name": name, "driver": driver, "memory": memory} for name, driver, memory in rows],
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _said(*command: str) -> str:
    """What a small command prints, "" where it is missing or fails."""
    if not shutil.which(command[0]):
        return ""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""
