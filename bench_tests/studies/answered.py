"""A whole task answered in batches by a micro model, for studies that ask one task of hundreds of checkpoints.

A run answers sample by sample, because it looks into every one of them; here nothing is looked at, so prompts are made once and
padded side by side. The scores are those of a run's dense cell: tests compare them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from effivlm.decoding.generation import NO_RULES
from effivlm.records import Answer, Sample, Settings
from effivlm.run.group import task_in
from effivlm.run.scoring import overall, scored, settled


@dataclass(frozen=True)
class Prompts:
    """The samples of a task as the decoder of one model meets them.

    embeds: of each prompt [N, d]; positions: of each [.., N]; following: the position of the first generated token of each.
    """

    task: Any
    samples: Sequence[Sample]
    embeds: Sequence[Tensor]
    positions: Sequence[Tensor]
    following: Sequence[int]

    def batches(self, rows: int) -> Iterator[list[int]]:
        """Numbers of samples, at most `rows` together, those of like length side by side."""
        order = sorted(range(len(self.embeds)), key=lambda number: len(self.embeds[number]))
        for start in range(0, len(order), rows):
            yield order[start : start + rows]


def prompts(adapter: Any, task: str, limit: int) -> Prompts:
    """The first `limit` samples of a task through processor and tower.

    Raises:
        ValueError: the decoder wants more than embeddings and positions, or a way to choose tokens that is not plainly greedy.
    """
    if adapter.growing or adapter.rules != NO_RULES:
        raise ValueError(f"model {adapter.source.name!r} cannot be answered in padded batches")
    found = task_in(task, Settings())
    lazy = found.samples(limit, 0)
    samples = [lazy[number] for number in range(len(lazy))]
    adapter.begin_task(found.pixels, found.tiles, found.max_new_tokens)
    made = []
    with adapter.seams():
        for sample in samples:
            inputs = adapter.prepare(sample)
            prompt = adapter.prompt(inputs, adapter.encode(inputs))
            if prompt.deep is not None:
                raise ValueError(f"model {adapter.source.name!r} adds features behind its layers: no padded batches")
            made.append((prompt.embeds[0], prompt.positions[..., 0, :], prompt.next_position))
    embeds, positions, following = zip(*made, strict=True)
    return Prompts(found, samples, embeds, positions, following)


def score(adapter: Any, of: Prompts, rows: int = 128) -> float:
    """The score of the model as it is now, `rows` prompts at a time."""
    return overall(answers(adapter, of, rows), of.task)


def answers(adapter: Any, of: Prompts, rows: int) -> list[Answer]:
    """What the model says to all samples, in their order, with scores."""
    said: dict[int, str] = {}
    for numbers in of.batches(rows):
        tokens = _greedy(adapter, of, numbers, of.task.max_new_tokens)
        said |= {number: adapter.decode_text(row) for number, row in zip(numbers, tokens, strict=True)}
    made = []
    for number, sample in enumerate(of.samples):
        known = scored(of.task, said[number], sample)
        made.append(Answer(sample.id, sample.prompt_sha256, said[number], **known._asdict()))
    return settled(made, of.task)


@torch.inference_mode()
def _greedy(adapter: Any, of: Prompts, numbers: Sequence[int], most: int) -> list[list[int]]:
    """The tokens that each prompt is followed by, up to an end token or `most`."""
    from transformers import DynamicCache

    longest = max(len(of.embeds[number]) for number in numbers)
    embeds, positions, mask = _padded(of, numbers, longest)
    cache, ends = DynamicCache(), torch.tensor(sorted(adapter.eos), device=embeds.device)
    hidden = adapter.text(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state
    place = torch.tensor([of.following[number] for number in numbers], device=embeds.device)[:, None]
    chosen: list[Tensor] = []
    over = torch.zeros(len(numbers), dtype=torch.bool, device=embeds.device)
    while True:
        token = adapter.head(hidden[:, -1]).argmax(-1)
        chosen.append(token)
        over = over | torch.isin(token, ends)
        if len(chosen) == most or bool(over.all()):
            break
        mask = torch.cat([mask, mask.new_ones(len(numbers), 1)], 1)
        hidden = adapter.text(
            inputs_embeds=adapter.model.get_input_embeddings()(token[:, None]),
            attention_mask=mask,
            position_ids=adapter.step_positions(place),
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        place = place + 1
    return [_until(row, adapter.eos) for row in torch.stack(chosen, 1).tolist()]


def _padded(of: Prompts, numbers: Sequence[int], longest: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings [B, N, d], positions [.., B, N] and mask [B, N] of prompts that all end at the same place."""
    embeds, positions, mask = [], [], []
    for number in numbers:
        one, lacks = of.embeds[number], longest - len(of.embeds[number])
        embeds.append(torch.nn.functional.pad(one, (0, 0, lacks, 0)))
        positions.append(torch.nn.functional.pad(of.positions[number], (lacks, 0)))
        mask.append(torch.nn.functional.pad(one.new_ones(len(one), dtype=torch.long), (lacks, 0)))
    return torch.stack(embeds), torch.stack(positions, -2), torch.stack(mask)


def _until(tokens: Sequence[int], ends: frozenset[int]) -> list[int]:
    for number, token in enumerate(tokens):
        if token in ends:
            return list(tokens[: number + 1])
    return list(tokens)
