"""While a report is made the collector of circles stands still, and goes on afterwards as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from effivlm.report.collector import paused


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    gc.enable()


def test_nothing_is_collected_inside_and_all_is_as_before_after_an_error() -> None:
    seen = []

    @paused()
    def fail() -> None:
        seen.append(gc.isenabled())
        raise ValueError("told")

    with pytest.raises(ValueError, match="told"):
        fail()
    assert (seen, gc.isenabled()) == ([False], True)


def test_what_was_switched_off_before_is_not_switched_on() -> None:
    gc.disable()
    with paused():
        pass
    assert not gc.isenabled()


def test_a_pause_within_a_pause_ends_with_the_outer_one() -> None:
    with paused():
        with paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
