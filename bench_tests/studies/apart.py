"""A model over one GPU and forced apart over all: `python bench_tests/studies/apart.py` on a host with two GPUs or more.

A real shape of random weights, cut to some layers so that it fits one GPU, is written as a checkpoint and opened on the first
GPU, with captured steps and without, and spread over all by the rule for models too large for one. Every way answers the same
drawn pages under dense and a few methods. Says for each: which parts lie where, bytes of weights and peak memory by GPU, seconds
to open and a sample, and by method the share of answers that are those of one GPU without captured steps (all, in float32).
Not a test: what it measures depends on the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from real_size import draw

METHODS = "snapkv,h2o,pyramidkv,vl_cache,cake,expected_attention,visionzip,fastv,sparsevlm@final"
WAYS = (("one", "eager"), ("apart", "auto"), ("one", "auto"))
"""Where a model is opened, and the engine that is asked for; what the first one says is what others are compared with."""


def write(shape: str, folder: Path, device: str, dtype: str, **smaller: Any) -> None:
    """A checkpoint of random weights with its processor; `smaller` as `_shapes.build` has it."""
    import torch

    from effivlm.models import _shapes
    from effivlm.models._torchvision import ensure_torchvision
    from effivlm.seams.meters import reclaim

    ensure_torchvision()
    model, processor = _shapes.build(shape, device, dtype, **smaller)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    del model
    reclaim(torch.device(device))


@contextmanager
def forced(how: str) -> Iterator[None]:
    """Inside, a model is opened on one device, or ("apart") over all GPUs however small it is."""
    from effivlm.models import _adapter

    stock = _adapter._placement
    _adapter._placement = (lambda *given: "auto") if how == "apart" else (lambda source, device, *given: device)
    try:
        yield
    finally:
        _adapter._placement = stock


def lying(model: Any) -> dict[str, dict[str, Any]]:
    """By device: how many decoder layers, which other parts, and bytes of weights."""
    inside = {id(tensor): number for number, layer in enumerate(model.layers) for tensor in layer.parameters()}
    found: dict[str, dict[str, Any]] = {}
    for name, tensor in model.model.named_parameters():
        one = found.setdefault(str(tensor.device), {"layers": set(), "parts": set(), "bytes": 0})
        one["bytes"] += tensor.nbytes
        number = inside.get(id(tensor))
        one["parts" if number is None else "layers"].add(".".join(name.split(".")[:3]) if number is None else number)
    return {place: {**one, "layers": len(one["layers"]), "parts": sorted(one["parts"])} for place, one in found.items()}


def asked_of(
    source: Any, way: tuple[str, str], cells: Sequence[Any], settings: Any
) -> tuple[dict[str, Any], Mapping[Any, Any]]:
    """What one way of opening costs, and the answers' tokens by cell."""
    import torch

    from effivlm.run.group import open_model, run_group

    how, engine = way
    cards = range(torch.cuda.device_count())
    start = time.perf_counter()
    settings = replace(settings, engine=engine)
    with forced(how):
        model = open_model(source, settings)
    opened_s = time.perf_counter() - start
    model.eos = frozenset()  # as many tokens for every answer: what random weights say means nothing
    for card in cards:
        torch.cuda.reset_peak_memory_stats(card)
    marks = [time.perf_counter()]
    found = run_group(cells, model, settings, lambda done, of: marks.append(time.perf_counter()))
    spans = [after - before for before, after in pairwise(marks)]
    facts = {
        "way": how,
        "engine": "eager" if model.spread else engine,
        "home": str(model.device),
        "lying": lying(model),
        "peak_bytes": {str(card): torch.cuda.max_memory_allocated(card) for card in cards},
        "open_s": opened_s,
        "first_s": spans[0],
        "s": statistics.median(spans[1:] or spans),
        "prompt": statistics.mean(answer.prompt_tokens for answer in found[0].answers) if found[0].answers else 0,
        "wrong": {one.cell.id: one.reason for one in found if one.status != "ok"},
    }
    model.close()
    return facts, {one.cell: [answer.tokens for answer in one.answers] for one in found}


def rows(folder: str, pages: str, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row a way."""
    from effivlm.records import Cell
    from effivlm.run.steps import asked as named
    from effivlm.session.groups import on_device
    from effivlm.session.matrix import Asked, build

    given = {"limit": str(asked.samples), "dtype": asked.dtype, "tiles": str(asked.tiles)}
    plan = build(Asked(models=(f"apart={folder}",), tasks=(f"drawn={pages}",), **given))
    settings, source = on_device(plan.settings), plan.sources["apart"]
    cells = [Cell("apart", "dense", "paper", "1.00", "drawn")]
    cells += [Cell("apart", *named(method), asked.keep, "drawn") for method in asked.methods.split(",")]
    reference: Mapping[Any, Any] = {}
    for way in WAYS:
        facts, said = asked_of(source, way, cells, settings)
        reference = reference or said
        pairs = {cell.id: zip(those, reference[cell], strict=True) for cell, those in said.items() if those}
        equal = {name: statistics.mean(one == other for one, other in both) for name, both in pairs.items()}
        yield {"shape": asked.shape, "depth": asked.layers, "dtype": settings.dtype, **facts, "equal": equal}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="internvl2_5_38b")
    parser.add_argument("--layers", type=int, default=32, help="decoder layers that are left")
    parser.add_argument("--folder", default="", help="where the checkpoint is kept, or is already")
    parser.add_argument("--samples", type=int, default=6)
    parser.add_argument("--tokens", type=int, default=16, help="new tokens of an answer")
    parser.add_argument("--tiles", type=int, default=6)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--keep", default="0.20")
    asked = parser.parse_args()
    import torch

    if torch.cuda.device_count() < 2:
        parser.error(f"{torch.cuda.device_count()} GPUs are here, and a model is spread over two or more")
    with tempfile.TemporaryDirectory() as own:
        folder, pages = Path(asked.folder or f"{own}/checkpoint"), Path(own) / "pages"
        if not (folder / "config.json").is_file():
            write(asked.shape, folder, "cuda:0", asked.dtype, text_config={"num_hidden_layers": asked.layers})
        pages.mkdir()
        draw(pages, asked.samples, asked.tokens)
        for facts in rows(str(folder), str(pages), asked):
            print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
