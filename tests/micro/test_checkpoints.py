"""The shipped models still score what the table says, load safely, and a changed file is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from effivlm_micro.architectures import FAMILIES, load_processor
from effivlm_micro.evaluate import FILE, HERE, MARKS, measure, table, written
from effivlm_micro.heldout import MAKERS

from effivlm.models._sources import resolve
from effivlm.models._torchvision import ensure_torchvision
from effivlm.records import Settings
from effivlm.run.group import open_model

FIRST = 12
"""Samples measured again; a multiple of every group."""
FLIPS = 2
"""A sample's score may differ where two tokens are as likely: with one in 50, three of 12 differ once in 600 times."""
DOCUMENT = json.loads(FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest) -> Any:
    """A shipped model, open for its tasks."""
    torch.set_num_threads(1)
    opened = open_model(resolve(request.param), Settings())
    yield opened
    opened.close()


def test_every_model_scores_on_its_first_samples_what_the_file_says(model: Any) -> None:
    rows = {row["task"]: row for row in DOCUMENT["rows"] if row["model"] == model.source.name and not row["blank"]}
    assert list(rows) == list(MAKERS)
    for task, row in rows.items():
        again = measure(model, task, FIRST, DOCUMENT["run"]["seed"], blank=False)["scores"]
        assert len(again) == FIRST
        assert sum(abs(a - b) > 0.01 for a, b in zip(again, row["scores"], strict=False)) <= FLIPS, task


def test_a_picture_is_what_the_answers_come_from() -> None:
    """Far above the control wherever the dense model does well at all."""
    found = {(row["model"], row["task"], row["blank"]): row["score"] for row in DOCUMENT["rows"]}
    good = [key for key, score in found.items() if not key[2] and score >= 0.8]
    assert len(good) >= 9
    assert all(found[key] - found[key[0], key[1], True] > 0.3 for key in good)


def test_the_table_of_the_readme_is_the_file() -> None:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert written(text, table(DOCUMENT)) == text
    with pytest.raises(ValueError, match="no place for the table"):
        written("nothing", "table")
    assert MARKS[0] in text


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_is_small_and_holds_no_pickle_and_no_code(name: str) -> None:
    files = list((HERE / name).iterdir())
    assert sum(path.stat().st_size for path in files) < 16_000_000
    assert {path.suffix for path in files} <= {".json", ".jinja", ".safetensors", ""}
    assert "auto_map" not in (HERE / name / "config.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_own_loaders_take_the_folder_offline(name: str) -> None:
    ensure_torchvision()
    from transformers import AutoModelForImageTextToText

    net = AutoModelForImageTextToText.from_pretrained(HERE / name, local_files_only=True)
    assert type(net).__name__ == FAMILIES[name].class_name
    assert type(load_processor(HERE / name)).__name__ == type(FAMILIES[name].processor()).__name__


@pytest.mark.parametrize("change", ["flipped", "cut", "gone"])
def test_a_changed_file_is_refused_by_name(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(HERE / "micro_qwen2_vl", folder)
    weights = folder / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    if change == "flipped":
        weights.write_bytes(content)
    elif change == "cut":
        weights.write_bytes(content[: len(content) // 2])
    else:
        (folder / "tokenizer.json").unlink()
    named = "tokenizer.json is missing" if change == "gone" else "model.safetensors is damaged or was changed"
    with pytest.raises(ValueError, match=named):
        open_model(resolve(f"changed={folder}"), Settings())
