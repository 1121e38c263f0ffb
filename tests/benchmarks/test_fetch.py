"""Bringing sets from a hub on the loopback: whole, resumed, moved, changed, closed, out of reach, out of room."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import published_sets
import pytest
from fake_hub import FakeHub, served
from published_sets import Opened

from effivlm import __main__ as cli
from effivlm.data import fetch as fetching
from effivlm.data import hub as hubs
from effivlm.data.places import MANIFEST, data_home, manifest
from effivlm.data.rows import UNFINISHED, open_rows
from effivlm.data.source import Source
from effivlm.tasks.chartqa import Chartqa
from effivlm.tasks.docvqa import Docvqa

NEW, OLD = Docvqa.source.homes
LARGE = "DocVQA/validation-00001-of-00002.parquet"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with served() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)  # a machine that builds this may be told to stay offline
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        yield server


def files_of(task: str, mirror: Path) -> dict[str, bytes]:
    folder = mirror / task
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fetched_set_is_whole_checked_and_read_offline(
    hub: FakeHub, mirror: Path, opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    commit = hub.put(NEW, files_of("docvqa", mirror))
    assert cli.main(["fetch", "docvqa"]) == 0
    said = capsys.readouterr().out
    assert f"{NEW}@{commit[:12]}, 2 files" in said.splitlines()[0], "the size is said before anything comes"
    folder = data_home() / "docvqa"
    here = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert here == {MANIFEST, "DocVQA/validation-00000-of-00002.parquet", LARGE}, "no other split, config or rest"
    assert manifest(folder)["files"][LARGE]["size"] == (folder / LARGE).stat().st_size
    hub.down = True
    asked = len(hub.asked)
    assert len(opened("docvqa", "").samples(100, 0)) == 6
    assert len(hub.asked) == asked


def test_a_fetch_that_broke_goes_on_where_it_was(
    hub: FakeHub, mirror: Path, opened: Opened, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None, raising=False)
    hub.put(NEW, files_of("docvqa", mirror))
    hub.cut[LARGE] = 700
    assert cli.main(["fetch", "docvqa"]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert LARGE in told
    assert "start the same command again, what has arrived is kept" in told
    folder = data_home() / "docvqa"
    assert not (folder / LARGE).exists()
    with pytest.raises(ValueError, match="is half fetched: `python -m effivlm fetch docvqa` goes on"):
        opened("docvqa", "").samples(1, 0)
    hub.cut.clear()
    hub.asked.clear()
    assert cli.main(["fetch", "docvqa"]) == 0
    assert "still to come" in capsys.readouterr().out
    brought = {path.rpartition("/")[2] for command, path, _ in hub.asked if command == "GET" and "/resolve/" in path}
    assert brought == {LARGE.rpartition("/")[2]}, "what had arrived is not brought again"
    assert not (folder / UNFINISHED).exists()
    assert len(opened("docvqa", "").samples(100, 0)) == 6


def test_a_file_that_does_not_match_its_checksum_is_thrown_away(
    hub: FakeHub, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(NEW, files_of("docvqa", mirror))
    wrong = {name: hubs.File(len(data), "0" * 64) for name, data in files_of("docvqa", mirror).items()}
    monkeypatch.setattr(hubs, "listing", lambda name, source: hubs.Listing(NEW, hub.commit(NEW, "main") or "", wrong))
    assert cli.main(["fetch", "docvqa"]) == 1
    assert "arrived damaged and does not match its checksum" in capsys.readouterr().err
    assert not list((data_home() / "docvqa").rglob("*.parquet"))


def test_a_set_that_moved_is_found_under_its_older_name(hub: FakeHub, mirror: Path) -> None:
    hub.put(OLD, files_of("docvqa", mirror))
    assert cli.main(["fetch", "docvqa"]) == 0
    assert manifest(data_home() / "docvqa")["home"] == OLD


def test_a_set_that_is_nowhere_is_named_with_all_its_homes(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "docvqa"]) == 1
    assert f"the hub knows neither {NEW} nor {OLD}" in capsys.readouterr().err
    assert not (data_home() / "docvqa").exists()


def test_a_gated_set_says_how_to_get_in(hub: FakeHub, mirror: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.put(NEW, files_of("docvqa", mirror))
    hub.gated.add(NEW)
    assert cli.main(["fetch", "docvqa"]) == 1
    assert f"{NEW} is given to accepted accounts only: accept its terms on the hub, then `hf auth login`" in (
        capsys.readouterr().err
    )


def test_a_pinned_revision_that_is_gone_is_named(hub: FakeHub, mirror: Path) -> None:
    hub.put(NEW, files_of("docvqa", mirror))
    with pytest.raises(ValueError, match="has no revision 'abc' any more: the set was changed by its owners"):
        hubs.listing("docvqa", replace(Docvqa.source, revision="abc"))


def test_without_a_network_the_sentence_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        ValueError, match=r"fetch docvqa` where there is a network, or name a folder with --vlm-data DIR"
    ):
        open_rows("docvqa", Docvqa.source, "")


def test_a_full_disk_keeps_what_arrived_and_says_so(
    hub: FakeHub, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(NEW, files_of("docvqa", mirror))
    bring = fetching._bring

    def full(name: str, found: fetching.Bill, one: str, file: hubs.File) -> None:
        if one == LARGE:
            raise OSError(errno.ENOSPC, "No space left on device")
        bring(name, found, one, file)

    monkeypatch.setattr(fetching, "_bring", full)
    assert cli.main(["fetch", "docvqa"]) == 1
    assert "no room in" in capsys.readouterr().err
    folder = data_home() / "docvqa"
    assert json.loads((folder / UNFINISHED).read_text())["done"] == ["DocVQA/validation-00000-of-00002.parquet"]
    assert not (folder / MANIFEST).exists()


def test_too_small_a_disk_is_found_before_anything_comes(
    hub: FakeHub, mirror: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(NEW, files_of("docvqa", mirror))
    usage = fetching.shutil.disk_usage(mirror)
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda place: usage._replace(free=10))
    assert cli.main(["fetch", "docvqa"]) == 1
    assert "do not fit into" in capsys.readouterr().err
    assert not any("/resolve/" in path for _, path, _ in hub.asked)


def test_a_new_commit_is_brought_and_an_old_one_is_not_brought_twice(
    hub: FakeHub, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(NEW, files_of("docvqa", mirror))
    cli.main(["fetch", "docvqa"])
    hub.asked.clear()
    assert cli.main(["fetch", "docvqa"]) == 0
    assert "is here already" in capsys.readouterr().out
    assert not any("/resolve/" in path for _, path, _ in hub.asked)
    older = manifest(data_home() / "docvqa")["commit"]
    newer = hub.put(NEW, {**files_of("docvqa", mirror), "README.md": b"changed"})
    assert cli.main(["fetch", "docvqa"]) == 0
    assert manifest(data_home() / "docvqa")["commit"] == newer
    said = capsys.readouterr().out
    assert (
        f"docvqa: its owners changed it since it was fetched: {older[:12]} is {newer[:12]} now; name docvqa@{older}"
        in said
    )


def test_a_commit_that_is_named_is_the_one_that_is_brought_and_recorded(
    hub: FakeHub, mirror: Path, opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of("docvqa", mirror)
    older = hub.put(NEW, files)
    hub.put(NEW, {**files, "README.md": b"changed"})
    assert cli.main(["fetch", f"docvqa@{older}"]) == 0
    assert manifest(data_home() / "docvqa")["commit"] == older
    task = opened("docvqa", "")
    assert task.samples_from() == ""
    assert len(task.samples(100, 0)) == 6
    assert task.samples_from() == f"{NEW}@{older}", "what a run's outcomes say of their samples"
    for wrong, reason in (("docvqa@", "a revision is missing"), ("gqa_micro@main", "gqa_micro has no published set")):
        assert cli.main(["fetch", wrong]) == 1
        assert reason in capsys.readouterr().err
    assert cli.main(["fetch", f"docvqa@{'0' * 40}"]) == 1
    assert f"{NEW} has no revision '{'0' * 40}' any more" in capsys.readouterr().err


def test_a_newer_commit_with_fewer_parts_leaves_none_of_the_older_ones(
    hub: FakeHub, mirror: Path, opened: Opened, capsys: pytest.CaptureFixture[str]
) -> None:
    files = files_of("docvqa", mirror)
    hub.put(NEW, files)
    cli.main(["fetch", "docvqa"])
    one = "DocVQA/validation-00000-of-00001.parquet"
    hub.put(NEW, {one: files["DocVQA/validation-00000-of-00002.parquet"]})
    assert cli.main(["fetch", "docvqa"]) == 0
    folder = data_home() / "docvqa"
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.parquet")) == [one]
    assert len(opened("docvqa", "").samples(100, 0)) == 3


def test_a_set_that_lost_its_table_is_refused_before_anything_comes(hub: FakeHub, mirror: Path) -> None:
    hub.put(NEW, {"README.md": b"moved elsewhere"})
    with pytest.raises(ValueError, match="has no table of config 'DocVQA' and split 'validation'"):
        fetching.fetch("docvqa", [Docvqa.source], data_home(), print)


def test_size_is_said_for_suites_and_tasks_without_a_set_bring_nothing(
    hub: FakeHub, mirror: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.put(Chartqa.source.home, files_of("chartqa", mirror))
    assert cli.main(["fetch", "chartqa", "docvqa_micro", "--size"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "docvqa_micro: nothing to bring, its samples are made here"
    assert lines[1].startswith("chartqa: ")
    assert lines[2].startswith("together: ")
    assert not data_home().exists()


@pytest.mark.parametrize("task", sorted(published_sets.BUILDERS))
def test_the_layout_of_every_published_set_is_known(task: str, mirror: Path) -> None:
    from effivlm.commands.fetch import sources_of

    names = list(files_of(task, mirror))
    sources: list[Source] = list(sources_of(task))
    for source in sources:
        for config in source.configs:
            found = hubs.tables(source, config, names)
            assert found
            assert all(source.split in name or name == "mmstar.parquet" or config in name for name in found)
        listed = hubs.Listing(source.home, "c", {name: hubs.File(1) for name in names})
        wanted = set(listed.wanted(source))
        assert not any("Full" in name or "testA" in name or "MC/" in name for name in wanted)
        assert not source.files or any(name.endswith(".zip") for name in wanted) or task == "longvideobench"


@pytest.mark.parametrize("data", ["", "stream"])
def test_a_set_is_read_from_the_hub_through_datasets_and_a_stream_keeps_nothing(
    data: str, hub: FakeHub, mirror: Path, tmp_path: Path, opened: Opened
) -> None:
    hub.put(OLD, {**files_of("docvqa", mirror), "README.md": b"# a card"})
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "EFFIVLM_DATA": str(tmp_path / "fetched"),
        "PYTHONPATH": os.pathsep.join([str(Path(cli.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, str(Path(__file__).with_name("read_hub.py")), "docvqa", data]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    samples = list(opened("docvqa").samples(2, 0))
    assert found["ids"] == [one.id for one in samples]
    assert found["reds"] == [one.images[0].getpixel((0, 0))[0] for one in samples]
    kept = [path for path in (tmp_path / "hf").rglob("*") if path.suffix in (".parquet", ".arrow")]
    assert bool(kept) == (data == "")
    assert not any("InfographicVQA" in path for _, path, _ in hub.asked if "/resolve/" in path)
