"""A judge that is a transformers model on this machine."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import PurePath
from typing import Any

from effivlm.judging.judge import LONGEST, Query, Reply, Unanswered

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(slots=True)
class Local:
    """A chat model by a folder or a hub id with its commit, loaded on `device` when first asked, greedy.

    A vision-language model sees the pictures of a query; a language model leaves it unanswered. Greedy decoding replies the same
    every time, so its noise floor is 0 but for the device's own. `content` is a digest of a folder's files, so that its name
    tells two states of it apart; `prepare` is called before it is loaded.

    Raises ValueError for a revision that is no full commit: a branch may move on, and scores with it.
    """

    model: str
    revision: str = ""
    content: str = ""
    device: str = "cpu"
    prepare: Callable[[], object] = field(default=lambda: None, repr=False, compare=False)
    _loaded: tuple[Any, Any, bool] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.revision and not _COMMIT.fullmatch(self.revision):
            raise ValueError(f"revision {self.revision!r} is no commit: 40 digits of 0-9 and a-f")

    @property
    def name(self) -> str:
        if self.content:
            return f"local:{PurePath(self.model).name}#{self.content[:20]}"
        return f"local:{self.model}@{self.revision}" if self.revision else f"local:{self.model}"

    def reply(self, query: Query, repeat: int = 0) -> Reply:
        """The reply to a query. Raises Unanswered for pictures that it cannot see, for a text over the model's positions, and for
        an empty reply."""
        reader, model, sees = self._loaded or self._load()
        if query.images and not sees:
            raise Unanswered(f"{self.name} reads text alone, and the query holds {len(query.images)} pictures")
        text = query.text.encode("utf-8", "replace").decode()
        content: Any = [*map(_shown, query.images), {"type": "text", "text": text}] if sees else text
        inputs = reader.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        length = inputs["input_ids"].shape[1]
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and length + query.max_tokens > most:
            raise Unanswered(f"{self.name} has {most} positions, and the query needs {length} + {query.max_tokens}")
        placed = inputs.to(model.device, dtype=model.dtype) if sees else inputs.to(model.device)
        tokens = model.generate(**placed, do_sample=False, max_new_tokens=query.max_tokens)
        said = reader.decode(tokens[0, length:], skip_special_tokens=True)
        if not said.strip():
            raise Unanswered(f"{self.name}: the reply holds no text")
        return Reply(said[:LONGEST], self.name)

    def _load(self) -> tuple[Any, Any, bool]:
        """What reads and writes text, the model, and whether it sees pictures."""
        self.prepare()
        import transformers
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        where: dict[str, Any] = {"revision": self.revision or None, "trust_remote_code": False}
        sees = (
            type(transformers.AutoConfig.from_pretrained(self.model, **where)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        )
        kinds = ("AutoProcessor", "AutoModelForImageTextToText") if sees else ("AutoTokenizer", "AutoModelForCausalLM")
        reader = getattr(transformers, kinds[0]).from_pretrained(self.model, **where)
        model = getattr(transformers, kinds[1]).from_pretrained(self.model, dtype="auto", use_safetensors=True, **where)
        self._loaded = (reader, model.eval().to(self.device), sees)
        return self._loaded


def _shown(image: bytes) -> dict[str, Any]:
    from PIL import Image

    return {"type": "image", "image": Image.open(BytesIO(image)).convert("RGB")}
