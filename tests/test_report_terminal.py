"""The closing table in the terminal."""

from __future__ import annotations

import re
from dataclasses import replace

from effivlm.report import document
from effivlm.report.terminal import table
from tests.outcomes import END, HEADER, cell, missing, quality, small_run


def test_the_table_fits_100_columns_and_shows_missing_values_as_a_dash() -> None:
    long = replace(quality(cell("pyramid_drop_with_a_long_name", "0.015", preset="effivlm"), [0.3] * 9), scale=2800.0)
    text = table(document.build(HEADER, [*small_run(), long, missing(cell("h2o", "0.10"), reason="x" * 300)], END))
    assert max(map(len, text.splitlines())) <= 100
    row, _ = [line for line in text.splitlines() if re.match(r"pyramid_.*\.\..*effivlm ", line)]
    assert re.search(r" -\s+-\s+-\s+0\.015/0\.015$", row)


def test_names_that_begin_alike_are_told_apart_by_their_ends() -> None:
    names = [f"kvpress:AdaKVPress(press=SnapKVPress(window_size={size},kernel_size=5))" for size in (8, 16)]
    names += [
        f"fastv:0.40+kvpress:AdaKVPress(press={name},alpha_safeguard=0.5)" for name in ("KnormPress", "TOVAPress")
    ]
    longs = [replace(quality(cell(name, "0.10"), [0.3] * 9), scale=2800.0) for name in names]
    blocks = table(document.build(HEADER, [*small_run(), *longs], END)).split("\n\n")
    shown = [re.findall(r"^((?:kvpress|fastv:)\S*\.\.\S*)", block, re.MULTILINE) for block in blocks]
    assert [len(set(firsts)) for firsts in shown if firsts] == [4, 4, 2]  # compositions have a table of their own
    assert any("kvpress:A..16,kernel_" in firsts for firsts in shown)


def test_the_table_counts_reasons_and_lets_no_control_character_through() -> None:
    failures = [missing(cell(f"m{place}", "0.10"), reason="boom \x1b[31m\nsecond line") for place in range(3)]
    text = table(document.build(HEADER, [*small_run(), *failures], END))
    assert "10 measured, 1 skipped, 4 failed, 0 broken samples" in text
    assert "  failed 3 x: boom ?[31m" in text
    assert "\x1b" not in text


def test_reasons_and_notes_are_folded_and_keep_their_ends() -> None:
    words = " ".join(f"word{place}" for place in range(40))
    failed = missing(cell("m", "0.10"), reason=f"{words} and what to do")
    found = document.build({**HEADER, "notes": [f"{words} and what it means"]}, [*small_run(), failed], END)
    lines = table(found).splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert f"failed 1 x: {words} and what to do" in text
    assert f"note: {words} and what it means" in text


def test_the_table_says_what_was_refused_and_what_dense_reaches_against_itself() -> None:
    found = document.build(HEADER, small_run(), END)
    assert "noise floor" not in table(found)
    for one, same in zip([one for one in found["cells"] if one["method"] == "dense"], (0.9, 0.975), strict=True):
        one["noise"] = {"same": same}
    found["summary"]["refused"] = [{"table": "og", "reason": "two kinds of score", "select": "-k exact"}]
    assert 'noise floor of "as dense": 0.900 to 0.975 (dense against dense, 2 of its cells)' in table(found)
    assert "  refused OG: two kinds of score; select -k exact" in table(found)


def test_a_cell_that_was_timed_and_whose_answers_failed_says_so_in_its_row() -> None:
    failed = missing(cell("fastv", "0.10"), reason="kept 0.4 where 0.1 was asked")
    outcomes = [one for one in small_run() if (one.cell, one.part) != (failed.cell, "quality")]
    lines = table(document.build(HEADER, [*outcomes, failed], END)).splitlines()
    assert any(re.match(r"fastv +0\.1 +FAILED +- ", line) for line in lines)
    assert "fastv 0.1 quality FAILED: kept 0.4 where 0.1 was asked" in lines


def test_budgets_of_tokens_and_of_cache_entries_stand_apart_in_the_table() -> None:
    lines = table(document.build(HEADER, small_run(), END)).splitlines()
    heads = [place for place, line in enumerate(lines) if line == "keep, of prompt entries:"]
    assert len(heads) == 3  # two tasks and OP over both
    for place in heads:
        assert all(line.startswith("fastv") for line in lines[place - 2 : place])
        assert all(line.startswith("snapkv") for line in lines[place + 1 : place + 3])


def test_the_table_of_one_model_and_several_tasks_ends_with_op() -> None:
    text = table(document.build(HEADER, small_run(), END))
    assert re.search(r"fastv +0\.4 +0\.857 \[0\.\d+, 1\.\d+\] +2 +0\.750 +2\.00 +1\.33", text)
    one = [outcome for outcome in small_run() if outcome.cell.task == "docvqa_micro"]
    assert "OP over" not in table(document.build(HEADER, one, END))
