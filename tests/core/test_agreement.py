"""Dense's answer fed to compressed caches, and dense asked twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from forms import sample
from toy_task import Toy, cells

from effivlm.decoding import eager
from effivlm.decoding.caches import ForkedCache
from effivlm.decoding.eager import Start, agreements, forced, greedy
from effivlm.decoding.engine import Captured, Eager
from effivlm.methods.dense import Dense
from effivlm.methods.random_kv import RandomKv
from effivlm.methods.snapkv import SnapKv
from effivlm.models._adapter import Adapter
from effivlm.records import Answer, Budget, Settings
from effivlm.run import asked as asked_module
from effivlm.run import group, noise
from effivlm.run.group import open_model, run_group
from effivlm.run.scoring import against
from effivlm.run.tree import Tree

CPU = torch.device("cpu")
END, ALSO_END = 8, 9


def chain(*rows: dict[int, int], gap: float = 1.0, single: dict[int, int] | None = None) -> eager.Step:
    """A step that knows no cache: row r stands at positions from 100 r on and chooses rows[r][token] after a token.

    `gap` is the lead of the chosen one over the next; one token of one row alone gets its choice from `single`.
    """

    def step(tokens: torch.Tensor, positions: torch.Tensor, cache: ForkedCache) -> torch.Tensor:
        logits = torch.zeros(*tokens.shape, 10)
        for place in torch.cartesian_prod(*(torch.arange(size) for size in tokens.shape)).reshape(-1, 2).tolist():
            row, token = int(positions[*place]) // 100, int(tokens[*place])
            table = single if single and tokens.numel() == 1 else rows[row]
            logits[*place, table.get(token, 0)] = gap
        return logits

    return step


def shares(step: eager.Step, firsts: Sequence[int], said: Sequence[Sequence[int]], steps: int = 6) -> list[float]:
    """Agreement with the target 1 2 3, of rows whose prefill chose `firsts`."""
    starts = [Start([], first, 100 * row) for row, first in enumerate(firsts)]
    return agreements(Eager(step, CPU).chosen, starts, said, (1, 2, 3), steps, (END, ALSO_END))


def test_every_token_of_the_target_and_its_end_count_once() -> None:
    right = {1: 2, 2: 3, 3: END}
    step = chain(right, right, {1: 2, 2: 7, 3: END}, {1: 2, 2: 3, 3: 7}, {1: 7, 2: 7, 3: ALSO_END})
    found = shares(step, (1, 7, 1, 1, 7), [(0,)] * 5)
    assert found == [1.0, 3 / 4, 3 / 4, 3 / 4, 1 / 4]


def test_a_target_that_was_cut_off_has_no_end() -> None:
    found = shares(chain({1: 2, 2: 3, 3: 7}, {1: 2, 2: 7, 3: END}), (1, 1), [(0,)] * 2, steps=3)
    assert found == [1.0, 2 / 3]


def test_a_target_that_ended_at_once_is_a_choice_of_the_end() -> None:
    starts = [Start([], END, 0), Start([], 4, 0)]
    eager = Eager(lambda *_: pytest.fail("nothing is to be fed"), CPU)
    assert agreements(eager.chosen, starts, [(0,)] * 2, (), 6, (END,)) == [1, 0]


def test_a_row_that_says_the_target_is_not_computed_again() -> None:
    def step(*_: object) -> torch.Tensor:
        pytest.fail("a pass was run")

    assert shares(step, (1, 1), [(1, 2, 3), [1, 2, 3]]) == [1.0, 1.0]


@pytest.mark.parametrize("positions", [1, 2, 3, 4, 1000])
def test_tokens_that_go_in_by_several_passes_count_as_in_one(
    monkeypatch: pytest.MonkeyPatch, positions: int, model: Adapter
) -> None:
    monkeypatch.setattr(eager, "POSITIONS", positions)
    sizes: list[int] = []
    places: list[torch.Tensor] = []
    kinds = [Dense(), SnapKv(keep=Budget.parse("0.2")), RandomKv(keep=Budget.parse("0.2"))]

    def step(tokens: torch.Tensor, at: torch.Tensor, cache: ForkedCache) -> torch.Tensor:
        sizes.append(tokens.numel())
        places.extend([at] if len(tokens) == 3 else [])
        return model.step(tokens, at, cache)

    with model.seams():
        tree = Tree(model, sample("two"), kinds)
        starts = [tree.leaf(kind).start for kind in kinds]
        fed = greedy(model.step, starts[1:2], 8, (), model.device)[0]
        found = agreements(Eager(step, model.device).chosen, starts, [()] * 3, fed, 9, ())
        alone = [forced(model.step, start, fed, model.device).argmax(-1).tolist() for start in starts]
    ideal = [(start.token, *made) for start, made in zip(starts, alone, strict=True)]
    assert found == [sum(a == b for a, b in zip(made, (*fed, None), strict=True)) / 9 for made in ideal]
    assert found[0] < found[1]
    assert max(sizes) <= max(positions, 3)
    assert torch.cat(places, 1).tolist() == [[start.position + number for number in range(8)] for start in starts]


def test_near_ties_are_told_apart_by_the_row_alone() -> None:
    wrong, right = {1: 7, 2: 7, 3: 7}, {1: 2, 2: 3, 3: END}
    assert shares(chain(wrong, gap=eager.TIE / 2, single=right), (1,), [(0,)]) == [1.0]
    assert shares(chain(wrong, gap=eager.TIE * 2, single=right), (1,), [(0,)]) == [1 / 4]


@pytest.mark.usefixtures("toy_task")
def test_a_cell_that_keeps_everything_agrees_everywhere(model: Adapter) -> None:
    outcomes = run_group(cells(keeps=("1.00", "0.05")), model, Settings(limit=9))
    whole = [one for one in outcomes if one.cell.keep == "1.00" and one.cell.method != "dense"]
    little = [one for one in outcomes if one.cell.keep == "0.05" and one.status == "ok"]
    assert {answer.forced for one in whole for answer in one.answers} == {1.0}
    assert min(answer.forced for one in little for answer in one.answers if answer.forced is not None) < 0.5


@pytest.mark.usefixtures("toy_task")
@pytest.mark.parametrize("share", [True, False])
def test_agreement_found_while_answering_is_that_of_a_pass_of_its_own(
    model: Adapter, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cells(methods=["dense", "random_kv", "streaming_llm"], keeps=("0.05", "0.30"))
    expected = run_group(asked, model, Settings(limit=5, share=share))
    monkeypatch.setattr(group, "engine_for", lambda step, device, *_: Captured(step, device))
    with monkeypatch.context() as patch:
        if share:
            patch.setattr(Captured, "chosen", lambda *_: pytest.fail("the steps that answer tell it"))
        found = run_group(asked, model, Settings(limit=5, share=share))
    assert {one.engine for one in found} == {Captured.name}
    assert [one.answers for one in found] == [one.answers for one in expected]
    assert len({answer.forced for one in found for answer in one.answers}) > 2


@pytest.mark.usefixtures("toy_task")
def test_dense_alone_is_asked_twice(model: Adapter) -> None:
    dense, *others = run_group(cells(methods=["dense", "random_kv"], keeps=("0.30",)), model, Settings(limit=9))
    assert all(answer.again is not None and answer.again_tokens for answer in dense.answers)
    assert all(answer.forced is not None for answer in dense.answers)
    assert dense.change == noise.ROUNDED
    assert {(answer.again, answer.again_tokens) for one in others for answer in one.answers} == {(None, ())}
    assert {one.change for one in others} == {""}


@pytest.mark.parametrize("form", ["text", "one", "both"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_second_run_differs_by_rounding_and_by_no_more(model: Adapter, form: str, dtype: str) -> None:
    used = model if dtype == "float32" else open_model(model.source, Settings(dtype=dtype))
    with used.seams():
        tree = Tree(used, sample(form), [Dense()])
        first, second = tree.leaf(Dense()), noise.again(tree)
    pairs = [(before.keys.float(), after.keys.float()) for before, after in zip(first.cache, second.cache, strict=True)]
    assert second.position == first.position
    assert any(not torch.equal(before, after) for before, after in pairs)
    for before, after in pairs:
        assert (before - after).norm() / before.norm() < 0.05
    if dtype == "float32":
        assert all(torch.equal(after, before.bfloat16().float()) for before, after in pairs)
    assert noise.change_of(used) == (noise.ROUNDED if dtype == "float32" else noise.SHORTENED)


@pytest.mark.parametrize("form", ["text", "one", "both"])
def test_the_last_position_is_computed_again_over_what_is_rounded(model: Adapter, form: str) -> None:
    with model.seams():
        tree = Tree(model, sample(form), [Dense()])
        exact, rounded = tree.leaf(Dense()).cache, noise.again(tree).cache
        prefilled = tree.prefilled((None, None, None)).logits
        over = [noise._last_over(layers, tree) for layers in (exact, rounded)]
    torch.testing.assert_close(over[0], prefilled.flatten(), atol=2e-4, rtol=1e-4)
    assert (over[1] - over[0]).norm() > 10 * (over[0] - prefilled.flatten()).norm(), "rounding reaches the first token"


@pytest.mark.usefixtures("toy_task")
def test_what_is_measured_beside_an_answer_never_takes_the_answer_with_it(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = cells(methods=["dense", "random_kv"], keeps=("0.30",))
    good = run_group(asked, model, Settings(limit=3))
    monkeypatch.setattr(asked_module, "again", lambda tree: 1 / 0)
    monkeypatch.setattr(asked_module, "agreements", lambda *given: [][1])
    monkeypatch.setattr(asked_module, "kept_record", lambda *given: {}["grid"])
    dense, other, _ = run_group(asked, model, Settings(limit=3))
    assert [answer.text for answer in other.answers] == [answer.text for answer in good[1].answers]
    assert (dense.status, dense.change, dense.answers[0].again, other.answers[0].forced) == ("ok", "", None, None)
    lacked = (
        "dense could not be asked again for 3 of 3 samples; the first: ZeroDivisionError: division by zero",
        "token agreement could not be computed for 3 of 3 samples; the first: IndexError: list index out of range",
        "the kept visual tokens could not be told for 3 of 3 samples; the first: KeyError: 'grid'",
    )
    for remark, words in zip(dense.remarks, lacked, strict=True):
        assert remark.startswith(f"{words} (at core/test_agreement.py:")
    assert other.remarks == dense.remarks[1:]


def test_agreement_is_with_dense_wherever_dense_stands(model: Adapter, toy_task: Toy) -> None:
    asked = cells(methods=["random_kv", "dense"], keeps=("0.30",))
    for share in (True, False):
        turned = run_group(asked, model, Settings(limit=3, share=share))
        straight = run_group(asked[::-1], model, Settings(limit=3, share=share))
        assert turned == straight[::-1]
        assert [one.cell for one in turned] == asked
        assert all(answer.forced is not None for answer in turned[0].answers)


def test_a_choice_named_by_its_text_is_the_same_choice() -> None:
    said = [Answer(str(place), "", text, text, 1.0, tokens=(place,)) for place, text in enumerate(("A", "cat", "dog"))]
    asked = replace(sample("text"), prompt="What is it?\nA. cat\nB. dog\nAnswer with the letter.")
    assert [against(one, said[0], "choice", asked).same_as_dense for one in said] == [True, True, False]
    assert against(said[1], said[0], "short", asked).same_as_dense is False


def test_of_many_samples_a_seeded_hundred_is_asked_twice() -> None:
    assert noise.asked_again(100, 3) == set(range(100))
    some = noise.asked_again(5_000, 3)
    assert len(some) == noise.SAMPLES == 100
    assert some == noise.asked_again(5_000, 3) != noise.asked_again(5_000, 4)
    assert some <= set(range(5_000))


@pytest.mark.usefixtures("toy_task")
def test_a_sample_that_is_not_of_the_share_is_asked_once(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "asked_again", lambda samples, seed: {1})
    (dense,) = run_group(cells(methods=["dense"]), model, Settings(limit=3))
    assert [answer.again is not None for answer in dense.answers] == [False, True, False]
    assert dense.change == noise.ROUNDED
