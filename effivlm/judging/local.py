"""A judge that is a transformers model on this machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from effivlm.judging.judge import LONGEST, Query, Reply, Unanswered

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(slots=True)
class Local:
    """A chat model by a folder or a hub id with its commit, loaded when first asked, greedy.

    It reads text alone: a query with pictures stays unanswered. Greedy decoding replies the same every time, so its noise
    floor is 0 but for the device's own. `content` is a digest of a folder's files, so that its name tells two states of it apart.

    Raises ValueError for a revision that is no full commit: a branch may move on, and scores with it.
    """

    model: str
    revision: str = ""
    content: str = ""
    device: str = "cpu"
    _loaded: tuple[Any, Any] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.revision and not _COMMIT.fullmatch(self.revision):
            raise ValueError(f"revision {self.revision!r} is no commit: 40 digits of 0-9 and a-f")

    @property
    def name(self) -> str:
        if self.content:
            return f"local:{PurePath(self.model).name}#{self.content[:20]}"
        return f"local:{self.model}@{self.revision}" if self.revision else f"local:{self.model}"

    def reply(self, query: Query, repeat: int = 0) -> Reply:
        """The reply to a query. Raises Unanswered for pictures, for a text over the model's positions, and for an empty reply."""
        if query.images:
            raise Unanswered(f"{self.name} reads text alone, and the query holds {len(query.images)} pictures")
        tokenizer, model = self._loaded or self._load()
        turn = [{"role": "user", "content": query.text.encode("utf-8", "replace").decode()}]
        inputs = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        length, most = inputs["input_ids"].shape[1], getattr(model.config, "max_position_embeddings", None)
        if most is not None and length + query.max_tokens > most:
            raise Unanswered(f"{self.name} has {most} positions, and the query needs {length} + {query.max_tokens}")
        tokens = model.generate(**inputs.to(model.device), do_sample=False, max_new_tokens=query.max_tokens)
        text = tokenizer.decode(tokens[0, length:], skip_special_tokens=True)
        if not text.strip():
            raise Unanswered(f"{self.name}: the reply holds no text")
        return Reply(text[:LONGEST], self.name)

    def _load(self) -> tuple[Any, Any]:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        revision = self.revision or None
        tokenizer = AutoTokenizer.from_pretrained(self.model, revision=revision)
        model = AutoModelForCausalLM.from_pretrained(self.model, revision=revision, dtype="auto")
        self._loaded = (tokenizer, model.eval().to(self.device))
        return self._loaded
