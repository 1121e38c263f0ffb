"""`python -m effivlm compress`: one checkpoint of a method's, layer by layer, in a standard format."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from effivlm import registry
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.spelling import PRESET


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "compress",
        "make a checkpoint of fewer weights or bits, for --vlm-models NAME=DIR; one that was stopped goes on where it was",
        run,
        "micro_qwen2_vl --method gptq --budget w4g128 --to qwen_w4",
        "llava_onevision_7b --method sparsegpt@balanced --budget sparsity0.50 --to ov_half --samples 128 --device cuda",
    )
    parser.add_argument("model", metavar="MODEL", help="as --vlm-models")
    parser.add_argument("--method", required=True, metavar="NAME[@PRESET]", help=f"one of {', '.join(methods())}")
    parser.add_argument("--budget", required=True, help="sparsity0.50, 2:4, w4g128, w8, fp8, int8 ...")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="new folder of the checkpoint")
    parser.add_argument("--samples", type=int, metavar="N", help="calibration samples (default: the method's)")
    parser.add_argument("--seed", type=int, default=0, help="which calibration samples are drawn (default: 0)")
    parser.add_argument(
        "--calibration",
        metavar="SET",
        help="micro, sharegpt4v, or a folder of questions with answers (default: by model)",
    )
    parser.add_argument("--data", default="", metavar="DIR", help="as --vlm-data, for the calibration set")
    parser.add_argument(
        "--targets",
        metavar="PARTS",
        help="whose linears change: language, tower, projector, joined by + (default: language)",
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16", "float16"), help="of the computation"
    )


def methods() -> list[str]:
    """Names of methods that change the checkpoint."""
    tokens = {*registry.token_methods(), *registry.unusable("methods")}
    return [name for name in registry.names("methods") if name not in tokens]


def run(options: argparse.Namespace) -> int:
    source = resolve(options.model)
    name, _, preset = options.method.partition(PRESET)
    if name not in methods():
        raise ValueError(registry.unknown("method of checkpoints", name, methods()))
    from effivlm.compression.weights import WeightMethod

    kind = cast(type[WeightMethod], registry.load("methods", name))
    values = _preset(name, kind.presets, preset or kind.default_preset)
    method = kind(keep=Budget.parse(options.budget), seed=options.seed, **values)
    asked = {"samples": options.samples, "calibration": options.calibration, "targets": options.targets}
    method = replace(method, **{word: value for word, value in asked.items() if value is not None})
    settings = Settings(seed=options.seed, device=options.device, dtype=options.dtype, data=options.data)
    from effivlm.weights.product import PRODUCT, product

    folder = product(source, method, settings, _told, options.to)
    made = json.loads((folder / PRODUCT).read_text(encoding="utf-8"))
    print(_summary(folder, made))
    return 0


def _preset(name: str, presets: Mapping[str, Mapping[str, Any]], preset: str) -> Mapping[str, Any]:
    if preset not in presets:
        raise ValueError(f"unknown preset {preset!r} of method {name!r}. Choose from: {', '.join(presets)}")
    return presets[preset]


def _told(what: str, done: int, of: int) -> None:
    print(f"{done}/{of} {what}", flush=True)


def _summary(folder: Path, made: Mapping[str, Any]) -> str:
    found = made["achieved"]
    return (
        f"{folder}: {made['budget']} asked, {found['zeros']:.4f} zeros and {found['bits_per_weight']:.3f} bits a weight"
        f" in {len(made['layers'])} linear layers"
    )
