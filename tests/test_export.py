"""Tables as CSV, Markdown and LaTeX: complete, escaped, the same bytes each time."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effivlm.report import grids
from effivlm.report.document import build
from effivlm.report.export import FORMATS, TABLES, export, tables, to_csv, to_latex, to_markdown
from effivlm.report.grids import Grid
from tests.outcomes import END, HEADER, achieved, cell, missing, quality, small_run

DOCUMENT = build(HEADER, small_run(), END)
NAMES = {"op", "og", "ol", "oe", "pareto", "cells", "refused", "skipped", "failed"}


def test_every_table_is_written_in_every_format_and_twice_alike(tmp_path: Path) -> None:
    first = export(DOCUMENT, tmp_path / "a", list(FORMATS))
    second = export(build(HEADER, small_run(), END), tmp_path / "b", list(FORMATS))
    assert {path.name for path in first} == {f"{name}.{suffix}" for name in NAMES for suffix in ("csv", "md", "tex")}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_numbers_of_the_document_stand_under_names_with_their_units() -> None:
    found = {
        name: [dict(zip(rows[0], row, strict=True)) for row in rows[1:]] for name, rows in tables(DOCUMENT).items()
    }
    assert [len(found[name]) for name in ("cells", "skipped", "failed")] == [10, 1, 1]
    for row, source in zip(found["cells"], DOCUMENT["cells"], strict=True):
        assert row["score_fraction"] == source["score"]
        assert row["score_fraction_high"] == source["interval"][1]
        assert row["median_decode_ms_per_token"] == source["costs"]["decode_ms_per_token"]["median"]
    for name, unit in (("op", "op_ratio"), ("og", "og_percent"), ("ol", "ol_share"), ("oe", "speedup_ratio")):
        assert [row[unit] for row in found[name]] == [row["value"] for row in DOCUMENT["summary"][name]]
    assert found["failed"][0]["reason"] == "RuntimeError: out of memory"


def test_every_column_of_a_full_document_leads_to_something() -> None:
    """A key of the document that was renamed would leave its column empty everywhere."""
    controls = [
        quality(cell(name, "0.10", task), [1.0, 0.0] * 4)
        for name in ("random_visual", "random_kv")
        for task in ("docvqa_micro", "chartqa_micro")
    ]
    kept = replace(missing(cell("h2o", "0.10"), reason="kept 0.4 where 0.1 was asked"), achieved=achieved(0.4))
    full = tables(build(HEADER, [*small_run(), *controls, kept, replace(kept, part="ttft", status="unsupported")], END))
    empty = {
        f"{name}.{column}"
        for name in ("op", "og", "oe", "pareto", "skipped", "failed")
        for column, *values in zip(*full[name], strict=True)
        if all(value is None for value in values)
    }
    assert empty <= {
        "pareto.batch_speedup_ratio",
        *(f"og.og_percent_{end}" for end in ("low", "high")),
    }  # no batch in it


@given(st.lists(st.lists(st.text(max_size=12), min_size=2, max_size=2), min_size=1, max_size=4))
def test_any_text_is_one_field_of_a_csv_line_and_no_formula(texts: list[list[str]]) -> None:
    back = list(csv.reader(io.StringIO(to_csv([["a", "b"], *texts]))))
    assert len(back) == len(texts) + 1
    assert all(len(row) == 2 and not any(field.startswith(("=", "+", "-", "@")) for field in row) for row in back)


def test_negative_numbers_stay_numbers_in_csv() -> None:
    assert to_csv([["a"], [-0.25]]) == "a\r\n-0.25\r\n"


@given(st.text(max_size=20))
def test_any_text_is_one_cell_of_a_markdown_table(text: str) -> None:
    table = to_markdown([["a", "b"], [text, 1.0]]).splitlines()
    assert len(table) == 3
    bare = table[2].replace("\\\\", "").replace("\\|", "")
    assert bare.count("|") == 3
    assert "<" not in table[2]


def test_latex_holds_no_live_command_of_a_text() -> None:
    hostile = r"\input{/etc/passwd} 50% & $x_1$ #{~^} [3pt]"
    line = to_latex([["name"], [hostile]]).splitlines()[4]
    safe = r"\textbackslash{}input\{/etc/passwd\} 50\% \& \$x\_1\$ \#\{\textasciitilde{}\textasciicircum{}\} {[}3pt{]}"
    assert line == safe + r" \\"


def test_latex_aligns_numbers_right_and_has_one_row_a_cell() -> None:
    text = to_latex(tables(DOCUMENT)["op"])
    assert text.startswith("\\begin{tabular}{llllrlrrrrrrlllll}\n")
    assert text.count(r"\\") == len(DOCUMENT["summary"]["op"]) + 1
    assert text.endswith("\\end{tabular}\n")


def test_an_unknown_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'xlsx' is no format of tables; choose from: csv, md, latex"):
        export(DOCUMENT, tmp_path / "tables", ["csv", "xlsx"])
    assert not (tmp_path / "tables").exists()


def test_there_is_a_table_for_each_part_of_the_summary() -> None:
    assert set(DOCUMENT["summary"]) <= set(TABLES)


def test_cells_stand_in_latex_as_papers_print_them(tmp_path: Path) -> None:
    outcomes = [quality(cell("dense", "1.00", task), [1.0] * 8, scale=100.0) for task in ("a_b", "c")]
    for method, keep, right in (
        ("fastv", "0.10", 4),
        ("random_visual", "0.10", 6),
        ("fastv", "0.40", 7),
        ("snapkv", "0.10", 8),
    ):
        outcomes += [
            quality(cell(method, keep, task), [1.0] * right + [0.0] * (8 - right))
            for task in ("a_b", "c")[: 1 + (right > 4)]
        ]
    export(build(HEADER, outcomes, END), tmp_path, ["latex"])
    text = (tmp_path / "cells.tex").read_text()
    lines = text.splitlines()
    assert lines[:4] == [
        r"\begin{tabular}{lrrr}",
        r"\hline",
        r"\multicolumn{4}{c}{\textbf{micro\_llava}} \\",
        r"\hline",
    ]
    assert lines[4:7] == [r"method & a\_b & c & OP \\", r"\hline", r"dense & 100.0 & 100.0 & 1.000 \\"]
    assert headings(text)[1:] == [r"10 \% of prompt entries", r"40 \% of visual tokens", r"10 \% of visual tokens"]
    assert columns(text) == [4]
    assert r"fastv & 50.0 & -- & 0.500 \\" in lines, "a task that it lacks"
    assert r"random\_visual & \textbf{75.0} & 75.0 & \textbf{0.750} \\" in lines, "the best of its block, whoever it is"
    assert r"snapkv & 100.0 & 100.0 & 1.000 \\" in lines, "alone in its block, so the best of nothing"


def headings(text: str) -> list[str]:
    """What stands over all columns of a tabular, line by line."""
    return [line.partition("}{c}{")[2].removesuffix(r"} \\") for line in text.splitlines() if "multicolumn" in line]


def columns(text: str) -> list[int]:
    """Columns of every tabular, read as LaTeX reads it: braces and environments close, each row ends and fills its columns."""
    found = []
    for table in text.split("\\begin{tabular}")[1:]:
        body, end, rest = table.partition("\\end{tabular}")
        assert end
        assert not rest.strip()
        letters, *rows = body.strip().splitlines()
        wide = len(letters.strip("{}"))
        for row in (row for row in rows if row != r"\hline"):
            bare = re.sub(r"\\[\\&%$#_{}]", "", row.removesuffix(r" \\"))  # what is left is syntax
            assert row.endswith(r" \\")
            assert bare.count("{") == bare.count("}")
            spans = re.findall(r"\\multicolumn\{(\d+)\}", row)
            assert sum(map(int, spans)) + bare.count("&") + (not spans) == wide, row
        found.append(wide)
    return found


def test_blocks_of_every_kind_of_budget_are_headed_as_papers_say_them(tmp_path: Path) -> None:
    said = {
        ("fastv", "64tok"): "64 visual tokens",
        ("snapkv", "64tok"): "64 prompt entries a layer",
        ("fastv", "0.015"): r"1.5 \% of visual tokens",
        ("wanda", "2:4"): "2:4",
        ("wanda", "sparsity0.60"): r"60 \% sparsity",
        ("gptq", "w4g128"): "W4 g128",
        ("rtn", "w8"): "W8",
        ("fp8", "fp8"): "FP8",
    }
    of = {"wanda": "weights", "gptq": "weight bits", "rtn": "weight bits", "fp8": "weight bits"}
    outcomes = [quality(cell(task=task, model=model), [1.0] * 4) for task in "ab" for model in ("one", "two")]
    for (method, keep), model in product(said, ("one", "two")):
        kept = {"achieved": achieved(0.5, of=of[method])} if method in of else {}
        outcomes.append(quality(cell(method, keep, "a", model), [1.0, 0.0] * 2, **kept))
    export(build(HEADER, outcomes, END), tmp_path, ["latex"])
    text = (tmp_path / "cells.tex").read_text()
    assert columns(text) == [4, 4]
    names, found = [r"\textbf{one}", r"\textbf{two}"], headings(text)
    assert [heading for heading in found if heading in names] == names
    assert sorted(found) == sorted([*names, *said.values(), *said.values()])


@given(st.text(max_size=20))
def test_a_tabular_stays_one_whatever_a_name_holds(name: str) -> None:
    grid = Grid(name, (name, "OP"), (1.0, None), {name: {name: (0.5, 1.0), "other": (1.0, None)}}, (1, 3))
    assert columns(grids.to_latex(grid, lambda text: to_latex([[text]]).splitlines()[2].removesuffix(r" \\"))) == [3]
