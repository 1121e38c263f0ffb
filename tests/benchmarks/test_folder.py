"""A user's own set: a folder of pictures and one file of questions, without any code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from published_files import picture

from effivlm.metrics.words import word_recall
from effivlm.records import Settings
from effivlm.run.group import cell_fingerprint, task_in
from effivlm.session import matrix
from effivlm.session.matrix import Asked
from effivlm.tasks._folder import METRICS, Folder


def own_set(folder: Path, rows: list[dict[str, Any]], info: dict[str, Any] | None = None) -> Path:
    (folder / "images").mkdir(parents=True)
    for number in range(3):
        picture(number).save(folder / "images" / f"{number}.png")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if info is not None:
        (folder / "task.json").write_text(json.dumps(info))
    return folder


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "image": f"images/{number}.png",
        "question": f"What is {number}?",
        "answers": ["cat"],
        "metric": "anls",
    } | changes


def test_rows_become_samples_with_the_scorer_they_name(tmp_path: Path) -> None:
    rows = [
        row(0),
        row(1, metric="relaxed_accuracy", answers=["100"]),
        row(2, metric="choice", question="Which?\nA. cat\nB. dog", answers=["B"], id="mine"),
        {"images": ["images/0.png", "images/1.png"], "question": "Two?", "answer": "yes", "metric": "yes_no"},
    ]
    task = Folder("own", str(own_set(tmp_path / "own", rows)))
    samples = {one.prompt: one for one in task.samples(10, 0)}
    assert (task.metric, task.answer_type) == ("mixed", "short")
    assert task.score("cat", samples["What is 0?"]) == 1.0
    assert task.score("104", samples["What is 1?"]) == 1.0
    assert task.score("It is dog.", samples["Which?\nA. cat\nB. dog"]) == 1.0
    assert samples["Which?\nA. cat\nB. dog"].id == "mine"
    assert [one.getpixel((0, 0))[0] for one in samples["Two?"].images] == [0, 1]


def test_what_holds_for_all_rows_stands_in_one_file(tmp_path: Path) -> None:
    info = {"metric": "vqa_accuracy", "instruction": "\nOne word.", "max_new_tokens": 7, "scale": 1.0}
    rows = [{key: value for key, value in row(n).items() if key != "metric"} for n in range(2)]
    task = Folder("own", str(own_set(tmp_path / "own", rows, info)))
    assert (task.metric, task.answer_type, task.max_new_tokens, task.scale) == ("vqa_accuracy", "short", 7, 1.0)
    assert {one.prompt for one in task.samples(5, 0)} == {"What is 0?\nOne word.", "What is 1?\nOne word."}
    assert Folder.max_new_tokens != 7, "the class stays as it was"


@pytest.mark.parametrize(
    ("said", "score"), [("sale geox", 2 / 3), ("GEOX, GEOX! Sale", 1.0), ("", 0.0), ("sale sale sale", 1 / 3)]
)
def test_word_recall_counts_each_word_as_often_as_it_stands_there(said: str, score: float) -> None:
    assert word_recall(said, ["GEOX", "GEOX", "SALE"]) == pytest.approx(score)


def test_questions_about_one_picture_stay_together(tmp_path: Path) -> None:
    rows = [row(n % 3, question=f"{n}") for n in range(9)]
    task = Folder("own", str(own_set(tmp_path / "own", rows)))
    taken = [int(one.prompt) % 3 for one in task.samples(4, 0)]
    assert len(taken) == 6
    assert taken == sorted(taken, key=taken.index)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        *[({"metric": "bleu"}, "metric 'bleu' is not one of anls"), ({"question": " "}, "'question' must be a text")],
        *[
            ({"answers": []}, "'answers' must be a list of texts"),
            ({"answers": "cat"}, "'answers' must be a list of texts"),
        ],
        ({"image": 3}, "'image' must be a path"),
        ({"image": None}, "'image' must be a path"),
        ({"image": ""}, "'image' must be a path"),
        ({"image": ["images/0.png", 3]}, "'images' a list of paths"),
        ({"images": ["images/0.png"]}, "one of both"),
        ({"metric": ["anls"]}, "metric ['anls'] is not one of anls"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    folder = own_set(tmp_path / "own", [row(0), row(1, **changes)])
    with pytest.raises(ValueError, match=r"questions.jsonl:2: ") as caught:
        Folder("own", str(folder))
    assert told in str(caught.value)


@pytest.mark.parametrize("key", ["img", "video"])
def test_a_question_without_a_picture_says_so_and_is_not_asked_by_mistake(key: str, tmp_path: Path) -> None:
    bare = {"question": "What?", "answers": ["cat"], "metric": "anls"}
    with pytest.raises(ValueError, match=r"questions.jsonl:1: 'image' must be a path"):
        Folder("own", str(own_set(tmp_path / "other", [bare | {key: "images/0.png"}])))
    (sample,) = Folder("own", str(own_set(tmp_path / "own", [bare | {"images": []}]))).samples(5, 0)
    assert sample.images == ()


@pytest.mark.parametrize(
    ("info", "told"),
    [
        ({"metric": "bleu"}, "metric 'bleu' is not one of anls"),
        ({"metric": ["anls"]}, r"metric \['anls'\] is not one of anls"),
        ({"answer_type": "long"}, "answer_type 'long' is not one of choice"),
        *[({"max_new_tokens": n}, f"max_new_tokens {n!r} is not a whole number") for n in (0, -5, 2.5, "many", True)],
        ({"instruction": 5}, "instruction 5 is not a text"),
        *[({"scale": x}, f"scale {x!r} is not a number above 0") for x in (0, -1.0, "x", float("nan"), float("inf"))],
    ],
)
def test_a_bad_value_for_all_rows_is_named_with_what_is_allowed(
    info: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=f"task.json: {told}"):
        Folder("own", str(own_set(tmp_path / "own", [row(0)], info)))


def test_a_file_may_begin_with_a_mark_and_one_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    folder = own_set(tmp_path / "own", [row(0, answers=["été"])])
    path = folder / "questions.jsonl"
    text = json.dumps(row(0, answers=["été"]), ensure_ascii=False)
    path.write_text(text, encoding="utf-8-sig")
    assert Folder("own", str(folder)).samples(1, 0)[0].references == ("été",)
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"questions.jsonl is not written in UTF-8"):
        Folder("own", str(folder))


def test_a_folder_that_is_no_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        Folder("own", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"must hold one \*.jsonl file of questions, found none"):
        Folder("own", str(tmp_path))
    folder = own_set(tmp_path / "own", [row(0, id="a"), row(1, id="a")])
    with pytest.raises(ValueError, match="the id 'a' stands twice"):
        Folder("own", str(folder))
    (folder / "questions.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match=r"questions.jsonl:1 is not readable JSON"):
        Folder("own", str(folder))
    (folder / "questions.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no question"):
        Folder("own", str(folder))
    (folder / "task.json").write_text('{"prompt": "x"}')
    with pytest.raises(ValueError, match="unknown key 'prompt'; known: metric"):
        Folder("own", str(folder))


def test_a_missing_picture_breaks_its_sample_alone(tmp_path: Path) -> None:
    folder = own_set(tmp_path / "own", [row(0), row(1)])
    (folder / "images" / "1.png").unlink()
    samples = Folder("own", str(folder)).samples(5, 0)
    broken = []
    for place in range(2):
        try:
            assert samples[place].images
        except ValueError as error:
            broken.append(str(error))
    assert len(broken) == 1
    assert "1.png is missing" in broken[0]


def test_an_option_names_a_folder_and_its_content_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = own_set(tmp_path / "own", [row(0)])
    plan = matrix.build(
        Asked(models=("random:qwen2_vl_7b",), methods=("dense",), tasks=(f"own_set={folder}", "gqa_micro"))
    )
    assert {cell.task for cell in plan.cells} == {"own_set", "gqa_micro"}
    assert plan.settings.folders == {"own_set": str(folder.resolve())}
    assert [one.prompt for one in task_in("own_set", plan.settings).samples(1, 0)] == ["What is 0?"]
    cell = next(cell for cell in plan.cells if cell.task == "own_set")
    names = []
    for other in (folder, own_set(tmp_path / "other", [row(0, answers=["dog"])])):
        settings = Settings(folders={"own_set": str(other)})
        names.append(cell_fingerprint(cell, plan.sources[cell.model], settings))
    assert names[0] != names[1]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("Own=X", "'Own' is no name"),
        ("gqa_micro=X", "is the name of a task already"),
        ("own=nowhere", "nowhere is no folder"),
        ("owm", "unknown task 'owm'"),
    ],
)
def test_a_bad_option_is_refused_before_anything_loads(value: str, told: str, tmp_path: Path) -> None:
    text = value.replace("X", str(tmp_path))
    with pytest.raises(ValueError, match=told):
        matrix.build(Asked(models=("random:qwen2_vl_7b",), tasks=(text,)))


def test_a_set_is_read_before_anything_loads(tmp_path: Path) -> None:
    folder = own_set(tmp_path / "own", [row(0), row(1, metric="bleu")])
    with pytest.raises(ValueError, match=r"questions.jsonl:2: metric 'bleu' is not one of anls"):
        matrix.build(Asked(models=("random:qwen2_vl_7b",), tasks=(f"own={folder}",)))


def test_the_folder_of_data_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--vlm-data: 'nowhere' is no folder, and not 'stream'"):
        matrix.build(Asked(models=("random:qwen2_vl_7b",), data="nowhere"))
    for data, stored in (("stream", "stream"), (str(tmp_path), str(tmp_path.resolve())), ("", "")):
        assert matrix.build(Asked(models=("random:qwen2_vl_7b",), data=data)).settings.data == stored


def test_every_metric_a_row_may_name_scores_within_bounds(tmp_path: Path) -> None:
    rows = [row(0, metric=metric, id=metric, answers=["yes"]) for metric in METRICS]
    task = Folder("own", str(own_set(tmp_path / "own", rows)))
    for sample in task.samples(100, 0):
        for text in ("", "yes", "\ud83d", "A", "1,5", "None"):
            assert 0.0 <= task.score(text, sample) <= 1.0
