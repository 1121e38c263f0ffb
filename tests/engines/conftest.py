"""Tests of libraries outside the environment of every test: skipped where one is missing, failed where it is demanded."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from effivlm.weights.libraries import LIBRARIES, missing

sys.path.insert(0, str(Path(__file__).parent.parent))
DEMANDED = os.environ.get("REQUIRED_ENGINE", "")
"""Set by `make test-autoawq`, `make test-kvpress` and `make test-sparseml`: a stage of its own never passes by skipping."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for engine in LIBRARIES:
        if item.get_closest_marker(engine) and (why := missing(engine)):
            if engine == DEMANDED:
                pytest.fail(why, pytrace=False)
            pytest.skip(why)
