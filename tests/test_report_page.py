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
from effivlm.report import document, page, payload, samples, viewer
from effivlm.report.terminal import table
from effivlm.report.write import write
from tests.outcomes import END, HEADER, achieved, cell, lines, missing, quality, small_run, store, stored_beside

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
    return parsed(page.render(found, samples.changed(outcomes, samples.Facts()), "run"))


def viewer_of(reader: Reader) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(reader.scripts["samples"])
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
    assert [one["compressed"]["text"] for one in viewer_of(hostile)["shown"] if not one["same"]] == [text]
    assert not set("<>&") & set(hostile.scripts["data"] + hostile.scripts["samples"])


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
    reader = parsed(page.render(found, samples.changed([], samples.Facts()), BREAKOUT))
    assert BREAKOUT in "".join(reader.text)
    assert "img" not in {tag for tag, _ in reader.elements}


def test_a_long_command_is_cut_at_a_word_in_the_heading_and_stands_whole_among_the_facts() -> None:
    command = f"pytest bench_tests {' '.join(f'--option{number}' for number in range(60))} --last"
    text = "".join(rendered(small_run(), {**HEADER, "command": command}).text)
    (shown,) = [line for line in text.partition("Run finished")[0].splitlines() if "pytest bench_tests" in line]
    words = shown.split("pytest", 1)[1].partition("…")[0].split()
    assert words == command.split()[1 : len(words) + 1]
    assert 20 < len(words) < 60
    assert command in text


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
    one = viewer_of(rendered(with_answer("x" * 1_000_000)))["shown"][0]
    assert len(one["compressed"]["text"]) < 1000
    assert "1,000,000 characters" in one["compressed"]["text"]


def test_half_a_surrogate_pair_does_not_stop_the_report(tmp_path: Path) -> None:
    text = lines(with_answer("HALF")).replace("HALF", "\\ud800")
    (tmp_path / "outcomes.jsonl").write_text(text, encoding="utf-8")
    write(tmp_path)
    assert "fastv" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_run_says_so_loudly_and_a_finished_one_does_not() -> None:
    good = [one for one in small_run() if one.status != "failed"]
    for end, expected in ((END, False), (None, True), ({"kind": "end", "status": "interrupted"}, True)):
        reader = rendered(good, end=end)
        assert ("Run interrupted" in "".join(reader.text)) is expected
        assert any(attributes.get("role") == "alert" for _, attributes in reader.elements) is expected
        assert table(document.build(HEADER, good, end)).startswith("RUN INTERRUPTED") is expected


def test_a_finished_run_with_a_failed_cell_or_a_broken_sample_is_not_green() -> None:
    good = [one for one in small_run() if one.status != "failed"]
    broken = quality(cell("h2o", "0.10"), [1.0, None])
    for outcomes, words, green in (
        (good, "✓ Run finished", True),
        ([*good, broken], "⚠ Run finished; 1 sample broke and is left out", False),
        (small_run(), "✗ Run finished, but 1 case failed", False),
    ):
        reader = rendered(outcomes)
        assert words in "".join(reader.text)
        assert any(str(attributes.get("class")) == "status good" for _, attributes in reader.elements) is green
    assert table(document.build(HEADER, small_run(), END)).startswith("FINISHED WITH 1 FAILED CASE\n")


def test_what_a_failed_cell_had_kept_stands_in_the_budget_audit() -> None:
    spent = replace(missing(cell("fastv", "0.10", "gqa_micro"), reason="kept 0.4"), achieved=achieved(0.4))
    found = payload.payload(document.build(HEADER, [*small_run(), spent], END))
    (one,) = found["missed"]
    assert (found["tasks"][one["task"]], one["asked_keep"], one["keep"], one["kept"]) == ("gqa_micro", 0.4, 0.4, 400)


def test_the_viewer_holds_changed_answers_only_the_largest_changes_first_and_takes_turns() -> None:
    outcomes = [quality(cell(), [1.0, 0.5, 1.0, 1.0])]
    flags = [True, False, False, False]
    outcomes += [quality(cell(m, "0.10"), [1.0, 0.4, 0.0, None], flags) for m in ("fastv", "snapkv")]
    found = samples.changed(outcomes, samples.Facts(), limit=3, unchanged=0)
    assert [(one["method"], one["sample"]) for one in found.shown] == [
        ("fastv", "s2"),
        ("snapkv", "s2"),
        ("fastv", "s1"),
    ]
    assert found.total == 4


def test_unchanged_answers_come_after_all_changed_ones_and_are_not_counted_as_changed() -> None:
    outcomes = [
        quality(cell(), [1.0] * 4),
        quality(cell("fastv", "0.10"), [1.0, 1.0, 0.0, 1.0], [True, False, False, True]),
    ]
    found = samples.changed(outcomes, samples.Facts(), unchanged=1)
    assert [(one["sample"], one["same"]) for one in found.shown] == [("s2", False), ("s1", False), ("s0", True)]
    assert found.total == 2


@pytest.mark.parametrize(
    ("dense", "compressed", "same", "flip"),
    [
        (1.0, 0.4, False, "right_to_wrong"),
        (0.4, 0.5, False, "wrong_to_right"),
        (0.5, 1.0, False, "both_right"),
        (0.4, 0.0, True, "both_wrong_same"),
        (0.0, 0.4, False, "both_wrong_different"),
    ],
)
def test_a_flip_counts_half_a_point_as_right(dense: float, compressed: float, same: bool, flip: str) -> None:
    outcomes = [quality(cell(), [dense]), quality(cell("fastv", "0.10"), [compressed], [same])]
    (one,) = samples.changed(outcomes, samples.Facts()).shown
    assert one["flip"] == flip


def test_questions_come_from_sample_lines_and_pictures_only_as_data(tmp_path: Path) -> None:
    path = store(tmp_path, with_answer("x"))
    facts = {"kind": "sample", "task": "docvqa_micro", "id": "s0", "prompt": "What?", "references": ["a"]}
    inside, outside = "data:image/png;base64,AA", "https://example.org/x.png"
    for stored, expected in (
        ({"thumbnail": outside}, []),
        ({"thumbnail": inside}, [inside]),
        (
            {"thumbnail": inside, "pictures": ["data:image/b", outside, "data:image/c"]},
            ["data:image/b", "data:image/c"],
        ),
    ):
        path.write_text(lines(with_answer("x")) + dump({**facts, **stored}) + "\n", encoding="utf-8")
        one = samples.changed(with_answer("x"), stored_beside(path)).shown[0]
        assert (one["prompt"], one["references"], one["pictures"]) == ("What?", ["a"], expected)


def test_kept_tokens_reach_the_sample_of_their_own_cell_only(tmp_path: Path) -> None:
    path = store(tmp_path, with_answer("x"))
    for which, expected in ((cell("fastv", "0.10"), {"0-3": "8A=="}), (cell("fastv", "0.20"), None)):
        kept = {"kind": "kept", "task": "docvqa_micro", "sample": "s0", "cell": which.to_json()}
        line = dump({**kept, "grid": [[1, 2, 2]], "shows": [[0, 1]], "layers": {"0-3": "8A=="}})
        path.write_text(lines(with_answer("x")) + line + "\n", encoding="utf-8")
        one = samples.changed(with_answer("x"), stored_beside(path)).shown[0]
        assert (one["kept"] and one["kept"]["layers"]) == expected


def sample(*pictures: str, **layers: str) -> dict[str, Any]:
    return {
        "text": "t",
        "pictures": list(pictures),
        "kept": {"grid": [[1, 1, 8]], "layers": layers} if layers else None,
    }


def test_a_picture_stands_once_in_the_page_however_often_it_is_shown_and_not_past_the_limit() -> None:
    shown = [sample("data:a", "data:b"), sample("data:a"), sample(), sample("x" * viewer.IMAGES), sample("data:c")]
    found = viewer.viewer(samples.Changed(shown, 5), room=viewer.IMAGES)
    assert found["pictures"] == ["data:a", "data:b", "data:c"]
    assert [one["pictures"] for one in found["shown"]] == [[0, 1], [0], [], [], [2]]
    assert found["left_out"] == 1


def test_a_picture_that_the_page_holds_already_costs_no_room() -> None:
    large = "x" * (viewer.IMAGES // 2 + 100)
    found = viewer.viewer(samples.Changed([sample(large), sample(large)], 2), room=viewer.IMAGES)
    assert ([one["pictures"] for one in found["shown"]], found["left_out"]) == ([[0], [0]], 0)


def test_equal_masks_of_kept_tokens_stand_once() -> None:
    found = viewer.viewer(samples.Changed([sample(a="AA==", b="/w=="), sample(c="AA==")], 2))
    assert found["masks"] == ["AA==", "/w=="]
    assert [one["kept"]["layers"] for one in found["shown"]] == [[["a", 0], ["b", 1]], [["c", 0]]]


def test_without_room_the_viewer_holds_no_samples_but_still_their_number() -> None:
    found = viewer.viewer(samples.Changed([sample("data:a")], 7), room=3)
    assert (found["shown"], found["pictures"], found["total"]) == ([], [], 7)


def test_a_page_with_more_samples_than_fit_stays_below_its_limit() -> None:
    shown = [
        {**one, "pictures": [f"data:image/{place}" + "A" * 60_000], "kept": None}
        for place in range(700)
        for one in samples.changed(with_answer("\U0001f600<" * 300), samples.Facts(), unchanged=0).shown
    ]
    text = page.render(document.build(HEADER, small_run(), END), samples.Changed(shown, 700))
    assert len(text.encode()) <= page.LIMIT
    assert 0 < text.count("data:image/") < 700


def test_numbers_of_the_document_reach_the_page_by_column_and_equal_ones_once() -> None:
    found = document.build(HEADER, small_run(), END)
    data = payload.payload(found)
    assert data["cells"]["length"] == len(found["cells"])
    ratios = data["cells"]["columns"]["ratio"]
    assert ratios == pytest.approx([one["ratio"] for one in found["cells"]], rel=1e-5)
    assert data["cells"]["columns"]["n"] == {"all": 8}


def test_noise_flips_floors_refusals_and_published_values_reach_the_page_when_a_document_has_them() -> None:
    found = document.build(HEADER, small_run(), END)
    dense, other = found["cells"][0], found["cells"][1]
    dense["noise"] = {
        "same": 0.9,
        "exact": 0.8,
        "soft": 0.95,
        "prefix": 0.7,
        "forced": None,
        "n": 8,
        "change": "another kernel",
    }
    other["loyalty"] = {**other["loyalty"], "flips": {"right_to_wrong": 3, "wrong_to_right": 1}}
    other["costs"]["ttft_floor_s"] = {"rounds": [0.02], "median": 0.02, "interval": None, "n": 1}
    found["summary"]["refused"] = [{"table": "op", "reason": "two kinds", "select": "one"}]
    found["published"] = [{"source": "a paper", "value": 0.5}]
    data = payload.payload(found)
    columns = data["cells"]["columns"]
    assert data["noises"][columns["noise"][0]] == dense["noise"]
    assert (columns["flips"][1], columns["tfloor"][1], columns["tfloor"][0]) == ([3, 1, 0, 0, 0], 0.02, None)
    assert (data["refused"], data["published"]) == (found["summary"]["refused"], found["published"])


def test_layers_that_kept_alike_are_one_number_and_others_all_of_theirs() -> None:
    uneven = achieved(0.1)
    outcomes = [
        quality(cell(), [1.0]),
        quality(cell("fastv", "0.10"), [1.0], achieved=replace(uneven, per_layer=(10.0, 10.0, 10.0))),
        quality(cell("pyramid_kv", "0.10"), [1.0], achieved=replace(uneven, per_layer=(20.0, 10.04))),
    ]
    data = payload.payload(document.build(HEADER, outcomes, END))
    assert [data["layers"][place] for place in data["cells"]["columns"]["layers"]][1:] == [
        [10.0, 3],
        [None, 20.0, 10.0],
    ]


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
    empty = page.render(document.build(HEADER, [], END), samples.Changed([], 0))
    text = page.render(found, samples.changed(outcomes, samples.Facts()))
    assert len(text.encode()) - len(empty.encode()) < 700_000
