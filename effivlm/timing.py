"""What one cell costs, alone on its device: time to first token and time per generated token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from effivlm.decode import Start
from effivlm.engine import Paced
from effivlm.floors import decoder_flops, rates, step_bytes, tower_flops
from effivlm.meters import Spans, kv_bytes, peak_memory_bytes, timed_s
from effivlm.methods._base import Method
from effivlm.models._adapter import Adapter
from effivlm.records import Cell, Cost, Outcome, Settings
from effivlm.run import achieved, cell_fingerprint, method_of, task_of
from effivlm.tree import Leaf, Tree

STEPS = 16
PARTS = ("tower", "method", "prefill")
SPLITS = 3  # passes whose parts are measured, beside those whose whole is


@dataclass
class Timing:
    """One cell ready to be timed on the first sample of its task; every call is synchronised with the device.

    TTFT runs from the processor's output on the device to the first token: vision tower, method, prefill, compression. Decode
    runs a fixed number of steps over the compressed cache, whatever the tokens say.
    """

    cell: Cell
    model: Adapter
    method: Method
    settings: Settings
    tree: Tree
    _leaf: Leaf | None = None
    _paced: Paced | None = None

    def ttft(self) -> float:
        """Seconds to the first token, nothing shared."""
        tree = self.tree.with_inputs(self.method)
        with self.model.seams():
            seconds, self._leaf = timed_s(lambda: tree.leaf(self.method), self.model.device)
        return seconds

    def decode(self) -> float:
        """Milliseconds per generated token, mean over `STEPS` steps at batch 1."""
        with self.model.seams():
            if self._paced is None:
                leaf = self.leaf()
                start = Start(leaf.cache, leaf.token, leaf.position)
                self._paced = Paced(self.model.step, start, STEPS, self.model.device)
            self._paced.rewind()
            seconds, _ = timed_s(self._paced, self.model.device)
        return 1e3 * seconds / STEPS

    def leaf(self) -> Leaf:
        """The compressed prompt, computed once."""
        if self._leaf is None:
            with self.model.seams():
                self._leaf = self.tree.with_inputs(self.method).leaf(self.method)
        return self._leaf

    def outcome(self, part: str, rounds: Sequence[float], remarks: Sequence[str] = ()) -> Outcome:
        """The measured rounds of one part ("ttft": seconds, "decode": milliseconds per token) as an outcome."""
        unit = {"ttft": "ttft_s", "decode": "decode_ms_per_token"}[part]
        tree = self.tree.with_inputs(self.method)
        with self.model.seams():
            peak, leaf = peak_memory_bytes(lambda: tree.leaf(self.method), self.model.device)
        costs: dict[str, Cost] = {
            unit: Cost(tuple(rounds)),
            "kv_bytes": Cost((float(kv_bytes(leaf.cache)),)),
            "weight_bytes": Cost((float(self.model.weight_bytes()),)),
        }
        if peak:
            costs["peak_memory_bytes"] = Cost((float(peak),))
        costs |= self._floor(part, tree, leaf) | (self._split() if part == "ttft" else {})
        facts: dict[str, Any] = {"engine": self._engine(part), "kernel": "sdpa", "weights": self.model.weights, "n": 1}
        return Outcome(
            self.cell,
            cell_fingerprint(self.cell, self.model.source, self.settings, part),
            "ok",
            part=part,
            costs=costs,
            achieved=achieved(self.cell, self.method, [leaf.without_cache()]),
            remarks=tuple(remarks),
            **facts,
        )

    def _floor(self, part: str, tree: Tree, leaf: Leaf) -> dict[str, Cost]:
        """What the device cannot beat, at the rates it reaches: operations of tower and prefill, or bytes of a decoding step."""
        reached = rates(self.model.device, self.model.dtype)
        if part == "ttft":
            with self.model.seams():
                tower = tower_flops(self.model, tree.inputs_of(self.method))
            work = tower + decoder_flops(self.model, tree.lengths_of(self.method))
            floor = {"ttft_floor_s": work / reached.flops_per_s, "device_flops_per_s": reached.flops_per_s}
        else:
            step = step_bytes(self.model, kv_bytes(leaf.cache)) / reached.bytes_per_s
            floor = {"decode_floor_ms_per_token": 1e3 * step, "device_bytes_per_s": reached.bytes_per_s}
        return {name: Cost((value,)) for name, value in floor.items()}

    def _split(self) -> dict[str, Cost]:
        """Where the time to first token goes: `tower_s`, `method_s`, `prefill_s`; and before its clock starts `image_s`."""
        fresh = (Tree(self.model, self.tree.sample, [self.method]) for _ in range(SPLITS))
        images = tuple(timed_s(lambda tree=tree: tree.inputs_of(self.method), self.model.device)[0] for tree in fresh)  # type: ignore[misc]
        with self.model.seams():
            rounds = split(self.tree, self.method)
        costs = {f"{name}_s": Cost(tuple(seconds.get(name, 0.0) for seconds in rounds)) for name in PARTS}
        return {"image_s": Cost(images)} | {name: cost for name, cost in costs.items() if any(cost.rounds)}

    def _engine(self, part: str) -> str:
        return self._paced.engine if part == "decode" and self._paced else "eager"


def split(tree: Tree, method: Method) -> list[dict[str, float]]:
    """Seconds of the parts of a few passes to the first token, from a tree that has the inputs; inside `model.seams()`.

    Passes of their own, because waiting for the device between parts makes the whole slower.
    """
    rounds = []
    for _ in range(SPLITS):
        spans = Spans(tree.model.device)
        tree.with_inputs(method, spans).leaf(method)
        rounds.append(spans.seconds)
    return rounds


def prepare_timing(cell: Cell, model: Adapter, settings: Settings) -> Timing:
    """Get one cell ready on the first sample of its task; Unsupported when the method cannot reach the budget there."""
    method, sample = method_of(cell, settings.seed), task_of(cell.task).samples(1, settings.seed)[0]
    timing = Timing(cell, model, method, settings, Tree(model, sample, [method]))
    timing.leaf()
    return timing
