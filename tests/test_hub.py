"""Repositories of the hub: fetched once, pinned to a commit, resumed after a cut; one clear sentence for what goes wrong."""

from __future__ import annotations

import errno
import json
import socket
import time
from pathlib import Path
from threading import Event

import pytest
from fake_hub import FakeHub

from effivlm.models import _hub
from effivlm.models._sources import ModelSource, bring, checkpoints, resolve

NAME = "somebody/some-model"
CONFIG = json.dumps({"model_type": "qwen2_vl"}).encode()
SMALL = {
    "config.json": CONFIG,
    "generation_config.json": b'{"eos_token_id": 2}',
    "chat_template.jinja": b"{{ messages }}",
    "merges.txt": b"a b",
    "model.safetensors": bytes(range(256)) * 400,
    "model.bin": b"pickled",
    "notes.md": b"notes",
    "onnx/config.json": b"{}",
}


@pytest.fixture
def hub(hub: FakeHub) -> FakeHub:
    """A hub with one repository."""
    hub.put(NAME, SMALL)
    return hub


def fetched(hub: FakeHub, ending: str) -> int:
    return sum(method == "GET" and "/resolve/" in path and path.endswith(ending) for method, path, _ in hub.asked)


def test_a_repository_becomes_the_folder_of_one_commit_and_weights_come_when_it_is_opened(hub: FakeHub) -> None:
    source = resolve(NAME)
    folder = Path(source.source)
    assert (source.name, source.family, source.repository) == ("some_model", "qwen2_vl", NAME)
    assert source.commit == folder.name == hub.commit(NAME, "main")
    assert {file.name for file in folder.iterdir()} == {
        "config.json",
        "generation_config.json",
        "chat_template.jinja",
        "merges.txt",
    }
    assert fetched(hub, ".safetensors") == 0
    bring(source)
    assert (folder / "model.safetensors").read_bytes() == SMALL["model.safetensors"]
    assert {file.name for file in folder.iterdir()} & {"model.bin", "notes.md", "onnx"} == set()
    before = len(hub.asked)
    bring(source)
    assert len(hub.asked) == before, "nothing is asked for what is here"


def test_what_is_fetched_is_found_again_without_a_hub(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve(NAME)
    bring(first)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    again = resolve(NAME)
    bring(again)
    assert again == first
    assert resolve(f"{NAME}@{first.commit}") == first


def test_a_revision_is_pinned_and_a_branch_that_moved_is_another_model(hub: FakeHub) -> None:
    old = resolve(NAME)
    hub.put(NAME, {**SMALL, "generation_config.json": b'{"eos_token_id": 3}'})
    new = resolve(NAME)
    assert old.commit != new.commit
    assert old.identity != new.identity
    pinned = resolve(f"{NAME}@{old.commit}")
    assert (pinned, pinned.identity) == (old, old.identity)
    hub.put(NAME, SMALL, "v2")
    assert resolve(f"mine={NAME}@v2").name == "mine"


def test_the_identity_of_a_snapshot_follows_what_it_is_asked_with(hub: FakeHub) -> None:
    source = resolve(NAME)
    before = source.identity
    template = Path(source.source) / "chat_template.jinja"
    template.unlink()
    template.write_text("{{ changed }}")
    assert source.identity != before


def test_a_named_checkpoint_takes_a_revision(hub: FakeHub) -> None:
    repository = checkpoints()["qwen2_vl_7b"][0]
    hub.put(repository, SMALL)
    commit = hub.put(repository, {**SMALL, "merges.txt": b"c d"}, "newer")
    for value in ("qwen2_vl_7b@newer", f"qwen2_vl_7b={repository}@newer"):
        source = resolve(value)
        assert (source.name, source.commit, source.family) == ("qwen2_vl_7b", commit, "qwen2_vl")
    with pytest.raises(ValueError, match="micro_qwen2_vl has no revision 'newer'"):
        resolve("micro_qwen2_vl@newer")


def test_a_connection_that_breaks_goes_on_inside_the_file(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    source = resolve(NAME)
    hub.cut["model.safetensors"] = 70_000
    bring(source)
    parts = [part for method, path, part in hub.asked if method == "GET" and path.endswith("model.safetensors")]
    assert parts == ["", "bytes=70000-"]
    assert (Path(source.source) / "model.safetensors").read_bytes() == SMALL["model.safetensors"]


def test_after_a_download_that_broke_only_what_is_missing_is_fetched(hub: FakeHub) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    hub.put(
        NAME,
        {"config.json": CONFIG, _hub.INDEX: json.dumps(index).encode()}
        | {"model-1.safetensors": b"1" * 50, "model-2.safetensors": b"2" * 50},
    )
    source = resolve(NAME)
    hub.cut["model-2.safetensors"] = 0
    with pytest.raises(ValueError, match=f"the connection to the hub broke while {NAME} was fetched"):
        bring(source)
    there = {file.name for file in Path(source.source).glob("*.safetensors")}
    assert there <= {"model-1.safetensors"}, "nothing half written stands in the snapshot"
    hub.cut.clear()
    bring(source)
    assert fetched(hub, "model-1.safetensors") == 1
    assert _hub.missing(Path(source.source)) == []


REFUSED = {
    "unknown": ("somebody/nothing", "somebody/nothing is no folder here and no hub repository you can read"),
    "near": ("Qwen/Qwen2-VL-7B-Instuct", "Did you mean Qwen/Qwen2-VL-7B-Instruct?"),
    "revision": (f"{NAME}@v9", f"{NAME} has no revision 'v9': give a branch, a tag or a commit"),
    "gated": (
        "somebody/gated",
        "somebody/gated is gated: accept its terms on its page, then log in with `hf auth login`",
    ),
    "no config": ("somebody/empty", "somebody/empty holds no config.json"),
    "original": ("somebody/original", "python -m effivlm convert somebody/original NEW_FOLDER"),
    "foreign": ("somebody/foreign", "somebody/foreign is of type 'bert'; supported:"),
}


@pytest.mark.parametrize(("wanted", "message"), REFUSED.values(), ids=REFUSED)
def test_a_refusal_of_the_hub_is_one_sentence_that_helps(hub: FakeHub, wanted: str, message: str) -> None:
    hub.put("somebody/gated", SMALL)
    hub.gated.add("somebody/gated")
    hub.put("somebody/empty", {"notes.md": b""})
    hub.put("somebody/original", {"config.json": b'{"model_type": "internvl_chat"}'})
    hub.put("somebody/foreign", {"config.json": b'{"model_type": "bert"}'})
    with pytest.raises(ValueError, match="model '") as caught:
        resolve(wanted)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_without_safetensors_is_refused(hub: FakeHub) -> None:
    hub.put("somebody/pickled", {"config.json": CONFIG, "pytorch_model.bin": b"pickled"})
    with pytest.raises(ValueError, match=r"somebody/pickled holds no model\.safetensors .*pickled weights"):
        bring(resolve("somebody/pickled"))


def test_only_the_files_of_the_index_are_fetched(hub: FakeHub) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}
    shards = {"model-1.safetensors": b"1", "model-2.safetensors": b"2", "consolidated.safetensors": b"twice"}
    hub.put("somebody/sharded", {"config.json": CONFIG, _hub.INDEX: json.dumps(index).encode(), **shards})
    source = resolve("somebody/sharded")
    assert _hub.missing(Path(source.source)) == ["model-1.safetensors", "model-2.safetensors"]
    bring(source)
    assert {file.name for file in Path(source.source).glob("*.safetensors")} == {
        "model-1.safetensors",
        "model-2.safetensors",
    }


def test_a_hub_that_fails_is_no_hub_out_of_reach(hub: FakeHub) -> None:
    source = resolve(NAME)
    hub.down = True
    with pytest.raises(ValueError, match=rf"{NAME}@{source.commit} .*the hub \(.*\) answers with errors"):
        bring(source)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_no_network_is_told_within_three_seconds(hub: FakeHub, monkeypatch: pytest.MonkeyPatch, silent: bool) -> None:
    if silent:  # a resolver that never answers
        monkeypatch.setattr(_hub.socket, "create_connection", lambda *_, **__: Event().wait())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(
            ValueError, match=f"{NAME} is no folder here, not whole in the hub cache, and the hub .* cannot be reached"
        ):
            resolve(NAME)
    assert time.monotonic() - begun < 3


def test_a_proxy_stands_for_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "getproxies", lambda: {"https": "http://127.0.0.1:9"})
    monkeypatch.setattr(_hub, "proxy_bypass", lambda host: False)
    knocked: list[tuple[str, int]] = []

    def refuse(address: tuple[str, int], timeout: float) -> None:
        knocked.append(address)
        raise OSError

    monkeypatch.setattr(_hub.socket, "create_connection", refuse)
    assert not _hub._reachable("https://somewhere.example")
    assert knocked == [("127.0.0.1", 9)]


def test_a_disk_that_fills_up_while_fetching_is_named(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    source = resolve(NAME)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(ValueError, match=rf"no room for {NAME} in .*No space left on device, .* GB free.*HF_HOME"):
        bring(source)
    assert not (Path(source.source) / "model.safetensors").exists()


def test_a_folder_needs_no_hub(tmp_path: Path) -> None:
    before = list(tmp_path.iterdir())
    bring(ModelSource("one", str(tmp_path), "qwen2_vl"))
    assert list(tmp_path.iterdir()) == before
