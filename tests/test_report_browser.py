"""The page as a browser shows it: charts, toggles, the sample viewer, widths, contrast, keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browsing import CONTRAST, LINE_PX, WIDTH, Shown, build, marks, needs_browser, show

pytestmark = needs_browser
FOCUSABLE = "a[href], button:not(:disabled), select:not(:disabled), input, summary, [tabindex='0']"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def opened(browser: Any, report: Path) -> Shown:
    """One tab for all tests, because a browser takes a while to open one."""
    return show(browser, report)


@pytest.fixture
def desktop(opened: Shown) -> Iterator[Shown]:
    """The tab as it was when it was opened; a test that switches a button off switches it on again."""
    yield opened
    if opened.eval("[innerWidth, document.getElementById('task').value]") != [WIDTH, "-1"]:
        opened.resize(WIDTH)
        opened.pick("task", "all tasks")
    opened.pick("changed-setting", "all settings")
    opened.pick("changed-kind", "any change")


def test_a_page_draws_its_charts_complains_of_nothing_and_asks_only_for_itself(desktop: Shown, report: Path) -> None:
    assert desktop.said == []
    assert [url for url in desktop.asked if not url.startswith("data:")] == [report.as_uri()]
    assert desktop.traces() == 2  # a method and what was published of it
    assert desktop.traces("chart-1") == 1
    for chart in ("heat-chart", "heat-chart-1"):
        assert desktop.eval(
            "id => [...document.querySelectorAll(`#${id} .tiles text`)].map(e => e.textContent)", chart
        ) == [
            "0.500",
            "0.750",
        ]
    bars = "['ttft', 'decode'].map(word => document.querySelectorAll(`#${word}-chart .bar`).length)"
    assert desktop.eval(bars) == [4, 4]
    assert marks(desktop) == 5


def test_budgets_of_tokens_and_of_cache_entries_share_no_axis_but_a_speedup_does(desktop: Shown) -> None:
    title = "id => document.querySelector(`#${id} .axis`).textContent"
    assert "of visual tokens" in desktop.eval(title, "chart")
    assert "of prompt entries" in desktop.eval(title, "chart-1")
    assert "of prompt entries" in desktop.eval(title, "heat-chart-1")
    desktop.pick("chart-x", "decode speed-up")
    desktop.until("document.querySelectorAll('#chart .series').length === 2")
    assert desktop.eval("document.getElementById('chart-1').hidden")
    desktop.pick("chart-x", "keep, asked")
    desktop.until("!document.getElementById('chart-1').hidden")


def test_one_task_shows_milliseconds_with_the_dense_line_and_the_floor(desktop: Shown) -> None:
    desktop.pick("task", "docvqa_micro")
    chart = desktop.eval(
        "(({bars, rules}) => [bars[0].value, bars[0].floor, rules[0].at])(document.getElementById('ttft-chart').spec)"
    )
    assert chart == pytest.approx([200, 30, 200])
    assert desktop.eval("['.rule', '.floor'].map(kind => document.querySelectorAll(`#ttft-chart ${kind}`).length)") == [
        1,
        1,
    ]
    assert "right → wrong" in desktop.tab.inner_text("#ol-body")
    assert "0.970" in desktop.tab.inner_text("#ol-body tbody tr:nth-child(2)")


def test_a_method_can_be_switched_off_and_on_again_and_says_which(desktop: Shown) -> None:
    button = desktop.tab.get_by_role("button", name="fastv", exact=True)
    for pressed, traces in (("false", 1), ("true", 3)):  # what was published of a method goes with it
        button.click()
        assert button.get_attribute("aria-pressed") == pressed
        desktop.until("n => document.querySelectorAll('#tradeoff .series').length === n", traces)
        assert button.evaluate("e => e === document.activeElement")


def test_intervals_and_published_values_are_drawn_only_when_switched_on(desktop: Shown) -> None:
    errors = "document.querySelectorAll('#chart .interval').length"
    before = desktop.eval(errors)
    desktop.tab.get_by_role("button", name="95 % intervals").click()
    desktop.until(f"{errors} > 0")
    desktop.tab.get_by_role("button", name="published values").click()
    desktop.until("document.querySelectorAll('#tradeoff .series').length === 2")
    assert before == 0
    assert "a paper, table 3" in desktop.tab.inner_text("#published")
    for name in ("95 % intervals", "published values"):
        desktop.tab.get_by_role("button", name=name).click()


def test_a_table_sorts_by_its_heads(desktop: Shown) -> None:
    """Within the sections: a share of the tokens and one of the cache are not ranked against each other."""
    rows = "#results-body tbody tr:not(.section)"
    column = f"[...document.querySelectorAll('{rows}')].map(row => Number(row.children[1].textContent))"
    head = desktop.tab.locator("#results-body").get_by_role("button", name="keep", exact=True)
    head.click()
    assert desktop.eval(column) == [0.4, 0.1, 0.4, 0.1]
    head.click()
    assert desktop.eval(column) == [0.1, 0.4, 0.1, 0.4]
    assert head.evaluate("e => e.parentElement.getAttribute('aria-sort')") == "ascending"


def test_the_audit_tells_layers_that_kept_unlike_and_the_page_what_is_missing(desktop: Shown) -> None:
    audit = desktop.tab.inner_text("#audit-body")
    assert "40 in each of 2" in audit
    assert "█▃ 20 to 60" in audit
    missing_text = desktop.tab.inner_text("#unmeasured-body")
    assert "out of memory" in missing_text
    assert "no mean over scoring" in missing_text
    assert "--vlm-tasks docvqa" in missing_text


def pixel(shown: Shown, x: int, y: int) -> list[int]:
    """Red, green, blue of the first card's picture at cell (x, y) of 4 x 4."""
    script = """([x, y]) => { const c = document.querySelector('#changed-body canvas');
      return [...c.getContext('2d').getImageData((x + .5) * c.width / 4, (y + .5) * c.height / 4, 1, 1).data].slice(0, 3); }"""
    found: list[int] = shown.eval(script, [x, y])
    return found


def test_the_viewer_opens_on_changed_answers_and_dims_the_tokens_that_were_dropped(desktop: Shown) -> None:
    card = desktop.tab.locator("#changed-body article").first
    card.get_by_role("button", name="Kept tokens").wait_for()
    assert "↓ worse" in card.inner_text()
    assert "accepted: yes" in card.inner_text()
    assert "right → wrong" in card.inner_text()
    assert "2 of 16 visual tokens kept, layers 0 to 3" in card.inner_text()
    assert pixel(desktop, 0, 0) == pixel(desktop, 1, 1) == [230, 240, 250]
    assert max(pixel(desktop, 1, 0)) < 150
    card.get_by_role("button", name="Kept tokens").click()
    assert pixel(desktop, 1, 0) == [230, 240, 250]


def test_the_viewer_moves_through_layers_frames_and_samples(desktop: Shown) -> None:
    desktop.pick("changed-setting", "pyramid_kv, keep 0.1")
    desktop.pick("task", "video_micro")
    card = desktop.tab.locator("#changed-body article").first
    card.get_by_label("Layers", exact=True).wait_for()
    assert "0 of 8 visual tokens kept, layers 1 to 3" in card.inner_text()
    card.get_by_label("Layers", exact=True).press("ArrowLeft")
    assert "3 of 8 visual tokens kept, layer 0" in card.inner_text()
    assert card.get_by_label("Layers", exact=True).get_attribute("aria-valuetext") == "layer 0"
    card.get_by_label("Layers", exact=True).press("ArrowRight")
    card.locator("figure select").select_option(label="2 of 2")
    assert "1 of 8 visual tokens kept" in card.inner_text()
    assert pixel(desktop, 3, 3) == [90, 240, 250]
    desktop.pick("changed-setting", "all settings")
    assert "1 to 6 of 12" in desktop.tab.inner_text("#changed-body")
    desktop.tab.get_by_role("button", name="Next", exact=True).click()
    assert "7 to 12 of 12" in desktop.tab.inner_text("#changed-body")
    desktop.pick("changed-kind", "answer unchanged")
    assert "↓ worse" not in desktop.tab.inner_text("#changed-body")
    assert desktop.tab.locator("#changed-body article").count() == 6


@pytest.mark.parametrize("task", ["all tasks", "docvqa_micro"])
@pytest.mark.parametrize("width", [390, 1440])
def test_nothing_scrolls_sideways_but_what_says_so(desktop: Shown, width: int, task: str) -> None:
    desktop.resize(width)
    if task != "all tasks":
        desktop.pick("task", task)
    desktop.until("document.getElementById('chart').scrollWidth <= innerWidth")
    assert desktop.eval("document.documentElement.scrollWidth") == width
    assert desktop.eval("[...document.querySelectorAll('.chart')].every(e => e.scrollWidth <= e.clientWidth)")
    heights = "[...document.querySelectorAll('table:not(.facts) tbody tr')].map(row => row.offsetHeight)"
    assert max(desktop.eval(heights)) < LINE_PX


@pytest.mark.parametrize(
    ("scheme", "ground", "card"),
    [("dark", "rgb(20, 23, 26)", "rgb(28, 32, 36)"), ("light", "rgb(251, 251, 250)", "rgb(255, 255, 255)")],
)
def test_all_text_can_be_told_from_its_ground_when_the_reader_changes_the_colours(
    desktop: Shown, scheme: str, ground: str, card: str
) -> None:
    if desktop.eval("scheme => !matchMedia(`(prefers-color-scheme: ${scheme})`).matches", scheme):
        desktop.tab.emulate_media(color_scheme=scheme)
    assert desktop.eval("getComputedStyle(document.body).backgroundColor") == ground
    ground_of = "id => getComputedStyle(document.querySelector(id)).backgroundColor"
    assert desktop.eval(ground_of, "#tradeoff") == card
    found = desktop.eval(CONTRAST)
    assert len(found) > 200
    assert [one for one in found if one[0] < 4.5] == []


def test_everything_that_can_be_used_is_reached_by_keyboard_and_shows_it(desktop: Shown) -> None:
    wanted = desktop.eval(f"[...document.querySelectorAll(`{FOCUSABLE}`)].filter(e => e.checkVisibility()).length")
    reached = set()
    desktop.eval("document.querySelectorAll('*').forEach((e, i) => { e.place = i; })")
    desktop.eval("document.querySelector('.skip').focus()")
    for _ in range(wanted - 1):
        desktop.tab.keyboard.press("Tab")
        place, width = desktop.eval(
            "(e => [e.place, e === document.body ? 0 : parseFloat(getComputedStyle(e).outlineWidth)])(document.activeElement)"
        )
        assert width >= 2, f"no outline on element {place}"
        reached.add(place)
    assert len(reached) == wanted - 1


def test_marks_are_read_by_pointer_and_by_keyboard_and_said_aloud(desktop: Shown) -> None:
    chart = desktop.tab.locator("#chart")
    tip, said = chart.locator(".tip"), chart.locator("[role=status]")
    assert "Arrow keys read its 3 marks" in (chart.get_attribute("aria-label") or "")
    x, y = desktop.eval(
        "document.querySelector('#chart .mark').getAttribute('d').match(/[0-9.]+/g).slice(0, 2).map(Number)"
    )
    chart.hover(position={"x": x + 9, "y": y + 2})
    assert "fastv, keep 0.1" in tip.inner_text()
    assert said.text_content() == ""
    chart.hover(position={"x": x + 9, "y": 20})
    assert not tip.is_visible()
    chart.focus()
    for key, words in (
        ("ArrowRight", "fastv, keep 0.1"),
        ("ArrowRight", "fastv, keep 0.4"),
        ("ArrowDown", "published: fastv"),
        ("ArrowUp", "fastv, keep 0.1"),
        ("End", "a paper, table 3"),
        ("Home", "fastv, keep 0.1"),
    ):
        desktop.tab.keyboard.press(key)
        assert words in (said.text_content() or ""), key
        assert words in tip.inner_text(), key
    desktop.tab.keyboard.press("Escape")
    assert not tip.is_visible()
