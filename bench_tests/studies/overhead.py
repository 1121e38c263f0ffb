"""What each method adds to the time to first token: `python bench_tests/studies/overhead.py` on a GPU, with real shapes.

Writes reports/baselines/overhead.json and a table made from it, overhead.md. Not a test: what it measures depends on the card,
which stands in the file. Dense is measured right before every method in every round, so that a slow moment hits both alike.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from effivlm import registry
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Cell, Settings, Unsupported
from effivlm.run import steps
from effivlm.run.group import method_of, open_model
from effivlm.run.leaf import Leaf
from effivlm.run.tree import Tree
from effivlm.seams.meters import peak_memory_bytes, timed_s
from effivlm.timing.drawn import NoPicture, page
from effivlm.timing.floors import decoder_flops, rates, tower_flops
from effivlm.timing.timing import PARTS, split

ROOT = Path(__file__).parents[2]
FILE = ROOT / "reports" / "baselines" / "overhead.json"


@dataclass
class Rival:
    """One method at one budget, and what was measured of it."""

    name: str
    keep: str
    method: Any
    rounds_s: list[float]
    beside_s: list[float]
    facts: dict[str, Any]


def rivals(model: Adapter, methods: Sequence[str], keeps: Sequence[str]) -> list[Rival]:
    """Dense first, then every method at every budget."""
    found = []
    for text in ["dense", *(one for one in methods if one != "dense")]:
        name, preset = steps.asked(text)
        for keep in keeps if steps.budgeted(name) else ["1.00"]:
            cell = Cell(model.source.name, name, preset, Budget.parse(keep).label, "none")
            found.append(Rival(name, keep, method_of(cell), [], [], {}))
    return found


def ratios(own_s: Sequence[float], dense_s: Sequence[float], tower_s: float, left: float) -> dict[str, float]:
    """Medians over rounds of own time / dense's right before it, and / its bound: `left` of dense's operations in the decoder."""
    pairs = list(zip(own_s, dense_s, strict=True))
    bounds = [tower_s + (dense - tower_s) * left for _, dense in pairs]
    return {
        "over_dense": statistics.median(own / dense for own, dense in pairs),
        "over_bound": statistics.median(own / bound for (own, _), bound in zip(pairs, bounds, strict=True)),
    }


def ttft(tree: Tree, method: Any) -> tuple[float, Leaf]:
    """Seconds to the first token, from the processor's output on, and what it left."""
    start = tree.with_inputs(method)
    return timed_s(lambda: start.leaf(method), tree.model.device)


def ready(tree: Tree, asked: Sequence[Rival]) -> tuple[list[Rival], list[dict[str, Any]]]:
    """Those that can run, with what is counted of them, and rows of those that cannot."""
    running: list[Rival] = []
    rows: list[dict[str, Any]] = []
    for rival in asked:
        start = tree.with_inputs(rival.method)
        try:
            peak, leaf = peak_memory_bytes(partial(start.leaf, rival.method), tree.model.device)
        except Unsupported as reason:
            rows.append({"method": rival.name, "keep": rival.keep, "unsupported": str(reason)})
            continue
        leaf = leaf.without_cache()
        rival.facts = {
            "entries": leaf.length,
            "visual_tokens": leaf.visual_tokens,
            "kept_share": leaf.kept / leaf.of if leaf.of else 1.0,
            "peak_memory_bytes": peak,
            "decoder_flops": decoder_flops(tree.model, start.lengths_of(rival.method)),
        }
        running.append(rival)
    return running, rows


def measure(
    model: Adapter, tokens: int, methods: Sequence[str], keeps: Sequence[str], rounds: int
) -> list[dict[str, Any]]:
    """Rows of one model and prompt length."""
    sample = page(model, tokens)
    with model.seams():
        tree = Tree(model, sample, [])
        inputs = model.prepare(sample)
        running, rows = ready(tree, rivals(model, methods, keeps))
        towers: list[float] = []
        for number in range(rounds + 1):  # the first round warms every shape up
            seconds, _ = timed_s(lambda: model.encode(inputs), model.device)
            towers += [seconds] if number else []
            for rival in running[1:]:
                pair = [ttft(tree, method)[0] for method in (running[0].method, rival.method)]
                if number:
                    rival.beside_s.append(pair[0])
                    rival.rounds_s.append(pair[1])
        running[0].rounds_s = [seconds for rival in running[1:] for seconds in rival.beside_s]
        for rival in running:
            passes = split(tree, rival.method)
            rival.facts["split_s"] = {
                part: statistics.median(seconds.get(part, 0.0) for seconds in passes) for part in PARTS
            }
        operations = tower_flops(model, inputs)
    reached, dense = rates(model.device, model.dtype), running[0]
    tower = statistics.median(towers)
    for rival in running:
        left = rival.facts["decoder_flops"] / dense.facts["decoder_flops"]
        memory = rival.facts["peak_memory_bytes"], dense.facts["peak_memory_bytes"]
        rows.append(
            {
                "method": rival.name,
                "keep": rival.keep,
                **rival.facts,
                "ttft_s": statistics.median(rival.rounds_s),
                "rounds_s": rival.rounds_s,
                "dense_rounds_s": rival.beside_s,
                "tower_s": tower,
                "floor_s": (operations + rival.facts["decoder_flops"]) / reached.flops_per_s,
                **ratios(rival.rounds_s, rival.beside_s or rival.rounds_s, tower, left),
                "memory_over_dense": memory[0] / memory[1] if all(memory) else None,
            }
        )
    where: dict[str, Any] = {"model": model.source.name, "asked_tokens": tokens, "weights": model.weights}
    return [{**where, **row} for row in rows]


def table(document: dict[str, Any]) -> str:
    """The measurements as Markdown: one table for each model and prompt length."""
    run, lines = document["run"], ["# What each method adds to the time to first token", ""]
    lines += [
        f"Made by `python bench_tests/studies/overhead.py`: {run['device']}, {run['dtype']}, torch {run['torch']}, "
        f"{run['date']}, {run['rounds']} rounds, medians; dense is measured anew right before every method, and ratios are "
        "medians of such pairs. TTFT runs from the processor's output on the device to the first token: vision tower, projector, "
        "method, prefill, compression. Floor: operations of tower and decoder at the rate that a matrix product reaches. Over "
        "bound: against dense's tower time plus its decoder time scaled by the floating-point operations that are left. Method: "
        "what it does itself, in passes that wait for the device between parts. Memory is the peak of the whole call.",
    ]
    groups = dict.fromkeys((row["model"], row["asked_tokens"]) for row in document["rows"])
    for model, tokens in groups:
        rows = [row for row in document["rows"] if (row["model"], row["asked_tokens"]) == (model, tokens)]
        seen = next(row for row in rows if "entries" in row)
        lines += ["", f"## `{model}`, {seen['weights']} weights, {seen['entries']:,} tokens", ""]
        lines += [
            "| method | keep | really kept | TTFT ms | floor ms | method ms | over dense | over bound | memory over dense |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        lines += [_line(row) for row in rows]
    return "\n".join([*lines, *missing(document)]) + "\n"


def missing(document: dict[str, Any]) -> list[str]:
    """Lines of Markdown that say what could not be measured, and why."""
    reasons = [f"- not measured: {reason}" for reason in document.get("absent", [])]
    return ["", *reasons] if reasons else []


def _line(row: dict[str, Any]) -> str:
    if "unsupported" in row:
        return f"| `{row['method']}` | {row['keep']} | unsupported: {row['unsupported']} | | | | | | |"
    memory = "" if row["memory_over_dense"] is None else f"{row['memory_over_dense']:.3f}"
    times = [1e3 * seconds for seconds in (row["ttft_s"], row["floor_s"], row["split_s"]["method"])]
    ratios = [row["over_dense"], row["over_bound"]]
    cells = [f"`{row['method']}`", row["keep"], f"{row['kept_share']:.4f}", *(f"{value:.1f}" for value in times)]
    return "| " + " | ".join([*cells, *(f"{value:.3f}" for value in ratios), memory]) + " |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["random:llava_onevision_7b", "random:qwen2_vl_7b"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[2900, 7300])
    parser.add_argument("--methods", nargs="+", default=registry.token_methods())
    parser.add_argument("--keeps", nargs="+", default=["0.10", "0.40"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=FILE)
    return parser.parse_args()


def header(device: str, rounds: int) -> dict[str, Any]:
    """What a file of measurements says of its machine."""
    gpu = device.startswith("cuda")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if gpu else "cpu",
        "dtype": "bfloat16" if gpu else "float32",
        "torch": torch.__version__,
        "rounds": rounds,
    }


def record(
    asked: argparse.Namespace,
    lengths: Sequence[int],
    measured: Callable[[Adapter, int], list[dict[str, Any]]],
    shown: Callable[[dict[str, Any]], str],
) -> None:
    """Measure every model at every length; after each, write the file and the table from it. Which lengths no picture makes is
    told beside the rows."""
    try:
        sources = [resolve(value) for value in asked.models]
    except ValueError as reason:
        raise SystemExit(f"--models: {reason}") from None
    if not asked.out.parent.is_dir():
        raise SystemExit(f"--out: {asked.out.parent} is no folder")
    run = header(asked.device, asked.rounds)
    rows: list[dict[str, Any]] = []
    absent: list[str] = []
    for source in sources:
        model = open_model(source, Settings(device=asked.device, dtype=run["dtype"]))
        for tokens in lengths:
            try:
                rows += measured(model, tokens)
            except NoPicture as reason:
                absent.append(str(reason))
                print(f"not measured: {reason}", flush=True)
            document = {"run": run, "rows": rows, "absent": absent}
            asked.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            asked.out.with_suffix(".md").write_text(shown(document), encoding="utf-8")
            print(f"{model.source.name}, {tokens} tokens: {len(rows)} rows in {asked.out}", flush=True)
        model.close()


def main() -> None:
    asked = arguments()
    record(asked, asked.tokens, lambda *where: measure(*where, asked.methods, asked.keeps, asked.rounds), table)


if __name__ == "__main__":
    main()
