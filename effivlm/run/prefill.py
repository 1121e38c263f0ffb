"""One prefill of one prompt: what its layers showed, and which entries left on the way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor, nn

from effivlm.compression.base import CachePart, LayerPart, LayerView, Selection, Stage
from effivlm.decoding.caches import PromptCache
from effivlm.models._adapter import Adapter, Prompt
from effivlm.run.chosen import refuse_disorder
from effivlm.run.untouched import untouched
from effivlm.run.views import Look, Views, last_rows
from effivlm.seams.attended import attending
from effivlm.seams.heads import Head, Heads
from effivlm.seams.hooks import watching
from effivlm.seams.meters import Within, untimed
from effivlm.seams.pruning import Entering, Stay, pruning


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
    views, cache = Views(model, prompt, observers, within, layer is None), PromptCache()
    if layer is None:
        heading = Heads(noted)
        watchers = views.watchers({at - 1: partial(heading.look, at) for at in noted})
        with watching(watchers), attending(views.attended) as views.entered, heading.noted(model.layers):
            logits = model.prefill(prompt, cache, within)
        return Prefilled(prompt, logits, cache, *views.found(cache), heading.of(cache.keys, cache.values))
    choices = Choices(layer, prompt, len(model.layers), model.text.norm, sample_id)
    looks, head = choices.looks(), (heads or {}).get(choices.stages[0])
    if head:  # shows what the layer before the first stage sees
        looks.pop(head.at - 1)(head.query, head.keys[-1], head.values[-1])
    spared = head.resumed(model.layers, cache.update) if head else nullcontext()
    looked, pruned = watching(views.watchers(looks)), pruning(model.layers, choices.made(within))
    with looked, pruned as views.kept, attending(views.attended) as views.entered, spared:
        logits = model.prefill(prompt, cache, within)
    return Prefilled(prompt, logits, cache, *views.found(cache))


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
        self.budgets = self.part.budgets(self.prompt.visual_tokens, self.depth)
        self.rows = self.part.rows(self.prompt.marks.clone())

    def looks(self) -> dict[int, Look]:
        """Who is to look at the attention of the layer before each stage, by its number."""
        return {at - 1: partial(self.look, at - 1) for at in self.stages}

    def look(self, number: int, query: Tensor, key: Tensor, value: Tensor, lse: Tensor | None = None) -> None:
        self.before[number] = (last_rows(query, self.rows), key[0], value[0])

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


def _stay(visual: Tensor, chosen: Selection) -> Stay:
    """Text and the chosen visual entries; merged ones among them get new hidden states."""
    mask = ~visual
    mask[chosen.kept.to(mask.device)] = True
    kept = mask.nonzero()[:, 0]
    if chosen.features is None:
        return Stay(kept)
    return Stay(kept, visual[kept].nonzero()[:, 0], chosen.features)
