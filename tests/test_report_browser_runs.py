"""Pages of other runs in a browser: hostile names, ten thousand cells, what is not sure, times alone, scores by part."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from effivlm.records import Cell
from effivlm.report import document, page, samples
from tests.browsing import LINE_PX, marks, needs_browser, show
from tests.outcomes import END, HEADER, achieved, cell, missing, quality, timed
from tests.test_report_parts import NAMES, OWN, by_part, told
from tests.thousands import run_of

pytestmark = needs_browser
COMPANY = "1 other process on the GPU, holding at least 3.0 GiB of its memory"
HOSTILE = "<b>\u202e\0😀%{y}<img src=x onerror=alert(1)></script>{{x}}<br>&lt;"
DRAWN_MS, BLOCKED_MS = 2000, 200
TRIES = 3  # another process may take the processor for a while


def test_hostile_names_and_answers_stay_text_in_charts_tables_and_viewer(browser: Any, tmp_path: Path) -> None:
    which = Cell(HOSTILE, HOSTILE, HOSTILE, "0.10", HOSTILE)
    changed = quality(which, [0.0, 1.0], [False, True])
    found = [
        quality(Cell(HOSTILE, "dense", "paper", "1.00", HOSTILE), [1.0, 1.0]),
        changed,
        missing(replace(which, keep="0.20"), reason=HOSTILE),
    ]
    facts = samples.Facts({(HOSTILE, "s0"): {"prompt": HOSTILE, "references": [HOSTILE]}})
    text = page.render(document.build(HEADER, found, END), samples.changed(found, facts), HOSTILE)
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    shown = show(browser, path)
    assert shown.said == []
    assert shown.eval("document.querySelectorAll('img, b, main script, svg a').length") == 0
    assert shown.traces() == 1
    for host in ("#results-body", "#changed-body", "#chart", "#heat-chart"):
        words = shown.eval("id => document.querySelector(id).textContent", host)
        assert "<b>⟨U+202E⟩⟨U+0000⟩😀%{y}" in words, host
        assert "\u202e" not in words
    shown.tab.context.close()


def test_ten_thousand_cells_are_drawn_within_two_seconds_in_short_tasks_and_few_bytes(
    browser: Any, tmp_path: Path
) -> None:
    found = run_of(models=10, tasks=10, settings=100, times=True)
    made = document.build(HEADER, found, END)
    text = page.render(made, samples.changed(found, samples.Facts()))
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    measured: list[tuple[float, float]] = []
    while len(measured) < TRIES and not any(quick(*one) for one in measured):
        shown = show(browser, path)
        drawn = shown.eval("performance.getEntriesByName('drawn')[0].startTime")
        measured.append((drawn, max(shown.eval("window.long"), default=0)))
        assert marks(shown) == 99
        assert shown.eval("document.querySelectorAll('#heat-chart rect').length") > 99
        shown.tab.context.close()
    assert len(made["cells"]) == 10_000
    assert len(text.encode()) < 4_000_000
    assert quick(*measured[-1]), f"ms until drawn, ms of the longest task: {measured}"


def quick(drawn_ms: float, longest_ms: float) -> bool:
    return drawn_ms < DRAWN_MS and longest_ms < BLOCKED_MS


def test_what_is_not_sure_is_marked_where_it_is_shown(browser: Any, tmp_path: Path) -> None:
    random, fastv = cell("random_visual", "0.10"), cell("fastv", "0.10")
    found = [quality(cell(), [1.0] * 8), quality(fastv, [1.0] * 8), quality(random, [0.0] * 8)]
    found += [timed(one.cell, "ttft", *[0.2] * 6) for one in found]
    found[4] = found[4].with_remarks(COMPANY, "ttft is not settled: after 6 rounds")
    few = [replace(one, cell=replace(one.cell, task="few"), answers=one.answers[:2], n=2) for one in found[:2]]
    spent = replace(missing(cell("fastv", "0.40"), reason="kept 0.9"), achieved=achieved(0.9, of="visual tokens"))
    made = document.build(HEADER, [*found, *few, spent], END)
    path = tmp_path / "report.html"
    path.write_text(page.render(made, samples.changed(found, samples.Facts())), encoding="utf-8")
    shown = show(browser, path)
    assert "Run finished, but 1 case failed" in shown.tab.inner_text("header")
    shown.pick("task", "docvqa_micro")
    results = shown.tab.inner_text("#results-body")
    assert "1.00 [1.00, 1.00] ⚠ ~" in results
    assert f"{COMPANY} (1 row)" in results
    assert "+100.0 [37.5, 100.0] beats" in results
    assert shown.eval("document.getElementById('ttft-chart').spec.bars.map(bar => bar.hatched)") == [False, True, False]
    assert shown.eval("document.querySelectorAll('#ttft-chart .hatch').length") == 1
    assert "failed" in shown.tab.inner_text("#audit-body tbody tr:first-child")
    heights = "[...document.querySelectorAll('#results-body tbody tr')].map(row => row.offsetHeight)"
    assert max(shown.eval(heights)) < LINE_PX
    shown.pick("task", "few")
    text = shown.tab.inner_text("#results-body")
    assert "100.0 [n too small]" in text
    assert "no control ran" in text
    assert "No random control ran for 1 of these rows" in shown.tab.inner_text("#results-lead")
    assert shown.said == []


def test_a_run_of_times_alone_has_no_columns_of_scores(browser: Any, tmp_path: Path) -> None:
    found = [timed(one, part, *[3.0] * 6) for one in (cell(), cell("fastv", "0.10")) for part in ("ttft", "decode")]
    path = tmp_path / "report.html"
    path.write_text(page.render(document.build(HEADER, found, END), samples.changed([], samples.Facts())), "utf-8")
    shown = show(browser, path)
    heads = shown.tab.inner_text("#results-body thead")
    assert "TTFT ms" in heads
    assert "score" not in heads
    assert shown.said == []


def test_invalid_answers_and_scores_by_part_stand_beside_the_score(browser: Any, tmp_path: Path) -> None:
    dense = told(by_part(quality(cell(), OWN), NAMES), [True] * 3 + [False] * 18)
    path = tmp_path / "report.html"
    made = document.build(HEADER, [dense], END)
    path.write_text(page.render(made, samples.changed([dense], samples.Facts())), encoding="utf-8")
    shown = show(browser, path)
    assert shown.said == []
    assert "14.3 %" in shown.tab.inner_text("#results-body")
    head, row = shown.tab.inner_text("#parts-body").split("\n")[:2]
    assert head.split("\t") == ["method", "keep", "a", "b", "c"]
    assert row.startswith("dense\t1\t150.0 [")
