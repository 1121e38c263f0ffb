"""The divergence of the cells of one sample from dense, along dense's answer.

Every cell is fed it alone, many tokens in a pass: what a row computes beside others differs from that in its last bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from effivlm.decoding.eager import POSITIONS, forced
from effivlm.decoding.generation import sound
from effivlm.models._adapter import Adapter
from effivlm.records import Divergence
from effivlm.run.expected import Expected, whole
from effivlm.run.finite import in_step
from effivlm.run.leaf import Leaf


@dataclass
class Diverging:
    """Measures cells against dense; `most` is how many tokens an answer may have, so that a shorter one has an end as well.

    `storing`: dense's expectations are wanted, for cells of changed checkpoints; `beside`: other cells are measured too.
    `expected` is what was stored of dense where another model is asked, `dense` its logits [P, vocab] where it was asked here.
    """

    model: Adapter
    most: int
    storing: bool = False
    beside: bool = False
    expected: Expected | None = None
    dense: Tensor | None = None

    def begin(self, leaf: Leaf, tokens: Sequence[int]) -> Expected | None:
        """Take in dense's prompt and answer; its expectations where they are to be stored.

        Raises:
            NotFiniteError: a logit is not finite.
        """
        if not (self.storing or self.beside):
            return None
        logits = self._logits(leaf, tokens)
        self.dense = logits if self.beside else None
        return Expected.of(logits) if self.storing else None

    def of(self, leaf: Leaf, tokens: Sequence[int], changed: bool) -> Divergence | None:
        """Of a cell, fed dense's answer; None where nobody asks. `changed`: dense was answered by another checkpoint.

        Raises:
            NotFiniteError: a logit is not finite. ValueError: dense's expectations are not known.
        """
        if not (changed or self.beside):
            return None
        if (self.expected if changed else self.dense) is None:
            raise ValueError("dense's own expectations are not known")
        logits = self._logits(leaf, tokens)
        if changed:
            assert self.expected is not None
            return self.expected.against(logits)
        assert self.dense is not None
        return whole(self.dense, logits)

    def _logits(self, leaf: Leaf, tokens: Sequence[int]) -> Tensor:
        """Logits [P, vocab] of a prompt at every place of an answer, from its first token to its end if it has one."""
        assert leaf.logits is not None
        fed = tokens if len(tokens) < self.most else tokens[:-1]
        rows = [leaf.logits[None]]
        if fed:
            rows.append(forced(self.model.step, leaf.start, fed, self.model.device, width=POSITIONS))
        logits = torch.cat(rows)
        if (wrong := (~sound(logits)).nonzero()).numel():
            raise in_step(int(wrong[0]))
        return logits
