"""One prefill of one prompt: what its layers showed, and which entries left on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor, nn

from effivlm.compression.base import CachePart, LayerPart, LayerView, Selection, Stage, question_rows
from effivlm.decoding.caches import PromptCache
from effivlm.models._adapter import Adapter, Prompt
from effivlm.run.chosen import refuse_disorder
from effivlm.run.turned import Turned
from effivlm.run.untouched import observing, untouched
from effivlm.seams.attended import Attended, attending
from effivlm.seams.columns import received
from effivlm.seams.heads import Head, Heads
from effivlm.seams.hooks import Entering, LseWatcher, Stay, Watcher, pruning, watching
from effivlm.seams.meters import Within, untimed

Look = Callable[[Tensor, Tensor, Tensor, Tensor | None], None]


@dataclass(frozen=True, slots=True)
class Prefilled:
    """What one prefill left: the first token's logits [vocab], the cache, and what each layer showed.

    `stays` are the prompt's positions that each layer sees, None where none were dropped on the way. `heads` are what its first
    layers came to, by the layer behind them, for prompts that are pruned there.
    """

    prompt: Prompt
    logits: Tensor
    cache: PromptCache
    views: tuple[LayerView, ...]
    stays: tuple[Tensor | None, ...]
    heads: Mapping[int, Head] = field(default_factory=dict)


def prefilled(
    model: Adapter,
    prompt: Prompt,
    layer: LayerPart | None,
    observers: Sequence[CachePart],
    sample_id: str,
    within: Within = untimed,
    noted: Collection[int] = (),
    heads: Mapping[int, Head] | None = None,
) -> Prefilled:
    """Run the decoder over `prompt`, with tokens dropped on the way by `layer`, and note what `observers` need to see.

    What methods do meanwhile is done `within` the part "method". Without `layer` the heads before the layers `noted` are kept;
    with it, one of `heads`, which are of the same prompt, spares those layers, which nobody may observe then.

    Raises:
        Unsupported: the budget of `layer` cannot be reached.
        Blamed: an observer broke, or a method changed what others share.
    """
    visual = prompt.visual
    rows, columns = _wanted(observers, visual)
    turned = Turned(model, prompt, observers)
    question = question_rows(visual) if observers else -1
    seen: dict[int, LayerView] = {}
    marked: dict[torch.device, Tensor] = {}  # one tensor for all layers of a device: that they agree is seen by it
    cache, kept, entered = PromptCache(), dict[int, Tensor](), dict[int, Attended]()

    def marks(key: Tensor) -> Tensor:
        return marked.setdefault(key.device, visual.to(key.device))

    def look(number: int, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None) -> None:
        def note() -> None:
            sums = received(query[0], key[0], None if lse is None else lse[0]) if columns else None
            last, before = _last(query, rows).clone(), turned.moments(query[0], left(kept, number))
            following = partial(turned.following, device=key.device)
            seen[number] = LayerView(
                last, key[0], value[0], marks(key), number, sums, question, before, following, entered.get(number)
            )
            for part in observers if layer is None else ():  # what stays of a pruned prompt is known at its end
                with observing(part, view=seen[number]):
                    part.look(seen[number])

        within("method", note)

    attentions: list[nn.Module] = [block.self_attn for block in model.layers]  # type: ignore[misc]
    attended = model.layers if any(part.attends for part in observers) else ()
    wanted = rows or columns or turned.wanted or attended
    watchers: list[list[Look]] = [[partial(look, number)] if wanted else [] for number in range(len(attentions))]
    heading = Heads(noted)
    if layer is None:
        for at in noted:
            watchers[at - 1].append(partial(heading.look, at))
        looked = watching(_joined(attentions, watchers, columns))
        with looked, attending(attended) as entered, heading.noted(model.layers):
            logits = model.prefill(prompt, cache, within)
    else:
        choices = Choices(layer, prompt, len(attentions), model.text.norm, sample_id)
        head = (heads or {}).get(choices.stages[0])
        if head:
            choices.look(head.at - 1, head.query, head.keys[-1], head.values[-1], None)
        for at in choices.stages[1 if head else 0 :]:
            watchers[at - 1].append(partial(choices.look, at - 1))
        looked = watching(_joined(attentions, watchers, columns))
        spared = head.resumed(model.layers, cache.update) if head else nullcontext()
        with looked, pruning(model.layers, choices.made(within)) as kept, attending(attended) as entered, spared:
            logits = model.prefill(prompt, cache, within)
    stays = tuple(left(kept, number) for number in range(len(attentions)))
    for number, pair in enumerate(zip(cache.keys, cache.values, strict=True)):
        seen.setdefault(number, unseen(*pair, marks(pair[0]), number, question))
    views = tuple(_marked(seen[at], there) for at, there in enumerate(stays))
    return Prefilled(prompt, logits, cache, views, stays, heading.of(cache.keys, cache.values))


def unseen(key: Tensor, value: Tensor, marks: Tensor, layer: int, question: int) -> LayerView:
    """The view of a layer that nobody looked at while it ran."""
    return LayerView(key.new_zeros(len(key[0]), 0, key.shape[-1]), key[0], value[0], marks, layer, None, question)


def _wanted(observers: Sequence[CachePart], visual: Tensor) -> tuple[int, bool]:
    """How many of the last query rows observers need, and whether one needs what every key gets."""
    rows, columns = 0, False
    for part in observers:
        with observing(part, visual=visual):
            rows, columns = max(rows, part.rows(visual)), columns or bool(part.columns)
    return rows, columns


def _marked(view: LayerView, there: Tensor | None) -> LayerView:
    """The view with the marks of the entries that its layer sees, which are known when all layers have run."""
    return view if there is None else replace(view, visual=view.visual[there.to(view.keys.device)])


@dataclass
class Choices:
    """The choices of a layer part during one prefill; `there` are the prompt's positions that are left, stage by stage."""

    part: LayerPart
    prompt: Prompt
    depth: int
    norm: nn.Module
    sample_id: str
    there: Tensor | None = None
    before: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.marks = self.prompt.visual
        self.stages = self.part.stages(self.depth)
        self.budgets = self.part.budgets(int(self.marks.sum()), self.depth)
        self.rows = self.part.rows(self.marks)

    def look(self, number: int, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None) -> None:
        self.before[number] = (_last(query, self.rows), key[0], value[0])

    def made(self, within: Within) -> dict[int, Callable[[Entering], Stay]]:
        """What chooses on entry to each layer, `within` the part "method"."""
        return {
            at: lambda entering, place=place: within("method", partial(self.choose, place, entering))  # type: ignore[misc]
            for place, at in enumerate(self.stages)
        }

    def choose(self, place: int, entering: Entering) -> Stay:
        """What stays at stage `place`. Layers may lie on several devices; all is brought to where the hidden states are."""
        home, at = entering.hidden.device, entering.layer
        marks, there = self.marks.to(home), None if self.there is None else self.there.to(home)
        visual = marks if there is None else marks[there]

        def ahead() -> LayerView:
            query, key, value = entering.ahead()
            return LayerView(query[0].to(home), key[0].to(home), value[0].to(home), visual, at)

        query, key, value = (part.to(home) for part in self.before.pop(at - 1))

        def normed() -> Tensor:
            weights = next(self.norm.parameters())
            return self.norm(entering.hidden.to(weights.device)).to(home)  # type: ignore[no-any-return]

        shown = LayerView(query, key, value, visual, at - 1)
        embeds = self.prompt.embeds[0].to(home)
        cosines, sines = (table.to(home) for table in entering.angles)
        stage = Stage(place, at, shown, entering.hidden, embeds, marks, ahead, normed, (cosines, sines), there)
        with untouched(self.part, stage=stage):
            chosen = self.part.select(stage, self.budgets[place], self.sample_id)
        refuse_disorder(self.part, chosen.kept, len(visual))
        stay = _stay(visual, chosen)
        self.there = stay.kept if there is None else there[stay.kept]
        return stay


def _last(query: Tensor, rows: int) -> Tensor:
    """The last `rows` rows [H_q, rows, D] of query [1, H_q, N, D], all where there are fewer."""
    return query[0, :, max(0, query.shape[2] - rows) :]


def _joined(
    modules: Sequence[nn.Module], watchers: Sequence[Sequence[Look]], columns: bool
) -> dict[nn.Module, Watcher | LseWatcher]:
    """One watcher for each module that has any; with `columns` it asks for the log-sum-exp."""

    def all_of(those: Sequence[Look], query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None = None) -> None:
        for one in those:
            one(query, key, value, lse)

    joined = {module: partial(all_of, those) for module, those in zip(modules, watchers, strict=True) if those}
    return {module: LseWatcher(one) if columns else one for module, one in joined.items()}


def _stay(visual: Tensor, chosen: Selection) -> Stay:
    """Text and the chosen visual entries; merged ones among them get new hidden states."""
    mask = ~visual
    mask[chosen.kept.to(mask.device)] = True
    kept = mask.nonzero()[:, 0]
    if chosen.features is None:
        return Stay(kept)
    return Stay(kept, visual[kept].nonzero()[:, 0], chosen.features)


def left(kept: Mapping[int, Tensor], layer: int) -> Tensor | None:
    """The positions that a layer sees, from those that stay from each stage on; None where it sees all."""
    passed = [stage for stage in kept if stage <= layer]
    return kept[max(passed)] if passed else None
