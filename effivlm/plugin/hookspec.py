"""What a user of the suite can add from a conftest.py, without a fork."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from effivlm.records import Cell, Outcome

if TYPE_CHECKING:
    from collections.abc import MutableMapping


@pytest.hookspec
def pytest_vlm_cells(config: pytest.Config, cells: list[Cell]) -> None:
    """Change the matrix in place, after the options were checked and before tests are made from it.

    Use it to drop what you will not pay for, or to add a cell that no product of options gives::

        def pytest_vlm_cells(config, cells):
            cells[:] = [cell for cell in cells if not (cell.model == "internvl2_5_38b" and cell.keep == "0.40")]

    Called in every process that collects, xdist workers included: the same options must give the same cells.
    """


@pytest.hookspec
def pytest_vlm_header(config: pytest.Config, header: MutableMapping[str, Any]) -> None:
    """Add facts of your own to the first line of `outcomes.jsonl`; values must be JSON.

    Use it for what the suite cannot know::

        def pytest_vlm_header(config, header):
            header["ticket"] = os.environ["CI_JOB_ID"]

    Called once a run, before the first case.
    """


@pytest.hookspec
def pytest_vlm_outcome(config: pytest.Config, outcome: Outcome) -> None:
    """Look at every outcome right after it was written.

    Use it to follow a run from elsewhere::

        def pytest_vlm_outcome(config, outcome):
            tracker.log({outcome.cell.id: outcome.score})

    Called on the controller only, in the order in which cases finish. An error in here stops the run.
    """
