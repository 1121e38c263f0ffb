"""Sections of the page that only some runs have, as a browser shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effivlm.records import Outcome
from effivlm.report import document, page, samples
from tests.browsing import Shown, needs_browser, show
from tests.outcomes import END, HEADER, cell, quality, timed
from tests.test_report_compositions import TASKS, mixed
from tests.test_report_compositions import run as of_compositions
from tests.test_report_judges import run as of_judges
from tests.test_report_parameters import run as of_weights
from tests.test_report_suites import op
from tests.test_report_suites import run as of_suites

pytestmark = needs_browser
ROWS = "id => [...document.querySelectorAll(`#${id} tbody tr:not(.section)`)].map(row => row.innerText)"
SECTIONS = ("parameters", "compositions", "suites", "judges")
PHONE = 390


def opened(browser: Any, folder: Path, outcomes: list[Outcome]) -> Shown:
    """The page of these outcomes, which said nothing and asked for nothing."""
    path = folder / "report.html"
    made = document.build(HEADER, outcomes, END)
    path.write_text(page.render(made, samples.changed(outcomes, samples.Facts())), encoding="utf-8")
    shown = show(browser, path)
    assert shown.said == []
    return shown


def fits(shown: Shown) -> bool:
    """Whether nothing scrolls sideways on a phone but what says so."""
    shown.tab.set_viewport_size({"width": PHONE, "height": 900})
    return bool(shown.eval("document.documentElement.scrollWidth <= innerWidth"))


def test_methods_of_the_checkpoint_stand_with_their_quality_and_with_what_is_stored(
    browser: Any, tmp_path: Path
) -> None:
    shown = opened(browser, tmp_path, of_weights())
    rows = shown.eval(ROWS, "parameters")
    assert len(rows) == 4  # two methods, in two tables
    assert any("rtn" in row and "4.158" in row and "0.931 [" in row for row in rows)
    assert any("30 B (30 %)" in row and "dequantised" in row and "62 s" in row for row in rows)
    assert "w4g128: no speed-up" in shown.tab.inner_text("#parameters .notes")
    assert "this machine vary" not in shown.tab.inner_text("#parameters .notes")  # nothing was timed
    shown.pick("task", "docvqa_micro")
    assert any("rtn" in row and "75.0 [" in row and "0.857 [" in row for row in shown.eval(ROWS, "parameters"))
    assert fits(shown)


def test_times_of_weights_that_nothing_reads_faster_are_said_to_be_the_machines(browser: Any, tmp_path: Path) -> None:
    times = [timed(cell(), "decode", *[4.0] * 6), timed(cell("rtn", "w4g128"), "decode", *[3.0] * 6)]
    shown = opened(browser, tmp_path, [*of_weights(), *times])
    assert any("rtn" in row and "1.33 [1.33, 1.33]" in row for row in shown.eval(ROWS, "parameters"))
    assert "times unlike dense’s show how far the times of this machine vary" in shown.tab.inner_text(
        "#parameters .notes"
    )


def test_a_composition_stands_beside_its_methods_alone_over_tasks_and_on_each(browser: Any, tmp_path: Path) -> None:
    outcomes = of_compositions(mixed(1))
    shown = opened(browser, tmp_path, outcomes)
    found = {tuple(row["tasks"]): row for row in document.build(HEADER, outcomes, END)["compositions"]}
    (row,) = shown.eval(ROWS, "compositions")
    whole, own = found[TASKS], found[TASKS[:1]]
    assert f"{whole['value']:.3f} [" in row
    assert f"fastv 0.4: {whole['parts'][0]['value']:.3f}" in row
    assert f"{whole['expected']:.3f}" in row
    assert f"] {whole['verdict']}" in row
    shown.pick("task", TASKS[0])
    (row,) = shown.eval(ROWS, "compositions")
    assert f"{abs(100 * own['difference']):.1f} [" in row
    assert fits(shown)


def test_a_suite_stands_with_its_op_over_the_tasks_that_were_run_and_names_the_others(
    browser: Any, tmp_path: Path
) -> None:
    shown = opened(browser, tmp_path, of_suites("docvqa", "chartqa", "gqa"))
    titles = shown.eval("[...document.querySelectorAll('#suites h3')].map(title => title.textContent)")
    assert "paper, scored by rule: 3 of 17 tasks" in titles
    assert "hard, scored by rule: 2 of 6 tasks" in titles
    rows = shown.eval(ROWS, "suites")
    assert any(row.startswith("fastv") and f"{op('fastv', 'docvqa', 'chartqa'):.3f} [" in row for row in rows)
    assert any("Not run: ocrbench, infovqa" in line for line in shown.tab.inner_text("#suites-body").split("\n"))
    assert fits(shown)


def test_a_judge_stands_with_its_noise_and_the_cells_that_it_cannot_tell_from_dense(
    browser: Any, tmp_path: Path
) -> None:
    shown = opened(browser, tmp_path, of_judges())
    (row,) = shown.eval(ROWS, "judges")
    assert row.split("\t")[:5] == ["mmvet", "openai:gpt", "gpt-1", "abababababab", "0 of 250"]
    assert "4.00\t3 of 30 answers\t10 %\tlocal:other\t86 % of 49" in row
    close = shown.tab.inner_text("#judges .notes")
    assert "fastv 0.1 (−2.00), tova 0.1 (+2.00)" in close
    assert "snapkv" not in close
    assert fits(shown)


def test_a_section_that_a_run_has_nothing_for_is_not_there_and_neither_is_its_link(
    browser: Any, tmp_path: Path
) -> None:
    shown = opened(browser, tmp_path, [quality(cell(), [1.0] * 8), quality(cell("fastv", "0.10"), [1.0] * 8)])
    for name in SECTIONS:
        for place in (f"#{name}", f"nav a[href='#{name}']"):
            assert shown.eval("place => document.querySelector(place).checkVisibility()", place) is False, place
