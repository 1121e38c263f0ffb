"""Which token is best: what a checkpoint's generation configuration makes of logits first, and whether they are numbers at all.

A chosen token below 0 (the best one's bits turned over) says that logits held NaN or infinity; it ends its row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

History = Callable[[int], Callable[[Tensor, Tensor], Tensor]]
"""Length of a prompt to a function of ids [1, L] so far and logits [1, vocab] that gives other logits."""


class Begun(Protocol):
    """A row's prompt as token ids, and the first token that was chosen after it."""

    @property
    def prompt(self) -> Sequence[int]: ...
    @property
    def token(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Rules:
    """What happens to logits before the best token is taken, as in stock `generate`; nothing by default.

    `penalty` divides positive logits of tokens that were there, in the prompt too, and multiplies negative ones; tokens in
    `never` are never said, those in `not_first` not first; none in `ends` before `least_new` tokens, or before prompt and
    answer are `least_length` together. `history` holds all rules, these too, where one depends on the order of tokens.
    """

    vocab: int = 0
    penalty: float = 1.0
    never: tuple[int, ...] = ()
    not_first: tuple[int, ...] = ()
    ends: tuple[int, ...] = ()
    least_new: int = 0
    least_length: int = 0
    history: History | None = None

    @property
    def change(self) -> bool:
        """Whether logits are changed at all."""
        short = self.ends and max(self.least_new, self.least_length) > 0
        return self.penalty != 1 or bool(self.never or self.not_first or short or self.history)

    def first(self, logits: Tensor, prompt: Sequence[int]) -> Tensor:
        """Logits [vocab] of a prefill as the first token is chosen from them."""
        if not self.change:
            return logits
        changed = Chooser(self, [_Prompt(prompt)], logits.device).changed(logits[None], -1)[0]
        if self.not_first and not self.history:
            changed[list(self.not_first)] = -torch.inf
        return changed


@dataclass(frozen=True, slots=True)
class _Prompt:
    prompt: Sequence[int]
    token: int = -1


NO_RULES = Rules()


class Chooser:
    """Rules at work in a batch: what each row was fed so far, on the device, so that a step can be captured."""

    def __init__(self, rules: Rules, starts: Sequence[Begun], device: torch.device) -> None:
        self.rules, self.device = rules, device
        self.least = torch.zeros(len(starts), 1, dtype=torch.long, device=device)
        if rules.change and not rules.history:
            self.seen = torch.zeros(
                len(starts), rules.vocab if rules.penalty != 1 else 0, dtype=torch.bool, device=device
            )
            self.never, self.ends = (_mask(rules.vocab, those, device) for those in (rules.never, rules.ends))
        self.load(starts)

    def load(self, starts: Sequence[Begun]) -> None:
        """Other prompts; nothing was fed yet."""
        rules = self.rules
        if not rules.change:
            return
        if rules.history:
            self.ids = [list(start.prompt) for start in starts]
            self.laws = [rules.history(len(start.prompt)) for start in starts]
            return
        least = [max(rules.least_new, rules.least_length - len(start.prompt)) for start in starts]
        self.least.copy_(torch.tensor(least)[:, None])
        if rules.penalty != 1:
            self.seen.zero_()
            pairs = [(row, token) for row, start in enumerate(starts) for token in {*start.prompt}]
            if pairs:
                rows, tokens = torch.tensor(pairs, device=self.device).T
                self.seen[rows, tokens] = True

    def fed(self, tokens: Tensor) -> None:
        """Every row was given one more token [B]."""
        if self.rules.history:
            for ids, token in zip(self.ids, tokens.tolist(), strict=True):
                ids.append(token)
        elif self.rules.penalty != 1:
            self.seen.scatter_(1, tokens[:, None], True)

    def changed(self, logits: Tensor, number: int | Tensor) -> Tensor:
        """Logits [B, vocab] by the rules; `number` is how many tokens were said after the first one, -1 before it."""
        rules = self.rules
        if not rules.change:
            return logits
        logits = logits.float()  # as stock does
        if rules.history:
            pairs = zip(self.laws, self.ids, logits, strict=True)
            return torch.cat([law(torch.tensor([ids], device=self.device), row[None]) for law, ids, row in pairs])
        if rules.penalty != 1:
            penal = torch.where(logits < 0, logits * rules.penalty, logits / rules.penalty)
            logits = torch.where(self.seen, penal, logits)
        if rules.never:
            logits = logits.masked_fill(self.never, -torch.inf)
        return logits.masked_fill(self.ends & (self.least > number + 1), -torch.inf) if rules.ends else logits

    def only(self, rows: Tensor) -> None:
        """Keep only `rows` of the batch, in that order."""
        self.least = self.least[rows]
        if self.rules.history:
            kept = rows.tolist()
            self.ids, self.laws = [self.ids[row] for row in kept], [self.laws[row] for row in kept]
        elif self.rules.change:
            self.seen = self.seen[rows]


def _mask(vocab: int, tokens: Sequence[int], device: torch.device) -> Tensor:
    mask = torch.zeros(vocab, dtype=torch.bool)
    mask[[token for token in tokens if token < vocab]] = True
    return mask.to(device)


def sound(logits: Tensor) -> Tensor:
    """Whether logits [.., vocab] are all finite [..], in one reduction."""
    low, high = torch.aminmax(logits, dim=-1)
    return (high.float() - low.float()).isfinite()


def told(best: Tensor, fine: Tensor) -> Tensor:
    """The best tokens, turned over where logits were not fine."""
    return torch.where(fine, best, ~best)


def over(token: int, eos: Collection[int]) -> bool:
    """Whether a row ends with this token."""
    return token < 0 or token in eos


def spoilt(tokens: Sequence[int]) -> int | None:
    """At which of its tokens the logits of a row held NaN or infinity, if they did: 0 is the prefill's, 1 the first step's."""
    return next((number for number, token in enumerate(tokens) if token < 0), None)
