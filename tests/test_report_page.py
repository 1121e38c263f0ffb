"""The page, the terminal table and the files that a run leaves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effivlm.records import Outcome, dump
from effivlm.report import document, page, payload, samples
from effivlm.report.terminal import table
from effivlm.report.write import write
from tests.outcomes import END, HEADER, cell, lines, missing, quality, small_run, store

BREAKOUT = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


class Reader(HTMLParser):
    """Collects elements, and the text of script elements by their id."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.text: list[str] = []
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._script = dict(attrs).get("id") or f"script {len(self.scripts)}"
            self.scripts[self._script] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text.append(data)
        else:
            self.scripts[self._script] += data


def parsed(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def rendered(outcomes: list[Outcome], header: dict[str, Any] | None = None, end: dict[str, Any] | None = END) -> Reader:
    found = document.build(header or HEADER, outcomes, end)
    return parsed(page.render(found, samples.changed(outcomes, {}), "run"))


def data_of(reader: Reader) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reader.scripts["data"])
    return found


def with_answer(text: str) -> list[Outcome]:
    changed = quality(cell("fastv", "0.10"), [0.0, 1.0], [False, True])
    answers = (replace(changed.answers[0], text=text), changed.answers[1])
    return [quality(cell(), [1.0, 1.0]), replace(changed, answers=answers)]


@pytest.mark.parametrize(
    "text", [BREAKOUT, "</script ", "<!--<script ", "a\0b", "\u202egnorw", "<!--data-->", "]]>", "&lt;", "\u2028"]
)
def test_an_answer_reaches_the_page_as_text_and_changes_no_element(text: str) -> None:
    plain, hostile = rendered(with_answer("x")), rendered(with_answer(text))
    assert hostile.elements == plain.elements
    assert [one["compressed"]["text"] for one in data_of(hostile)["changed"]["shown"]] == [text]
    assert not set("<>&") & set(hostile.scripts["data"])


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=60))
def test_text_from_outside_never_adds_an_element(text: str) -> None:
    plain, hostile = (
        rendered(
            [*with_answer(one), replace(missing(cell("h2o", "0.10")), reason=one)],
            {**HEADER, "command": f"c{one}", "notes": [one]},
        )
        for one in ("x", text)
    )
    assert [tag for tag, _ in hostile.elements] == [tag for tag, _ in plain.elements]


def test_names_and_facts_are_escaped_in_the_html() -> None:
    header = {**HEADER, "device": BREAKOUT, "versions": {BREAKOUT: BREAKOUT}}
    found = document.build(header, with_answer("x"), END)
    reader = parsed(page.render(found, samples.changed([], {}), BREAKOUT))
    assert BREAKOUT in "".join(reader.text)
    assert "img" not in {tag for tag, _ in reader.elements}


def test_a_page_asks_nothing_of_a_network() -> None:
    reader = rendered(small_run())
    assert not [attributes for _, attributes in reader.elements if attributes.get("src")]
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in reader.elements)
    policy = [attributes["content"] for tag, attributes in reader.elements if "http-equiv" in attributes]
    assert policy
    assert "default-src 'none'" in str(policy[0])
    assert not re.search(
        r"@import|url\(|fetch\(|XMLHttpRequest|innerHTML", "".join([*reader.scripts.values(), *reader.text])
    )


def test_a_long_answer_is_cut_and_says_so() -> None:
    (one,) = data_of(rendered(with_answer("x" * 1_000_000)))["changed"]["shown"]
    assert len(one["compressed"]["text"]) < 1000
    assert "1,000,000 characters" in one["compressed"]["text"]


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    text = lines(with_answer("HALF")).replace("HALF", "\\ud800")
    (tmp_path / "outcomes.jsonl").write_text(text, encoding="utf-8")
    write(tmp_path)
    assert "fastv" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_run_says_so_loudly_and_a_finished_one_does_not() -> None:
    for end, expected in ((END, False), (None, True), ({"kind": "end", "status": "interrupted"}, True)):
        reader = rendered(small_run(), end=end)
        assert ("Run interrupted" in "".join(reader.text)) is expected
        assert any(attributes.get("role") == "alert" for _, attributes in reader.elements) is expected
        assert table(document.build(HEADER, small_run(), end)).startswith("RUN INTERRUPTED") is expected


def test_the_viewer_holds_changed_answers_only_the_largest_changes_first_and_takes_turns() -> None:
    outcomes = [quality(cell(), [1.0, 0.5, 1.0, 1.0])]
    flags = [True, False, False, False]
    outcomes += [quality(cell(m, "0.10"), [1.0, 0.4, 0.0, None], flags) for m in ("fastv", "snapkv")]
    found = samples.changed(outcomes, {}, limit=3)
    assert [(one["method"], one["sample"]) for one in found.shown] == [
        ("fastv", "s2"),
        ("snapkv", "s2"),
        ("fastv", "s1"),
    ]
    assert found.total == 4


def test_questions_come_from_sample_lines_and_pictures_only_as_data(tmp_path: Path) -> None:
    path = store(tmp_path, with_answer("x"))
    facts = {"kind": "sample", "task": "docvqa_micro", "id": "s0", "prompt": "What?", "references": ["a"]}
    for thumbnail, expected in (
        ("https://example.org/x.png", None),
        ("data:image/png;base64,AA", "data:image/png;base64,AA"),
    ):
        path.write_text(lines(with_answer("x")) + dump({**facts, "thumbnail": thumbnail}) + "\n", encoding="utf-8")
        (one,) = samples.changed(with_answer("x"), samples.facts(path)).shown
        assert (one["prompt"], one["references"], one["thumbnail"]) == ("What?", ["a"], expected)


def test_a_picture_stands_once_in_the_page_however_often_it_is_shown_and_not_past_the_limit() -> None:
    shown = [{"thumbnail": picture} for picture in ("data:image/a", "data:image/a", None, "x" * payload.PICTURES)]
    found = payload.payload(document.build(HEADER, [], END), samples.Changed(shown, 4))
    assert found["pictures"] == ["data:image/a"]
    assert [one["thumbnail"] for one in found["changed"]["shown"]] == [0, 0, None, None]


def test_a_failed_write_leaves_the_old_report_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store(tmp_path, small_run())
    write(tmp_path)
    before = (tmp_path / "report.html").read_bytes()

    def refuse(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr("effivlm.report.write.os.replace", refuse)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"outcomes.jsonl", "report.json", "report.html"}


def test_the_page_of_many_cells_stays_small() -> None:
    outcomes = [
        quality(cell(f"method_{m}", f"0.{k:02}", f"task_{t}"), [1.0, 0.0], [True, False])
        for m in range(10)
        for k in range(10, 20)
        for t in range(10)
    ]
    found = document.build(HEADER, outcomes, END)
    assert len(page.render(found, samples.changed(outcomes, {})).encode()) < 1_000_000


def test_the_table_fits_100_columns_and_shows_missing_values_as_a_dash() -> None:
    long = replace(quality(cell("pyramid_drop_with_a_long_name", "0.015", preset="effivlm"), [0.3] * 9), scale=2800.0)
    text = table(document.build(HEADER, [*small_run(), long, missing(cell("h2o", "0.10"), reason="x" * 300)], END))
    assert max(map(len, text.splitlines())) <= 100
    row, _ = [line for line in text.splitlines() if line.startswith("pyramid_drop")]
    assert re.search(r" -\s+-\s+-\s+0\.015/0\.015$", row)


def test_the_table_counts_reasons_and_lets_no_control_character_through() -> None:
    failures = [missing(cell(f"m{place}", "0.10"), reason="boom \x1b[31m\nsecond line") for place in range(3)]
    text = table(document.build(HEADER, [*small_run(), *failures], END))
    assert "10 measured, 1 skipped, 4 failed, 0 broken samples" in text
    assert "  failed 3 x: boom ?[31m" in text
    assert "\x1b" not in text


def test_the_table_of_one_model_and_several_tasks_ends_with_op() -> None:
    text = table(document.build(HEADER, small_run(), END))
    assert re.search(r"fastv +0\.4 +0\.857 \[0\.\d+, 1\.\d+\] +2 +0\.750 +2\.00 +1\.33", text)
    one = [outcome for outcome in small_run() if outcome.cell.task == "docvqa_micro"]
    assert "OP over" not in table(document.build(HEADER, one, END))
