"""One bad value of an author's code breaks an answer or a cell, and nothing else."""

from __future__ import annotations

import json
import math
from asyncio import CancelledError
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import twins
from forms import sample
from toy_task import Toy, cells

from effivlm import registry
from effivlm.compression.base import LayerView
from effivlm.methods.snapkv import SnapKv
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Answer, Outcome, Sample, Settings, dump
from effivlm.run.group import open_model, run_group
from effivlm.run.scoring import FALLEN, settled
from effivlm.tasks._base import Lazy, Task, by_group

pytestmark = pytest.mark.usefixtures("toy_task")
ASKED = cells(methods=["dense", "snapkv"], keeps=("0.30",))[:2]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """One family is enough: what authors' code does knows none."""
    folder = twins.build("llava_onevision", tmp_path_factory.mktemp("faults"), layers=2)
    return open_model(resolve(f"twin={folder}"), Settings())


def raises(kind: type[BaseException]) -> Callable[..., Any]:
    def bad(*_: Any) -> Any:
        raise kind("planted")

    return bad


BAD_SCORES = [
    (math.nan, "score() gave nan, which does not lie in [0, 1]"),
    (math.inf, "score() gave inf, which does not lie in [0, 1]"),
    (1.5, "score() gave 1.5, which does not lie in [0, 1]"),
    (-0.1, "score() gave -0.1, which does not lie in [0, 1]"),
    ("yes", "score() gave 'yes' (str), no plain number"),
    (None, "score() gave None (NoneType), no plain number"),
    (True, "score() gave True (bool), no plain number"),
    (np.float32(0.5), "(float32), no plain number"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_SCORES, ids=[repr(bad) for bad, _ in BAD_SCORES])
def test_a_score_that_is_none_breaks_its_answer_alone(bad: Any, reason: str, model: Adapter, toy_task: Toy) -> None:
    right = toy_task.score
    toy_task.score = lambda text, sample: bad if sample.id == "two-2" else right(text, sample)  # type: ignore[method-assign]
    for one in run_group(ASKED, model, Settings(limit=3)):
        assert (one.status, one.n, one.broken) == ("ok", 2, 1)
        broken = one.answers[2]
        assert (broken.score, broken.same_as_dense) == (None, None)
        assert reason in broken.error
        assert broken.tokens, "what was said stays on record"
        assert one.score == pytest.approx(sum(answer.score or 0 for answer in one.answers[:2]) / 2)
        assert Outcome.from_json(json.loads(dump(one.to_json()))) == one


@pytest.mark.parametrize("hook", ["score", "extract"])
@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, GeneratorExit, CancelledError])
def test_a_scorer_that_raises_breaks_its_answer_and_tells_where(
    hook: str, kind: type[BaseException], model: Adapter, toy_task: Toy
) -> None:
    setattr(toy_task, hook, raises(kind))
    outcomes = run_group(ASKED, model, Settings(limit=2))
    assert {one.status for one in outcomes} == {"failed"}
    for one in outcomes:
        assert one.reason.startswith(
            f"every sample broke; the first: {kind.__name__}: planted (at core/test_faults.py:"
        )
        assert "in bad" in one.reason
        assert "/home" not in one.reason


def test_what_is_extracted_must_be_text(model: Adapter, toy_task: Toy) -> None:
    toy_task.extract = lambda text: 5 if text else text  # type: ignore[method-assign, assignment, return-value]
    (one,) = run_group(ASKED[:1], model, Settings(limit=1))
    assert "extract() gave 5 (int), no text" in one.reason


@pytest.mark.parametrize(
    ("hook", "bad", "reason"),
    [
        ("settle", raises(KeyError), "KeyError: 'planted' (at core/test_faults.py:"),
        ("settle", lambda ids, scores: None, "settle() gave None (NoneType), no list of 2 scores"),
        ("settle", lambda ids, scores: [0.5], "settle() gave [0.5] (list), no list of 2 scores"),
        ("aggregate", raises(SystemExit), "SystemExit: planted (at core/test_faults.py:"),
        ("aggregate", lambda scores: math.nan, "overall() or aggregate() gave nan, which does not lie in [0, 1]"),
        ("aggregate", lambda scores: "0.5", "overall() or aggregate() gave '0.5' (str), no plain number"),
    ],
)
def test_a_sum_that_fails_fails_its_cell(hook: str, bad: Any, reason: str, model: Adapter, toy_task: Toy) -> None:
    right, calls = getattr(toy_task, hook), [0]

    def once(*given: Any) -> Any:
        calls[0] += 1
        return bad(*given) if calls[0] == 2 else right(*given)

    setattr(toy_task, hook, once)
    dense, other = run_group(ASKED, model, Settings(limit=2))
    assert (dense.status, other.status) == ("ok", "failed")
    assert reason in other.reason


def test_a_settled_score_that_is_none_breaks_its_answer(model: Adapter, toy_task: Toy) -> None:
    toy_task.settle = lambda ids, scores: [math.nan, *scores[1:]]  # type: ignore[method-assign]
    for one in run_group(ASKED, model, Settings(limit=3)):
        assert (one.status, one.n, one.broken) == ("ok", 2, 1)
        assert one.answers[0].error == "settle() gave nan, which does not lie in [0, 1]"


@dataclass
class Unreadable:
    """Samples of which some cannot be read; counts how often each was."""

    bad: dict[int, Any]
    size: int = 4

    def __post_init__(self) -> None:
        self.reads = [0] * self.size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> Any:
        self.reads[number] += 1
        return self.bad[number]() if number in self.bad else sample("one", number)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (raises(OSError), "OSError: planted (at core/test_faults.py:"),
        (raises(SystemExit), "SystemExit: planted"),
        (lambda: {"id": "one-1"}, "samples[1] is {'id': 'one-1'} (dict), no Sample"),
        (lambda: sample("one", 0), "samples[1] has the id 'one-0' of a sample before it"),
        (lambda: replace(sample("one", 1), references="yes"), "references of sample 'one-1' must be several texts"),
        (lambda: replace(sample("one", 1), references=(5,)), "references of sample 'one-1' must be several texts"),
        (lambda: replace(sample("one", 1), prompt=None), "the prompt of sample 'one-1' is no text: None"),
    ],
)
@pytest.mark.parametrize("share", [True, False])
def test_a_sample_that_cannot_be_read_breaks_alone_and_none_is_read_twice(
    bad: Callable[[], Any], reason: str, share: bool, model: Adapter, toy_task: Toy
) -> None:
    samples = Unreadable({1: bad})
    toy_task.samples = lambda limit, seed: samples  # type: ignore[method-assign, assignment, return-value]
    lines: list[dict[str, Any]] = []
    for one in run_group(ASKED, model, Settings(share=share), on_note=lines.append):
        assert (one.status, one.n, one.broken) == ("ok", 3, 1)
        assert [answer.id for answer in one.answers] == ["one-0", "#1", "one-2", "one-3"]
        assert reason in one.answers[1].error
    assert samples.reads == [1, 1, 1, 1]
    assert [line["id"] for line in lines if line["kind"] == "sample"] == ["one-0", "one-2", "one-3"]


def test_the_group_of_an_unreadable_sample_has_no_score_and_the_others_stand() -> None:
    class Pairs(Task):
        metric, answer_type, group = "m", "short", 2

        def samples(self, limit: int, seed: int) -> Sequence[Sample]:
            return []

        def score(self, text: str, sample: Sample) -> float:
            return 0.0

        def settle(self, ids: Sequence[str], scores: Sequence[float | None]) -> list[float | None]:
            return by_group(ids, scores, 2, lambda known: [min(known)] * 2)

    answers = [Answer(f"p-{at // 2}-{at % 2}", "0" * 64, "", "", float(at % 2)) for at in range(6)]
    answers[2] = Answer("#2", "", "", "", None, error="unreadable")
    found = settled(answers, Pairs())
    assert [one.score for one in found] == [0.0, 0.0, None, None, 0.0, 0.0]
    assert [one.error for one in found] == ["", "", "unreadable", FALLEN, "", ""]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (
            (sample("text", number) for number in range(2)),
            "task 'toy': samples() gave a generator, which has no length",
        ),
        ([], "task 'toy' has no samples for limit 100"),
        (Lazy(0, lambda index: sample("text")), "task 'toy' has no samples for limit 100"),
    ],
)
def test_samples_that_cannot_be_counted_are_refused_in_one_sentence(
    samples: Any, message: str, model: Adapter, toy_task: Toy
) -> None:
    toy_task.samples = lambda limit, seed: samples  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"^task 'toy'") as told:
        run_group(ASKED, model, Settings())
    assert message in str(told.value)


HALF = "\ud83d"


@pytest.mark.parametrize("place", ["prompt", "references", "id", "extracted"])
def test_half_a_surrogate_pair_is_stored_and_read_back_equal(place: str, model: Adapter, toy_task: Toy) -> None:
    cut = sample("one", 1)
    if place == "extracted":
        toy_task.extract = lambda text: f"{HALF}{text}"  # type: ignore[method-assign]
    elif place == "references":
        cut = replace(cut, references=(f"a{HALF}",))
    else:
        cut = replace(cut, **{place: f"what{HALF}?"})  # type: ignore[arg-type]
    toy_task.samples = lambda limit, seed: [sample("one", 0), cut]  # type: ignore[method-assign]
    lines: list[dict[str, Any]] = []
    for one in run_group(ASKED, model, Settings(), on_note=lines.append):
        assert (one.status, one.n) == ("ok", 2)
        text = dump(one.to_json())
        assert text.encode()
        assert Outcome.from_json(json.loads(text)) == one
        assert any("U+FFFD" in remark for remark in one.remarks) == (place == "prompt")
    for line in lines:
        assert json.loads(dump(line).encode()) == json.loads(json.dumps(line))


@pytest.mark.parametrize(
    ("prompt", "new", "reason"),
    [
        ("a" * 1_000_000, 6, "the question has 1000000 characters: longer than the model's 500 positions hold"),
        ("a" * 600, 6, "positions and its answer up to 6 more: longer than the model's 500"),
        ("a", 500, "positions and its answer up to 500 more: longer than the model's 500"),
    ],
    ids=["a book", "a page", "a long answer"],
)
def test_a_question_longer_than_the_models_positions_is_refused_before_the_tower_runs(
    prompt: str, new: int, reason: str, model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.model.config.get_text_config(), "max_position_embeddings", 500)
    monkeypatch.setattr(Toy, "max_new_tokens", new)
    long = replace(sample("one", 7), prompt=prompt)
    toy_task.samples = lambda limit, seed: [long] if new == 500 else [sample("text", 0), long]  # type: ignore[method-assign]
    seen = Counter[str]()
    for name in ("encode", "prepare"):
        right = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *given, name=name, right=right: (seen.update([name]), right(*given))[1])
    for one in run_group(ASKED, model, Settings()):
        assert one.broken == 1
        assert reason in (one.reason if new == 500 else one.answers[1].error)
        assert one.n == (0 if new == 500 else 1)
    tokenised = len(prompt) < 1_000_000
    assert (seen["encode"], seen["prepare"]) == (int(new != 500), int(new != 500) + tokenised)


@dataclass(frozen=True, kw_only=True)
class Bad(SnapKv):
    """Breaks in one of its hooks."""

    hook: ClassVar[str] = ""
    kind: ClassVar[type[BaseException]] = ZeroDivisionError

    def _may(self, hook: str) -> None:
        if hook == self.hook:
            raise self.kind("planted")

    def look(self, view: LayerView) -> None:
        self._may("look")
        super().look(view)

    def rows(self, visual: Any) -> int:
        self._may("rows")
        return super().rows(visual)

    def compress(self, views: Sequence[LayerView], sample_id: str) -> Any:
        self._may("compress")
        return super().compress(views, sample_id)

    def seam_parts(self) -> Any:
        self._may("seam_parts")
        return super().seam_parts()

    def __post_init__(self) -> None:
        self._may("made")
        super().__post_init__()


@pytest.mark.parametrize("kind", [ZeroDivisionError, SystemExit, GeneratorExit, CancelledError])
@pytest.mark.parametrize("hook", ["look", "rows", "compress", "seam_parts", "made"])
def test_a_method_that_breaks_anywhere_fails_its_cell_alone_and_tells_where(
    hook: str, kind: type[BaseException], model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = run_group(ASKED, model, Settings(limit=2))
    load = registry.load
    bad = type("Planted", (Bad,), {"hook": hook, "kind": kind})
    monkeypatch.setattr(registry, "load", lambda what, name: bad if name == "tova" else load(what, name))
    asked = [*ASKED, replace(ASKED[1], method="tova")]
    *others, broken = run_group(asked, model, Settings(limit=2))
    assert others == right
    assert broken.status == "failed"
    assert f"{kind.__name__}: planted (at core/test_faults.py:" in broken.reason


def test_an_interrupt_from_the_keyboard_ends_the_run(model: Adapter, toy_task: Toy) -> None:
    toy_task.score = raises(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run_group(ASKED, model, Settings(limit=1))


def test_a_finished_sample_is_handed_on_once_with_all_it_gave(model: Adapter) -> None:
    seen: list[tuple[int, list[str], dict[str, int]]] = []
    run_group(
        ASKED,
        model,
        Settings(limit=2),
        on_answers=lambda number, asked: seen.append(
            (
                number,
                [one.id for one in asked.answers.values()],
                {cell.method: leaf.kept for cell, leaf in asked.leaves.items()},
            )
        ),
    )
    assert [(number, ids) for number, ids, _ in seen] == [(0, ["text-0"] * 2), (1, ["one-1"] * 2)]
    assert all(kept["snapkv"] < kept["dense"] or kept["dense"] == 0 for _, _, kept in seen)
