"""Cells whose method changes the checkpoint: they run on it, are compared with dense of the model as it is, and audited."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from safetensors.torch import load_file, save_file
from toy_task import Toy

from effivlm import registry
from effivlm.methods.magnitude import Magnitude
from effivlm.methods.rtn import Rtn
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Cell, Outcome, Settings, Unsupported
from effivlm.run import compressed, group
from effivlm.run.compressed import Compressed
from effivlm.run.group import cell_fingerprint, open_model, run_group
from effivlm.run.steps import asked
from effivlm.run.weighed import Weighed
from effivlm.session.groups import Groups
from effivlm.session.matrix import Plan
from effivlm.session.recorder import Recorder
from effivlm.timing.timing import prepare_timing
from effivlm.weights.product import PRODUCT, product
from effivlm.weights.saving import files_of

DENSE = Cell("twin", "dense", "paper", "1.00", "toy")
ALONE, HALF = (Cell("twin", "magnitude", "paper", keep, "toy") for keep in ("2:4", "sparsity0.50"))
BESIDE, SNAPKV = (Cell("twin", *asked(name), "0.40", "toy") for name in ("magnitude:2:4+snapkv", "snapkv"))
LIMIT = 4
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="a device that can be full")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    folder = twins.build("qwen2_vl", tmp_path_factory.mktemp("whole"), dtype=torch.float16)
    return open_model(resolve(f"twin={folder}"), Settings())


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """The one task there is, in all of this file."""
    task, declared, load = Toy(), registry.declared, registry.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "task_of", lambda name: task)
        patch.setattr(registry, "load", lambda kind, name: Toy if kind == "tasks" else load(kind, name))
        patch.setattr(registry, "declared", lambda kind, name: {} if kind == "tasks" else declared(kind, name))
        yield


def run(whole: Adapter, *cells: Cell, **more: Any) -> dict[Cell, Outcome]:
    settings = Settings(limit=LIMIT, share=more.pop("share", True))
    return {one.cell: one for one in run_group(cells, whole, settings, **more)}


@pytest.fixture(scope="module")
def found(whole: Adapter, products: Path) -> dict[Cell, Outcome]:
    return run(whole, ALONE, SNAPKV, BESIDE, HALF)


def test_answers_are_those_of_the_changed_checkpoint_opened_by_itself(
    whole: Adapter, found: dict[Cell, Outcome], products: Path
) -> None:
    method = Magnitude(keep=Budget.parse("2:4"))
    folder = product(whole.source, method, Settings())
    assert folder.parent == products
    other = open_model(replace(whole.source, source=str(folder)), Settings())
    alone = {one.cell: one for one in run_group([DENSE, SNAPKV], other, Settings(limit=LIMIT))}
    for ours, theirs in ((ALONE, DENSE), (BESIDE, SNAPKV)):
        assert [one.tokens for one in found[ours].answers] == [one.tokens for one in alone[theirs].answers]
        assert found[ours].score == alone[theirs].score
    dense = run(whole, SNAPKV)
    assert found[DENSE] == dense[DENSE]
    assert found[SNAPKV] == dense[SNAPKV]


def test_what_is_told_of_agreement_is_agreement_with_dense_of_the_model_as_it_is(found: dict[Cell, Outcome]) -> None:
    dense = found[DENSE].answers
    for cell in (ALONE, BESIDE, HALF):
        answers = found[cell].answers
        assert [one.exact_as_dense for one in answers] == [
            one.text == other.text for one, other in zip(answers, dense, strict=True)
        ]
        assert not all(one.exact_as_dense for one in answers)
        assert any(one.forced is not None and one.forced < 1 for one in answers)
        assert all(one.again is None for one in answers)


def test_both_parts_of_a_composition_are_audited_on_tensors(found: dict[Cell, Outcome]) -> None:
    kept = found[ALONE].achieved
    assert kept is not None
    assert (kept.of, kept.asked, kept.counted, kept.keep, kept.asked_keep) == ("weights", "2:4", 0.5, 0.5, 0.5)
    assert kept.kept * 2 == kept.total > 100_000
    assert kept.kv_bytes == kept.kv_bytes_dense > 0
    both = found[BESIDE].achieved
    assert both is not None
    assert [(part.method, part.of, part.asked) for part in both.parts] == [
        ("magnitude", "weights", "2:4"),
        ("snapkv", "prompt entries", ""),
    ]
    assert both.parts[0].kept == kept.kept
    assert 0 < both.kv_bytes < both.kv_bytes_dense


def test_an_outcome_says_what_its_checkpoint_stores_what_reads_it_and_how_it_was_made(
    whole: Adapter, found: dict[Cell, Outcome]
) -> None:
    folder = product(whole.source, Magnitude(keep=Budget.parse("2:4")), Settings())
    told = found[ALONE].product
    assert told is not None
    assert told.disk_bytes == sum(path.stat().st_size for path in files_of(folder))
    assert told.disk_bytes_dense == sum(path.stat().st_size for path in Path(whole.source.source).glob("*.safetensors"))
    assert told.memory_bytes == told.memory_bytes_dense == whole.weight_bytes()
    assert (told.reading, told.packing, told.engine) == ("zeros stored densely", "dense", "llmcompressor")
    assert (told.calibration, told.samples, told.tokens, told.drawn) == ("", 0, "", "")
    assert told.seconds == json.loads((folder / PRODUCT).read_text())["seconds"] > 0
    assert found[BESIDE].product == told
    assert found[DENSE].product is found[SNAPKV].product is None


def test_one_checkpoint_is_opened_once_for_all_its_cells_and_none_beside_another(
    whole: Adapter, products: Path
) -> None:
    opened: list[str] = []

    def opening(source: Any, settings: Settings) -> Adapter:
        opened.append(source.source)
        return open_model(source, settings)

    holder, progress = Compressed(opening, Settings(limit=LIMIT)), list[tuple[int, int]]()
    run(whole, ALONE, HALF, BESIDE, compressed=holder, on_progress=lambda done, of: progress.append((done, of)))
    assert len(opened) == len(set(opened)) == 2
    assert progress == [(done, 3 * LIMIT) for done in range(1, 3 * LIMIT + 1)]
    run(whole, HALF, compressed=holder)
    assert len(opened) == 2, "the last one is still open"
    holder.close()


def test_sharing_changes_no_answer(whole: Adapter, found: dict[Cell, Outcome]) -> None:
    assert run(whole, ALONE, SNAPKV, BESIDE, HALF, share=False) == found


def test_answers_that_were_stored_are_not_asked_again(whole: Adapter, found: dict[Cell, Outcome]) -> None:
    first, again = dict[int, Any](), list[int]()

    def keep(number: int, asked_of: Any) -> None:
        if number in first:
            for word in ("answers", "leaves", "refused", "failed"):
                getattr(first[number], word).update(getattr(asked_of, word))
        else:
            first[number] = asked_of

    run(whole, ALONE, SNAPKV, BESIDE, HALF, on_answers=keep)
    assert run(whole, ALONE, SNAPKV, BESIDE, HALF, stored=first, on_answers=lambda n, _: again.append(n)) == found
    assert again == []


def test_a_session_of_several_workers_gives_the_same_outcomes(
    whole: Adapter, found: dict[Cell, Outcome], tmp_path: Path
) -> None:
    cells, settings = (ALONE, SNAPKV, BESIDE, HALF), Settings(limit=LIMIT)
    plan = Plan(settings, {"twin": whole.source}, cells)
    recorder = Recorder(tmp_path)
    recorder.open({"settings": asdict(settings), "device": "test"})
    groups = Groups(plan, settings, tmp_path, {"quality": cells}, workers=2, session="session")
    ours = {cell: groups.quality(cell, lambda: whole, lambda done, of: None) for cell in cells}
    assert ours == {cell: found[cell] for cell in cells}
    assert {one.cell for one in groups.drain()} == {DENSE, *cells}
    groups.forget_model()


def test_a_checkpoint_that_cannot_be_made_costs_its_own_cells(
    whole: Adapter, products: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(source: Any, method: Any, *_: Any) -> Path:
        if method.keep.label == "2:4":
            raise Unsupported("there is no such checkpoint")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compressed, "product", broken)
    found = run(whole, ALONE, SNAPKV, BESIDE, HALF)
    assert {cell.method: found[cell].status for cell in (DENSE, SNAPKV)} == {"dense": "ok", "snapkv": "ok"}
    for cell in (ALONE, BESIDE):
        assert (found[cell].status, found[cell].reason) == ("unsupported", "there is no such checkpoint")
    assert (found[HALF].status, found[HALF].reason) == ("failed", "[Errno 28] No space left on device")
    assert all(found[cell].fingerprint for cell in (ALONE, HALF))


def tampered(folder: Path, to: Path, zeros: float, put_back: int) -> Path:
    """A copy of a product whose record tells of other `zeros`, and in which so many weights of a layer are zero no more."""
    shutil.copytree(folder, to)
    record = json.loads((to / PRODUCT).read_text())
    record["achieved"]["zeros"] = zeros
    (to / PRODUCT).write_text(json.dumps(record))
    (file,) = files_of(to)
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("layers.0.mlp.up_proj.weight"))
    gone = (tensors[name] == 0).nonzero()[:put_back]
    tensors[name][gone[:, 0], gone[:, 1]] = 1.0
    save_file(tensors, file, {"format": "pt"})
    return to


@pytest.mark.parametrize(
    ("which", "zeros", "put_back", "reason"),
    [
        (HALF, 0.5, 8, ""),  # 8 of 122,880: within 1e-4
        (HALF, 0.5, 40, "0.49967 of the weights are zero where sparsity0.50 was asked"),
        (HALF, 0.51, 0, "0.5 of the weights are zero, and effivlm_product.json says 0.51"),
        (ALONE, 0.5, 1, "1 groups of weights are not 2:4"),
        (BESIDE, 0.5, 1, "magnitude: 1 groups of weights are not 2:4"),
    ],
)
def test_a_checkpoint_with_other_weights_than_were_asked_fails_its_cells(
    whole: Adapter,
    products: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    which: Cell,
    zeros: float,
    put_back: int,
    reason: str,
) -> None:
    monkeypatch.setattr(
        compressed, "product", lambda *given: tampered(product(*given), tmp_path / "other", zeros, put_back)
    )
    one = run(whole, which)[which]
    assert (one.status, one.reason) == ("failed" if reason else "ok", reason)
    assert one.achieved is not None


def test_a_fingerprint_names_everything_that_decides_the_checkpoint(
    whole: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names() -> list[str]:
        return [cell_fingerprint(cell, whole.source, Settings()) for cell in (ALONE, BESIDE, SNAPKV, DENSE)]

    before, known = names(), compressed.plan
    assert len(set(before)) == 4
    monkeypatch.setattr(compressed, "plan", lambda *given: {**known(*given), "versions": "others"})
    after = names()
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True, True]


def test_a_cell_is_timed_on_its_own_checkpoint(whole: Adapter, products: Path) -> None:
    holder = Compressed(open_model, Settings())
    timed = prepare_timing(BESIDE, whole, Settings(), holder)
    assert timed.model is not whole
    outcome = timed.outcome("ttft", [timed.ttft()])
    assert outcome.status == "ok"
    assert outcome.fingerprint == cell_fingerprint(BESIDE, whole.source, Settings(), "ttft")
    assert outcome.achieved is not None
    assert [part.asked for part in outcome.achieved.parts] == ["2:4", ""]
    assert prepare_timing(SNAPKV, whole, Settings(), holder).model is whole
    assert holder._held is None, "it is not beside a model that is timed alone"


@GPU
def test_the_model_as_it_is_stands_aside_where_there_is_no_room_for_two_and_comes_back(
    products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = twins.build("qwen2_vl", tmp_path / "twin", dtype=torch.float16)
    settings = Settings(limit=LIMIT, device="cuda:0", dtype="float32")
    model = open_model(resolve(f"twin={folder}"), settings)
    roomy = run_group([ALONE, SNAPKV], model, settings)
    monkeypatch.setattr(compressed, "free_bytes", lambda device: 0)
    stood = list[str]()
    opening = lambda source, settings: (stood.append(device_of(model)), open_model(source, settings))[1]  # noqa: E731
    holder = Compressed(opening, settings)
    assert run_group([ALONE, SNAPKV], model, settings, compressed=holder) == roomy
    assert stood == ["cpu"]
    assert device_of(model) == "cuda"
    assert not holder.aside


def device_of(model: Adapter) -> str:
    return str(model.model.get_input_embeddings().weight.device.type)


def test_bits_are_those_of_the_files_and_may_differ_by_scales_alone() -> None:
    method = Rtn(keep=Budget.parse("w4g128"))
    good = Weighed(method, 1000, 0, 4158, 4.158)
    assert good.wrong == ""
    kept = good.kept_by("rtn")
    assert (kept.kept, kept.total, kept.counted) == (4158, 16_000, 4.158)
    assert replace(good, bits=8000, said=8.0).wrong == "8 bits a weight where w4g128 was asked"
    assert replace(good, said=4.2).wrong == "4.158 bits a weight, and effivlm_product.json says 4.2"
