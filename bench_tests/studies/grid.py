"""Whole answers of forced length: `python bench_tests/studies/grid.py` on a GPU, over prompt length, output length and batch.

A benchmark with short answers sees the time to first token alone, and one with long ones mostly decoding: this says where the two
cross. Writes reports/baselines/grid.json and a table made from it, grid.md. Not a test: what it measures depends on the card.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from overhead import missing, record, ttft

from effivlm.compression.base import CachePart
from effivlm.decoding.caches import kv_bytes
from effivlm.decoding.engine import Captured, Eager, Paced, captures
from effivlm.decoding.replay import compiled
from effivlm.models._adapter import Adapter
from effivlm.records import Budget, Cell
from effivlm.run import steps
from effivlm.run.group import method_of
from effivlm.run.leaf import Leaf
from effivlm.run.tree import Tree
from effivlm.seams.meters import Laps, reclaim
from effivlm.timing.drawn import page
from effivlm.timing.floors import rates, step_bytes

FILE = Path(__file__).parents[2] / "reports" / "baselines" / "grid.json"
UNSTEADY = 0.1  # between rounds
DRIFT = 0.05  # between methods
IN_TURN = "The methods' first tokens were timed in turn."
ONE_BY_ONE = (
    "The methods' first tokens were timed one method after another: where two do the same work until then, as dense and a cache "
    "method at a short prompt, their difference is how far the machine drifted meanwhile."
)
TEXT = 64  # tokens of a prompt beside its picture


def named(text: str) -> tuple[str, str, str]:
    """Method, preset and budget of "snapkv:0.10" or "dense"; ValueError for what is no such thing."""
    name, _, keep = text.partition(":")
    method, preset = steps.asked(name)
    if steps.budgeted(method) != bool(keep):
        raise ValueError(f"{text}: it {'has no' if keep else 'needs a'} budget, e.g. snapkv:0.10 or dense")
    return method, preset, Budget.parse(keep or "1").label


def measure(
    model: Adapter, visual: int, methods: Sequence[str], outputs: Sequence[int], batches: Sequence[int], rounds: int
) -> list[dict[str, Any]]:
    """Rows of one model and prompt length: every method, batch and output length, dense first.

    `total_s` is the time to the first token of every prompt of the batch, one after another, and the steps that follow; where a
    batch does not fit, the row has a `reason` instead.
    """
    captured = captures(model.device)
    rows: list[dict[str, Any]] = []
    with model.seams():
        tree = Tree(model, page(model, visual + TEXT), [])
        asked = {name: method_of(Cell(model.source.name, *named(name), "none")) for name in methods}
        timed: dict[str, list[float]] = {name: [] for name in methods}
        leaves: dict[str, Leaf] = {}
        with compiled(model.layers, True, model.beside(True)) if captured else nullcontext():
            for number in range(rounds + 1):  # in turn, so that a slow minute of the machine hits all alike
                for name, method in asked.items():
                    seconds, leaves[name] = ttft(tree, method)
                    timed[name] += [seconds] if number else []
        for name, first in timed.items():
            leaf = leaves.pop(name)
            for batch in batches:
                facts = {
                    "method": name,
                    "batch": batch,
                    "prompt_tokens": leaf.length,
                    "ttft_rounds_s": first,
                    "in_turn": True,
                }
                try:
                    decoded = decoding(model, leaf, batch, outputs, rounds, captured)
                except torch.cuda.OutOfMemoryError as error:
                    rows.append({**facts, "reason": str(error).splitlines()[0]})
                    continue
                finally:
                    reclaim(model.device)
                floor = step_bytes(model, batch * kv_bytes(leaf.cache)) / rates(model.device, model.dtype).bytes_per_s
                for output, took in decoded.items():
                    total = batch * statistics.median(first) + statistics.median(took)
                    answered = {"output_tokens": output, "decode_rounds_s": took, "step_floor_s": floor}
                    rows.append({**facts, **answered, "total_s": total})
    return [{"model": model.source.name, "visual_tokens": visual, "weights": model.weights, **row} for row in rows]


def decoding(
    model: Adapter, leaf: Leaf, batch: int, outputs: Sequence[int], rounds: int, captured: bool
) -> dict[int, list[float]]:
    """Seconds of the steps after the first token of answers of these lengths, whatever the tokens say.

    A shorter answer is the beginning of the longest one, so each round is one pass that is looked at on the way.
    """
    found: dict[int, list[float]] = {output: [] for output in outputs}
    steps = max(outputs) - 1
    if not steps:
        return {output: [0.0] * rounds for output in outputs}
    asked = Captured.name if captured else Eager.name
    with compiled(model.layers, False, model.beside(False)) if captured else nullcontext():
        paced = Paced(model.step, leaf.start, steps, model.device, batch, asked)
    for _ in range(rounds):
        paced.rewind()
        laps = Laps(model.device)
        paced(lambda taken, laps=laps: laps.mark() if taken + 1 in found else None)  # type: ignore[misc]
        ends = dict(zip(sorted(output for output in found if output > 1), laps.seconds, strict=True))
        for output, seconds in found.items():
            seconds.append(ends.get(output, 0.0))
    return found


def speedup(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> float | None:
    """Dense's time for the same answers over this row's."""
    same = ("model", "visual_tokens", "batch", "output_tokens")
    for other in rows:
        if other["method"] == "dense" and "total_s" in other and all(other.get(key) == row.get(key) for key in same):
            return float(other["total_s"]) / float(row["total_s"])
    return None


def drifted(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, int], str]:
    """Models and prompt lengths where the machine changed while methods were timed, and how that shows: a cache method comes to
    its first token before dense does, whose work it does whole."""
    first = {
        (row["model"], row["visual_tokens"], row["method"]): statistics.median(row["ttft_rounds_s"]) for row in rows
    }
    found: dict[tuple[str, int], str] = {}
    for (model, visual, name), own in first.items():
        dense = first.get((model, visual, "dense"), own)
        parts = method_of(Cell(model, *named(name), "none")).parts
        if parts and all(isinstance(part, CachePart) for part in parts) and dense > (1 + DRIFT) * own:
            times = f"dense took {1e3 * dense:.0f} ms to the first token, and `{name}`"
            found.setdefault((model, visual), f"{times}, which does all that dense does, {1e3 * own:.0f}")
    return found


def table(document: dict[str, Any]) -> str:
    """The measurements as Markdown: one table for each model, a line for each method, length and batch."""
    run, rows = document["run"], document["rows"]
    changed = drifted(rows)
    outputs = sorted({row["output_tokens"] for row in rows if "output_tokens" in row})
    lines = [
        "# Whole answers",
        "",
        f"Made by `python bench_tests/studies/grid.py`: {run['device']}, {run['dtype']}, torch {run['torch']}, {run['date']}, "
        f"medians of {run['rounds']} rounds. Answers of forced length: seconds from the pictures on the device to the last "
        "token of every answer of the batch (each prompt is prefilled alone), and in brackets how many times faster that is "
        "than dense. "
        f"{IN_TURN if all(row.get('in_turn') for row in rows) else ONE_BY_ONE}",
    ]
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        heads = ["method", "prompt", "batch", *(f"{count} tokens" for count in outputs)]
        lines += [
            "",
            f"## `{model}`, {mine[0]['weights']} weights",
            "",
            f"| {' | '.join(heads)} |",
            "|---" * len(heads) + "|",
        ]
        settings = dict.fromkeys(
            (row["visual_tokens"], row["batch"], row["method"], row["prompt_tokens"]) for row in mine
        )
        for visual, batch, method, tokens in sorted(settings, key=lambda one: (one[0], one[1])):
            those = [
                row for row in mine if (row["visual_tokens"], row["batch"], row["method"]) == (visual, batch, method)
            ]
            compared = [] if (model, visual) in changed else rows
            shown = {row.get("output_tokens"): _shown(compared, row) for row in those}
            lines.append(
                f"| `{method}` | {tokens:,} | {batch} | {' | '.join(shown.get(count, '') for count in outputs)} |"
            )
    lines += [""] * bool(changed)
    lines += [
        f"- `{model}`, {visual:,} visual tokens: no speed-ups are told, because the machine changed between the methods: {told}"
        for (model, visual), told in changed.items()
    ]
    failed = [row for row in rows if "reason" in row]
    lines += [""] * bool(failed)
    lines += [f"- `{row['model']}`, `{row['method']}`, batch {row['batch']}: {row['reason']}" for row in failed]
    return "\n".join([*lines, *_unsteady(rows), *missing(document)]) + "\n"


def _unsteady(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which times to the first token differ so much from round to round that their rows say little."""
    found = {(row["model"], row["method"], row["prompt_tokens"]): row["ttft_rounds_s"] for row in rows}
    lines = [
        f"- `{model}`, `{method}`, prompt {tokens:,}: {1e3 * min(first):.0f} to {1e3 * max(first):.0f} ms to the first token"
        for (model, method, tokens), first in found.items()
        if max(first) > (1 + UNSTEADY) * min(first)
    ]
    return ["", f"Rounds that lie more than {UNSTEADY:.0%} apart:", "", *lines] if lines else []


def _shown(rows: Sequence[dict[str, Any]], row: dict[str, Any]) -> str:
    if "reason" in row:
        return ""
    faster = speedup(rows, row)
    return f"{row['total_s']:.3f}" + ("" if faster is None else f" ({faster:.2f})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["random:llava_onevision_7b", "random:qwen2_vl_7b"])
    parser.add_argument("--visual", nargs="+", type=int, default=[1458, 2929, 7353])
    parser.add_argument(
        "--methods", nargs="+", default=["dense", "fastv:0.10", "visionzip:0.10", "h2o:0.10", "snapkv:0.10"]
    )
    parser.add_argument("--outputs", nargs="+", type=int, default=[1, 16, 128, 512])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FILE)
    asked = parser.parse_args()
    try:
        for text in asked.methods:
            named(text)
    except ValueError as error:
        parser.error(str(error))
    if min(*asked.outputs, *asked.batches, asked.rounds) < 1:
        parser.error("--outputs, --batches and --rounds are counts of at least 1")
    return asked


def main() -> None:
    asked = arguments()
    those = (asked.methods, asked.outputs, asked.batches, asked.rounds)
    record(asked, asked.visual, lambda *where: measure(*where, *those), table)


if __name__ == "__main__":
    main()
