"""What methods compute themselves, without a model: `python bench_tests/studies/own_work.py` on a GPU, in seconds.

Features, attention and keys are drawn at random in the shapes that LLaVA-OneVision 7B gives them: a picture as a whole of 27 x 27
tokens of 3,584 channels, and nine tiles packed side by side, once whole (`--columns 81`) and once with padding cut off. Cache
methods get 28 layers of a prompt of as many entries. Printed are milliseconds (median, waiting for the device before and after)
and how many operations PyTorch was asked for, which a slow host pays for one by one. `--ttft` measures the time to the first
token of the random model instead, as `overhead.py` does, for the same methods.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import overhead
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from effivlm import registry
from effivlm.compression.base import CachePart, ImageView, LayerView, VisualPart
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings, Unsupported
from effivlm.run.group import open_model
from effivlm.seams.angles import Angles, moments
from effivlm.seams.hooks import Tower
from effivlm.seams.meters import timed_s

SIDE, WIDTH, TOWER = 27, 3584, (16, 72)
LAYERS, HEADS, KV_HEADS, DIM = 28, 28, 4, 128
QUESTION = 20
WARM = 2


class Asked(TorchDispatchMode):
    """Counts the operations that PyTorch is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def places(columns: int) -> Tensor:
    """Of a whole picture, and of nine tiles packed side by side with a newline behind each row, cut to `columns`."""
    whole = torch.cartesian_prod(torch.tensor([0]), torch.arange(SIDE), torch.arange(SIDE))
    rows, across = torch.meshgrid(torch.arange(3 * SIDE), torch.arange(columns), indexing="ij")
    packed = torch.stack([1 + rows // SIDE * 3 + across // SIDE, rows, across], -1)
    newline = torch.full((3 * SIDE, 1, 3), -1)
    return torch.cat([whole, torch.cat([packed, newline], 1).flatten(0, 1)])


def picture(columns: int, side: int, device: str, dtype: torch.dtype) -> ImageView:
    rng = torch.Generator().manual_seed(0)
    where = places(columns)
    length = len(where)
    features = torch.randn(length, side, generator=rng) + torch.randn(side, generator=rng)
    received, single = (torch.randn(2, length, generator=rng).exp() / SIDE**2).to(device)
    keys = torch.randn(length, *TOWER, generator=rng).to(device, dtype)
    question = torch.randn(QUESTION, side, generator=rng).to(device, dtype)
    return ImageView(features.to(device, dtype), where.to(device), Tower(received, single, keys), question)


def layers(length: int, device: str, dtype: torch.dtype) -> tuple[list[LayerView], list[Tensor], Angles]:
    """Views of the layers of a prompt, their queries [H_q, N, D], and the angles that these were turned by."""
    marks = torch.arange(length, device=device) < length - QUESTION
    steps = torch.arange(length + 2048, device=device)[:, None] / 1e6 ** (
        torch.arange(DIM, device=device) % (DIM // 2) / (DIM // 2)
    )
    angles = Angles(steps.cos().to(dtype), steps.sin().to(dtype))
    rng = torch.Generator(device).manual_seed(0)
    drawn = partial(torch.randn, generator=rng, device=device, dtype=dtype)
    queries = [drawn(HEADS, length, DIM) for _ in range(LAYERS)]
    views = [
        LayerView(
            query[:, -64:].clone(),
            drawn(KV_HEADS, length, DIM),
            drawn(KV_HEADS, length, DIM),
            marks,
            number,
            torch.rand(HEADS, length, device=device),
            QUESTION,
            {},
            lambda n: Angles(angles.cosines[length : length + n], angles.sines[length : length + n]),
        )
        for number, query in enumerate(queries)
    ]
    return views, queries, Angles(angles.cosines[:length], angles.sines[:length])


def of_cache(part: CachePart, made: tuple[list[LayerView], list[Tensor], Angles]) -> Callable[[], object]:
    """What a cache method computes while the prefill runs, and at its end."""
    views, queries, angles = made

    def work() -> object:
        fresh = []
        for view, query in zip(views, queries, strict=True):
            start = part.moments_from(view.length)
            seen = (
                {} if start is None else {start: moments(query[:, start:], angles.of(torch.arange(start, view.length)))}
            )
            fresh.append(
                LayerView(
                    *(
                        view.queries,
                        view.keys,
                        view.values,
                        view.visual,
                        view.layer,
                        view.received,
                        view.question,
                        seen,
                    ),
                    view.following,
                )
            )
            part.look(fresh[-1])
        return part.compress(fresh, "sample")

    return work


def measured(work: Callable[[], object], device: torch.device, rounds: int) -> tuple[float, int]:
    """Median milliseconds, and the number of operations."""
    for _ in range(WARM):
        work()
    times = [timed_s(work, device)[0] for _ in range(rounds)]
    with Asked() as asked:
        work()
    return 1e3 * statistics.median(times), asked.count


def parts(names: Sequence[str], keep: str) -> list[tuple[str, Any]]:
    """Parts of the methods that work at the vision or the cache seam."""
    found = []
    for name in names:
        if registry.inherited("methods", name, "seam") == "weights":
            continue
        kind = registry.load("methods", name)
        if registry.declared("methods", name).get("budgeted", True):
            found += [(name, part) for part in kind(keep=Budget.parse(keep)).seam_parts()]
    return [(name, part) for name, part in found if isinstance(part, VisualPart | CachePart)]


def own_work(asked: argparse.Namespace) -> None:
    device, dtype = torch.device(asked.device), torch.bfloat16 if asked.device.startswith("cuda") else torch.float32
    limit_ms = 0.08 * asked.dense_ms
    print(
        f"methods' own work, keep {asked.keep}; goal: under {limit_ms:.1f} ms (8 % of a dense prefill of {asked.dense_ms} ms)"
    )
    for columns in asked.columns:
        view = picture(columns, asked.width, asked.device, dtype)
        made: Any = None
        print(
            f"\n{len(view.features)} tokens, {columns} columns of tiles\n\n| method | ms | operations | |\n|---|---|---|---|"
        )
        for name, part in parts(asked.methods, asked.keep):
            if isinstance(part, VisualPart):
                work: Callable[[], object] = partial(part.select, [view], "sample")
            else:
                made = made or layers(len(view.features), asked.device, dtype)
                work = of_cache(part, made)
            try:
                took, count = measured(work, device, asked.rounds)
            except Unsupported as reason:
                print(f"| `{name}` | unsupported: {reason} | | |", flush=True)
                continue
            print(f"| `{name}` | {took:.2f} | {count} | {'over' if took > limit_ms else ''} |", flush=True)


def ttft(asked: argparse.Namespace) -> None:
    model = open_model(
        resolve(asked.model), Settings(device=asked.device, dtype=overhead.header(asked.device, 0)["dtype"])
    )
    names = [name for name, part in parts(asked.methods, asked.keep) if isinstance(part, VisualPart)]
    rows = overhead.measure(model, asked.tokens, names, [asked.keep], asked.rounds)
    print(overhead.table({"run": overhead.header(asked.device, asked.rounds), "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", nargs="+", default=registry.names("methods"))
    parser.add_argument("--keep", default="0.10")
    parser.add_argument("--columns", nargs="+", type=int, default=[81, 63])
    parser.add_argument("--width", type=int, default=WIDTH)
    parser.add_argument("--dense-ms", type=float, default=226.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--ttft", action="store_true")
    parser.add_argument("--model", default="random:llava_onevision_7b")
    parser.add_argument("--tokens", type=int, default=7300)
    asked = parser.parse_args()
    with torch.inference_mode():
        ttft(asked) if asked.ttft else own_work(asked)


if __name__ == "__main__":
    main()
