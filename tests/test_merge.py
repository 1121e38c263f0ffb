"""Several runs as one document: what is taken once, what conflicts, and whose machine measured what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from effivlm.records import Outcome, dump
from effivlm.report.baseline import load
from effivlm.report.document import build, read
from effivlm.report.limits import Limits
from effivlm.report.merge import merge
from effivlm.report.verdict import verdict
from effivlm.session.joining import join
from tests.outcomes import END, HEADER, cell, missing, quality, small_run, store, timed

SLOW = {**HEADER, "device": {"name": "slow device", "driver": "2.0"}}
DENSE, FASTV = cell(), cell("fastv", "0.10")


def stored(folder: Path, outcomes: Sequence[Outcome], **options: Any) -> Path:
    folder.mkdir()
    store(folder, outcomes, **options)
    return folder


def merged(tmp_path: Path, *folders: Path) -> dict[str, Any]:
    merge(folders, tmp_path / "out", join)
    return build(*read(tmp_path / "out" / "outcomes.jsonl"))


def shards(tmp_path: Path, **second: Any) -> tuple[Path, Path]:
    """A run in two shards by task."""
    whole = small_run()
    tasks = [[one for one in whole if (one.cell.task == "docvqa_micro") == first] for first in (True, False)]
    return stored(tmp_path / "one", tasks[0]), stored(tmp_path / "two", tasks[1], **second)


def test_two_shards_give_the_document_of_the_whole_run(tmp_path: Path) -> None:
    together = merged(tmp_path, *shards(tmp_path))
    whole = build(HEADER, small_run(), END)
    for table in ("cells", "skipped", "failed", "summary"):
        assert together[table] == whole[table]
    assert [machine["folder"] for machine in together["run"]["machines"]] == ["one", "two"]
    assert together["run"]["status"] == "finished"


def test_the_same_outcome_in_two_runs_is_taken_once(tmp_path: Path) -> None:
    run = [quality(DENSE, [1, 1, 0, 1]), timed(DENSE, "ttft", *[0.2] * 6)]
    folders = stored(tmp_path / "one", run), stored(tmp_path / "two", [*run, quality(FASTV, [1, 0, 0, 1])])
    together = merged(tmp_path, *folders)
    assert [one["id"] for one in together["cells"]] == [DENSE.id, FASTV.id]
    assert "2 outcomes stood in several runs and were taken once" in together["run"]["notes"]


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (replace(quality(DENSE, [1, 1, 0, 1]), fingerprint="1" * 20), "fingerprints"),
        (quality(DENSE, [1, 1, 1, 1]), "results"),
        (quality(DENSE, [1, 1, 0, 1], same=[True, True, True, False]), "results"),
        (missing(DENSE, "unsupported"), "fingerprints"),
    ],
)
def test_a_conflict_names_the_cell_and_both_folders(tmp_path: Path, other: Outcome, what: str) -> None:
    folders = stored(tmp_path / "one", [quality(DENSE, [1, 1, 0, 1])]), stored(tmp_path / "two", [other])
    with pytest.raises(ValueError, match=f"different {what}") as refused:
        merge(folders, tmp_path / "out", join)
    assert all(str(word) in str(refused.value) for word in (*folders, DENSE.id, "quality"))
    assert not (tmp_path / "out").exists()


def test_other_rounds_of_the_same_timing_conflict(tmp_path: Path) -> None:
    folders = [stored(tmp_path / name, [timed(DENSE, "decode", *[ms] * 6)]) for name, ms in (("a", 4.0), ("b", 5.0))]
    with pytest.raises(ValueError, match=r"\(decode\).*different results"):
        merge(folders, tmp_path / "out", join)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_measured_cell_takes_the_place_of_one_that_failed_elsewhere(tmp_path: Path, order: tuple[int, int]) -> None:
    folders = (
        stored(tmp_path / "one", [quality(DENSE, [1, 1]), missing(FASTV)]),
        stored(tmp_path / "two", [quality(FASTV, [1, 0])]),
    )
    together = merged(tmp_path, *(folders[place] for place in order))
    assert together["failed"] == []
    assert {one["id"] for one in together["cells"]} == {DENSE.id, FASTV.id}


def test_timings_of_two_devices_meet_in_no_mean_and_no_speed_up(tmp_path: Path) -> None:
    alone = merged(tmp_path, *shards(tmp_path, header=SLOW))
    assert {row["tasks"][0] for row in alone["summary"]["oe"] if len(row["tasks"]) == 1} <= {
        "docvqa_micro",
        "chartqa_micro",
    }
    assert not [row for row in alone["summary"]["oe"] if len(row["tasks"]) > 1]
    assert [row for row in alone["summary"]["op"] if len(row["tasks"]) == 2]
    split = (
        stored(tmp_path / "a", [quality(DENSE, [1, 1]), timed(DENSE, "ttft", *[0.4] * 6)]),
        stored(tmp_path / "b", [timed(FASTV, "ttft", *[0.1] * 6)], header=SLOW),
    )
    merge(split, tmp_path / "mixed", join)
    document = build(*read(tmp_path / "mixed" / "outcomes.jsonl"))
    (fast,) = (one for one in document["cells"] if one["id"] == FASTV.id)
    assert fast["speedups"]["ttft"] is None
    assert "ttft measured on slow device (driver 2.0)" in fast["remarks"]
    assert document["run"]["device"] == "test device + slow device"


def test_the_gate_knows_whose_machine_timed_a_cell_of_a_merged_run(tmp_path: Path) -> None:
    merge(shards(tmp_path, header=SLOW), tmp_path / "out", join)
    together, first = load(tmp_path / "out"), load(tmp_path / "one")
    assert together.cells[DENSE.id].where["ttft"].machine == "test device, driver 1.0"
    chart = cell(task="chartqa_micro")
    assert together.cells[chart.id].where["ttft"].machine == "slow device, driver 2.0"
    found = verdict(first, together, Limits())
    assert (found["status"], {row["check"] for row in found["rows"] if row["status"] == "warn"}) == ("passed", {"new"})
    assert {row["check"] for row in found["rows"] if row["status"] == "ok"} >= {"ttft", "decode", "score"}


def test_lines_of_samples_come_along_once(tmp_path: Path) -> None:
    sample = {"kind": "sample", "task": "docvqa_micro", "id": "s0", "prompt": "?", "references": []}
    kept = {"kind": "kept", "task": "docvqa_micro", "sample": "s0", "cell": FASTV.to_json(), "grid": [[1, 2, 2]]}
    folders = shards(tmp_path)
    for folder in folders:
        with (folder / "outcomes.jsonl").open("a") as file:
            file.write(dump(sample) + "\n" + dump(kept) + "\n")
    merge(folders, tmp_path / "out", join)
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "out" / "outcomes.jsonl").read_text().splitlines()]
    assert (kinds[0], kinds.count("sample"), kinds.count("kept"), kinds[-1]) == ("run", 1, 1, "end")


def test_one_interrupted_run_makes_the_whole_one_interrupted(tmp_path: Path) -> None:
    together = merged(tmp_path, *shards(tmp_path, end=None))
    assert together["run"]["status"] == "interrupted"
    assert "two did not finish" in together["run"]["end"]["reason"]


def test_other_settings_are_noted_and_other_task_versions_refused(tmp_path: Path) -> None:
    first = {**HEADER, "settings": {"limit": 8}, "task_versions": {"docvqa_micro": 1}}
    second = {**HEADER, "settings": {"limit": 9}, "task_versions": {"docvqa_micro": 2}}
    one = stored(tmp_path / "a", [quality(DENSE, [1, 0])], header=first)
    two = stored(tmp_path / "b", [quality(FASTV, [1, 0])], header=second)
    with pytest.raises(ValueError, match=r"docvqa_micro has version 1 in .*a and 2 in .*b"):
        merge([one, two], tmp_path / "out", join)
    three = stored(tmp_path / "c", [quality(FASTV, [1, 0])], header={**second, "task_versions": {}})
    assert any("differ in limit: 8, 9" in note for note in merged(tmp_path, one, three)["run"]["notes"])


def test_another_schema_a_folder_named_twice_and_a_full_target_are_refused(tmp_path: Path) -> None:
    one = stored(tmp_path / "a", [quality(DENSE, [1, 0])])
    two = stored(tmp_path / "b", [quality(FASTV, [1, 0])], header={**HEADER, "schema": 2})
    with pytest.raises(ValueError, match="schema 2"):
        merge([one, two], tmp_path / "out", join)
    with pytest.raises(ValueError, match="named twice"):
        merge([one, one], tmp_path / "out", join)
    with pytest.raises(ValueError, match="holds a run already"):
        merge([one], one, join)


def test_a_merged_run_is_not_merged_again(tmp_path: Path) -> None:
    merge(shards(tmp_path), tmp_path / "out", join)
    with pytest.raises(ValueError, match=r"out was merged from several runs already \(one, two\)"):
        merge([tmp_path / "out"], tmp_path / "again", join)
