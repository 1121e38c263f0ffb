"""What kernels for packed weights save: `python bench_tests/studies/weight_kernels.py` on a GPU, with real shapes.

Writes reports/baselines/weight_kernels.json and a table made from it, weight_kernels.md. Three parts: products of 28 layers of
one model under one CUDA graph, kernel against kernel, each checked against its dequantised weights; decoding steps and times to
the first token of whole models with random weights; bytes of weights against theory. What fails is told with its traceback,
and the rest goes on. Not a test: what it measures depends on the card, which stands in the file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rounded import GROUP, KINDS, After, Fast, Scaled, Sparse
from torch import Tensor, nn

from effivlm.decoding.quantised import plain_rows
from effivlm.decoding.weights import Packed
from effivlm.models import _kernels
from effivlm.models._adapter import Adapter
from effivlm.models._kernels import install
from effivlm.models._sources import resolve
from effivlm.records import Cell, Settings
from effivlm.run.group import open_model
from effivlm.seams.meters import reclaim, timed_s
from effivlm.timing.timing import prepare_timing

FILE = Path(__file__).parents[2] / "reports" / "baselines" / "weight_kernels.json"
LAYERS = 28
SHAPES = {"qkv": (4608, 3584), "o": (3584, 3584), "gate_up": (37888, 3584), "down": (3584, 18944)}
"""Outputs and inputs of the products of a layer of Qwen2-7B."""
ROWS = (1, 8, 32, 64)
MANY = 7328
TOKENS = 7300
BATCHES = (1, 8, 32)
ROUNDS = 7
TASK = "docvqa_micro"


class Record:
    """Rows of measurements, written to a file and a table beside it as they come."""

    def __init__(self, out: Path) -> None:
        device = torch.cuda.get_device_name()
        self.run = {"device": device, "torch": torch.__version__, "date": time.strftime("%Y-%m-%d")}
        self.rows: list[dict[str, Any]] = []
        self.out = out

    def add(self, facts: dict[str, Any], work: Callable[[], dict[str, Any]]) -> bool:
        """Add what `work` measures, or its traceback; whether it worked."""
        start = time.monotonic()
        try:
            found = work()
        except Exception:  # whatever one kernel does, the others are measured
            found = {"error": traceback.format_exc(limit=-6)}
        reclaim(torch.device("cuda"))
        self.rows.append({**facts, **found, "took_s": round(time.monotonic() - start, 1)})
        print(json.dumps(self.rows[-1]), flush=True)
        self.out.write_text(json.dumps({"run": self.run, "rows": self.rows}, indent=1) + "\n", encoding="utf-8")
        self.out.with_suffix(".md").write_text(table(self.run, self.rows), encoding="utf-8")
        return "error" not in found


def drawn(name: str, seed: int = 0) -> Tensor:
    generator = torch.Generator("cuda").manual_seed(seed)
    return (0.02 * torch.randn(*SHAPES[name], generator=generator, device="cuda")).bfloat16()


def layers_of(make: Callable[[Tensor], nn.Module]) -> list[dict[str, nn.Module]]:
    """Products of many layers: weights of their own, so that none is read from a cache."""
    return [
        {name: make(drawn(name, LAYERS * place + layer)) for place, name in enumerate(SHAPES)}
        for layer in range(LAYERS)
    ]


def graphed_ms(work: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median milliseconds of some work replayed as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    device = torch.device("cuda")
    graph.replay()
    return statistics.median(1e3 * timed_s(graph.replay, device)[0] for _ in range(rounds))


def wrong_by(layer: nn.Module, expected: Tensor, rows: Tensor) -> float:
    """Relative error of a product, over all its entries."""
    found = layer(rows).float()
    return float((found - expected).norm() / expected.norm())


def expected_of(kind: str, weights: Packed, rows: Tensor) -> Tensor:
    """The product in float32 from dequantised weights, and of fp8 from dequantised activations."""
    entered = rows.float()
    if kind == "fp8":
        codes, scale = plain_rows(rows)
        entered = codes.float() * scale
    return entered @ weights.dense(torch.float32).T


def checked(kind: str, make: Callable[[Tensor], nn.Module]) -> dict[str, float]:
    """The worst relative error of a kernel, over shapes and numbers of rows."""
    worst = 0.0
    with torch.inference_mode():
        for name in SHAPES:
            dense = drawn(name)
            weights, layer = KINDS[kind][0](dense), make(dense)
            for count in (1, 3, 8, 17, 32, 64, 65, 300):
                rows = torch.randn(count, SHAPES[name][1], device="cuda", dtype=torch.bfloat16)
                worst = max(worst, wrong_by(layer, expected_of(kind, weights, rows), rows))
    return {"relative_error": worst}


def plain(weight: Tensor) -> nn.Module:
    """A linear layer as it is."""
    layer = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return layer


def kernels() -> dict[str, tuple[str, Callable[[Tensor], nn.Module]]]:
    """By name the kind of weights, and what makes a layer of dense ones."""

    def of(kind: str, made: Any = None) -> tuple[str, Callable[[Tensor], nn.Module]]:
        rounded, stock = KINDS[kind]
        return kind, lambda weight: (made or stock)(rounded(weight), None, torch.bfloat16)

    return {
        "dense": ("", plain),
        "int4 humming": of("int4"),
        "int4 humming, with zeros": of("int4, with zeros"),
        "fp8 own": of("fp8"),
        "fp8 torch": of("fp8", Scaled),
        "fp8 torch, fast": of("fp8", Fast),
        "fp8 torch, scales after": of("fp8", After),
        "w8a16 humming": of("w8a16"),
    }


def product_times(make: Callable[[Tensor], nn.Module], counts: tuple[int, ...]) -> dict[str, Any]:
    """Milliseconds of all products of 28 layers, by the number of rows."""
    held = layers_of(make)
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for count in counts:
            entered = {
                name: torch.randn(count, shape[1], device="cuda", dtype=torch.bfloat16)
                for name, shape in SHAPES.items()
            }

            def work(entered: dict[str, Tensor] = entered) -> None:
                for layer in held:
                    for name, product in layer.items():
                        product(entered[name])

            found[f"{count}_rows_ms"] = graphed_ms(work)
    return found


def prefill_times(make: Callable[[Tensor], nn.Module]) -> dict[str, Any]:
    """Milliseconds of each product at many rows."""
    found = {}
    with torch.inference_mode():
        for name, (_, inputs) in SHAPES.items():
            layer = make(drawn(name))
            rows = torch.randn(MANY, inputs, device="cuda", dtype=torch.bfloat16)
            found[f"{name}_ms"] = graphed_ms(partial(layer, rows))
    return found


def products(record: Record, names: list[str]) -> None:
    """Kernel against kernel."""
    for name, (kind, make) in kernels().items():
        if name not in names:
            continue
        facts = {"part": "products", "kernel": name}
        if kind:
            record.add({**facts, "what": "error"}, partial(checked, kind, make))
        record.add({**facts, "what": "28 layers"}, partial(product_times, make, ROWS))
        record.add({**facts, "what": f"{MANY} rows"}, partial(prefill_times, make))
    for count in (1, 32, MANY) if "2:4" in names else ():
        record.add({"part": "products", "kernel": "2:4", "what": f"{count} rows"}, partial(sparse_times, count))


def sparse_times(count: int) -> dict[str, Any]:
    """Milliseconds of each product with 2:4 weights and with the same ones as they are, and how far both differ."""
    found: dict[str, Any] = {}
    with torch.inference_mode():
        for name, (_, inputs) in SHAPES.items():
            layer = Sparse(drawn(name))
            rows = torch.randn(count, inputs, device="cuda", dtype=torch.bfloat16)
            plain = partial(torch.nn.functional.linear, rows, layer.plain)
            found[f"{name}_error"] = wrong_by(layer, plain().float(), rows)
            found[f"{name}_ms"], found[f"{name}_dense_ms"] = graphed_ms(partial(layer, rows)), graphed_ms(plain)
    return found


def quantise(model: Adapter, kind: str) -> dict[str, Any]:
    """Round the weights of the decoder's linear layers on the device; bytes of all weights, and what theory says of them."""
    rounded, made = KINDS[kind]
    before, theory = model.weight_bytes(), 0.0
    for layer in model.layers:
        linears = [part for part in layer.modules() if isinstance(part, nn.Linear)]
        weights = {part: rounded(part.weight.data) for part in linears}
        for part in linears:
            before -= part.weight.nbytes
            count = part.weight.numel()
            theory += count * (4 + 16 / GROUP) / 8 if kind == "int4" else count
        with patch.dict(_kernels.KINDS, dict.fromkeys(_kernels.KINDS, made)):
            install([layer], weights, torch.bfloat16)
    model.weights = f"random, {kind}, {made.kernel}"
    reclaim(model.device)
    asked = before + theory
    return {"weight_bytes": model.weight_bytes(), "theory_bytes": asked, "over_theory": model.weight_bytes() / asked}


@contextmanager
def opened(name: str) -> Iterator[Adapter]:
    model = open_model(resolve(name), Settings(device="cuda", dtype="bfloat16"))
    try:
        yield model
    finally:
        model.close()
        reclaim(torch.device("cuda"))


def models(record: Record, name: str, kinds: list[str], ttft: bool, batches: list[int]) -> None:
    """Steps and times to the first token of one model, dense and with packed weights."""
    for kind in kinds:
        torch._dynamo.reset()
        with opened(name) as model:
            facts = {"part": "models", "model": model.source.name, "kind": kind}
            sized = partial(quantise, model, kind) if kind in KINDS else lambda: {"weight_bytes": model.weight_bytes()}
            if not record.add({**facts, "what": "bytes"}, sized):
                continue
            if ttft:
                record.add({**facts, "what": "ttft"}, partial(ttft_of, model))
            for batch, method in [*((batch, "dense") for batch in batches), *[(32, "snapkv")] * (32 in batches)]:
                step = {"what": "step", "batch": batch, "method": method}
                record.add({**facts, **step}, partial(step_of, model, batch, method))


def ready(model: Adapter, method: str) -> Any:
    settings = Settings(device="cuda", dtype="bfloat16", prompt=TOKENS, engine="cuda_graph")
    keep = "1.00" if method == "dense" else "0.10"
    return prepare_timing(Cell(model.source.name, method, "paper", keep, TASK), model, settings)


def ttft_of(model: Adapter) -> dict[str, Any]:
    """Seconds to the first token, and of the vision tower in it."""
    timing = ready(model, "dense")
    timing.ttft()
    rounds = [timing.ttft() for _ in range(ROUNDS)]
    split = {name: cost.median for name, cost in timing._split().items()}
    return {"ttft_s": statistics.median(rounds), "rounds_s": rounds, "tokens": timing.leaf().length, "split_s": split}


def step_of(model: Adapter, batch: int, method: str) -> dict[str, Any]:
    """Milliseconds of a decoding step in the captured engine."""
    timing = ready(model, method)
    paced = timing._pace(batch)
    rounds = [timing._step_ms(paced) for _ in range(ROUNDS)]
    return {"step_ms": statistics.median(rounds), "rounds_ms": rounds, "engine": paced.engine}


def table(run: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """The measurements as Markdown."""
    lines = [
        "# What kernels for packed weights save",
        "",
        f"Made by `python bench_tests/studies/weight_kernels.py`: {run['device']}, torch {run['torch']}, {run['date']},"
        f" medians of {ROUNDS} rounds. Products: all linear layers of {LAYERS} layers of Qwen2-7B under one CUDA graph,"
        f" milliseconds; at {MANY} rows each product alone. Models: random weights, about {TOKENS} prompt tokens, captured"
        " steps; the head, the embeddings and the vision tower stay as they are."
        + (f" Measured at commit {run['commit']}." if "commit" in run else ""),
        "",
    ]
    for row in rows:
        named = {key: value for key, value in row.items() if key not in ("rounds_s", "rounds_ms", "took_s", "error")}
        shown = ", ".join(f"{key} {_short(value)}" for key, value in named.items())
        failed = row["error"].strip().splitlines()[-1] if "error" in row else ""
        lines.append(f"- {shown}" + (f": failed, {failed}" if failed else ""))
    return "\n".join([*lines, "", *goals(rows)]) + "\n"


def goals(rows: list[dict[str, Any]]) -> list[str]:
    """How often a packed model is faster than the dense one."""
    found = {}
    for row in rows:
        if row["part"] == "models" and ("step_ms" in row or "ttft_s" in row):
            where = row["what"], row.get("batch"), row.get("method")
            found[row["model"], row["kind"], where] = row.get("step_ms") or 1e3 * row["ttft_s"]
    lines = []
    for (model, kind, where), value in found.items():
        against = ("step", where[1], "dense") if where[0] == "step" else where
        dense = found.get((model, "dense", against))
        if dense and (kind, where) != ("dense", against):
            words = " ".join(str(word) for word in where if word)
            lines.append(
                f"- {model}, {kind}, {words}: {value:.2f} ms, {dense / value:.2f} times dense's {dense:.2f} ms"
            )
    return lines


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {_short(inner)}" for key, inner in value.items()) + ")"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=["random:llava_onevision_7b", "random:qwen2_vl_7b"])
    parser.add_argument("--kinds", nargs="+", default=["dense", "int4", "fp8"], choices=["dense", *KINDS])
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    parser.add_argument("--products", nargs="*", default=[*kernels(), "2:4"], help="kernels to compare, and 2:4")
    parser.add_argument("--no-ttft", action="store_true")
    parser.add_argument("--out", type=Path, default=FILE)
    asked = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("there is no GPU here")
    record = Record(asked.out)
    products(record, asked.products)
    for name in asked.models:
        models(record, name, asked.kinds, not asked.no_ttft, asked.batches)
    print(table(record.run, record.rows), flush=True)


if __name__ == "__main__":
    main()
