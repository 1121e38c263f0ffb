"""Greedy decoding of many caches as one batch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.decoding.caches import DecodingCache, ForkedCache, KeptLayer
from effivlm.decoding.generation import NO_RULES, Chooser, Rules, over, sound, spoilt, told

TIE = 1e-3  # rounding moves logits by about 1e-5
POSITIONS = 1024  # rows x tokens of one pass of `agreements`: bounds the memory of their logits
Step = Callable[[Tensor, Tensor, DecodingCache], Tensor]
"""Tokens [B, Q] at positions [B, Q] with a cache to logits [B, Q, vocab]."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Start:
    """Where one row begins: its compressed prompt, the token its prefill chose, and that token's position.

    `prompt` are the ids of the whole prompt, where rules of generation ask for them.
    """

    cache: Sequence[KeptLayer]
    token: int
    position: int
    prompt: Sequence[int] = ()


Choose = Callable[[Sequence[Start], Sequence[int], Sequence[int]], list[list[int]]]
"""Starts, numbers of some of them, and the tokens that they are fed, to the token that each chooses after each of these."""


def greedy(
    step: Step,
    starts: Sequence[Start],
    max_new_tokens: int,
    eos: Collection[int],
    device: torch.device,
    rules: Rules = NO_RULES,
) -> list[list[int]]:
    """Continue every row until an end token or `max_new_tokens`; returns token ids without the end token.

    A row whose logits are not finite ends with a token that says so (`generation`).

    A row's answer does not depend on its company: rows share weights, not caches, and in float32 two tokens that are nearer
    than a batch's rounding are told apart by the row alone. Finished rows leave the batch once half of it is done, so that a
    long answer does not keep the short ones computing.
    """
    answers = [[start.token] for start in starts]
    alive = [row for row, start in enumerate(starts) if not over(start.token, eos)]
    if alive and max_new_tokens > 1:
        cache = ForkedCache([starts[row].cache for row in alive], max_new_tokens)
        _continue(step, cache, starts, answers, alive, max_new_tokens, eos, device, rules)
    return [answer[:-1] if answer[-1] in eos else answer for answer in answers]


def _continue(
    step: Step,
    cache: ForkedCache,
    starts: Sequence[Start],
    answers: list[list[int]],
    rows: list[int],
    max_new_tokens: int,
    eos: Collection[int],
    device: torch.device,
    rules: Rules,
) -> None:
    """Extend `answers` of `rows` in place."""
    crowded, chooser = len(rows) > 1, Chooser(rules, [starts[row] for row in rows], device)
    first = torch.tensor([starts[row].position for row in rows], device=device)
    tokens = torch.tensor([answers[row][-1] for row in rows], device=device)
    for number in range(max_new_tokens - 1):
        chooser.fed(tokens)
        raw = step(tokens[:, None], (first + number)[:, None], cache)[:, -1]
        logits = chooser.changed(raw, number)
        tokens = logits.argmax(-1)
        said = told(tokens, sound(raw))
        for index in _close(logits) if crowded else ():
            row = rows[index]
            said[index] = alone(step, starts[row], answers[row], device, rules, max_new_tokens)[-1]
            tokens[index] = said[index].clamp(min=0)
        for row, token in zip(rows, said.tolist(), strict=True):
            if not over(answers[row][-1], eos):
                answers[row].append(token)
        open_rows = [index for index, row in enumerate(rows) if not over(answers[row][-1], eos)]
        if not open_rows:
            return
        if len(open_rows) * 2 <= len(rows):
            stay = torch.tensor(open_rows, device=device)
            cache.select(stay)
            chooser.only(stay)
            rows, tokens, first = [rows[index] for index in open_rows], tokens[stay], first[stay]


def unsure_rows(logits: Tensor) -> Tensor | None:
    """Which rows [B] of [B, .., vocab] have a pair of best tokens that a batch may swap, because float32 rounds it otherwise
    than a single row; None in other types, where nobody asks."""
    if logits.dtype != torch.float32:
        return None
    best, second = logits.topk(2).values.unbind(-1)
    return (best - second < TIE).reshape(len(logits), -1).any(-1)


def _close(logits: Tensor) -> list[int]:
    unsure = unsure_rows(logits)
    return [] if unsure is None else unsure.nonzero()[:, 0].tolist()


def agreements(
    choose: Choose,
    starts: Sequence[Start],
    said: Sequence[Sequence[int]],
    target: Sequence[int],
    max_new_tokens: int,
    eos: Collection[int],
) -> list[float | None]:
    """Share of the target's tokens that each row chooses too when it is fed the target up to there (teacher forcing).

    Where the target ended, the choice of any end token after its last one is a position of its own. `said` holds what each
    row answers by itself (`greedy`, as the target): one that says the target agrees everywhere and is not computed again.
    As in `greedy`, a row's share does not depend on its company. None: logits on the way were not finite.
    """
    ended = len(target) < max_new_tokens
    wanted = [*({token} for token in target), *([set(eos)] if ended else [])]
    shares: list[float | None] = [1.0] * len(starts)
    other = [row for row, own in enumerate(said) if list(own) != list(target)]
    for row, tokens in zip(other, choose(starts, other, target[: len(wanted) - 1]), strict=True):
        made = [starts[row].token, *tokens]
        if spoilt(made) is None:
            shares[row] = sum(token in right for token, right in zip(made, wanted, strict=True)) / len(wanted)
        else:
            shares[row] = None
    return shares


def chosen(
    step: Step,
    starts: Sequence[Start],
    rows: Sequence[int],
    fed: Sequence[int],
    device: torch.device,
    rules: Rules = NO_RULES,
) -> list[list[int]]:
    """The token that each of the `rows` among the starts chooses after each of the `fed` ones, which it gets many in a pass."""
    if not rows or not fed:
        return [[] for _ in rows]
    those = [starts[row] for row in rows]
    cache, chooser = ForkedCache([start.cache for start in those], len(fed)), Chooser(rules, those, device)
    first = torch.tensor([[start.position] for start in those], device=device)
    width = max(1, POSITIONS // len(those))
    passes, unsure = [], set[int]()
    for begin in range(0, len(fed), width):
        part = torch.tensor(fed[begin : begin + width], device=device).expand(len(those), -1)
        raw = step(part, first + torch.arange(begin, begin + part.shape[1], device=device), cache)
        logits = _by_rules(chooser, raw, part, begin)
        passes.append(told(logits.argmax(-1), sound(raw)))
        unsure.update(_close(logits))
    found: list[list[int]] = torch.cat(passes, 1).tolist()
    for at in unsure:
        found[at] = alone(step, those[at], fed, device, rules)
    return found


def _by_rules(chooser: Chooser, logits: Tensor, fed: Tensor, begin: int) -> Tensor:
    """Logits [B, Q, vocab] of a pass in which every row was fed tokens [B, Q], from number `begin` on."""
    if not chooser.rules.change:
        return logits
    made = []
    for at, token in enumerate(fed.T):
        chooser.fed(token)
        made.append(chooser.changed(logits[:, at], begin + at))
    return torch.stack(made, 1)


def alone(
    step: Step,
    start: Start,
    tokens: Sequence[int],
    device: torch.device,
    rules: Rules = NO_RULES,
    room: int | None = None,
) -> list[int]:
    """What one row by itself chooses after each of the tokens that it is fed."""
    raw = forced(step, start, tokens, device, room)
    given = torch.tensor([list(tokens)], device=device)
    logits = _by_rules(Chooser(rules, [start], device), raw[None], given, 0)[0]
    found: list[int] = told(logits.argmax(-1), sound(raw)).tolist()
    return found


def forced(
    step: Step, start: Start, tokens: Sequence[int], device: torch.device, room: int | None = None, width: int = 1
) -> Tensor:
    """Logits [len(tokens), vocab] after each of the given tokens, fed `width` at a time to one cache with `room` for new ones."""
    cache = ForkedCache([start.cache], room or len(tokens))
    rows = []
    for begin in range(0, len(tokens), width):
        part = torch.tensor([list(tokens[begin : begin + width])], device=device)
        at = torch.arange(start.position + begin, start.position + begin + part.shape[1], device=device)[None]
        rows.append(step(part, at, cache)[0])
    return torch.cat(rows)
