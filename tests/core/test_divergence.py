"""KL of cells against dense, along dense's own answer: against transformers' own forward, and the same whoever shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from oracle import everything, logits
from torch import Tensor

from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Cell, Divergence, Outcome, Sample, Settings
from effivlm.run.compressed import Compressed, weights_of
from effivlm.run.group import method_of, open_model, run_group, task_in
from effivlm.run.paths import path_of
from effivlm.run.steps import asked
from effivlm.run.tree import Tree

TASKS = {
    "micro_llava_onevision": "imagedc_micro",
    "micro_qwen2_vl": "docvqa_micro",
    "micro_internvl2_5": "ocrbench_micro",
}
LIMIT = 2
CHANGED = {
    "magnitude": "2:4",
    "rtn": "w2g32",
    "magnitude:sparsity0.50+snapkv": "0.40",
    "magnitude:sparsity0.50+random_visual": "0.30",
}
BESIDE = {"fastv": "0.20", "random_visual": "0.30", "snapkv": "0.10"}
WHOLE = ("fastv", "visionzip", "snapkv", "streaming_llm", "adakv")
SETTINGS = Settings(limit=LIMIT, kl=True)


class Run(NamedTuple):
    """One model, a task, and what a run measured, by method and budget."""

    whole: Adapter
    task: str
    found: dict[str, Outcome]


@pytest.fixture(scope="module", params=TASKS)
def ran(request: pytest.FixtureRequest, products: Path) -> Run:
    whole, task = open_model(resolve(request.param), SETTINGS), TASKS[request.param]
    made = run_group(cells(request.param, task), whole, SETTINGS)
    return Run(whole, task, {f"{one.cell.method} {one.cell.keep}": one for one in made})


def cells(model: str, task: str, keeping: bool = True) -> list[Cell]:
    named = [*CHANGED.items(), *BESIDE.items(), *((name, "1.00") for name in WHOLE if keeping)]
    return [Cell(model, *asked(name), keep, task) for name, keep in named]


def of(outcome: Outcome) -> list[Divergence]:
    """The divergence of every answer of an outcome."""
    assert outcome.status == "ok", outcome.reason
    assert not any("divergence" in remark for remark in outcome.remarks), outcome.remarks
    return [one.kl for one in outcome.answers if one.kl is not None]


def kl(dense: Tensor, other: Tensor) -> float:
    """As it is defined, in float64."""
    p, q = dense.double().log_softmax(-1), other.double().log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


def plain(model: Adapter, inputs: dict[str, Any], tokens: Sequence[int], places: int) -> Tensor:
    """Logits [P, vocab] of transformers' own forward over a prompt with an answer behind it; no hook of this package is there."""
    length = inputs["input_ids"].shape[1]
    grown = {}
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == (1, length):  # ids, mask, kinds of tokens
            more = (
                torch.tensor([list(tokens)])
                if name == "input_ids"
                else torch.full((1, len(tokens)), name[-4:] == "mask")
            )
            grown[name] = torch.cat([value, more.to(value)], 1)
        else:
            grown[name] = value
    with torch.no_grad():
        found: Tensor = model.model(**grown).logits[0, length - 1 : length - 1 + places]
        return found


def samples(task: str) -> list[Sample]:
    lazy = task_in(task, SETTINGS).samples(LIMIT, 0)
    return [lazy[number] for number in range(LIMIT)]


def prepared(model: Adapter, task: str, sample: Sample) -> dict[str, Any]:
    found = task_in(task, SETTINGS)
    model.begin_task(found.pixels, found.tiles, found.max_new_tokens)
    return dict(model.prepare(sample))


def places(dense: Outcome, task: str) -> list[int]:
    most = task_in(task, SETTINGS).max_new_tokens
    return [len(one.tokens) + (len(one.tokens) < most) for one in dense.answers]


@pytest.mark.parametrize("method", ["magnitude", "rtn"])
def test_a_changed_checkpoint_is_as_far_from_dense_as_transformers_own_forward_says(ran: Run, method: str) -> None:
    dense, outcome = ran.found["dense 1.00"], ran.found[f"{method} {CHANGED[method]}"]
    changing = weights_of(method_of(outcome.cell))
    assert changing
    holder = Compressed(open_model, SETTINGS)
    model, _ = holder.opened(ran.whole, changing)
    found = of(outcome)
    assert [one.positions for one in found] == places(dense, ran.task)
    for sample, answer, ours in zip(samples(ran.task), dense.answers, found, strict=True):
        inputs = prepared(ran.whole, ran.task, sample)
        before, after = (plain(one, inputs, answer.tokens, ours.positions) for one in (ran.whole, model))
        exact = kl(before, after)
        assert exact > 1e-5, "they must differ for this to mean much"
        assert ours.nats == pytest.approx(exact, rel=1e-3, abs=1e-7)
        assert ours.rest < 1e-5
    holder.close()


@pytest.mark.parametrize("method", [*BESIDE, *list(CHANGED)[2:]])
def test_a_compressed_prompt_is_as_far_from_dense_as_a_masked_full_forward_says(ran: Run, method: str) -> None:
    """Of methods of prompts, and of compositions of a changed checkpoint with one."""
    keep = {**CHANGED, **BESIDE}[method]
    dense, outcome = ran.found["dense 1.00"], ran.found[f"{method} {keep}"]
    made = method_of(outcome.cell)
    changing = weights_of(made)
    holder = Compressed(open_model, SETTINGS)
    model = holder.opened(ran.whole, changing)[0] if changing else ran.whole
    for sample, answer, ours in zip(samples(ran.task), dense.answers, of(outcome), strict=True):
        before = plain(ran.whole, prepared(ran.whole, ran.task, sample), answer.tokens, ours.positions)
        prepared(model, ran.task, sample)
        after = masked(model, sample, made, answer.tokens)[: ours.positions]
        exact = kl(before, after)
        assert exact > 1e-6, "they must differ for this to mean much"
        assert ours.nats == pytest.approx(exact, rel=1e-3, abs=1e-6)
        assert (ours.rest > 0) == bool(changing)
    holder.close()


def masked(model: Adapter, sample: Sample, method: Any, tokens: Sequence[int]) -> Tensor:
    """Logits [P, vocab] at the places of an answer, by one full forward in which every row sees what the method leaves of it."""
    path = path_of(method)
    with model.seams():
        tree = Tree(model, sample, [method])
        leaf = tree.leaf(method)
        done = tree.prefilled(path[:3])
    length = done.prompt.length
    visible = everything(model, length + len(tokens))
    for rows, there, kept in zip(visible, done.stays, leaf.cache, strict=True):
        at = torch.arange(length) if there is None else there
        gone = torch.ones(length, dtype=torch.bool)
        gone[at] = False
        rows[:, :, :length] &= ~gone
        rows[:, gone.nonzero()[:, 0], gone.nonzero()[:, 0]] = True  # a row nobody sees needs something to look at
        for head, chosen in enumerate(kept.indices if kept.indices is not None else ()):
            rows[head, length:, :length] = False
            rows[head, length:, at[chosen]] = True
    return torch.cat([done.logits[None], logits(model, done.prompt, tokens, visible)])


def test_dense_has_none_of_itself_and_what_keeps_everything_none_at_all(ran: Run) -> None:
    assert of(ran.found["dense 1.00"]) == []
    for name in WHOLE:
        found = of(ran.found[f"{name} 1.00"])
        assert [one.nats for one in found] == [0.0] * LIMIT, name
        assert all(one.rest == 0 and one.positions >= 1 for one in found)
    for outcome in ran.found.values():
        assert all(one.nats >= 0 for one in of(outcome))


def test_without_the_option_only_changed_checkpoints_are_measured_and_no_answer_is_another(ran: Run) -> None:
    for outcome in run_group(cells(ran.whole.source.name, ran.task, keeping=False), ran.whole, Settings(limit=LIMIT)):
        other = ran.found[f"{outcome.cell.method} {outcome.cell.keep}"]
        if outcome.cell.method in CHANGED:
            assert outcome == other
            continue
        assert of(outcome) == []
        assert [one.tokens for one in outcome.answers] == [one.tokens for one in other.answers]
        assert (outcome.fingerprint == other.fingerprint) == (outcome.cell.method == "dense")


def test_a_cell_alone_is_as_far_from_dense_as_beside_others_bit_for_bit(ran: Run) -> None:
    of_all = cells(ran.whole.source.name, ran.task, keeping=False)
    those = [one for one in of_all if one.method in ("magnitude:sparsity0.50+snapkv", "fastv", "snapkv")]
    made = run_group(those, ran.whole, Settings(limit=LIMIT, kl=True, share=False))
    made += run_group(those[-1:], ran.whole, SETTINGS)
    assert len(made) == 6
    for one in made:
        assert one == ran.found[f"{one.cell.method} {one.cell.keep}"]
