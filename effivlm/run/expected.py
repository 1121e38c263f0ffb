"""What dense expects after every token of its own answer, and how far a compressed model's expectations are from that.

Kullback and Leibler's divergence of next-token distributions, dense's against the other's, in nats (Kullback and Leibler 1951,
doi:10.1214/aoms/1177729694). Distributions are those of the model's own logits: no rule of generation changes them.

A model whose weights were changed answers after dense, often in another process, so that dense's distributions are stored beside
its answer: of each place the likeliest tokens, and all others as one. By the data processing inequality the divergence of such
coarser distributions is never above that of the whole ones; it lacks what the others differ by among themselves, weighed by
their mass, which is noted. Where all is at hand, nothing is left out.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effivlm.divergence import Divergence

REST = 1e-6
"""Mass that tokens may have together that are not told apart. A small divergence lies in the tail: on the micro models 1e-4 left
out up to 1 % of one of 1e-4 nats, this less than 0.1 %, at some 30 tokens a place."""
MOST = 256
"""Tokens that are told apart at one place at most, however little of the mass they have together: 3 KB of a journal."""
CHUNK = 64
"""Places that are looked at together: they are so in float64, of the whole vocabulary."""
_KINDS = {"counts": "<u2", "ids": "<u4", "logits": "<f4", "others": "<f8"}


@dataclass(frozen=True, slots=True)
class Expected:
    """Dense's expectations at P places, as they are stored: arrays as bytes, of the kinds that `_KINDS` names.

    `counts` [P] tokens are told apart, the likeliest first; `ids` and `logits` hold those of all places, one behind the other;
    `others` [P] is the log-sum-exp of all other logits, minus infinity where there are none.
    """

    counts: bytes
    ids: bytes
    logits: bytes
    others: bytes

    @classmethod
    def of(cls, logits: Tensor) -> Expected:
        """Of logits [P, vocab]."""
        found = {name: bytearray() for name in _KINDS}
        for chunk in _chunks(logits):
            best, ids = chunk.topk(min(MOST, chunk.shape[-1]))
            mass = (best - chunk.logsumexp(-1, keepdim=True)).exp().cumsum(-1)
            counts = 1 + (mass[:, :-1] < 1 - REST).sum(-1)
            there = torch.arange(best.shape[-1], device=best.device) < counts[:, None]
            others = _coarse(chunk, ids, there)[:, -1]
            for (name, kind), part in zip(_KINDS.items(), (counts, ids[there], best[there], others), strict=True):
                found[name] += part.cpu().numpy().astype(kind).tobytes()
        return cls(**{name: bytes(part) for name, part in found.items()})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Expected:
        """KeyError, TypeError or ValueError for what is none."""
        found = cls(**{name: b64decode(data[name], validate=True) for name in _KINDS})
        counts, ids, logits, others = found._arrays()
        if not len(counts) == len(others) or not int(counts.sum()) == len(ids) == len(logits):
            raise ValueError("the parts of an expectation do not fit each other")
        return found

    def to_json(self) -> dict[str, str]:
        return {name: b64encode(getattr(self, name)).decode() for name in _KINDS}

    def against(self, logits: Tensor) -> Divergence:
        """Of a model whose logits [P, vocab] stand at the same places.

        Raises:
            ValueError: there are not as many of them.
        """
        counts, each_id, each_logit, others = self._arrays()
        if len(logits) != len(counts):
            raise ValueError(f"{len(logits)} places cannot be compared with {len(counts)}")
        there = np.arange(int(counts.max())) < counts[:, None]
        ids, best = np.zeros(there.shape, np.int64), np.full(there.shape, -np.inf)
        ids[there], best[there] = each_id, each_logit
        dense = torch.from_numpy(np.concatenate([best, others[:, None]], 1)).to(logits.device)
        known, tokens = torch.from_numpy(there).to(logits.device), torch.from_numpy(ids).to(logits.device)
        parts = zip(*(part.split(CHUNK) for part in (dense, tokens, known)), _chunks(logits), strict=True)
        nats = [one for ours, at, told, chunk in parts for one in _nats(ours, _coarse(chunk, at, told)).tolist()]
        rest = (dense[:, -1] - dense.logsumexp(-1)).exp()
        return Divergence(sum(nats) / len(nats), len(nats), float(rest.mean()))

    def _arrays(self) -> list[np.ndarray[Any, Any]]:
        return [np.frombuffer(getattr(self, name), kind) for name, kind in _KINDS.items()]


def whole(dense: Tensor, logits: Tensor) -> Divergence:
    """Of dense's logits [P, vocab] and those of a model at the same places, with nothing left out."""
    pairs = zip(_chunks(dense), _chunks(logits), strict=True)
    nats = [one for ours, other in pairs for one in _nats(ours, other).tolist()]
    return Divergence(sum(nats) / len(nats), len(nats))


def _chunks(logits: Tensor) -> Iterator[Tensor]:
    return (chunk.double() for chunk in logits.split(CHUNK))


def _coarse(logits: Tensor, ids: Tensor, there: Tensor) -> Tensor:
    """Logits [P, K + 1] of the tokens `ids` [P, K] where they are `there`, and of all others together."""
    # what is not there points at a token that may be: it is written to a column of its own, which is dropped
    width = logits.shape[-1]
    apart = torch.zeros(len(logits), width + 1, dtype=torch.bool, device=logits.device)
    apart.scatter_(1, torch.where(there, ids, width), True)
    others = logits.masked_fill(apart[:, :-1], -torch.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(1, ids).masked_fill(~there, -torch.inf), others], 1)


def _nats(dense: Tensor, other: Tensor) -> Tensor:
    """Divergence [P] of distributions with logits [P, n] in float64; minus infinity is no token, in both.

    The sum of p log(p / q) - p + q: as both sum to 1 that is the same, but no term of it is below 0, and two equal
    distributions come to 0.
    """
    p, q = dense.log_softmax(-1), other.log_softmax(-1)
    by = torch.where(dense > -torch.inf, p - q, 0.0)
    near = by + torch.expm1(-by)
    terms = torch.where(by.abs() < 1, p.exp() * near, p.exp() * by - p.exp() + q.exp())
    return terms.clamp(min=0).sum(-1)
