"""What a quality run costs at real size, over transformers' own `generate`: `python bench_tests/studies/real_size.py` on a GPU.

Pictures are drawn at the sizes of real ones (receipts, charts, forms, streets, rooms), each of another size, so that every
prompt has a length of its own, as in a benchmark and unlike in a timing. For every model: seconds a sample of dense alone, of
dense with 30 cells of cache methods, and of dense with 15 cells of pruning methods, beside plain dense `generate` on the same
pictures. The noise floor is asked on a hundred samples of a task whatever its size; its cost is measured apart and counted as a
task of `--task` samples would. Not a test: what it measures depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import BUDGETS, CACHE, PRUNING, measured, plain_s

SIZES = ((980, 1420), (850, 600), (1700, 2200), (1024, 768), (640, 480))
"""Width and height of what real sets hold, around which drawn pictures vary by a tenth."""
FLOOR = 100  # samples of a task on which dense is asked again
SHOWN = 12  # first samples of a task, of which the report shows what was kept: of a long task they are next to nothing


def draw(folder: Path, count: int, tokens: int) -> None:
    """A set as `--vlm-tasks NAME=DIR` takes it."""
    from PIL import Image, ImageDraw

    rows, chance = [], random.Random(0)
    for number in range(count):
        width, height = (round(side * chance.uniform(0.9, 1.1)) for side in SIZES[number % len(SIZES)])
        picture = Image.effect_noise((width, height), 40).convert("RGB")
        pen = ImageDraw.Draw(picture)
        for line in range(12, height - 12, 24):
            pen.text(
                (12, line), f"{number} {line} " + " ".join(str(chance.randrange(10**6)) for _ in range(width // 60))
            )
        picture.save(folder / f"{number}.jpg", quality=90)
        rows.append(
            {"image": f"{number}.jpg", "question": f"What is line {number}?", "answers": ["1"], "metric": "anls"}
        )
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "task.json").write_text(json.dumps({"max_new_tokens": tokens}), encoding="utf-8")


@contextmanager
def asked_once() -> Iterator[None]:
    """Inside, no sample is asked again."""
    from effivlm.run import group

    stock, group.asked_again = group.asked_again, lambda samples, seed: frozenset()
    try:
        yield
    finally:
        group.asked_again = stock


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="random:llava_onevision_7b,random:qwen2_vl_7b")
    parser.add_argument("--samples", type=int, default=38)
    parser.add_argument("--plain", type=int, default=10, help="samples that generate answers")
    parser.add_argument("--tokens", type=int, default=16, help="new tokens of an answer")
    parser.add_argument("--task", type=int, default=1000, help="samples of the task that costs are counted for")
    parser.add_argument("--compiled", action="store_true", help="as a task long enough to compile layers for")
    asked = parser.parse_args()
    if asked.samples <= SHOWN + 1:
        parser.error(f"--samples {asked.samples}: the first {SHOWN} are left out")
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder), asked.samples, asked.tokens)
        for facts in rows(folder, asked):
            print(json.dumps(facts), flush=True)


def rows(folder: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a model and set of cells."""
    from effivlm.records import Cell
    from effivlm.run import group
    from effivlm.session.groups import on_device
    from effivlm.session.matrix import Asked, build

    if asked.compiled:
        group.COMPILED_FROM = 1
    plan = build(Asked(models=tuple(asked.models.split(",")), tasks=(f"drawn={folder}",), limit=str(asked.samples)))
    settings = on_device(plan.settings)
    for name, source in plan.sources.items():
        dense = Cell(name, "dense", "paper", "1.00", "drawn")
        sets = {
            word: [dense, *(Cell(name, method, "paper", keep, "drawn") for method in methods for keep in BUDGETS)]
            for word, methods in (("dense", ()), ("cache", CACHE), ("pruning", PRUNING))
        }
        model = group.open_model(source, settings)
        model.eos = frozenset()  # as many tokens for every answer: what random weights say means nothing
        task = group.task_in("drawn", settings, source.family)
        samples = task.samples(asked.plain, settings.seed)
        plain = plain_s(model, [samples[number] for number in range(asked.plain)], asked.tokens)
        start = time.perf_counter()
        again = measured(model, sets["dense"], settings, SHOWN)
        first_s = time.perf_counter() - start - asked.samples * again["s"]
        with asked_once():
            alone = measured(model, sets["dense"], settings, SHOWN)
            floor_s = max(0.0, again["s"] - alone["s"]) * FLOOR / asked.task
            for word, cells in sets.items():
                one = alone if word == "dense" else measured(model, cells, settings, SHOWN)
                cost = one["s"] + floor_s
                yield {
                    "model": name,
                    "what": word,
                    "cells": len(cells),
                    "compiled": asked.compiled,
                    "plain_generate_s": plain,
                    "s": cost,
                    "over_plain": cost / plain,
                    "floor_s": floor_s,
                    "first_samples_s": first_s,
                    "waiting": one["waiting"],
                    "prompt": one["prompt"],
                }
        model.close()


if __name__ == "__main__":
    main()
