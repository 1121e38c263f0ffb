"""The default task and its model: samples, prompt, and a dense score that stands."""

from __future__ import annotations

from typing import Any

from effivlm.models._sources import resolve
from effivlm.records import Cell, Settings
from effivlm.run.group import open_model, run_group
from effivlm.tasks.docvqa_micro import DocvqaMicro

MODEL, TASK = "micro_llava_onevision", "docvqa_micro"


def test_samples_are_the_same_again_and_a_subset_is_a_view() -> None:
    task = DocvqaMicro()
    few, many = task.samples(3, 0), task.samples(9, 0)
    assert [(one.id, one.prompt, one.references) for one in few] == [
        (one.id, one.prompt, one.references) for one in many[:3]
    ]
    assert few[0].images[0].tobytes() == many[0].images[0].tobytes()
    assert [one.id for one in task.samples(3, 1)] == [one.id for one in few]
    assert [one.prompt for one in task.samples(3, 1)] != [one.prompt for one in few]
    assert len(many) == len({one.id for one in many}) == 9
    assert many[-1].id == many[8].id


def test_the_prompt_is_that_of_docvqa() -> None:
    (sample,) = DocvqaMicro().samples(1, 0)
    assert sample.prompt.endswith("?\nAnswer the question using a single word or phrase.")
    assert DocvqaMicro().score(f" {sample.references[0].upper()}", sample) == 1.0
    assert DocvqaMicro().score("", sample) == 0.0


def test_the_shipped_model_reads_held_out_pages_and_eviction_hurts_it() -> None:
    model = open_model(resolve(MODEL), Settings())
    cells = [Cell(MODEL, name, "paper", "0.10", TASK) for name in ("random_kv", "snapkv")]
    lines: list[dict[str, Any]] = []
    shared = run_group(cells, model, Settings(limit=24), on_note=lines.append)
    shown = [line for line in lines if line["kind"] == "sample"]
    assert [line["id"] for line in shown] == [sample.id for sample in DocvqaMicro().samples(24, 0)]
    assert all(line["thumbnail"].startswith("data:image/jpeg;base64,") for line in shown)
    assert all(len(line["thumbnail"]) < 20_000 for line in shown)
    scores = {one.cell.method: one.score for one in shared}
    assert scores["dense"] is not None
    assert scores["random_kv"] is not None
    assert scores["snapkv"] is not None
    # binomial: at a true score of 0.95 fewer than 19 of 24 right happens once in 5,000 times
    assert scores["dense"] >= 19 / 24
    assert scores["random_kv"] < scores["snapkv"] <= scores["dense"] + 0.1
    alone = run_group(cells, model, Settings(limit=6, share=False))
    assert [[a.text for a in one.answers[:6]] for one in shared] == [[a.text for a in one.answers] for one in alone]
    visual = {answer.visual_tokens for answer in shared[0].answers}
    assert visual == {744}
    model.close()
