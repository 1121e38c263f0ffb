"""The study that sets our cache methods beside kvpress's, and the page that it made."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from toy_session import ROOT

from effivlm.methods._refused import REFUSED

PAGE = (ROOT / "reports" / "baselines" / "kvpress.md").read_text(encoding="utf-8")
AGREE = ("streaming_llm", "snapkv", "tova", "expected_attention", "adakv")


@pytest.fixture(scope="module")
def presses() -> Iterator[Any]:
    sys.path.insert(0, str(ROOT / "bench_tests" / "studies"))
    import presses

    yield presses
    sys.path.remove(str(ROOT / "bench_tests" / "studies"))


@pytest.mark.kvpress
def test_five_methods_keep_the_entries_that_kvpress_keeps_and_three_do_not(presses: Any) -> None:
    pairs, pressed = presses.compared(["micro_qwen2_vl"], 1)
    for name, found in pairs.items():
        assert found.heads == 8 * 4 * len(presses.KEEPS)
        assert (found.same == found.heads) == (name in AGREE), name
    assert pairs["random_kv"].both < pairs["h2o"].both < pairs["pyramidkv"].both
    assert all(one.kept == one.asked for one in pressed if one.kind != "by itself")
    page = presses.page(pairs, pressed, ["micro_qwen2_vl"], 1)
    assert [line for line in page.splitlines() if line.startswith("- ")] == [
        line for line in PAGE.splitlines() if line.startswith("- ")
    ], "the page was made before presses were refused or let in"
    shown = [set(re.findall(r"`kvpress:(\w+)", text)) for text in (page, PAGE)]
    assert shown[0] == shown[1] == set(presses.able())


def test_the_page_says_of_the_same_methods_that_they_agree_in_all_heads() -> None:
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in PAGE.splitlines() if line[:1] == "|"}
    for name in AGREE:
        same, _, heads = rows[name][3].partition(" of ")
        assert same == heads
        assert int(heads) > 500
    assert all(name in PAGE for name in REFUSED)
