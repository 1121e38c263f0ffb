"""A group answered in blocks, by whoever and in whatever order, comes to what one run of it comes to; so do shards."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import twins
from forms import FORMS
from toy_task import Toy, cells

from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Cell, Outcome, Sample, Settings
from effivlm.report.document import read
from effivlm.report.merge import merge
from effivlm.run import group, noise
from effivlm.run.group import cell_fingerprint, open_model, run_group
from effivlm.session import journal
from effivlm.session.blocks import Blocks, parts
from effivlm.session.joining import join
from effivlm.session.journal import Journal
from effivlm.session.recorder import Recorder
from effivlm.session.together import Together

SETTINGS = Settings(limit=9)
METHODS = ("dense", "fastv", "snapkv", "visionzip", "random_visual")
GROUP = [cell for cell in cells(keeps=("0.30",)) if cell.method in METHODS and cell.preset == "paper"]
FAMILIES = {"twin": "llava_onevision"}


class Nine(Toy):
    """As many samples as the settings ask for."""

    forms = (FORMS * 2)[:9]


class Odd(Nine):
    """Samples that break, repeat an id, or cannot be read, among those that answer."""

    def samples(self, limit: int, seed: int) -> Sequence[Sample]:
        found: list[Any] = list(super().samples(limit, seed))
        found[4] = replace(found[4], id=found[1].id)
        found[6] = "no sample"
        return found

    def score(self, text: str, sample: Sample) -> float:
        if sample.id == found_id(3):
            raise RuntimeError("no score")
        return super().score(text, sample)


def found_id(number: int) -> str:
    return Nine().samples(9, 0)[number].id


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """One family is enough: blocks know none."""
    folder = twins.build("llava_onevision", tmp_path_factory.mktemp("blocks"), layers=2)
    return open_model(resolve(f"twin={folder}"), Settings())


@pytest.fixture
def nine(toy_task: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    task = Nine()
    monkeypatch.setattr(group, "task_of", lambda name: task)


@pytest.fixture
def names(model: Adapter, nine: None) -> dict[Cell, str]:
    return {cell: cell_fingerprint(cell, model.source, SETTINGS) for cell in {*GROUP, GROUP[0].dense}}


def worker(folder: Path, settings: Settings = SETTINGS, workers: int = 2) -> Together:
    return Together(folder, Journal(folder, 1), settings, FAMILIES, workers, "test")


def told(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(one.to_json())) for one in outcomes]


@pytest.mark.usefixtures("toy_task")
@pytest.mark.parametrize("seed", [0, 1])
def test_blocks_of_several_workers_come_to_what_one_run_comes_to(
    seed: int, model: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = Odd()
    monkeypatch.setattr(group, "task_of", lambda name: odd)
    monkeypatch.setattr(noise, "SAMPLES", 4)
    names = {cell: cell_fingerprint(cell, model.source, SETTINGS) for cell in {*GROUP, GROUP[0].dense}}
    lines: list[Any] = []
    whole = run_group(GROUP, model, SETTINGS, on_note=lines.append)
    assert {one.broken for one in whole if one.status == "ok"} == {3}
    draw, helpers, shown = random.Random(seed), [worker(tmp_path) for _ in range(3)], list[Any]()
    while any(draw.choice(helpers).help(GROUP, names, lambda: model, lambda done, of: None) for _ in range(6)):
        pass
    owner = worker(tmp_path)
    made = owner.outcomes(GROUP, names, lambda: pytest.fail("no model is needed"), lambda done, of: None, shown.append)
    assert told(made) == told(whole)
    assert shown == json.loads(json.dumps(lines))
    answered = [one["number"] for one in journal.lines(tmp_path) if one["kind"] == "answers"]
    assert sorted(answered) == list(range(9)), "every sample once"


def test_who_owns_a_group_asks_again_what_the_journals_lost(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    whole = run_group(GROUP, model, SETTINGS)
    helper = worker(tmp_path)
    while helper.help(GROUP, names, lambda: model, lambda done, of: None):
        pass
    (path,) = tmp_path.glob(journal.PATTERN)
    kept = path.read_text().splitlines()
    path.write_text("\n".join([*kept[:3], *kept[4:]]) + "\n")
    made = worker(tmp_path).outcomes(GROUP, names, lambda: model, lambda done, of: None, lambda line: None)
    assert told(made) == told(whole)


def test_a_worker_whose_first_block_was_begun_by_another_asks_only_what_that_left(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    first, second, cut = worker(tmp_path), worker(tmp_path), [range(9)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("effivlm.session.together.parts", lambda numbers, workers: cut)

        def stop(done: int, of: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            first.help(GROUP, names, lambda: model, stop)
        assert second.help(GROUP, names, lambda: model, lambda done, of: None)
    answered = [one["number"] for one in journal.lines(tmp_path) if one["kind"] == "answers"]
    assert sorted(answered) == list(range(9))


def test_a_block_is_free_again_when_its_holder_ends_without_having_done_it(tmp_path: Path) -> None:
    blocks, cut = Blocks(tmp_path, "test", ["m", "t"]), parts(range(10), 1)
    assert [list(one) for one in cut] == [[number] for number in range(10)]
    with blocks.claim(cut) as first, blocks.claim(cut) as second:
        assert first is not None
        assert second is not None
        assert (first.numbers, second.numbers, second.begun) == (range(1), range(1, 2), False)
    with suppress(RuntimeError), blocks.claim(cut) as third:
        raise RuntimeError(third)
    with blocks.claim(cut) as again:
        assert again is not None
        assert (again.numbers, again.begun) == (range(2, 3), True)


@pytest.mark.parametrize("total", [0, 1, 7, 100, 5000])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_blocks_cover_every_sample_once_and_are_small_beside_the_work_of_a_worker(total: int, workers: int) -> None:
    cut = parts(range(total), workers)
    assert [number for block in cut for number in block] == list(range(total))
    assert all(len(block) <= max(1, total // (8 * workers)) for block in cut)


def sharded(model: Adapter, folder: Path, shard: str, names: dict[Cell, str], **changed: Any) -> Path:
    """The folder of a run of one shard, as a session leaves it."""
    settings = replace(SETTINGS, shard=shard)
    recorder = Recorder(folder)
    recorder.hold()
    header = {"settings": asdict(settings), "models": {"twin": model.source.to_json()}, "device": "test", **changed}
    recorder.open(header)
    part = worker(folder, settings, 1)
    for one in part.outcomes(GROUP, names, lambda: model, lambda done, of: None, recorder.add_sample):
        recorder.add(one)
    recorder.close({"status": "finished", "seconds": 1})
    recorder.release()
    return folder


def test_shards_merge_into_the_cells_of_the_whole_run_whatever_their_order(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    whole = run_group(GROUP, model, SETTINGS)
    folders = [sharded(model, tmp_path / f"{place}", f"{place}/3", names) for place in (3, 1, 2)]
    for folder in folders:
        _, alone, _ = read(folder / "outcomes.jsonl")
        waiting = [one for one in alone if "report A B" in one.reason]
        assert len(waiting) > len(alone) / 2
        assert {(one.status, len(one.answers), one.score) for one in waiting} == {("unsupported", 3, None)}
    merge(folders, tmp_path / "out", join)
    header, outcomes, end = read(tmp_path / "out" / "outcomes.jsonl")
    assert sorted(told(outcomes), key=str) == sorted(told(whole), key=str)
    assert (header["settings"]["shard"], end["status"] if end else "") == ("", "finished")


def test_a_merge_without_a_shard_says_which_and_how_much_is_missing(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    folders = [sharded(model, tmp_path / f"{place}", f"{place}/3", names) for place in (1, 3)]
    merge(folders, tmp_path / "out", join)
    _, outcomes, end = read(tmp_path / "out" / "outcomes.jsonl")
    told_so = "3 of 9 samples have no answer (numbers 1, 4, 7): shard 2/3 is missing"
    assert {(one.status, one.reason) for one in outcomes} == {("interrupted", told_so)}
    assert end
    assert (end["status"], end["reason"]) == ("interrupted", "shard 2/3 is missing")


def test_shards_that_disagree_are_refused_with_both_folders(
    model: Adapter, tmp_path: Path, names: dict[Cell, str]
) -> None:
    one, two = (sharded(model, tmp_path / f"{place}", f"{place}/2", names) for place in (1, 2))
    twice = sharded(model, tmp_path / "twice", "2/2", names)
    (path,) = twice.glob(journal.PATTERN)
    path.write_text(path.read_text().replace('"text":"', '"text":"not ', 1))
    with pytest.raises(ValueError, match=r"sample 1 has different answers in .*2 and in .*twice"):
        merge([one, two, twice], tmp_path / "out", join)
    other = sharded(model, tmp_path / "other", "2/2", {cell: name[::-1] for cell, name in names.items()})
    with pytest.raises(ValueError, match=r"was measured in .*1 and in .*other under different fingerprints"):
        merge([one, other], tmp_path / "out", join)
    assert not (tmp_path / "out").exists()
