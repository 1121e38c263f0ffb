"""Budgets in all their forms: read, labelled, stored and counted exactly; what is no budget is refused by name."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy_session import ROOT

from effivlm.budget import names_one
from effivlm.records import Budget, Cell, dump

WORDS = (
    st.integers(1, 10**8).map("{}tok".format)
    | st.decimals("0.0001", "0.9999", places=4).filter(bool).map("sparsity{}".format)
    | st.tuples(st.integers(1, 98), st.integers(1, 98)).filter(lambda p: p[0] < p[1]).map(lambda p: f"{p[0]}:{p[1]}")
    | st.tuples(st.integers(2, 8), st.integers(16, 4096)).map(lambda pair: f"w{pair[0]}g{pair[1]}")
    | st.integers(2, 8).map("w{}".format)
    | st.sampled_from(["fp8", "int8"])
    | st.decimals("0.001", "1", places=3).map(str)
)
KEEP = json.loads((ROOT / "effivlm/report/schema/outcome.schema.json").read_text())["$defs"]["keep"]


@pytest.mark.parametrize(
    ("text", "kind", "keep", "numbers", "named"),
    [
        ("0.1", "fraction", Fraction(1, 10), (), "keep0.10"),
        ("1", "fraction", Fraction(1), (), "keep1.00"),
        ("0.015", "fraction", Fraction(3, 200), (), "keep0.015"),
        ("064tok", "tokens", None, (64,), "keep64tok"),
        ("sparsity0.5", "sparsity", Fraction(1, 2), (), "sparsity0.50"),
        ("sparsity.2", "sparsity", Fraction(4, 5), (), "sparsity0.20"),
        ("2:4", "n:m", Fraction(1, 2), (2, 4), "2:4"),
        ("1:4", "n:m", Fraction(1, 4), (1, 4), "1:4"),
        ("w4g128", "bits", Fraction(133, 512), (4, 128), "w4g128"),  # 4 + (16 + 4) / 128 = 4.15625 bits of 16
        ("w3g128", "bits", Fraction(403, 2048), (3, 128), "w3g128"),
        ("w2g32", "bits", Fraction(41, 256), (2, 32), "w2g32"),
        ("w8", "bits", Fraction(1, 2), (8,), "w8"),
        ("fp8", "bits", Fraction(1, 2), (8,), "fp8"),
        ("int8", "bits", Fraction(1, 2), (8,), "int8"),
    ],
)
def test_every_form_is_read_and_named(
    text: str, kind: str, keep: Fraction | None, numbers: tuple[int, ...], named: str
) -> None:
    budget = Budget.parse(text)
    assert (budget.kind, budget.share, budget.numbers, budget.named) == (kind, keep, numbers, named)
    assert Cell("m", "fastv", "paper", budget.label, "t").id == f"m-fastv-{named}-t"
    assert names_one(f"bench_tests/test_quality.py::test_quality[m-fastv-{named}-t]")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *[(text, f"budget {text!r} is not a number") for text in ("0tok", "tok", "-3tok", "1.5tok", "64 tok", "64tokens")],
        *[(text, f"{text[8:]!r} is no fraction of zeros") for text in ("sparsity0", "sparsity1", "sparsity50%")],
        *[(text, "weights must stay, e.g. 2:4") for text in ("4:4", "4:2")],
        *[(text, f"budget {text!r} is not a number") for text in ("0:4", "2:4:8", "w1", "w9g128", "w4g0", "w4 g128", "fp4")],
        ("w8g2", "takes more than 16 bits"),
        ("1.5", "budget 1.5 is not a fraction that stays"),
        ("1e-99999999", "is not a number"),
    ],
)  # fmt: skip
def test_what_is_no_budget_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Budget.parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@given(WORDS)
def test_a_budget_reads_back_from_its_label_and_from_json(word: str) -> None:
    budget = Budget.parse(word)
    assert Budget.parse(budget.label) == budget
    cell = Cell("m", "fastv", "paper", budget.label, "t")
    line = json.loads(dump(cell.to_json()))
    assert Cell.from_json(line) == cell
    jsonschema.validate(line["keep"], KEEP)
    assert isinstance(line["keep"], float) == (budget.kind == "fraction")


@given(WORDS, st.integers(1, 10**6))
def test_what_stays_lies_within_a_half_of_what_is_asked_and_within_what_there_is(word: str, total: int) -> None:
    budget = Budget.parse(word)
    assert 1 <= budget.of(total) <= total
    assert abs(budget.of(total) - max(Fraction(1), budget.exact(total))) <= Fraction(1, 2)
    if budget.kind == "tokens":
        assert budget.of(total) == budget.exact(total) == min(total, int(word.removesuffix("tok")))


def test_a_number_of_tokens_is_no_fraction_and_never_the_identity() -> None:
    budget = Budget.parse("64tok")
    assert not budget.whole
    assert Budget.parse("1").whole
    for look in (lambda: budget.keep, lambda: float(budget)):
        with pytest.raises(ValueError, match="budget 64tok is no fraction"):
            look()


def test_kinds_are_sorted_apart_and_each_by_how_much_stays() -> None:
    words = ["0.10", "0.40", "64tok", "192tok", "sparsity0.60", "sparsity0.50", "1:4", "2:4", "w2g32", "w4g128", "fp8"]
    assert sorted(words, key=lambda word: Budget.parse(word).rank) == words


def test_ids_of_ordinary_tests_name_no_budget() -> None:
    for name in (
        "test_a.py::test_b[2:4]",
        "test_a.py::test_b[x-w8]",
        "tests/test_keep.py::test_keep[1]",
        "a[b-keeper]",
    ):
        assert not names_one(name)


def test_committed_baselines_still_read(tmp_path: Path) -> None:
    from effivlm.report.baseline import load

    side = load(ROOT / "reports/baselines/cpu_micro.json")
    assert {type(one.data["keep"]) for one in side.cells.values()} <= {float, int}
    assert all(Budget.parse(one.data["keep"]).named in one.id for one in side.cells.values())
