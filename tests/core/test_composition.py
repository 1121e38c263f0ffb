"""Several methods in one case: what every one of them keeps, and that sharing changes nothing."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch
from forms import sample
from jsonschema import Draft202012Validator
from oracle import everything, logits
from outcomes import END, HEADER
from toy_session import ROOT

from effivlm import registry
from effivlm.compression.composed import Composed
from effivlm.decoding.eager import Start, forced
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Cell, KeptBy, Outcome, Settings, dump
from effivlm.report.document import build
from effivlm.report.payload import payload
from effivlm.report.terminal import table
from effivlm.run import steps
from effivlm.run.group import cell_fingerprint, method_of, run_group
from effivlm.run.steps import Step, asked, stored
from effivlm.run.tree import Tree

TOKENS = (40, 77, 40, 12, 90)
SAMPLES = 5


def cell(method: str, keep: str = "0.30") -> Cell:
    return Cell("twin", *asked(method), keep, "toy")


def test_every_method_says_its_seam_without_being_imported_or_when_asked() -> None:
    for name in registry.token_methods():
        kind = registry.load("methods", name)
        if steps.budgeted(name):
            for preset, values in kind.presets.items():  # type: ignore[attr-defined]
                ours = steps._seams(Step(name, preset))
                assert ours == [part.seam for part in kind(**values).seam_parts()], name
        else:
            assert steps._seams(Step(name, "paper")) == []


def test_budgets_of_a_composition_are_its_own_or_the_cases() -> None:
    made = method_of(cell("random_visual+fastv@effivlm:0.40+snapkv@effivlm", "0.10"), seed=3)
    assert isinstance(made, Composed)
    assert [float(one.keep) for one in made.methods] == [0.1, 0.4, 0.1]
    assert [one.seed for one in made.methods] == [3, 3, 3]
    assert made.methods[1].query_rows == "all"  # type: ignore[attr-defined]
    assert made.methods[2].window_share == 0.1  # type: ignore[attr-defined]
    assert method_of(cell("fastv", "0.10")) == registry.load("methods", "fastv")(keep=Budget.parse("0.10"))


@pytest.mark.usefixtures("toy_task")
def test_a_fingerprint_names_all_methods_and_their_budgets(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["fastv+snapkv", "fastv:0.40+snapkv", "fastv:0.41+snapkv", "fastv@effivlm:0.40+snapkv", "fastv", "snapkv"]
    monkeypatch.setattr(
        registry, "declared", lambda kind, name, real=registry.declared: {} if kind == "tasks" else real(kind, name)
    )
    found = [cell_fingerprint(cell(name), model.source, Settings()) for name in names]
    assert len(set(found)) == len(names)


COMPOSED = (
    "fastv:0.40+snapkv",
    "fastv+snapkv",
    "random_visual:0.50+snapkv",
    "downsample@pooled+snapkv",
    "random_visual:0.60+fastv+random_kv:0.50",
    "dart+random_kv",
    "pyramiddrop@final:0.20+snapkv",
    "sparsevlm:0.60+snapkv",
    "random_visual:0.60+fastv",
)


@pytest.fixture
def outcomes(model: Adapter, toy_task: object) -> dict[str, Outcome]:
    cells = [cell(name, "0.30") for name in (*COMPOSED, "fastv", "snapkv")]
    return {one.cell.id: one for one in run_group(cells, model, Settings(limit=SAMPLES))}


def test_shared_answers_of_compositions_are_those_alone(model: Adapter, outcomes: dict[str, Outcome]) -> None:
    cells = [cell(name, "0.30") for name in (*COMPOSED, "fastv", "snapkv")]
    alone = {one.cell.id: one for one in run_group(cells, model, Settings(limit=SAMPLES, share=False))}
    assert outcomes == alone
    assert {one.status for one in outcomes.values()} == {"ok"}
    said = {tuple(answer.text for answer in one.answers) for one in outcomes.values()}
    assert len(said) > len(outcomes) / 2, "they must differ for this to mean much"


def partners() -> list[str]:
    """Every method of the registry that can be composed, beside one at another seam."""
    found = []
    for name in registry.token_methods():
        seams = steps._seams(Step(name, registry.declared("methods", name).get("default_preset", "paper")))
        if set(seams) == {"cache"}:
            found.append(f"fastv:0.50+{name}")
        elif seams and set(seams) <= {"vision", "layer"}:
            found.append(f"{name}:0.60+snapkv")
    return found


def test_every_method_answers_alike_beside_another_shared_or_alone(model: Adapter, toy_task: object) -> None:
    cells = [cell(name, "0.40") for name in partners()]
    assert len(cells) > 6
    together, alone = (run_group(cells, model, Settings(limit=3, share=share)) for share in (True, False))
    assert together == alone
    for one in together[1:]:
        assert one.status == "ok", (one.cell.id, one.reason)
        for part in one.achieved.parts:  # type: ignore[union-attr]
            slack = 3 * (len(model.layers) if part.of == "prompt entries" else 1)
            assert abs(part.kept - part.asked_keep * part.total) <= slack, (one.cell.id, part)


def test_every_method_of_a_composition_keeps_its_own_budget(model: Adapter, outcomes: dict[str, Outcome]) -> None:
    layers = len(model.layers)
    for name in COMPOSED:
        one = outcomes[cell(name).id]
        counted = one.achieved
        assert counted is not None
        assert [part.method for part in counted.parts] == [step.method for step in stored(one.cell.method, "paper")]
        for part, step in zip(counted.parts, stored(one.cell.method, "paper"), strict=True):
            assert part.asked_keep == float(step.keep or "0.30")
            slack = SAMPLES * (layers if part.of == "prompt entries" else 1)
            assert abs(part.kept - part.asked_keep * part.total) <= slack, (name, part)
        dense = outcomes[Cell("twin", "dense", "paper", "1.00", "toy").id].achieved
        assert dense is not None
        assert counted.of == "prompt entries"
        assert counted.asked_keep == 0.3
        assert counted.total == sum(answer.prompt_tokens for answer in one.answers) * layers
        assert counted.kept == sum(answer.kept for answer in one.answers)
        assert counted.kept == pytest.approx(sum(counted.per_layer) * SAMPLES)
        assert counted.kv_bytes / counted.kv_bytes_dense == pytest.approx(counted.keep, abs=1e-3)
        assert counted.kv_bytes_dense == pytest.approx(dense.kv_bytes, abs=SAMPLES)
        if counted.parts[-1].of == "prompt entries":
            assert counted.parts[-1].kept == counted.kept < counted.parts[-1].total < counted.total
    assert all(outcomes[cell(name).id].achieved.parts == () for name in ("fastv", "snapkv"))  # type: ignore[union-attr]


def test_a_part_is_counted_of_what_the_one_before_it_left(outcomes: dict[str, Outcome]) -> None:
    parts = outcomes[cell("random_visual:0.60+fastv+random_kv:0.50").id].achieved.parts  # type: ignore[union-attr]
    visual = sum(answer.visual_tokens for answer in outcomes[cell("fastv").id].answers)
    first, second, _ = parts
    assert first == KeptBy("random_visual", "visual tokens", 0.6, first.kept, visual)
    assert second == KeptBy("fastv", "visual tokens", 0.3, second.kept, first.kept)


@pytest.mark.parametrize("model", ["qwen2_vl"], indirect=True)  # whose images can have any size
def test_a_vision_part_is_counted_of_what_a_smaller_image_makes(model: Adapter) -> None:
    method = method_of(cell("downsample@paper:0.70+random_visual:0.50+fastv+snapkv", "0.40"))
    with model.seams():
        leaf = Tree(model, sample("two"), [method]).leaf(method)
    (shown, whole), (kept, of), (late, early), (entries, entered) = leaf.shares
    assert whole == leaf.visual_tokens > shown == of
    assert kept == early == Budget.parse("0.50").of(shown) > late == Budget.parse("0.40").of(kept)
    assert leaf.kept == entries < entered < leaf.of


def test_a_composition_shares_its_prefill_with_the_method_alone(
    model: Adapter, toy_task: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for name in ("encode", "prefill"):
        real = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda *given, _name=name, _real=real: (calls.update([_name]), _real(*given))[1]
        )
    fixed = [cell("fastv", "0.40"), *(cell("fastv:0.40+snapkv", keep) for keep in ("0.10", "0.20", "0.30"))]
    run_group(fixed, model, Settings(limit=2))
    # a text question has one prefill for all; a picture has dense's and fastv's
    assert calls == {"encode": 2, "prefill": 1 + 2}
    calls.clear()
    run_group(
        [cell("fastv", "0.40"), *(cell("fastv+snapkv", keep) for keep in ("0.10", "0.40"))], model, Settings(limit=2)
    )
    assert calls == {"encode": 2, "prefill": 1 + 3}, "another budget of fastv is another prefill"


@pytest.mark.parametrize("form", ["one", "two", "video"])
@pytest.mark.parametrize("name", ["fastv:0.40+random_kv", "pyramiddrop:0.60+snapkv", "dart:0.50+snapkv@effivlm"])
def test_a_composition_equals_a_masked_full_forward(model: Adapter, form: str, name: str) -> None:
    method = method_of(cell(name, "0.40"))
    with model.seams():
        tree = Tree(model, sample(form), [method])
        leaf = tree.leaf(method)
        done = tree.prefilled((None, None, method.parts[0]))
        ours = forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device)
    length = done.prompt.length
    visible = everything(model, length + len(TOKENS))
    for rows, there, kept in zip(visible, done.stays, leaf.cache, strict=True):
        places = torch.arange(length) if there is None else there
        gone = torch.ones(length, dtype=torch.bool)
        gone[places] = False
        rows[:, :, :length] &= ~gone
        rows[:, gone.nonzero()[:, 0], gone.nonzero()[:, 0]] = True  # a row nobody sees needs something to look at
        assert kept.indices is not None
        for head, chosen in enumerate(kept.indices):
            rows[head, length:, :length] = False
            rows[head, length:, places[chosen]] = True
    torch.testing.assert_close(ours, logits(model, done.prompt, TOKENS, visible), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", ["text", "two"])
def test_a_composition_that_keeps_everything_is_dense_bit_for_bit(model: Adapter, form: str) -> None:
    method, dense = (
        method_of(cell("random_visual+fastv+snapkv", "1.00")),
        method_of(Cell("m", "dense", "paper", "1.00", "t")),
    )
    with model.seams():
        ours, theirs = (Tree(model, sample(form), [one]).leaf(one) for one in (method, dense))
    assert ours.kept == ours.of
    assert all(kept == of for kept, of in ours.shares)
    assert all(torch.equal(one.keys, other.keys) for one, other in zip(ours.cache, theirs.cache, strict=True))


def test_outcomes_of_compositions_read_back_and_reach_report_and_terminal(outcomes: dict[str, Outcome]) -> None:
    schemas = ROOT / "effivlm" / "report" / "schema"
    check = {
        name: Draft202012Validator(json.loads((schemas / f"{name}.schema.json").read_text()))
        for name in ("outcome", "report")
    }
    for one in outcomes.values():
        line = json.loads(dump(one.to_json()))
        assert Outcome.from_json(line) == one
        check["outcome"].validate(line)
    document = build({**HEADER, "notes": []}, outcomes.values(), END)
    check["report"].validate(document)
    shown = next(one for one in document["cells"] if one["method"] == "fastv:0.40+snapkv")
    assert [(part["method"], part["asked_keep"]) for part in shown["achieved"]["parts"]] == [
        ("fastv", 0.4),
        ("snapkv", 0.3),
    ]
    row = next(line for line in table(document).splitlines() if line.startswith("fastv:0.40+snapkv"))
    assert row.split()[-1] == f"{shown['achieved']['keep']:.3f}", "0.30 is not asked of all entries"
    (place,) = (number for number, one in enumerate(document["cells"]) if one is shown)
    columns = payload(document)
    budgets = columns["cells"]["columns"]["parts"][place]
    assert [[columns["kinds"][of], asked] for of, asked, *_ in budgets] == [
        ["fastv: visual tokens", 0.4],
        ["snapkv: prompt entries", 0.3],
    ]
