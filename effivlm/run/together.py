"""Prompts that are pruned on their way into the decoder, or in it, prefilled side by side.

On a GPU the prefill of a few hundred tokens costs what it takes to launch it; methods at several budgets make many such prompts
of one sample. Side by side, matrix products have other shapes than alone, and so other last bits: in half precision alone,
where those of two kernels differ too. In float32, in which answers are compared with those of cells alone, nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from torch import Tensor

from effivlm.compression.base import LayerPart
from effivlm.decoding.caches import PromptCache
from effivlm.models._adapter import Adapter, Prompt
from effivlm.run.faults import FAULTS
from effivlm.run.paths import Path
from effivlm.run.prefill import Choices, Prefilled
from effivlm.run.untouched import Blamed
from effivlm.run.views import left, seen_by, unseen
from effivlm.seams.lanes import Lane, side_by_side
from effivlm.seams.meters import OUT_OF_MEMORY, Within, reclaim, untimed

MOST = 16_384
"""Entries that enter the decoder, or leave its first pruned layer, in one pass: by then a pass keeps the device busy."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A prefill that nobody watches: a prompt, and what prunes it inside the decoder."""

    prompt: Prompt
    layer: LayerPart | None = None

    def entries(self, depth: int) -> int:
        """How many entries its own stretch of a pass has: of a prompt that is pruned on its way, what its first stage leaves.

        Raises:
            Unsupported: the budget cannot be reached.
        """
        if self.layer is None:
            return self.prompt.length
        visual = self.prompt.visual_tokens
        return self.prompt.length - visual + self.layer.budgets(visual, depth)[0]


@dataclass
class Beside:
    """Prefills of one sample that nobody watches: who asks for one gets, where that pays, others of the same pass with it.

    `find` says which those are; `unwatched` are those that still wait; `short` says what memory ran out for, where a pass took
    fewer than it might.
    """

    model: Adapter
    sample_id: str
    find: Callable[[], list[Path]]
    within: Within = untimed
    short: list[str] = field(default_factory=list)

    @cached_property
    def unwatched(self) -> list[Path]:
        return self.find()

    def prefilled(self, path: Path, prompt: Callable[[Path], Prompt]) -> dict[Path, Prefilled]:
        """What was prefilled with `path` in one pass, itself among it; nothing where it goes alone.

        What breaks in a pass is left to the prefill alone, which says what it was. A prompt so long that its rotary angles
        depend on its length goes alone.

        Raises:
            Blamed: a method changed what others share.
        """
        if not side_by_side_pays(self.model) or path not in self.unwatched or len(self.unwatched) < 2:
            return {}
        wanted, room, depth = dict[Path, Wanted](), MOST, len(self.model.layers)
        for other in [path, *(one for one in self.unwatched if one != path)]:
            try:
                one = Wanted(prompt(other[:2]), other[2] if isinstance(other[2], LayerPart) else None)
                entries = one.entries(depth)
            except Blamed:
                raise
            except FAULTS:
                self.unwatched.remove(other)
                continue
            steady = all(one.prompt.next_position <= angles.limit for angles in self.model.growing)
            if steady and (not wanted or entries <= room):
                wanted[other], room = one, room - entries
        return self._pass(wanted) if path in wanted else {}

    def _pass(self, wanted: Mapping[Path, Wanted]) -> dict[Path, Prefilled]:
        """One pass of all; of half of them where that takes more memory than there is."""
        pairs = list(wanted.items())
        while len(pairs) > 1:
            try:
                parts = [one for _, one in pairs]
                work = partial(prefilled_together, self.model, parts, self.sample_id, self.within)
                done = self.within("prefill", work)
            except OUT_OF_MEMORY as error:
                self.short.append(str(error).partition("\n")[0])
                reclaim(self.model.device)
                pairs = pairs[: len(pairs) // 2]
            except Blamed:
                raise
            except FAULTS:
                break
            else:
                self.unwatched = [path for path in self.unwatched if path not in dict(pairs)]
                return dict(zip(dict(pairs), done, strict=True))
        self.unwatched = [path for path in self.unwatched if path not in wanted]
        return {}


def side_by_side_pays(model: Adapter) -> bool:
    """Whether a model's prompts are prefilled side by side: on one GPU, in half precision."""
    return model.device.type == "cuda" and model.dtype != torch.float32 and not model.spread


def prefilled_together(
    model: Adapter, wanted: Sequence[Wanted], sample_id: str, within: Within = untimed
) -> list[Prefilled]:
    """What `prefill.prefilled` leaves of each, by one pass of the decoder.

    Raises:
        Unsupported: a budget cannot be reached. What a method raises comes through; then nothing was prefilled.
    """
    depth = len(model.layers)
    prompts = list({id(one.prompt): one.prompt for one in wanted}.values())
    numbers = {id(prompt): number for number, prompt in enumerate(prompts)}
    lanes = []
    for one in wanted:
        choices = Choices(one.layer, one.prompt, depth, model.text.norm, sample_id) if one.layer else None
        lanes.append(_lane(numbers[id(one.prompt)], choices, within))
    cache = PromptCache()
    with side_by_side(model.layers, [prompt.length for prompt in prompts], lanes, model.device) as passed:
        logits = model.prefill_all(_joined(prompts), cache, lambda: passed.ends, within)
    return [
        _prefilled(
            one.prompt, logits[number], passed.parts(number, cache.keys), passed.parts(number, cache.values), stays
        )
        for number, (one, stays) in enumerate(zip(wanted, passed.stays, strict=True))
    ]


def _lane(prompt: int, choices: Choices | None, within: Within) -> Lane:
    return Lane(prompt, choices.made(within), choices.looks()) if choices else Lane(prompt)


def _joined(prompts: Sequence[Prompt]) -> Prompt:
    """Prompts one behind the other; each keeps its positions."""
    deep = [prompt.deep for prompt in prompts if prompt.deep is not None]
    return Prompt(
        torch.cat([prompt.embeds for prompt in prompts], 1),
        torch.cat([prompt.positions for prompt in prompts], -1),
        max(prompt.next_position for prompt in prompts),
        torch.cat([prompt.image for prompt in prompts]),
        torch.cat(deep, 1) if deep else None,
    )


def _prefilled(
    prompt: Prompt, logits: Tensor, keys: Sequence[Tensor], values: Sequence[Tensor], chosen: Mapping[int, Tensor]
) -> Prefilled:
    cache, stays, views = PromptCache(), [], []
    for number, pair in enumerate(zip(keys, values, strict=True)):
        cache.update(*pair, number)
        stays.append(left(chosen, number))
        views.append(seen_by(unseen(*pair, prompt.visual, number), stays[-1]))
    return Prefilled(prompt, logits, cache, tuple(views), tuple(stays))
