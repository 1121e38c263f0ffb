"""What one cell costs, alone on its device: time to first token and time per generated token."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from effivlm.compression.base import Method
from effivlm.decoding.caches import kv_bytes
from effivlm.decoding.capacity import batch_fits, largest_batch
from effivlm.decoding.engine import Captured, Eager, Paced, captures
from effivlm.decoding.replay import compiled
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource
from effivlm.records import Cell, Cost, Outcome, Settings
from effivlm.report.trust import BATCHED
from effivlm.run.audit import achieved, verdict
from effivlm.run.compressed import Compressed
from effivlm.run.group import cell_fingerprint, method_of, open_model, task_in
from effivlm.run.leaf import Leaf
from effivlm.run.tree import Tree
from effivlm.run.weighed import Weighed
from effivlm.seams.meters import Spans, free_bytes, peak_memory_bytes, reclaim, timed_s
from effivlm.timing.drawn import page
from effivlm.timing.floors import decoder_flops, rates, step_bytes, tower_flops
from effivlm.timing.rounds import NO_PATIENCE, rounds_of, unsettled
from effivlm.timing.watch import Seen, Watch

STEPS = 16
WARMUP_ROUNDS = 1
PARTS = ("tower", "method", "prefill", "first")
SPLITS = {"cuda": 3, "cpu": 1}  # passes whose parts are measured, beside those whose whole is


@dataclass
class Timing:
    """One cell ready to be timed on one sample; every call is synchronised with the device.

    TTFT runs from the processor's output on the device to the first token: vision tower, method, prefill, compression. Decode
    runs a fixed number of steps over the compressed cache, whatever the tokens say. `source` is the model as it is, of which a
    method may have changed the weights; `weighed` is what was counted on them then.
    """

    cell: Cell
    model: Adapter
    method: Method
    settings: Settings
    tree: Tree
    source: ModelSource
    weighed: Weighed | None = None
    _leaf: Leaf | None = None
    _paced: Paced | None = None
    _watch: Watch | None = None
    _seen: Seen | None = None
    _calls: int = 0

    def ttft(self) -> float:
        """Seconds to the first token, nothing shared."""
        tree = self.tree.with_inputs(self.method)
        with self._fused(dynamic=True):
            seconds, self._leaf = timed_s(lambda: tree.leaf(self.method), *self.model.devices)
        self._note()
        return seconds

    def rounds(self, part: str) -> list[float]:
        """Rounds of "ttft" (seconds) or "decode" (milliseconds per token); what was done to get ready has warmed a CPU up."""
        measurement = self.ttft if part == "ttft" else self.decode
        for _ in range(0 if self._on_cpu else WARMUP_ROUNDS):
            measurement()
        with self.watched():
            return rounds_of(measurement, self._patience_s)

    @property
    def _on_cpu(self) -> bool:
        return self.model.device.type == "cpu"

    @property
    def _patience_s(self) -> float | None:
        return NO_PATIENCE if self._on_cpu else None

    def decode(self) -> float:
        """Milliseconds per generated token, mean over `STEPS` steps at batch 1."""
        self._paced = self._paced or self._pace(1)
        value = self._step_ms(self._paced)
        self._note()
        return value

    def leaf(self) -> Leaf:
        """The compressed prompt, computed once."""
        if self._leaf is None:
            with self._fused(dynamic=True):
                self._leaf = self.tree.with_inputs(self.method).leaf(self.method)
        return self._leaf

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask the driver, while the rounds of a part are taken, for what makes them less trustworthy, and for their energy."""
        self._calls, self._seen, self._watch = 0, None, Watch.of(self.model.device)
        with self._watch or nullcontext():
            yield
        if self._watch:
            self._seen, self._watch = self._watch.seen, None

    def _note(self) -> None:
        self._calls += 1
        if self._watch:
            self._watch.sample()

    @property
    def _captures(self) -> bool:
        return captures(self.model.device, self.settings.engine, self.model.spread)

    @contextmanager
    def _fused(self, dynamic: bool) -> Iterator[None]:
        """Inside the seams; where steps are captured, layers are compiled too. On a CPU that makes a micro model no faster."""
        model = self.model
        with model.seams(), compiled(model.layers, dynamic, model.beside(dynamic)) if self._captures else nullcontext():
            yield

    def _pace(self, batch: int) -> Paced:
        start, asked = self.leaf().start, Captured.name if self._captures else Eager.name
        with self._fused(dynamic=False):
            return Paced(self.model.step, start, STEPS, self.model.device, batch, asked)

    def _step_ms(self, paced: Paced) -> float:
        with self.model.seams():
            paced.rewind()
            return 1e3 * timed_s(paced, *self.model.devices)[0] / STEPS

    def _rounds_at(self, batch: int) -> list[float]:
        """Milliseconds per step of a batch; its caches leave the device with it."""
        paced = self._pace(batch)
        return rounds_of(lambda: self._step_ms(paced), self._patience_s)

    def _batched(self) -> tuple[dict[str, Cost], list[str]]:
        """Decoding of as many copies as `Settings.batch` says, and how many would fit; remarks on what could not be told."""
        batch, device = self.settings.batch, self.model.device
        if batch == 1:
            return {}, []
        costs = {"batch": Cost((float(batch),))}
        try:
            rounds = self._rounds_at(batch)
        except torch.cuda.OutOfMemoryError as error:
            return costs, [f"no decoding at batch {batch}: {str(error).splitlines()[0]}"]
        bytes_ = step_bytes(self.model, batch * kv_bytes(self.leaf().cache))
        costs["batch_decode_ms_per_step"] = Cost(tuple(rounds))
        costs["batch_tokens_per_s"] = Cost(tuple(1e3 * batch / value for value in rounds))
        costs["batch_decode_floor_ms_per_step"] = Cost((1e3 * bytes_ / rates(device, self.model.dtype).bytes_per_s,))
        if device.type == "cuda" and not self.model.spread:
            leaf = self.leaf()
            each = kv_bytes(leaf.cache) * (1 + STEPS * len(leaf.cache) / sum(layer.kept for layer in leaf.cache))
            with self.model.seams():
                fits = partial(batch_fits, self.model.step, leaf.start, STEPS, device)
                most = largest_batch(fits, int(free_bytes(device) / each))
            costs["largest_batch"] = Cost((float(most),))
        return costs, unsettled(f"{BATCHED} {batch}", rounds)

    def _energy(self, part: str) -> dict[str, Cost]:
        """Joules of the whole GPU for one first token, or one generated token, what lies between rounds included."""
        if self._seen is None or self._seen.energy_j is None:
            return {}
        tokens, name = (1, "ttft_energy_j") if part == "ttft" else (STEPS, "decode_energy_j_per_token")
        return {name: Cost((self._seen.energy_j / (self._calls * tokens),))}

    def outcome(self, part: str, rounds: Sequence[float], remarks: Sequence[str] = ()) -> Outcome:
        """The measured rounds of one part ("ttft": seconds, "decode": milliseconds per token) as an outcome."""
        unit = {"ttft": "ttft_s", "decode": "decode_ms_per_token"}[part]
        spared = part == "decode" and self._on_cpu  # where nobody counts memory, one more pass would tell nothing
        tree = self.tree if spared else self.tree.with_inputs(self.method)
        with self._fused(dynamic=True):
            peak, leaf = peak_memory_bytes(
                lambda: self.leaf() if spared else tree.leaf(self.method), *self.model.devices
            )
        costs: dict[str, Cost] = {
            unit: Cost(tuple(rounds)),
            "kv_bytes": Cost((float(kv_bytes(leaf.cache)),)),
            "weight_bytes": Cost((float(self.model.weight_bytes()),)),
            "prompt_tokens": Cost((float(leaf.length),)),
        }
        if peak:
            costs["peak_memory_bytes"] = Cost((float(peak),))
        more, unsure = (self._split(), []) if part == "ttft" else self._batched()
        costs |= self._floor(part, tree, leaf) | more | self._energy(part)
        seen = [*(self._seen.remarks if self._seen else ()), *_apart(self.model)]
        facts: dict[str, Any] = {"engine": self._engine(part), "kernel": "sdpa", "weights": self.model.weights, "n": 1}
        facts["product"] = self.weighed and self.weighed.product
        kept = self.cell, self.method, [leaf.without_cache()], self.weighed
        status, reason = verdict(*kept)
        return Outcome(
            self.cell,
            cell_fingerprint(self.cell, self.source, self.settings, part),
            status,
            reason=reason,
            part=part,
            costs=costs if status == "ok" else {},
            achieved=achieved(*kept),
            remarks=(*remarks, *seen, *unsure, *self.model.remarks()),
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
        """Where the time to first token goes: `tower_s`, `method_s`, `prefill_s`, `first_s`; before it `image_s`."""
        fresh = (Tree(self.model, self.tree.sample, [self.method]) for _ in range(SPLITS[self.model.device.type]))
        images = tuple(timed_s(lambda tree=tree: tree.inputs_of(self.method), *self.model.devices)[0] for tree in fresh)  # type: ignore[misc]
        with self._fused(dynamic=True):
            rounds = split(self.tree, self.method)
        costs = {f"{name}_s": Cost(tuple(seconds.get(name, 0.0) for seconds in rounds)) for name in PARTS}
        return {"image_s": Cost(images)} | {name: cost for name, cost in costs.items() if any(cost.rounds)}

    def _engine(self, part: str) -> str:
        if part == "decode" and self._paced:
            return self._paced.engine
        return "compiled" if self._captures else Eager.name


def _apart(model: Adapter) -> list[str]:
    """What is to be said of a model that stands on several devices."""
    count = len(model.devices)
    told = f"the model stands on {count} devices that work in turn; energy and clocks are those of the first alone"
    return [told] if count > 1 else []


def split(tree: Tree, method: Method) -> list[dict[str, float]]:
    """Seconds of the parts of a few passes to the first token, from a tree that has the inputs; inside `model.seams()`.

    Passes of their own, because waiting for the device between parts makes the whole slower.
    """
    rounds = []
    for _ in range(SPLITS[tree.model.device.type]):
        spans = Spans(*tree.model.devices)
        tree.with_inputs(method, spans).leaf(method)
        rounds.append(spans.seconds)
    return rounds


def prepare_timing(cell: Cell, whole: Adapter, settings: Settings, compressed: Compressed | None = None) -> Timing:
    """Get one cell ready on the first sample of its task, or on a drawn page whose prompt is as long as the settings say.

    `whole` is the model as it is; `compressed` opens what a method makes of its weights.

    Raises:
        Unsupported: the method cannot reach the budget there, or there is no such checkpoint.
    """
    reclaim(whole.device)  # what an earlier cell left, which may have run out of memory
    method = method_of(cell, settings.seed)
    model, weighed = (compressed or Compressed(open_model, settings)).of(whole, method)
    task = task_in(cell.task, settings, model.source.family)
    model.begin_task(task.pixels, task.tiles, task.max_new_tokens)
    sample = page(model, settings.prompt) if settings.prompt else task.samples(1, settings.seed)[0]
    timing = Timing(cell, model, method, settings, Tree(model, sample, [method]), whole.source, weighed)
    timing.leaf()
    return timing
