"""What the parts of the plugin know of each other: no part names another's class, so none imports in a circle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from effivlm.records import Cell, Outcome
from effivlm.session.matrix import Plan
from effivlm.session.recorder import Key, Recorder


class Session(Protocol):
    """One session in one process, as `bench.Bench` keeps it."""

    config: Any
    collected: int
    templates: dict[str, list[dict[str, Any]]]
    refusal: str

    @property
    def name(self) -> str: ...
    @property
    def distributed(self) -> bool: ...
    @property
    def processes(self) -> int: ...
    @property
    def resuming(self) -> bool: ...
    @property
    def runs(self) -> Path: ...
    @property
    def folder(self) -> Path: ...
    def plan(self) -> Plan: ...
    def cell_of(self, nodeid: str) -> Cell | None: ...
    def drain(self) -> list[Outcome]: ...


class Run(Protocol):
    """What is written down about a session, as `controller.Controller` does it."""

    bench: Session
    recorder: Recorder | None
    planned: list[Key]
    passed_over: dict[Key, str]
    reused: int
    notes: list[str]
    document: dict[str, Any] | None

    def timed_without_table(self) -> int: ...


class Distributed(Protocol):
    """What xdist's side tells the controller."""

    bench: Session
    notes: list[str]

    def begin_with(self, nodeids: Sequence[str]) -> None: ...
    def worker_down(self, name: str, error: str, refusal: str, collected: int) -> None: ...
