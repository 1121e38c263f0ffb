"""What several test files use: nested sessions in a toy world."""

from __future__ import annotations

from collections.abc import Iterator

import numpy  # noqa: F401  an inner session takes away what it imports first, and numpy loads once a process
import pytest
from toy_session import ROOT, Toy

import effivlm.report.terminal
import effivlm.report.write  # noqa: F401  as above
from effivlm import registry

pytest_plugins = ["pytester"]


@pytest.fixture
def toy(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toy]:
    for name in ("entries", "load"):
        monkeypatch.setattr(registry, name, getattr(registry, name))  # the toy world replaces them, this puts them back
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    for name in ("PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)
    yield Toy(pytester)
    monkeypatch.undo()
    registry.declared.cache_clear()
