"""Real pictures: how they are shown, and that the README's table is the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from effivlm_micro import outside
from effivlm_micro.evaluate import HERE, written
from PIL import Image


def test_a_picture_is_scaled_into_its_room_in_the_middle_of_white_paper() -> None:
    shown = np.asarray(outside.on_paper(Image.new("RGB", (300, 100), (0, 0, 0)), (240, 44), (384, 192)))
    assert shown.shape == (192, 384, 3)
    dark = np.argwhere(shown[..., 0] < 128)
    (top, left), (bottom, right) = dark.min(0), dark.max(0)
    assert (bottom - top + 1, right - left + 1) == (44, 132)
    assert abs((left + right) - 383) <= 1
    assert abs((top + bottom) - 191) <= 1
    assert {int(shown[0, 0, 0]), int(shown[-1, -1, 2])} == {255}


def test_questions_of_a_folder_get_the_prompt_of_the_task_they_are_like(tmp_path: Path) -> None:
    Image.new("L", (30, 10)).save(tmp_path / "a.png")
    row = {"suite": "receipts", "id": "a", "image": "a.png", "question": "what is the total?", "answers": ["1", "1.0"]}
    (tmp_path / "vqa.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (sample,) = outside.samples(tmp_path, "receipts", 5)
    assert sample.prompt == "What is the total?\nAnswer the question using a single word or phrase."
    assert sample.references == ("1", "1.0")
    assert sample.images[0].size == (384, 384)
    with pytest.raises(ValueError, match="has no question of ocr_word"):
        outside.samples(tmp_path, "ocr_word", 5)


def test_the_table_of_real_pictures_is_the_file_which_holds_no_text_of_the_data() -> None:
    document = json.loads(outside.FILE.read_text(encoding="utf-8"))
    text = (HERE / "README.md").read_text(encoding="utf-8")
    assert written(text, outside.table(document), outside.MARKS) == text
    assert {(row["model"], row["suite"]) for row in document["rows"]} == {
        (model, suite) for model in outside.FAMILIES for suite in outside.LIKE
    }
    assert all(set(row) == {"suite", "model", "metric", "score", "interval", "n", "scores"} for row in document["rows"])
