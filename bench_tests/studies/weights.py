"""What methods of weights cost on the micro models: score, and how far next-token distributions move from dense.

`python bench_tests/studies/weights.py --samples 100 --tasks all --workers 15 --device cuda` makes every product, answers the
tasks with it, and writes `weights.json` and `weights.md` under reports/baselines. What is in the file is not done again. KL
(nats a token) is dense against compressed, teacher-forced on the reference answer: it tells methods apart where scores cannot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
BASELINES = ROOT / "reports" / "baselines"
MODELS = ("micro_llava_onevision", "micro_qwen2_vl", "micro_internvl2_5")
TASKS = ("docvqa_micro", "gqa_micro", "chartqa_micro", "ocrbench_micro")
PRUNING = ("magnitude", "wanda", "wanda@balanced", "sparsegpt", "sparsegpt@balanced", "ecoflap", "ecoflap@l2_norm")
ROUNDING = ("rtn", "gptq", "gptq@balanced", "awq", "awq@balanced")
SPARSITIES = ("sparsity0.20", "sparsity0.50", "sparsity0.60", "sparsity0.70", "2:4")
GRIDS = ("w4g128", "w3g128", "w2g32")
OTHER = (("fp8", "fp8"), ("int8", "int8"), ("rtn", "w8"))
SALIENT = (
    *((name, budget) for budget in GRIDS[:2] for name in ("rtn", "gptq", "awq")),
    *((name, budget) for budget in ("sparsity0.50", "2:4") for name in ("magnitude", "wanda", "sparsegpt")),
)
Job = tuple[str, str, str, str]
"""Model, variant ("plain" or "salient"), method with preset, budget; method "dense" is the model itself."""


def jobs(models: Sequence[str], only: Sequence[str]) -> list[Job]:
    """Every case of the table, those whose method or budget is named in `only` where it is not empty."""
    plain = [(name, budget) for name in PRUNING for budget in SPARSITIES]
    plain += [(name, budget) for name in ROUNDING for budget in GRIDS]
    plain += OTHER
    found: list[Job] = []
    for model in models:
        found.append((model, "plain", "dense", "1.00"))
        found += [(model, "plain", *one) for one in plain]
        found += [(model, "salient", *one) for one in SALIENT]
    return [job for job in found if not only or {job[2], job[2].partition("@")[0], job[3], job[1]} & {*only}]


@cache
def loaded(model: str, variant: str, device: str) -> Any:
    """The dense model and where it comes from."""
    import torch
    from salient import planted

    from effivlm.models._sources import resolve
    from effivlm.records import Settings
    from effivlm.run.group import open_model

    torch.set_num_threads(1)
    source = resolve(model)
    if variant == "salient":
        folder = Path(tempfile.mkdtemp()) / "salient"
        source = resolve(f"{model}_salient={planted(Path(source.source), folder)}")
    return open_model(source, Settings(device=device, dtype="float32"))


@cache
def shown(model: str, device: str, task: str, samples: int) -> Any:
    """The prompts of a task, which are those of the salient variant too: what is planted lies behind them."""
    from answered import prompts

    return prompts(loaded(model, "plain", device), task, samples)


@cache
def forced(model: str, variant: str, device: str, task: str, samples: int) -> list[tuple[Any, Any]]:
    """Samples of a task as the decoder meets them with their reference answers, and dense's logits [A, vocab] on those."""
    import torch

    from effivlm.records import Settings
    from effivlm.run.group import task_in
    from effivlm.weights.texts import texts

    adapter = loaded(model, variant, device)
    found = task_in(task, Settings()).samples(samples, 0)
    read = texts(adapter, [found[number] for number in range(len(found))], "all")
    with torch.no_grad():
        return [(text, answering(adapter, text)) for text in read]


def answering(adapter: Any, text: Any) -> Any:
    """Logits [A, vocab] of the positions that predict the answer."""
    from effivlm.weights.texts import beside

    with beside(adapter, text):
        hidden = adapter.text(inputs_embeds=text.embeds, position_ids=text.positions, use_cache=False).last_hidden_state
    return adapter.head(hidden[0, -len(text.answer) - 1 : -1]).float()


def divergence(adapter: Any, pairs: Sequence[tuple[Any, Any]]) -> float:
    """Mean over samples of the mean over answer tokens of KL(dense, now), in nats."""
    import torch
    from torch.nn.functional import kl_div

    found = []
    with torch.no_grad():
        for text, dense in pairs:
            now = answering(adapter, text).log_softmax(-1)
            found.append(float(kl_div(now, dense.log_softmax(-1), reduction="none", log_target=True).sum(-1).mean()))
    return statistics.fmean(found)


@contextmanager
def wearing(adapter: Any, folder: Path | None) -> Iterator[None]:
    """Inside, the model has the weights of a product, as plain transformers loads them."""
    import torch
    import transformers

    if folder is None:
        yield
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    how = {}
    if "quantization_config" in config:
        how["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    other = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, **how)
    given = {name: value for name, value in other.named_parameters() if value.is_floating_point()}
    before = {name: value.detach().clone() for name, value in adapter.model.named_parameters()}
    with torch.no_grad():
        for name, value in adapter.model.named_parameters():
            value.copy_(given[name])
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in adapter.model.named_parameters():
                value.copy_(before[name])


def measured(job: Job, asked: Mapping[str, Any]) -> dict[str, Any]:
    """One row of the table."""
    from answered import score

    from effivlm import registry
    from effivlm.records import Budget, Settings
    from effivlm.weights.product import PRODUCT, product

    (model, variant, method, budget), device = job, asked["device"]
    adapter, folder = loaded(model, variant, device), None
    started = time.perf_counter()
    row: dict[str, Any] = {"model": model, "variant": variant, "method": method, "budget": budget}
    if method != "dense":
        name, _, preset = method.partition("@")
        kind: Any = registry.load("methods", name)
        fields = kind.presets[preset or "paper"]
        made = kind(keep=Budget.parse(budget), calibration="micro", samples=asked["calibration"], **fields)
        folder = product(adapter.source, made, Settings(device=device, dtype="float32"))
        row |= json.loads((folder / PRODUCT).read_text(encoding="utf-8"))["achieved"]
    row["made_s"] = round(time.perf_counter() - started, 1)
    # dense's logits are kept for all products, so they are computed while the model still is dense
    pairs = {task: forced(model, variant, device, task, asked["kl_samples"]) for task in asked["kl_tasks"]}
    with wearing(adapter, folder):
        row["kl"] = {task: divergence(adapter, of) for task, of in pairs.items()}
        row["score"] = {task: score(adapter, shown(model, device, task, asked["samples"])) for task in asked["tasks"]}
    return row


RULES: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("w4g128", "gptq", {"damp": 0.01, "block": 128, "symmetric": False}, "rtn"),
    ("sparsity0.50", "sparsegpt", {"damp": 0.01, "block": 128}, "magnitude"),
    ("2:4", "sparsegpt", {"damp": 0.01, "block": 128}, "magnitude"),
    ("sparsity0.50", "wanda", {}, "magnitude"),
    ("2:4", "wanda", {}, "magnitude"),
)


def reconstructed(model: str, count: int, device: str) -> list[dict[str, Any]]:
    """How the error of every linear's outputs on `count` calibration samples compares with that of the floor, dense before it."""
    import torch

    from effivlm.compression.weights import Goal, Linear
    from effivlm.weights import calibration
    from effivlm.weights.blocks import Walk, outline
    from effivlm.weights.engines import solved
    from effivlm.weights.seen import gathered
    from effivlm.weights.texts import texts

    adapter = loaded(model, "plain", device)
    samples = calibration.drawn("micro", adapter.source, count, 0, True).samples
    walk, ratios = Walk(adapter, samples, lambda: texts(adapter, samples, "all")), [list[float]() for _ in RULES]
    with torch.no_grad():
        for stage in walk.stages(outline(adapter, "language")):
            seen = gathered(stage.linears, "hessian", stage.samples, stage.run, stage.weights)
            for name, linear in stage.linears.items():
                hessian: Any = seen[name].hessian
                for place, (budget, rule, how, floor) in enumerate(RULES):
                    goal = Goal.parse(budget)
                    zeros = round(goal.zeros * linear.weight.numel())
                    one = Linear(name, linear.weight, goal, zeros, "float16", seen[name].norms, hessian)
                    plain = {"symmetric": False} if floor == "rtn" else {}
                    made = [solved("llmcompressor", rule, one, **how), solved("llmcompressor", floor, one, **plain)]
                    lost = [
                        float((((new.weight - one.weight) @ hessian) * (new.weight - one.weight)).sum()) for new in made
                    ]
                    ratios[place].append(lost[0] / lost[1])
            walk.leave(stage)
    return [
        {
            "model": model,
            "budget": budget,
            "method": rule,
            "floor": floor,
            "better": sum(ratio < 1 for ratio in found),
            "of": len(found),
            "median": statistics.median(found),
        }
        for (budget, rule, _, floor), found in zip(RULES, ratios, strict=True)
    ]


def table(document: Mapping[str, Any]) -> str:
    """The report in Markdown: a block a budget, a row a method, KL and score of each model."""
    from weights_goals import goals

    rows = document["rows"]
    lines = ["# Methods of weights on the micro models", "", *told(document), ""]
    for variant in ("plain", "salient"):
        here = [row for row in rows if row["variant"] == variant]
        models = [model for model in MODELS if any(row["model"] == model for row in here)]
        for budget in dict.fromkeys(row["budget"] for row in here):
            lines += [
                f"## {budget}, {variant}",
                "",
                "| method | " + " | ".join(f"KL {one}" for one in models) + " | score |",
            ]
            lines += ["|---" * (len(models) + 2) + "|"]
            for method in dict.fromkeys(row["method"] for row in here if row["budget"] == budget):
                of = {row["model"]: row for row in here if (row["budget"], row["method"]) == (budget, method)}
                kls = [f"{mean(of[model]['kl']):.4f}" if model in of else "" for model in models]
                scores = "/".join(
                    f"{mean(of[model]['score']):.3f}" if model in of and of[model]["score"] else "-" for model in models
                )
                lines.append(f"| {method} | {' | '.join(kls)} | {scores} |")
            lines.append("")
    lines += [*goals(rows, MODELS), ""]
    lines += ["## Error of the outputs of every linear layer, over that of the floor", ""]
    lines += ["| model | budget | method | floor | better | median ratio |", "|---|---|---|---|---|---|"]
    for row in document.get("layers", ()):
        words = [row["model"], row["budget"], row["method"], row["floor"], f"{row['better']} of {row['of']}"]
        lines.append(f"| {' | '.join(words)} | {row['median']:.3f} |")
    return "\n".join(lines)


def told(document: Mapping[str, Any]) -> list[str]:
    asked = document["asked"]
    return [
        f"{asked['samples']} samples of each of {', '.join(asked['tasks']) or 'no task'} for the score,"
        f" {asked['kl_samples']} of each of {', '.join(asked['kl_tasks'])} for the KL (nats a token, dense against compressed,"
        f" on reference answers); {asked['calibration']} calibration samples of the generators' training split, float32"
        f" on {asked['device']}.",
        "",
        "Variant salient: 3 % of norm gains and up-rows raised 8 to 32 times, the weights behind lowered; dense is the same.",
        "",
        f"Made by `python bench_tests/studies/weights.py` with {document['versions']}.",
    ]


def mean(values: Mapping[str, float]) -> float:
    return statistics.fmean(values.values()) if values else 0.0


def _key(row: Mapping[str, Any]) -> Job:
    return (row["model"], row["variant"], row["method"], row["budget"])


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Do what is not in the file, writing it after every row."""
    from effivlm_micro.heldout import MAKERS

    from effivlm.weights.product import versions

    tasks = list(MAKERS) if options.tasks == "all" else [word for word in options.tasks.split(",") if word]
    asked = {
        "samples": options.samples,
        "tasks": tasks,
        "kl_samples": options.kl_samples,
        "kl_tasks": list(TASKS),
        "calibration": options.calibration,
        "device": options.device,
    }
    document: dict[str, Any] = {"asked": asked, "versions": versions(), "rows": [], "layers": []}
    file = options.out.with_suffix(".json")
    if file.exists():
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["asked"] != asked:
            raise ValueError(f"{file} was measured otherwise ({found['asked']}): name another --out, or remove it")
        document["rows"], document["layers"] = found["rows"], found.get("layers", [])
    known = {_key(row) for row in document["rows"]}
    order = {job: place for place, job in enumerate(jobs(MODELS, ()))}
    waiting = [job for job in jobs(options.models, options.only) if job not in known]
    waiting.sort(key=lambda job: not job[2].startswith("awq"))  # what takes longest begins first
    unlooked = [model for model in options.models if model not in {row["model"] for row in document["layers"]}]
    # workers of a model each: what a worker knows of a model (prompts, dense's logits) takes longer than a row
    share, spawn = max(1, options.workers // len(options.models)), get_context("spawn")
    with ExitStack() as pools:
        of = {model: pools.enter_context(ProcessPoolExecutor(share, mp_context=spawn)) for model in options.models}
        looking = {
            of[model].submit(reconstructed, model, options.calibration, options.device): (model, "layers")
            for model in unlooked
        }
        running = {of[job[0]].submit(measured, job, asked): job for job in waiting}
        for done, future in enumerate(as_completed({**looking, **running}), 1):
            if future in looking:
                document["layers"] += future.result()
            else:
                document["rows"].append(future.result())
                document["rows"].sort(key=lambda row: order[_key(row)])
            file.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            options.out.with_suffix(".md").write_text(table(document) + "\n", encoding="utf-8")
            print(f"{done}/{len(waiting) + len(unlooked)} {' '.join({**looking, **running}[future])}", flush=True)
    return document


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100, help="of each task, for the score")
    parser.add_argument("--tasks", default=",".join(TASKS), help="for the score; all, or '' for none")
    parser.add_argument("--kl-samples", type=int, default=40, help="of each task, for the KL")
    parser.add_argument("--calibration", type=int, default=64, help="samples that methods see")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--only", nargs="+", default=(), help="methods, budgets or a variant; others are left out")
    parser.add_argument("--workers", type=int, default=1, help="processes, as many for each model")
    parser.add_argument("--device", default="cpu", help="where products are made and asked, in float32")
    parser.add_argument("--out", type=Path, default=BASELINES / "weights")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(table(run(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
