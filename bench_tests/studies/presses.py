"""Our cache methods beside kvpress's, and what each of its presses leaves: `python bench_tests/studies/presses.py --out FILE`.

Both sides see the same tensors: layers of one dense prefill of the micro models. What a press leaves is the library's own choice,
by its own top-k; beside it stands ours by its scores, which is what a case of it runs. Needs `make env-kvpress`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch

from effivlm import registry
from effivlm.compression.base import CachePart, LayerView
from effivlm.decoding.caches import KeptLayer
from effivlm.methods._kvpress import KvPress
from effivlm.methods._presses import able, arguments, spelled
from effivlm.methods._refused import REFUSED
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.run.group import open_model, task_of
from effivlm.run.tree import Tree
from effivlm.weights.libraries import demanded

MODELS = ("micro_llava_onevision", "micro_qwen2_vl", "micro_internvl2_5")
TASK, SAMPLES, KEEPS = "docvqa_micro", 3, ("0.20", "0.40")
WINDOW, SAFE = 16, 0.5
GUESS = 1000  # entries of a prompt of which only is asked what methods want to see of it
INNER = f"press=SnapKVPress(window_size={WINDOW})"
SHORT = {"SnapKVPress": f"window_size={WINDOW}", "PyramidKVPress": f"window_size={WINDOW}", "LagKVPress": "lag_size=16"}
"""Arguments of presses whose defaults are wider than a micro model's prompts."""

TIES = {
    "LagKVPress": "; it ranks inside of parts of the prompt, so that equal scores are many: ours takes the lower entry"
}


@dataclass(frozen=True, slots=True)
class Pair:
    """A method of ours under `fields`, which may depend on the budget, and the press that is meant to be the same, or nearly."""

    name: str
    press: str
    fields: dict[str, Any] = field(default_factory=dict)
    of_budget: Callable[[int], dict[str, Any]] = lambda count: {}
    differs: str = ""

    def ours(self, keep: Budget, length: int) -> CachePart:
        kind = registry.load("methods", self.name)
        return cast(CachePart, kind(keep=keep, **self.fields, **self.of_budget(keep.of(length))))


def safeguard(count: int) -> dict[str, Any]:
    """Ada-KV's: that of kvpress counts the window, ours is beside it; both round down to whole entries."""
    return {"alpha": (max(0, int(count * SAFE) - WINDOW) + 0.5) / (count - WINDOW)}


SNAP = {"window": WINDOW, "kernel": 5, "pool": "avg"}
PAIRS = (
    Pair("streaming_llm", "StreamingLLMPress"),
    Pair("snapkv", f"SnapKVPress(window_size={WINDOW})", SNAP),
    Pair("tova", "TOVAPress", {"window": 1}),
    Pair("expected_attention", "ExpectedAttentionPress"),
    Pair("adakv", f"AdaKVPress({INNER},alpha_safeguard={SAFE})", {**SNAP, "floor": "lower_bound"}, safeguard),
    Pair(
        *("pyramidkv", f"PyramidKVPress(window_size={WINDOW})", SNAP),
        differs="its line of budgets counts the window and is rounded layer by layer; in short prompts all layers get the same",
    ),
    Pair(
        "h2o",
        "ObservedAttentionPress",
        differs="its score is a mean over the rows that see an entry, and nothing is recent",
    ),
    Pair("random_kv", "RandomPress", differs="other draws: what chance has in common"),
)


@dataclass
class Agreement:
    """Heads of layers that keep the same entries, and entries that both sides keep, of those that either does."""

    heads: int = 0
    same: int = 0
    both: int = 0
    either: int = 0

    def add(self, ours: KeptLayer, theirs: KeptLayer) -> None:
        for one, other in zip(entries(ours), entries(theirs), strict=True):
            self.heads, self.same = self.heads + 1, self.same + (one == other)
            self.both, self.either = self.both + len(one & other), self.either + len(one | other)


def entries(layer: KeptLayer) -> list[set[int]]:
    """What every head of a layer keeps. Raises ValueError where a press's entries cannot be found again."""
    if layer.indices is None:
        raise ValueError("what was kept of a layer cannot be found again by its keys")
    counts = layer.lengths or (layer.indices.shape[1],) * len(layer.indices)
    return [set(row[:count].tolist()) for row, count in zip(layer.indices, counts, strict=True)]


@dataclass
class Pressed:
    """What one press kept of what was asked, and how often our choice by its scores is its own."""

    spelling: str
    kind: str = ""
    kept: float = 0.0
    asked: int = 0
    choice: Agreement = field(default_factory=Agreement)


def default(name: str) -> str:
    """A press that fits the prompts here, otherwise as it comes."""
    given = [INNER] if "press" in arguments(name) else []
    return spelled(f"{name}({','.join([*given, *([SHORT[name]] if name in SHORT else [])])})")


def prompts(models: Sequence[str], samples: int) -> Iterator[tuple[str, Sequence[LayerView], Budget]]:
    """Every sample's id, its layers as all methods together want to see them, and every budget."""
    for name in models:
        model = open_model(resolve(name), Settings())
        with torch.no_grad(), model.seams():
            for sample in task_of(TASK).samples(samples, 0):
                for keep in map(Budget.parse, KEEPS):
                    wanting = [pair.ours(keep, GUESS) for pair in PAIRS]
                    wanting += [KvPress(keep=keep, what="ObservedAttentionPress")]
                    yield sample.id, Tree(model, sample, wanting).prefilled((None, None, None)).views, keep
        model.close()


def compared(models: Sequence[str], samples: int) -> tuple[dict[str, Agreement], list[Pressed]]:
    """What every pair has in common, and what every press left, over all prompts, budgets, layers and heads."""
    pairs = {pair.name: Agreement() for pair in PAIRS}
    pressed = [Pressed(default(name)) for name in able()]
    for sample_id, views, keep in prompts(models, samples):
        counts = [keep.of(view.length) for view in views]
        for pair in PAIRS:
            ours = pair.ours(keep, views[0].length).compress(views, sample_id)
            for layer, other in zip(
                ours, own(KvPress(keep=keep, what=spelled(pair.press)), views, counts, sample_id), strict=True
            ):
                pairs[pair.name].add(layer, other)
        for one in pressed:
            press = KvPress(keep=keep, what=one.spelling)
            theirs = own(press, views, counts, sample_id)
            one.asked, one.kept = one.asked + sum(counts), one.kept + sum(layer.kept for layer in theirs)
            one.kind = "scores" if press.scores else "heads differ" if any(x.lengths for x in theirs) else "by itself"
            if press.scores:
                for layer, other in zip(press.compress(views, sample_id), theirs, strict=True):
                    one.choice.add(layer, other)
    return pairs, pressed


def own(press: KvPress, views: Sequence[LayerView], counts: Sequence[int], sample_id: str) -> list[KeptLayer]:
    """What the library itself leaves of the layers."""
    return [press.pressed(view, count, sample_id, len(views)) for view, count in zip(views, counts, strict=True)]


def page(pairs: dict[str, Agreement], pressed: Sequence[Pressed], models: Sequence[str], samples: int) -> str:
    """Both tables, and the presses that cannot run, as Markdown."""
    versions = f"kvpress {demanded('kvpress')}, torch {version('torch')}, transformers {version('transformers')}"
    lines = [
        "# kvpress beside our own cache methods",
        "",
        f"{versions}, on a CPU in float32. Layers of {samples} prompts of `{TASK}` at {' and '.join(KEEPS)} in"
        f" {', '.join(models)}; both sides see the same tensors of one dense prefill. A head is alike where it keeps the same"
        " entries; entries in common are those that both keep, of those that either does.",
        "",
        "## The same method twice",
        "",
        *row("ours", "with", "press", "heads alike", "entries in common", "where definitions differ"),
    ]
    for pair in PAIRS:
        found = pairs[pair.name]
        fields = ", ".join(f"{name} {value}" for name, value in pair.fields.items()) or "defaults"
        alike = f"{found.same} of {found.heads}"
        lines.append(cells(pair.name, fields, f"`{pair.press}`", alike, share(found), pair.differs))
    lines += ["", "## Every press", "", *row("press", "how", "kept / asked", "our choice by its scores is its own")]
    for one in pressed:
        heads = f"{one.choice.same} of {one.choice.heads} heads" if one.choice.heads else ""
        note = TIES.get(one.spelling.partition("(")[0], "")
        lines.append(cells(f"`kvpress:{one.spelling}`", one.kind, f"{one.kept / one.asked:.4f}", f"{heads}{note}"))
    lines += ["", f"{len(pressed)} run. The other {len(REFUSED)} cannot run at the cache seam:", ""]
    for reason in dict.fromkeys(REFUSED.values()):
        lines.append(f"- {', '.join(f'`{name}`' for name in REFUSED if REFUSED[name] == reason)}: {reason}")
    return "\n".join(lines) + "\n"


def row(*heads: str) -> tuple[str, str]:
    """The head of a table."""
    return cells(*heads), "|" + " --- |" * len(heads)


def cells(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def share(found: Agreement) -> str:
    return f"{found.both / found.either:.3f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--out", type=Path, help="a file for the page")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    text = page(*compared(options.models, options.samples), options.models, options.samples)
    print(text, end="")
    if options.out:
        options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
