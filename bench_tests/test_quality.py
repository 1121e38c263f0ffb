"""What compression costs in quality (OP, OG, OL): a group is run by its first case, every case answers for its cell."""

from __future__ import annotations

from effivlm.plugin.cases import QUIET, measured
from effivlm.records import Cell, Outcome

pytestmark = QUIET


def test_quality(cell: Cell, outcome: Outcome) -> None:
    """The cell answered samples of its task, and its score is a number."""
    measured(outcome)
    assert outcome.cell == cell
    assert outcome.n > 0
    assert outcome.score is not None
    assert 0 <= outcome.score <= 1
