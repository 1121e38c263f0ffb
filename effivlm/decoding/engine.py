"""Greedy decoding of batches: in captured steps, without Python between kernels, or step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from effivlm.decoding.caches import ForkedCache, row_bytes
from effivlm.decoding.eager import Start, Step, alone, chosen, greedy
from effivlm.decoding.generation import NO_RULES, Rules, over
from effivlm.decoding.packed import SLACK, sort_of, together
from effivlm.decoding.replay import Replay
from effivlm.seams.meters import reclaim

CHUNK = 4
"""Steps between two looks at what was said, where no row has to be looked at after every token."""


class Paced:
    """A fixed number of greedy steps over copies of one compressed prompt, whatever the tokens say; made to be timed.

    On CUDA a step is one captured graph, so that it costs what the device needs and not what Python needs to launch it;
    `engine` says which of the two ran.
    """

    def __init__(
        self, step: Step, start: Start, steps: int, device: torch.device, batch: int = 1, asked: str = "auto"
    ) -> None:
        captured = captures(device, asked)
        self.steps, self.engine = steps, Captured.name if captured else Eager.name
        self._step, self._starts, self._device = step, [start] * batch, device
        if captured:
            self._replay = Replay(step, self._starts, steps, device)
        else:
            self._cache = ForkedCache([start.cache] * batch, steps)
        self._spent = False
        self()  # what a first call does once is not for the clock

    def rewind(self) -> None:
        """Back to the prompt: a call after it costs the steps and nothing else."""
        self._spent = False
        if self.engine == Captured.name:
            self._replay.load(self._starts)
        else:
            self._cache.rewind()

    def __call__(self, after: Callable[[int], None] | None = None) -> Tensor:
        """Take all steps from the prompt on, calling `after` with how many are taken; the generated tokens [steps, B] (on CUDA
        the next call overwrites them)."""
        if self._spent:
            self.rewind()
        self._spent = True
        after = after or (lambda taken: None)
        if self.engine == Captured.name:
            for number in range(self.steps):
                self._replay.take(1)
                after(number + 1)
            return self._replay.said
        tokens = torch.tensor([[start.token] for start in self._starts], device=self._device)
        positions = torch.tensor([[start.position] for start in self._starts], device=self._device)
        said = []
        for number in range(self.steps):
            tokens = self._step(tokens, positions + number, self._cache)[:, -1:].argmax(-1)
            said.append(tokens[:, 0])
            after(number + 1)
        return torch.stack(said)


@dataclass(frozen=True)
class Eager:
    """Greedy decoding step by step from Python: the reference."""

    step: Step
    device: torch.device
    rules: Rules = NO_RULES
    name: ClassVar[str] = "eager"
    copies: ClassVar[float] = 1  # how often prompts are held while they are decoded, beside themselves
    follows: ClassVar[bool] = False  # whether rows that follow another one's answer take steps together with it

    def greedy(self, starts: Sequence[Start], max_new_tokens: int, eos: Collection[int]) -> list[list[int]]:
        """As `decode.greedy`."""
        return greedy(self.step, starts, max_new_tokens, eos, self.device, self.rules)

    def followed(
        self, starts: Sequence[Start], max_new_tokens: int, eos: Collection[int], leader: int | None
    ) -> tuple[list[list[int]], None]:
        """`greedy` alone: a pass of many tokens (`chosen`) is cheaper here than rows that follow."""
        return self.greedy(starts, max_new_tokens, eos), None

    def chosen(self, starts: Sequence[Start], rows: Sequence[int], fed: Sequence[int]) -> list[list[int]]:
        """As `decode.chosen`."""
        return chosen(self.step, starts, rows, fed, self.device, self.rules)

    def forget(self) -> None:
        """Nothing is kept from batch to batch."""


class Captured:
    """Greedy decoding of batches, in captured steps kept for batches of their sort while `most_bytes` hold their caches."""

    name: ClassVar[str] = "cuda_graph"
    copies: ClassVar[float] = 2 * SLACK
    follows: ClassVar[bool] = True

    def __init__(self, step: Step, device: torch.device, rules: Rules = NO_RULES, most_bytes: float = math.inf) -> None:
        self.step, self.device, self.rules, self.most_bytes = step, device, rules, most_bytes
        self.captures = 0
        self._replays: dict[Hashable, Replay] = {}
        self._bytes: dict[Hashable, float] = {}

    def forget(self) -> None:
        """Give back the memory of all captured steps."""
        self._replays, self._bytes = {}, {}

    def greedy(self, starts: Sequence[Start], max_new_tokens: int, eos: Collection[int]) -> list[list[int]]:
        """As `decode.greedy`, which it equals token for token in float32."""
        return self.followed(starts, max_new_tokens, eos, None)[0]

    def followed(
        self, starts: Sequence[Start], max_new_tokens: int, eos: Collection[int], leader: int | None
    ) -> tuple[list[list[int]], list[list[int]] | None]:
        """What each start answers (`greedy`), and what it says first and after each token of the `leader`'s answer.

        Both in the same steps: beside every row stands a second one that is fed what the leader says. As steps are launched and
        weights are read once for both, that costs less than steps of its own, and the memory of the caches once more; where the
        device lacks that, the second part is None, and `chosen` finds it in steps of its own.
        """
        if leader is not None:
            with suppress(torch.cuda.OutOfMemoryError):
                return self._followed(starts, max_new_tokens, eos, leader)
            reclaim(self.device)
        return self._followed(starts, max_new_tokens, eos, None)

    def _followed(
        self, starts: Sequence[Start], max_new_tokens: int, eos: Collection[int], leader: int | None
    ) -> tuple[list[list[int]], list[list[int]] | None]:
        count, rows = len(starts), list(starts)
        if leader is not None:
            rows += [replace(start, token=starts[leader].token) for start in starts]
        order = together([start.cache for start in rows])
        place = {row: at for at, row in enumerate(order)}
        lead = [at if row < count or leader is None else place[leader] for at, row in enumerate(order)]
        batch = [rows[row] for row in order]
        made = [[starts[row % count].token] for row in order]
        free = [place[row] for row in range(count)]
        todo = max_new_tokens - 1
        if todo > 0 and any(not over(made[at][-1], eos) for at in free):
            replay = self._ready(batch, todo, None if leader is None else lead)
            while todo > 0 and any(not over(made[at][-1], eos) for at in free):
                todo -= self._extend(replay, batch, made, lead, todo, max_new_tokens, eos)
        said = [made[at][:-1] if made[at][-1] in eos else made[at] for at in free]
        return said, None if leader is None else [made[place[row]] for row in range(count, len(rows))]

    def chosen(self, starts: Sequence[Start], rows: Sequence[int], fed: Sequence[int]) -> list[list[int]]:
        """As `decode.chosen`, token by token. All starts are fed, so that the step serves that let them answer."""
        if not rows or not fed:
            return [[] for _ in rows]
        order = together([start.cache for start in starts])
        replay = self._ready([starts[number] for number in order], len(fed))
        for token in fed:
            replay.tokens.fill_(token)
            replay.take(1)
        unsure = replay.unsure[: len(fed)].any(0).tolist() if len(starts) > 1 else [False]
        found, columns = [], replay.said[: len(fed)].T.tolist()
        for row in rows:
            at = order.index(row)
            own = alone(self.step, starts[row], fed, self.device, self.rules) if unsure[at] else None
            found.append(own or columns[at])
        return found

    def _ready(self, starts: Sequence[Start], room: int, lead: Sequence[int] | None = None) -> Replay:
        sort = sort_of([start.cache for start in starts]), None if lead is None else tuple(lead)
        replay = self._replays.pop(sort, None)
        if replay is not None and replay.fits(starts, room):
            replay.load(starts)
        else:
            del replay  # its memory first
            self._bytes[sort] = SLACK * sum(row_bytes(start.cache, room) for start in starts)
            while self._replays and sum(self._bytes.values()) > self.most_bytes:
                del self._replays[oldest := next(iter(self._replays))], self._bytes[oldest]
            replay = Replay(self.step, starts, room, self.device, SLACK, lead=lead, rules=self.rules)
            self.captures += 1
        self._replays[sort] = replay
        return replay

    def _extend(
        self,
        replay: Replay,
        starts: Sequence[Start],
        made: list[list[int]],
        lead: Sequence[int],
        todo: int,
        max_new_tokens: int,
        eos: Collection[int],
    ) -> int:
        """Let every row whose lead has not ended say a few more tokens; returns how many steps that took."""
        watched = replay.tokens.numel() > 1 and starts[0].cache[0].keys.dtype == torch.float32
        count = 1 if watched else min(CHUNK, todo)
        before = int(replay.cache.filled)
        replay.take(count)
        said = replay.said[before : before + count].tolist()
        if watched:
            for row in replay.unsure[before].nonzero()[:, 0].tolist():
                fed = made[lead[row]]
                if not over(fed[-1], eos):
                    said[0][row] = alone(self.step, starts[row], fed, self.device, self.rules, max_new_tokens)[-1]
            replay.tokens.copy_(torch.tensor([max(0, said[0][at]) for at in lead])[:, None])
        for tokens in said:
            open_rows = [not over(made[at][-1], eos) for at in lead]
            for row, token, going in zip(made, tokens, open_rows, strict=True):
                if going:
                    row.append(token)
        return count


def captures(device: torch.device, asked: str = "auto", spread: bool = False) -> bool:
    """Whether steps are captured; "auto" does so where the whole model stands on one GPU.

    Raises:
        ValueError: "cuda_graph" was asked for where nothing can be captured.
    """
    possible = device.type == "cuda" and not spread
    if asked == Captured.name and not possible:
        place = "several" if spread else device.type
        raise ValueError(f"engine {asked} wants the whole model on one GPU, not {place}")
    return possible and asked != Eager.name


def engine_for(
    step: Step,
    device: torch.device,
    asked: str = "auto",
    spread: bool = False,
    rules: Rules = NO_RULES,
    most: float = math.inf,
) -> Captured | Eager:
    """The engine that was asked for; rules about the order of tokens want the eager one. Raises ValueError as `captures`."""
    if rules.history and asked == Captured.name:
        raise ValueError(
            f"engine {asked}: the checkpoint generates by the order of tokens, which is not captured; use eager"
        )
    captured = captures(device, asked, spread) and not rules.history
    return Captured(step, device, rules, most) if captured else Eager(step, device, rules)
