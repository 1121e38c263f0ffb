"""Cells of changed checkpoints that several workers or shards answer: the outcomes of one, and nobody waits for nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import test_changed
from test_changed import ALONE, BESIDE, DENSE, HALF, LIMIT, SNAPKV

from effivlm.cluster.worker import Worker
from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Outcome, Settings, Unsupported
from effivlm.report.document import read
from effivlm.report.merge import merge
from effivlm.run import compressed
from effivlm.session import journal
from effivlm.session.blocks import Blocks
from effivlm.session.groups import Groups
from effivlm.session.joining import join
from effivlm.session.matrix import Plan
from effivlm.session.recorder import Recorder

whole, toy, found = test_changed.whole, test_changed.toy, test_changed.found
CELLS = (ALONE, SNAPKV, BESIDE, HALF)
Found = dict[Cell, Outcome]


def process(whole: Adapter, folder: Path, settings: Settings | None = None, workers: int = 2) -> Groups:
    """What one of several processes keeps of a session that has begun."""
    asked = settings or Settings(limit=LIMIT)
    if not (folder / "outcomes.jsonl").exists():
        begun(whole, folder, asked).release()
    plan = Plan(asked, {"twin": whole.source}, CELLS)
    return Groups(plan, asked, folder, {"quality": CELLS}, workers, "session")


def begun(whole: Adapter, folder: Path, settings: Settings) -> Recorder:
    recorder = Recorder(folder)
    recorder.hold()
    recorder.open({"settings": asdict(settings), "models": {"twin": whole.source.to_json()}, "device": "test"})
    return recorder


def outcomes(groups: Groups, model: Callable[[], Any]) -> Found:
    made = {cell: groups.quality(cell, model, lambda done, of: None) for cell in CELLS}
    return {**made, DENSE: groups.done[DENSE, "quality"]}


def told(found: Sequence[Outcome]) -> list[str]:
    return sorted(json.dumps(one.to_json(), sort_keys=True) for one in found)


def asked(folder: Path) -> Counter[tuple[int, str]]:
    """How often each sample was asked, by number and cell."""
    lines = (one for one in journal.lines(folder) if one["kind"] == "answers")
    return Counter((one["number"], Cell.from_json(cell["cell"]).id) for one in lines for cell in one["cells"])


def test_a_helper_answers_all_of_changed_checkpoints_and_the_owner_needs_no_model(
    whole: Adapter, found: Found, products: Path, tmp_path: Path
) -> None:
    helper = process(whole, tmp_path)
    assert helper.help(lambda name: whole) == []
    helper.forget_model()
    assert outcomes(process(whole, tmp_path), lambda: pytest.fail("no model is needed")) == found
    assert set(asked(tmp_path).values()) == {1}
    assert len(asked(tmp_path)) == LIMIT * 5, "dense too, and once"
    assert len([one for one in journal.lines(tmp_path) if one["kind"] == "ran"]) == 3, "none is opened twice"


def test_a_worker_that_ends_in_a_block_of_a_changed_checkpoint_costs_the_answer_in_work(
    whole: Adapter, found: Found, products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, owner = process(whole, tmp_path), process(whole, tmp_path)
    write, changed = killed.journal.write, list[int]()

    def stop(number: int, given: Any, names: Any) -> None:
        if DENSE not in given.answers:
            changed.append(number)
            if len(changed) == 3:
                raise KeyboardInterrupt
        write(number, given, names)

    monkeypatch.setattr(killed.journal, "write", stop)
    with suppress(KeyboardInterrupt):
        killed.help(lambda name: whole)
    killed.forget_model()
    assert len(changed) == 3
    assert outcomes(owner, lambda: whole) == found
    owner.forget_model()
    assert set(asked(tmp_path).values()) == {1}


def test_while_one_worker_makes_a_checkpoint_another_does_what_is_left_beside_it(
    whole: Adapter, found: Found, products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper, owner = process(whole, tmp_path), process(whole, tmp_path)
    own, changed = [DENSE, SNAPKV], {"2:4": [ALONE, BESIDE], "sparsity0.50": [HALF]}
    names = helper.names([*CELLS])
    nothing: Callable[[int, int], None] = lambda done, of: None  # noqa: E731
    assert not owner.together.help([HALF], names, lambda: whole, nothing), "dense is not asked yet"
    assert not owner.together.over([HALF])
    while owner.together.help(own, names, lambda: whole, nothing):
        pass
    with helper.together.blocks(changed["2:4"]).making() as ours:
        assert ours
        assert not owner.together.help(changed["2:4"], names, lambda: pytest.fail("not now"), nothing)
        assert owner.together.help(changed["sparsity0.50"], names, lambda: whole, nothing)
        assert not owner.together.over(changed["2:4"])
    assert owner.together.help(changed["2:4"], names, lambda: whole, nothing)
    owner.forget_model()


def test_a_checkpoint_whose_maker_was_killed_is_made_by_another(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom effivlm.session.blocks import Blocks\n"
        "with Blocks(Path(sys.argv[1]), 's', ('m', 't', 'x')).making() as ours:\n"
        "    print(ours, flush=True)\n    time.sleep(600)\n"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert maker.stdout
    assert maker.stdout.readline() == "True\n"
    blocks = Blocks(tmp_path, "s", ("m", "t", "x"))
    with blocks.making() as ours:
        assert not ours
    maker.kill()
    maker.wait()
    maker.stdout.close()
    assert not blocks.made
    with blocks.making() as ours:
        assert ours
    assert blocks.made


def test_a_checkpoint_that_cannot_be_made_ends_its_cells_alone_beside_other_workers(
    whole: Adapter, found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = compressed.product

    def broken(source: Any, method: Any, *rest: Any) -> Path:
        if method.keep.label == "2:4":
            raise Unsupported("there is no such checkpoint")
        return product(source, method, *rest)

    monkeypatch.setattr(compressed, "product", broken)
    helper, owner = process(whole, tmp_path), process(whole, tmp_path)
    assert helper.help(lambda name: whole) == [], "it ends"
    helper.forget_model()
    made = outcomes(owner, lambda: whole)
    owner.forget_model()
    assert {cell: made[cell] for cell in (DENSE, SNAPKV, HALF)} == {cell: found[cell] for cell in (DENSE, SNAPKV, HALF)}
    for cell in (ALONE, BESIDE):
        assert (made[cell].status, made[cell].reason) == ("unsupported", "there is no such checkpoint")
        assert made[cell].fingerprint == found[cell].fingerprint


def test_a_helper_that_cannot_open_the_model_does_not_wait_for_dense(
    whole: Adapter, products: Path, tmp_path: Path
) -> None:
    def none(name: str) -> Adapter:
        raise RuntimeError("no room here")

    troubles = process(whole, tmp_path).help(none)
    assert [one.partition(" (")[0] for one in troubles] == ["no help with twin toy: RuntimeError: no room here"]


@pytest.fixture
def shards(whole: Adapter, products: Path, tmp_path: Path) -> list[Path]:
    """Folders of two shards' runs, as sessions leave them."""
    folders = []
    for place in (2, 1):
        settings = Settings(limit=LIMIT, shard=f"{place}/2")
        recorder = begun(whole, tmp_path / f"{place}", settings)
        part = process(whole, recorder.folder, settings, 1)
        for one in outcomes(part, lambda: whole).values():
            assert (one.status, len(one.answers)) == ("unsupported", LIMIT // 2), one.reason
            recorder.add(one)
        part.forget_model()
        recorder.close({"status": "finished", "seconds": 1})
        recorder.release()
        folders.append(recorder.folder)
    return folders


def test_shards_of_changed_checkpoints_merge_into_the_cells_of_one_run(
    shards: list[Path], found: Found, tmp_path: Path
) -> None:
    (path,) = shards[0].glob(journal.PATTERN)
    path.write_text(re.sub(r'"seconds":[\d.]+', '"seconds":7', path.read_text()))  # made by itself on another machine
    merge(shards, tmp_path / "out", join)
    _, made, end = read(tmp_path / "out" / "outcomes.jsonl")
    assert told(made) == told([*found.values()])
    assert end
    assert end["status"] == "finished"


def test_shards_that_answered_with_different_checkpoints_are_refused(shards: list[Path], tmp_path: Path) -> None:
    (path,) = shards[1].glob(journal.PATTERN)
    zeros = next(one["how"]["weighed"]["zeros"] for one in journal.lines(shards[1]) if one.get("checkpoint"))
    path.write_text(path.read_text().replace(f'"zeros":{zeros}', f'"zeros":{zeros - 1}'))
    with pytest.raises(ValueError, match=r"shards answered with different checkpoints .* folder of products"):
        merge(shards, tmp_path / "out", join)


def test_a_worker_of_a_cluster_answers_changed_checkpoints_as_one_process_does(
    whole: Adapter, found: Found, products: Path, tmp_path: Path
) -> None:
    """What the driver sends it, without a cluster: own cells first, and dense's answers with the others."""
    groups = process(whole, tmp_path)
    worker = Worker(replace(Settings(limit=LIMIT), device="cpu"), {"twin": whole.source})
    worker.shelf.name, worker.shelf.handle = "twin", whole
    made: Found = {}
    for cells in ([SNAPKV], [HALF], [ALONE, BESIDE]):
        names = groups.names(cells)
        references = groups.together.references(cells[0], names)
        for numbers in (range(2, LIMIT), range(2)):
            for line in worker.answer(cells, names, numbers, references, cells == [SNAPKV]):
                groups.journal.ran(cells[0], line["how"]) if "how" in line else groups.journal.put(line)
        outcomes, missing = groups.together.assembled(cells, names, lambda line: None)
        assert missing == []
        made |= {one.cell: one for one in outcomes}
    worker.opening.close()
    assert made == found
