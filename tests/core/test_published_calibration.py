"""Calibration on the paper's set: rows in the schema in which it is published, read from a mirror, through a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import twins
from published_files import parquet, picture

from effivlm.methods.wanda import Wanda
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.weights import calibration
from effivlm.weights.product import product

COLUMNS = {"id": "s", "image": "img", "conversations": [{"from": "s", "value": "s"}], "data_source": "s"}


def mirror(root: Path, rows: int, **other: Any) -> str:
    """A folder with the set as its repository lays it out: a conversation of two turns a row, the marker in the first."""
    made = [
        {
            "id": f"{number:06d}.jpg",
            "image": picture(number),
            "conversations": [
                {"from": "human", "value": f"<image>\nWhat is picture {number}?"},
                {"from": "gpt", "value": f"It is plain, and number {number}."},
                {"from": "human", "value": "And its size?"},
                {"from": "gpt", "value": "Small."},
            ],
            "data_source": "sharegpt4v(coco)",
            **other,
        }
        for number in range(rows)
    ]
    place = root / "LLaVA-OneVision-Data" / "sharegpt4v(coco)"
    parquet(place / "train-00000-of-00001.parquet", COLUMNS, made, parts=2)
    return str(root)


def test_a_row_gives_its_picture_its_first_question_and_the_answer_to_that(tmp_path: Path) -> None:
    data = mirror(tmp_path, 20)
    found = calibration.drawn("sharegpt4v", resolve("micro_qwen2_vl"), 6, 0, True, data)
    assert len({sample.id for sample in found.samples}) == 6
    for sample in found.samples:
        number = int(sample.id.removesuffix(".jpg"))
        assert sample.prompt == f"What is picture {number}?"
        assert sample.references == (f"It is plain, and number {number}.",)
        assert sample.images[0].convert("RGB").getpixel((3, 3)) == (number, 80, 160)
    again, other = (calibration.drawn("sharegpt4v", resolve("micro_qwen2_vl"), 6, seed, True, data) for seed in (0, 1))
    assert again.fingerprint == found.fingerprint != other.fingerprint


def test_fewer_rows_than_asked_and_rows_without_an_answer_are_refused(tmp_path: Path) -> None:
    source = resolve("micro_qwen2_vl")
    with pytest.raises(ValueError, match="has 3 samples, fewer than the 8 asked for"):
        calibration.drawn("sharegpt4v", source, 8, 0, True, mirror(tmp_path / "few", 3))
    silent = mirror(tmp_path / "silent", 3, conversations=[{"from": "human", "value": "<image>\nWhat?"}])
    with pytest.raises(ValueError, match="holds no question with an answer"):
        calibration.drawn("sharegpt4v", source, 2, 0, True, silent)


def test_a_checkpoint_is_made_with_the_set_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EFFIVLM_PRODUCTS", str(tmp_path / "products"))
    source = resolve(f"twin={twins.build('llava_onevision', tmp_path / 'twin', layers=1)}")
    settings = Settings(data=mirror(tmp_path / "data", 6))
    told = []
    for name in ("sharegpt4v", "micro"):
        method = Wanda(keep=Budget.parse("sparsity0.50"), calibration=name, samples=3)
        folder = product(source, method, settings)
        told.append((folder / "effivlm_product.json").read_text(encoding="utf-8"))
    assert '"sharegpt4v"' in told[0]
    assert '"sharegpt4v"' not in told[1]
