"""What the layers of one prefill show: observers look while a layer runs, and what is left of the prompt is known at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from effivlm.compression.base import CachePart, LayerView, question_rows
from effivlm.decoding.caches import PromptCache
from effivlm.models._adapter import Adapter, Prompt
from effivlm.run.turned import Turned
from effivlm.run.untouched import observing
from effivlm.seams.attended import Attended
from effivlm.seams.columns import received
from effivlm.seams.hooks import LseWatcher, Watcher
from effivlm.seams.meters import Within


class Look(Protocol):
    """Looks at query [1, H_q, N, D], key and value [1, H_kv, N, D] of a layer, and at the log-sum-exp of its rows where known."""

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None = None, /) -> None: ...


@dataclass
class Views:
    """The views of the layers of one prefill, of which observers look at each `at_once` unless the prompt is pruned on its way.

    Whoever runs the prefill sets `kept` to what stays from each stage on, and `entered` to what entered the layers `attended`.
    """

    model: Adapter
    prompt: Prompt
    observers: Sequence[CachePart]
    within: Within
    at_once: bool
    kept: Mapping[int, Tensor] = field(default_factory=dict)
    entered: Mapping[int, Attended] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rows, self.columns = _wanted(self.observers, self.prompt.marks.clone())
        self.question = question_rows(self.prompt.marks) if self.observers else -1
        self.turned = Turned(self.model, self.prompt, self.observers)
        self.attended = self.model.layers if any(part.attends for part in self.observers) else ()
        self._seen: dict[int, LayerView] = {}
        self._marks: dict[torch.device, Tensor] = {}  # one for all layers of a device: that they agree is seen by it

    def watchers(self, looks: Mapping[int, Look]) -> dict[nn.Module, Watcher | LseWatcher]:
        """By attention: observers, where they need to see it, then those of `looks`, by the numbers of layers."""
        wanted = self.rows or self.columns or self.turned.wanted or self.attended
        found: dict[nn.Module, Watcher | LseWatcher] = {}
        for number, block in enumerate(self.model.layers):
            those: list[Look] = [partial(self.look, number)] if wanted else []
            those += [looks[number]] if number in looks else []
            if those:
                every = partial(_all, those)
                found[block.self_attn] = LseWatcher(every) if self.columns else every  # type: ignore[index]
        return found

    def look(self, number: int, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None) -> None:
        self.within("method", partial(self._note, number, query, key, value, lse))

    def _note(self, number: int, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None) -> None:
        sums = received(query[0], key[0], None if lse is None else lse[0]) if self.columns else None
        view = LayerView(
            last_rows(query, self.rows).clone(),
            key[0],
            value[0],
            self._marked(key),
            number,
            sums,
            self.question,
            self.turned.moments(query[0], left(self.kept, number)),
            partial(self.turned.following, device=key.device),
            self.entered.get(number),
        )
        self._seen[number] = view
        for part in self.observers if self.at_once else ():  # what stays of a pruned prompt is known at its end
            with observing(part, view=view):
                part.look(view)

    def found(self, cache: PromptCache) -> tuple[tuple[LayerView, ...], tuple[Tensor | None, ...]]:
        """The view of each layer, and the positions that it sees, once the prefill is through that left `cache`."""
        views, stays = [], []
        for number, (key, value) in enumerate(zip(cache.keys, cache.values, strict=True)):
            view = self._seen.get(number) or unseen(key, value, self._marked(key), number, self.question)
            there = left(self.kept, number)
            views.append(seen_by(view, there))
            stays.append(there)
        return tuple(views), tuple(stays)

    def _marked(self, key: Tensor) -> Tensor:
        return self._marks.setdefault(key.device, self.prompt.visual.to(key.device))


def unseen(key: Tensor, value: Tensor, marks: Tensor, layer: int, question: int = -1) -> LayerView:
    """The view of a layer that nobody looked at while it ran."""
    return LayerView(key.new_zeros(len(key[0]), 0, key.shape[-1]), key[0], value[0], marks, layer, None, question)


def seen_by(view: LayerView, there: Tensor | None) -> LayerView:
    """The view with the marks of the entries `there` that its layer sees, which are known when all layers have run."""
    return view if there is None else replace(view, visual=view.visual[there.to(view.keys.device)])


def last_rows(query: Tensor, rows: int) -> Tensor:
    """The last `rows` rows [H_q, rows, D] of query [1, H_q, N, D], all where there are fewer."""
    return query[0, :, max(0, query.shape[2] - rows) :]


def left(kept: Mapping[int, Tensor], layer: int) -> Tensor | None:
    """The positions that a layer sees, from those that stay from each stage on; None where it sees all."""
    passed = [stage for stage in kept if stage <= layer]
    return kept[max(passed)] if passed else None


def _wanted(observers: Sequence[CachePart], visual: Tensor) -> tuple[int, bool]:
    """How many of the last query rows observers need, and whether one needs what every key gets; `visual` is a copy on the
    host, which none of them has to wait for."""
    rows, columns = 0, False
    for part in observers:
        with observing(part, visual=visual):
            rows, columns = max(rows, part.rows(visual)), columns or bool(part.columns)
    return rows, columns


def _all(looks: Sequence[Look], query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None = None) -> None:
    for one in looks:
        one(query, key, value, lse)
