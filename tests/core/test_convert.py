"""Checkpoints in their authors' format become native ones: every tensor where it belongs, or nothing at all."""

from __future__ import annotations

import fcntl
import json
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import originals
import pytest
import torch
from fake_hub import FakeHub
from PIL import Image
from safetensors.torch import load_file, save_file

from effivlm import __main__ as cli
from effivlm.models import _convert
from effivlm.models._convert import convert
from effivlm.models._sources import resolve
from effivlm.records import Sample, Settings
from effivlm.run.group import open_model

CASES = [("internlm2", False), ("internlm2", True), ("qwen2", False), ("qwen2", True), ("qwen3", True)]


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One repository in the authors' format, to be copied by who changes it."""
    folder = tmp_path_factory.mktemp("authors") / "qwen2"
    model = originals.native("qwen2", True)
    return originals.save(folder, originals.original(model, "qwen2"), originals.configuration("qwen2", True))


@pytest.mark.parametrize(("kind", "large"), CASES)
def test_a_converted_checkpoint_is_the_native_model_and_answers_like_it(tmp_path: Path, kind: str, large: bool) -> None:
    model = originals.native(kind, large)
    source = originals.save(
        tmp_path / "authors",
        originals.original(model, kind),
        originals.configuration(kind, large),
        fast=kind == "internlm2",
    )
    convert(source, tmp_path / "native", say=quiet)
    adapter = open_model(resolve(f"mine={tmp_path / 'native'}"), Settings())
    assert adapter.eos == {258, 259 if kind == "internlm2" else 256}
    assert adapter.decode_text([65 - 33, 256 + originals.ADDED.index("<quad>"), 66 - 33]) == "AB"
    sample = Sample("one", "What is é?", ("x",), (Image.new("RGB", (96, 48), (200, 30, 60)),))
    inputs = adapter.prepare(sample)
    assert inputs["pixel_values"].shape[0] == 3  # two tiles and a thumbnail
    generate: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        expected, found = (one.generate(**inputs, **generate) for one in (model, adapter.model))
    assert torch.equal(expected, found)
    ours, theirs = adapter.model.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (adapter.model.config.text_config.model_type, adapter.text.config.rope_parameters) == (
        originals.KINDS[kind],
        model.config.text_config.rope_parameters,
    )


def test_no_more_than_one_shard_is_held(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[int] = []
    save = _convert._save

    def counting(parts: dict[str, torch.Tensor], path: Path) -> None:
        held.append(sum(part.nbytes for part in parts.values()))
        save(parts, path)

    monkeypatch.setattr(_convert, "_save", counting)
    convert(repository, tmp_path / "native", say=quiet)
    sizes = [file.stat().st_size for file in sorted(repository.glob("*.safetensors"))]
    assert len(held) == len(sizes) == 2
    assert all(one <= size for one, size in zip(held, sizes, strict=True))


Change = Callable[[dict[str, torch.Tensor]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "missing": (
        lambda tensors: tensors.pop("vision_model.encoder.layers.1.attn.k_norm.weight"),
        r"1 missing \(model\.vision_tower\.encoder\.layer\.1\.attention\.k_norm\.weight\)",
    ),
    "unknown": (
        lambda tensors: tensors.update({"vision_model.encoder.layers.0.attn.bias_table": torch.ones(2)}),
        r"1 unknown \(vision_model\.encoder\.layers\.0\.attn\.bias_table\)",
    ),
    "left over": (
        lambda tensors: tensors.update({"language_model.model.layers.7.input_layernorm.weight": torch.ones(64)}),
        r"1 left over \(model\.language_model\.layers\.7\.input_layernorm\.weight\)",
    ),
    "shape": (
        lambda tensors: tensors.update({"mlp1.3.bias": torch.ones(63)}),
        r"1 of another shape \(model\.multi_modal_projector\.linear_2\.bias\)",
    ),
    "cut": (
        lambda tensors: tensors.update({"vision_model.encoder.layers.0.attn.qkv.weight": torch.ones(95, 32)}),
        r"of another shape \(model\.vision_tower\.encoder\.layer\.0\.attention\.[kqv]_proj",
    ),
    "twice": (
        lambda tensors: tensors.update({"language_model.output.weight": torch.ones(264, 64)}),
        r"1 there twice \(lm_head\.weight\)",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_tensors_that_do_not_fit_exactly_are_named_and_nothing_is_written(
    repository: Path, tmp_path: Path, change: Change, message: str
) -> None:
    tensors = {}
    for file in repository.glob("*.safetensors"):
        tensors |= load_file(file)
    change(tensors)
    source = originals.save(tmp_path / "changed", tensors, originals.configuration("qwen2", True))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "native", say=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"changed"}


CONFIGURATIONS = {
    "decoder": ({"llm_config": {"architectures": ["Phi3ForCausalLM"]}}, "its decoder is Phi3ForCausalLM"),
    "shuffle": ({"ps_version": "v1"}, "its pixel shuffle is 'v1'"),
    "size": ({"force_image_size": 64}, "its tower was made for 32 pixels and is used with 64"),
    "thumbnail": ({"use_thumbnail": False}, "made without a thumbnail"),
    "type": ({"model_type": "bert"}, "is of type 'bert'; there is a conversion for: internvl_chat"),
    "lack": ({"vision_config": {}}, "its configuration lacks 'image_size'"),
}


@pytest.mark.parametrize(("change", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_a_configuration_that_the_native_class_cannot_follow_is_refused(
    repository: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    source = shutil.copytree(repository, tmp_path / "changed")
    config = {**originals.configuration("qwen2", True), **change}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "native", say=quiet)
    assert {path.name for path in tmp_path.iterdir()} == {"changed"}


def test_a_tokenizer_that_only_its_authors_code_reads_is_taken_from_a_sister(repository: Path, tmp_path: Path) -> None:
    source = shutil.copytree(repository, tmp_path / "changed")
    for name in ("vocab.json", "merges.txt"):
        (source / name).unlink()
    with pytest.raises(ValueError, match="give the tokenizer of a native sister with --tokenizer FOLDER_OR_HUB_ID"):
        convert(source, tmp_path / "native", say=quiet)
    assert cli.main(["convert", str(source), str(tmp_path / "native"), "--tokenizer", str(repository)]) == 0
    with pytest.raises(ValueError, match="exists already: name a new folder"):
        convert(source, tmp_path / "native", say=quiet)


def test_an_incomplete_or_damaged_download_is_named(repository: Path, tmp_path: Path) -> None:
    source = shutil.copytree(repository, tmp_path / "changed")
    shard = source / "model-00002-of-00002.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors is damaged"):
        convert(source, tmp_path / "native", say=quiet)
    shard.unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of its weight files, model-00002-of-00002\.safetensors"):
        convert(source, tmp_path / "native", say=quiet)


def test_what_a_killed_conversion_left_is_taken_away_and_one_at_work_is_not(repository: Path, tmp_path: Path) -> None:
    place = tmp_path / ".native.converting"
    place.mkdir()
    save_file({"half": torch.ones(3)}, place / "model-00009-of-00009.safetensors")
    with (place / _convert.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match=r"another conversion to .*native is at work"):
            convert(repository, tmp_path / "native", say=quiet)
        assert (place / "model-00009-of-00009.safetensors").exists()
    convert(repository, tmp_path / "native", say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["native"]
    assert len(list((tmp_path / "native").glob("*.safetensors"))) == 2


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"no room for .*native .*nothing was left there"):
            convert(repository, tmp_path / "native", say=quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("effivlm.models._hub.free_bytes", lambda place: 10_000)
    with pytest.raises(ValueError, match=r"no room for .*native: .* GB are needed, 0\.0 GB are free"):
        convert(repository, tmp_path / "native", say=quiet)
    assert list(tmp_path.iterdir()) == []


def test_a_hub_id_is_fetched_and_converted(hub: FakeHub, repository: Path, tmp_path: Path) -> None:
    hub.put("authors/model", repository)
    with pytest.raises(ValueError, match="python -m effivlm convert authors/model NEW_FOLDER"):
        resolve("authors/model")
    assert cli.main(["convert", "authors/model", str(tmp_path / "native")]) == 0
    assert (tmp_path / "native" / "config.json").exists()
    hub.asked.clear()
    assert cli.main(["convert", "authors/model", str(tmp_path / "native")]) == 1
    assert hub.asked == [], "a target that exists is refused before anything is fetched"
    assert cli.main(["convert", str(tmp_path / "nowhere"), str(tmp_path / "other")]) == 1


def test_the_authors_format_is_refused_with_the_command_that_converts_it(repository: Path) -> None:
    with pytest.raises(ValueError, match=f"python -m effivlm convert {repository} NEW_FOLDER"):
        resolve(f"mine={repository}")


def test_the_checkpoint_without_a_native_form_says_how_to_make_one(tmp_path: Path, repository: Path) -> None:
    with pytest.raises(ValueError, match=r"OpenGVLab/InternVL2_5-38B is .* --vlm-models internvl2_5_38b=NEW_FOLDER"):
        resolve("internvl2_5_38b")
    convert(repository, tmp_path / "native", say=quiet)
    source = resolve(f"internvl2_5_38b={tmp_path / 'native'}")
    assert (source.name, source.family) == ("internvl2_5_38b", "internvl2_5")
