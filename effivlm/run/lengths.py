"""Whether a question fits the model's positions: asked before the vision tower runs, and before a book is cut into tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from effivlm.models._adapter import Adapter
from effivlm.run.faults import Ill

NORMALISED = 4
"""Characters that a tokenizer's normalisation may make one of: three, of Korean in parts, and one to spare."""


@dataclass(frozen=True)
class Positions:
    """The positions that a model was made for, scaled ones included; `last` 0: its configuration names none."""

    model: Adapter

    @cached_property
    def last(self) -> int:
        config: Any = self.model.model.config.get_text_config()
        named = int(getattr(config, "max_position_embeddings", 0) or 0)
        rope: Any = getattr(config, "rope_parameters", None)
        rope = rope if isinstance(rope, Mapping) else {}
        original = rope.get("original_max_position_embeddings") or named
        return max(named, int(float(rope.get("factor") or 1) * original))

    @cached_property
    def _longest(self) -> int:
        """Characters of the longest token; where tokens are bytes there are no more characters than that."""
        return max(map(len, self.model.processor.tokenizer.get_vocab()))

    def refuse_text(self, text: str) -> None:
        """Raises Ill where a text has more characters than the positions can hold, whatever its tokens."""
        if not self.last or len(text) <= NORMALISED * self.last:
            return
        most = NORMALISED * self.last * self._longest
        if len(text) > most:
            raise Ill(f"the question has {len(text)} characters: longer than the model's {self.last} positions hold")

    def refuse(self, inputs: Mapping[str, Any], new_tokens: int) -> None:
        """Raises Ill where a whole prompt and its answer need more positions than there are."""
        following = self.model.positions(inputs)[1]
        if self.last and following + new_tokens > self.last:
            raise Ill(
                f"the prompt takes {following} positions and its answer up to {new_tokens} more: longer than the model's"
                f" {self.last}"
            )
