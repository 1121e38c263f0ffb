"""One greedy step, compiled and captured as a CUDA graph, which is replayed for every token and prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any
from weakref import ref

import torch
from torch import nn

from effivlm.decoding.eager import Start, Step, unsure_rows
from effivlm.decoding.generation import NO_RULES, Chooser, Rules, sound, told
from effivlm.decoding.joined import joined
from effivlm.decoding.packed import PackedCache

LIMIT = 256
"""Graphs of one function that may stand side by side: one for each batch, sort of layer and kind of pass."""


@contextmanager
def compiled(layers: Sequence[nn.Module], dynamic: bool, beside: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Let torch.compile fuse what stands around the attention of every decoder layer, and what each module `beside` them does.

    The attention itself stays out, with caches and watchers. `dynamic` says whether lengths vary, as in prefills; a decoding
    step has one shape, and takes projections of one input in one product: in a prefill the values kept for later would hold on
    to all of it.
    """
    modules = [*layers, *beside]
    own = [vars(module).get("forward") for module in modules]
    free: dict[str, Any] = {"allow_unspec_int_on_nn_module": True}  # a layer's number is no constant of its graph
    together = nullcontext() if dynamic else joined(layers)
    with together, torch._dynamo.config.patch(recompile_limit=LIMIT, accumulated_recompile_limit=8 * LIMIT, **free):
        for module in modules:
            module.forward = torch.compile(module.forward, dynamic=dynamic)
        try:
            yield
        finally:
            for module, forward in zip(modules, own, strict=True):
                if forward is None:
                    del module.forward
                else:
                    module.forward = forward


class Replay:
    """One greedy step of a batch over packed caches. On CUDA it is captured once; elsewhere it runs as it is.

    What changes from step to step lives on the device: tokens and positions [B, 1], the caches' counter, and what was said
    so far, `said` [room, B], where a number below 0 tells of logits that are not finite; in float32 also which rows were
    `unsure` [room, B], having two best tokens within rounding. With `lead` a row is fed what that row says, instead of what
    it says itself.
    """

    def __init__(
        self,
        step: Step,
        starts: Sequence[Start],
        room: int,
        device: torch.device,
        slack: float = 1.0,
        capture: bool = True,
        lead: Sequence[int] | None = None,
        rules: Rules = NO_RULES,
    ) -> None:
        self.step, self.device = step, device
        self.chooser = Chooser(rules, starts, device)
        self.lead = None if lead is None else torch.tensor(lead, device=device)
        self.cache = PackedCache([start.cache for start in starts], room, slack)
        self.tokens = torch.zeros(len(starts), 1, dtype=torch.long, device=device)
        self.positions = torch.zeros_like(self.tokens)
        self.said = torch.zeros(room, len(starts), dtype=torch.long, device=device)
        self.unsure = torch.zeros(room, len(starts), dtype=torch.bool, device=device)
        self._loaded = [ref(start) for start in starts]  # which keeps no cache alive
        self._graph = self._captured(starts) if capture and device.type == "cuda" else None
        self.load(starts)

    def fits(self, starts: Sequence[Start], room: int) -> bool:
        """Whether other prompts can take the place of the ones that are there."""
        return self.cache.fits([start.cache for start in starts], room)

    def load(self, starts: Sequence[Start]) -> None:
        """Take other prompts, which fit; back to the first step. The same ones need not be copied again."""
        if len(starts) == len(self._loaded) and all(
            known() is start for known, start in zip(self._loaded, starts, strict=True)
        ):
            self.cache.rewind()
        else:
            self.cache.load([start.cache for start in starts])
            self._loaded = [ref(start) for start in starts]
        self.chooser.load(starts)
        self.tokens.copy_(torch.tensor([[start.token] for start in starts]), non_blocking=True)
        self.positions.copy_(torch.tensor([[start.position] for start in starts]), non_blocking=True)

    def take(self, count: int) -> None:
        """So many more steps; on CUDA without waiting for them."""
        step = self._graph.replay if self._graph else self._once
        for _ in range(count):
            step()

    def _once(self) -> None:
        at = self.cache.filled.long()
        self.chooser.fed(self.tokens[:, 0])
        raw = self.step(self.tokens, self.positions, self.cache)[:, -1]
        logits = self.chooser.changed(raw, at)
        best = logits.argmax(-1)
        self.said.index_copy_(0, at, told(best, sound(raw))[None])
        if (unsure := unsure_rows(logits)) is not None:
            self.unsure.index_copy_(0, at, unsure[None])
        self.tokens.copy_((best if self.lead is None else best[self.lead])[:, None])
        self.positions += 1
        self.cache.filled += 1

    def _captured(self, starts: Sequence[Start]) -> torch.cuda.CUDAGraph:
        stream = _capturing(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(2):  # capture wants every kernel chosen and every workspace there
                self.load(starts)
                self._once()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._once()
        return graph


@cache
def _capturing(device: torch.device) -> torch.cuda.Stream:
    """The stream that steps are captured on: on every new one, matrix products take a workspace that is never given back."""
    return torch.cuda.Stream(device)
