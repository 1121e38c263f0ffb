"""Groups of cells to outcomes: sharing, budgets, broken samples, loading."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from forms import FORMS, sample
from toy_task import Toy, cells

from effivlm import registry
from effivlm.compression.choose import NO_ORDER
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Cell, Outcome, Settings, dump
from effivlm.run import group
from effivlm.run.group import cell_fingerprint, open_model, run_group

pytestmark = pytest.mark.usefixtures("toy_task")


def texts(outcomes: Sequence[Outcome]) -> dict[str, list[tuple[str, str]]]:
    return {one.cell.id: [(answer.id, answer.text) for answer in one.answers] for one in outcomes}


def test_answers_with_sharing_equal_answers_without(model: Adapter) -> None:
    notes: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    together, alone = (
        run_group(cells(), model, Settings(limit=9, share=share), on_note=lines.append)
        for share, lines in notes.items()
    )
    assert texts(together) == texts(alone)
    assert together == alone
    assert {dump(line) for line in notes[True]} == {dump(line) for line in notes[False]}
    assert len({answer.forced for one in together for answer in one.answers}) > 3, "agreement must differ too"
    assert len({str(rows) for rows in texts(together).values()}) > len(together) / 3, (
        "methods must differ for this to mean much"
    )


def test_samples_do_not_leak_into_each_other(model: Adapter, toy_task: Toy) -> None:
    ids = {
        row[0]: row
        for rows in texts(run_group(cells(keeps=("0.30",)), model, Settings(limit=9))).values()
        for row in rows
    }
    forwards = texts(run_group(cells(keeps=("0.30",)), model, Settings(limit=9)))
    samples = list(reversed(toy_task.samples(9, 0)))
    toy_task.samples = lambda limit, seed: samples  # type: ignore[method-assign]
    backwards = texts(run_group(cells(keeps=("0.30",)), model, Settings(limit=9)))
    assert len(ids) == len(FORMS)
    assert {name: sorted(rows) for name, rows in backwards.items()} == {
        name: sorted(rows) for name, rows in forwards.items()
    }


def test_a_group_runs_the_tower_and_the_dense_prefill_once_per_sample(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: Counter[str] = Counter()
    for name in ("prepare", "encode", "prefill"):
        real = getattr(model, name)
        monkeypatch.setattr(
            model, name, lambda *given, _name=name, _real=real: (calls.update([_name]), _real(*given))[1]
        )
    run_group(cells(methods=["snapkv", "streaming_llm", "random_kv"]), model, Settings(limit=3))
    assert calls == {"prepare": 3, "encode": 3, "prefill": 3}, "once for all; dense's second run takes a step"
    calls.clear()
    run_group(cells(methods=["random_visual"], keeps=("0.05", "0.30")), model, Settings(limit=2))
    assert calls == {"prepare": 2, "encode": 2, "prefill": 4}, "nothing to prune in text: shared too"


def test_every_cell_keeps_what_was_asked_within_a_token_per_layer(model: Adapter) -> None:
    for one in run_group(cells(), model, Settings(limit=9)):
        if one.status == "unsupported":
            whole_images = one.cell.method == "downsample"
            assert ("visual tokens; the budget allows" if whole_images else "see all of them") in one.reason
            continue
        assert one.status == "ok"
        counted = one.achieved
        assert counted is not None
        assert counted.kept == sum(answer.kept for answer in one.answers)
        for answer in one.answers:
            share = float(one.cell.budget)
            slack = len(counted.per_layer) if counted.of == "prompt entries" else 1
            off = answer.kept - share * answer.of
            assert off <= slack, one.cell.id
            whole_images = (one.cell.method, one.cell.preset) == ("downsample", "paper")
            assert off >= -slack or whole_images, "only images come in steps of more than a token"
        if share < 1:
            assert counted.kv_bytes < counted.kv_bytes_dense
        else:
            assert counted.kv_bytes == counted.kv_bytes_dense


def test_dense_runs_first_even_when_nobody_asked_for_it(model: Adapter) -> None:
    outcomes = run_group(cells(methods=["fastv"], keeps=("0.05",)), model, Settings(limit=9))
    assert [one.cell.method for one in outcomes] == ["dense", "fastv", "fastv", "fastv"]
    assert all(answer.same_as_dense for answer in outcomes[0].answers)
    assert any(answer.same_as_dense is False for one in outcomes[1:] for answer in one.answers)


def test_a_broken_sample_is_counted_and_never_a_zero(model: Adapter, toy_task: Toy) -> None:
    class Torn:
        size = (4, 4)

        def getexif(self) -> None:
            raise OSError("image file is truncated")

    good = list(toy_task.samples(2, 0))
    torn = replace(good[1], id="torn", images=(Torn(),))
    toy_task.samples = lambda limit, seed: [*good, torn]  # type: ignore[method-assign]
    dense, snapkv, *_ = run_group(cells(methods=["snapkv"], keeps=("0.30",)), model, Settings())
    for one in (dense, snapkv):
        assert (one.status, one.n, one.broken) == ("ok", 2, 1)
        assert one.answers[-1].score is None
        assert "image file is truncated" in one.answers[-1].error
        assert one.score == pytest.approx(sum(a.score for a in one.answers[:2]) / 2)  # type: ignore[misc]
        assert "1 of 3 samples broke" in one.remarks[0]
        assert [answer.forced is None for answer in one.answers] == [False, False, True]
    toy_task.samples = lambda limit, seed: [torn]  # type: ignore[method-assign]
    (failed, *_) = run_group(cells(methods=["dense"]), model, Settings())
    assert failed.status == "failed"
    assert failed.score is None
    assert "every sample broke" in failed.reason


def test_a_torn_picture_is_not_shown(model: Adapter, toy_task: Toy) -> None:
    class Torn:
        size = (4, 4)

        def getexif(self) -> None:
            raise OSError("image file is truncated")

    torn = replace(sample("one"), images=(Torn(),))
    toy_task.samples = lambda limit, seed: [torn, sample("one", 1), sample("text")]  # type: ignore[method-assign]
    lines: list[dict[str, Any]] = []
    run_group(cells(methods=["dense"]), model, Settings(), on_note=lines.append)
    shown = [line for line in lines if line["kind"] == "sample"]
    assert [len(record["pictures"]) for record in shown] == [0, 1, 0]
    assert [record["thumbnail"] for record in shown] == [None, shown[1]["pictures"][0], None]


def test_a_method_that_breaks_takes_no_other_cell_with_it(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.load("methods", "snapkv")
    monkeypatch.setattr(kind, "layers", lambda *given: 1 / 0)
    outcomes = {
        one.cell.method: one for one in run_group(cells(methods=["snapkv", "random_kv"]), model, Settings(limit=2))
    }
    broken = [
        one for one in run_group(cells(methods=["snapkv"]), model, Settings(limit=2)) if one.cell.method == "snapkv"
    ]
    assert outcomes["random_kv"].status == outcomes["dense"].status == "ok"
    assert {(one.cell.keep, one.status) for one in broken} >= {("0.05", "failed"), ("1.00", "ok")}
    assert model.model.config.text_config._attn_implementation == "sdpa"


def test_a_method_whose_scores_have_no_order_fails_alone(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = registry.load("methods", "snapkv")
    shown = kind.shown  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "shown", lambda self, view: shown(self, view) * torch.nan)
    outcomes = run_group(cells(methods=["snapkv", "h2o"], keeps=("0.30",)), model, Settings(limit=2))
    told = {one.cell.method: (one.status, one.reason) for one in outcomes}
    assert told["dense"] == told["h2o"] == ("ok", "")
    assert told["snapkv"][0] == "failed"
    assert NO_ORDER in told["snapkv"][1]


def test_outcomes_read_back_equal(model: Adapter) -> None:
    for one in run_group(cells(methods=["fastv"]), model, Settings(limit=3)):
        assert Outcome.from_json(json.loads(dump(one.to_json()))) == one


def test_cells_of_two_groups_are_refused(model: Adapter) -> None:
    with pytest.raises(ValueError, match="share model and task"):
        run_group(
            [Cell("a", "dense", "paper", "1.00", "toy"), Cell("b", "dense", "paper", "1.00", "toy")], model, Settings()
        )


def test_an_unknown_preset_is_refused_with_the_choices() -> None:
    with pytest.raises(ValueError, match="'dense' has no preset 'fast'; choose from: paper"):
        group.method_of(Cell("m", "dense", "fast", "1.00", "toy"))


def test_fingerprints_name_everything_that_decides(model: Adapter) -> None:
    base = Cell("twin", "snapkv", "paper", "0.30", "toy")
    name = cell_fingerprint(base, model.source, Settings())
    others = [replace(base, keep="0.31"), replace(base, preset="effivlm"), replace(base, method="random_kv")]
    seen = {cell_fingerprint(cell, model.source, Settings()) for cell in others}
    seen |= {cell_fingerprint(base, model.source, settings) for settings in (Settings(seed=1), Settings(limit=5))}
    seen |= {
        cell_fingerprint(base, model.source, Settings(dtype="bfloat16")),
        cell_fingerprint(base, model.source, Settings(), "ttft"),
    }
    assert name not in seen
    assert len(seen) == 7
    assert name == cell_fingerprint(base, model.source, Settings(share=False)), "sharing never changes an answer"


def copied(model: Adapter, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model.source.source, tmp_path / "copy"))


def test_a_truncated_checkpoint_is_one_clear_error(model: Adapter, tmp_path: Path) -> None:
    folder = copied(model, tmp_path)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"'torn'.*cannot be loaded"):
        open_model(resolve(f"torn={folder}"), Settings())


def test_a_checkpoint_without_a_tensor_is_refused(model: Adapter, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = copied(model, tmp_path)
    weights = load_file(folder / "model.safetensors")
    dropped = next(name for name in weights if "q_proj.weight" in name and "vis" not in name)
    del weights[dropped]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"does not fit its architecture.*tensors missing.*q_proj"):
        open_model(resolve(f"torn={folder}"), Settings())


def test_a_checkpoint_loads_in_bfloat16_and_runs(model: Adapter) -> None:
    loaded = open_model(model.source, Settings(dtype="bfloat16"))
    outcomes = run_group(cells(keeps=("0.30",)), loaded, Settings(limit=3, dtype="bfloat16"))
    assert loaded.dtype == torch.bfloat16
    assert {one.status for one in outcomes} <= {"ok", "unsupported"}
    (dense,) = (one.achieved for one in outcomes if one.cell.method == "dense")
    assert dense is not None
    assert dense.kv_bytes == dense.kv_bytes_dense


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("micro_lava_onevision", "Did you mean 'micro_llava_onevision'"),
        ("mine=/nowhere/at/all", "folder /nowhere/at/all does not exist"),
        ("=", "names nothing"),
        ("micro_llava_onevision=/tmp", "is taken by the checkpoint"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_choices(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no config.json"),
        ({"config.json": "{"}, "not readable JSON"),
        (
            {"config.json": '{"model_type": "gpt2"}', "a.safetensors": ""},
            "of type 'gpt2'; supported: internvl, llava, llava_next, llava_onevision",
        ),
        ({"config.json": '{"model_type": "qwen2_vl"}', "pytorch_model.bin": ""}, "pickled weights are not loaded"),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        resolve(f"mine={tmp_path}")


def test_a_hub_id_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"llava-hf/.*HF_HUB_OFFLINE is set"):
        resolve("llava_onevision_7b")


def test_outcomes_that_held_less_are_not_taken_for_those_of_today(
    model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("twin", "snapkv", "paper", "0.30", "toy")
    before = [cell_fingerprint(cell, model.source, Settings(), part) for part in ("quality", "ttft")]
    monkeypatch.setitem(group.HOLDS, "quality", 1)
    after = [cell_fingerprint(cell, model.source, Settings(), part) for part in ("quality", "ttft")]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_an_outcome_written_before_there_were_second_runs_still_reads(model: Adapter) -> None:
    (one,) = run_group(cells(methods=["dense"]), model, Settings(limit=1))
    old = json.loads(dump(one.to_json()))
    for name in ("scoring", "change", "group"):
        del old[name]
    for name in ("forced", "again", "again_tokens"):
        del old["answers"][0][name]
    read = Outcome.from_json(old)
    assert (read.scoring, read.change) == ("rule", "")
    assert read.answers == (replace(one.answers[0], forced=None, again=None, again_tokens=()),)
    with pytest.raises(ValueError, match="'guess' is not one of exact, rule, judge, proxy"):
        replace(one, scoring="guess")


@pytest.mark.parametrize("name", ["snapkv", "adakv"])
def test_a_changed_default_is_another_outcome_also_where_it_is_inherited(
    name: str, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("twin", name, "paper", "0.30", "toy")
    monkeypatch.setattr(registry, "declared", lambda kind, name: {})
    before, load = cell_fingerprint(cell, model.source, Settings()), registry.load
    facts = {"__annotations__": {"kernel": int}, "kernel": 9}

    def changed(kind: str, name: str) -> type:
        found = load(kind, name)
        return dataclass(frozen=True, kw_only=True)(type(found.__name__, (found,), facts))

    assert load("methods", name)().kernel == 7
    monkeypatch.setattr(registry, "load", changed)
    assert cell_fingerprint(cell, model.source, Settings()) != before


def test_heads_that_differ_stand_in_the_audit_and_sum_to_their_layers(model: Adapter) -> None:
    asked = [Cell("twin", name, "paper", "0.70", "toy") for name in ("adakv", "snapkv")]
    found = {one.cell.method: one for one in run_group(asked, model, Settings(limit=3))}
    assert found["snapkv"].achieved.per_head == ()
    heads, layers = found["adakv"].achieved.per_head, found["adakv"].achieved.per_layer
    assert any(len(set(layer)) > 1 for layer in heads)
    assert [sum(layer) / len(layer) for layer in heads] == pytest.approx(layers)
    assert Outcome.from_json(json.loads(dump(found["adakv"].to_json()))) == found["adakv"]
