"""What a run on real pictures costs, and how long it waits for them: `python bench_tests/studies/waiting.py FOLDER` on a GPU.

FOLDER is a set as `--vlm-tasks NAME=DIR` takes it. Says for every model: samples a second, the share of the time in which the
run stood still for a picture to be decoded or processed, and the seconds a sample beside those of transformers' own `generate`
with the same pictures, which answers as many tokens. Not a test: what it measures depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

CACHE = ("random_kv", "streaming_llm", "h2o", "snapkv", "pyramidkv", "vl_cache")
PRUNING = ("fastv", "visionzip", "divprune")
BUDGETS = ("0.01", "0.05", "0.10", "0.20", "0.40")
WARM = 4  # samples until steps are captured and files are in memory


@contextmanager
def waits(model: Any) -> Iterator[list[float]]:
    """Seconds that the main thread spends in reading samples and in the processor, each time."""
    from effivlm.data.ahead import Ahead

    spent: list[float] = []
    places = [(Ahead, "__getitem__"), (type(model), "_processed")]
    stock = [getattr(kind, name) for kind, name in places]

    def timed(work: Any) -> Any:
        def call(*given: Any) -> Any:
            if current_thread() is not main_thread():
                return work(*given)
            start = time.perf_counter()
            try:
                return work(*given)
            finally:
                spent.append(time.perf_counter() - start)

        return call

    for (kind, name), work in zip(places, stock, strict=True):
        setattr(kind, name, timed(work))
    try:
        yield spent
    finally:
        for (kind, name), work in zip(places, stock, strict=True):
            setattr(kind, name, work)


def plain_s(model: Any, samples: Sequence[Any], tokens: int) -> float:
    """Median seconds of processor and `generate` for a sample."""
    import torch

    seconds = []
    for sample in samples:
        start = time.perf_counter()
        inputs = model.prepare(sample)
        limits = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False}
        with torch.inference_mode():
            model.model.generate(**inputs, **limits)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM // 2 :])


def measured(model: Any, cells: Sequence[Any], settings: Any, warm: int = WARM) -> dict[str, float]:
    """Seconds a sample of a group, and the share of them that pictures made it wait; the first `warm` samples are left out."""
    from effivlm.run.group import run_group

    marks: list[float] = []
    with waits(model) as spent:
        counts: list[int] = []

        def progress(done: int, total: int) -> None:
            marks.append(time.perf_counter())
            counts.append(len(spent))

        found = run_group(cells, model, settings, progress)
    broken = [outcome.reason for outcome in found if outcome.status == "failed"]
    if broken:
        raise SystemExit(f"{len(broken)} cells failed; the first: {broken[0]}")
    wall = marks[-1] - marks[warm]
    length = statistics.mean(answer.prompt_tokens for answer in found[0].answers)
    return {"s": wall / (len(marks) - 1 - warm), "waiting": sum(spent[counts[warm] :]) / wall, "prompt": length}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="a set of pictures and questions")
    parser.add_argument("--models", default="random:llava_onevision_7b,random:qwen2_vl_7b")
    parser.add_argument("--limit", default="60", help="samples")
    parser.add_argument("--plain", type=int, default=12, help="samples that generate answers")
    parser.add_argument("--processor", default="pil")
    asked = parser.parse_args()

    from effivlm.records import Cell
    from effivlm.run.group import open_model, task_in
    from effivlm.session.groups import on_device
    from effivlm.session.matrix import Asked, build

    options = {"limit": asked.limit, "processor": asked.processor}
    plan = build(Asked(models=tuple(asked.models.split(",")), tasks=(f"pictures={asked.folder}",), **options))
    settings = on_device(plan.settings)
    for name, source in plan.sources.items():
        dense = Cell(name, "dense", "paper", "1.00", "pictures")
        groups = {"dense": [dense]}
        for word, methods in (("cache", CACHE), ("pruning", PRUNING)):
            groups[word] = [
                dense,
                *(Cell(name, method, "paper", keep, "pictures") for method in methods for keep in BUDGETS),
            ]
        model = open_model(source, settings)
        model.eos = frozenset()  # as many tokens for every answer: what random weights say means nothing
        task = task_in("pictures", settings, source.family)
        samples = task.samples(asked.plain, settings.seed)
        plain = plain_s(model, [samples[number] for number in range(asked.plain)], task.max_new_tokens)
        for word, cells in groups.items():
            one = measured(model, cells, settings)
            facts = {
                "model": name,
                "cells": len(cells),
                "what": word,
                "plain_generate_s": plain,
                "over_plain": one["s"] / plain,
            }
            print(json.dumps({**facts, **one, "samples_per_s": 1 / one["s"]}), flush=True)
        model.close()


if __name__ == "__main__":
    main()
