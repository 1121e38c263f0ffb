"""The user's turn as token ids, in which text is text: no special token arises from a user's words.

The processor's own way is taken wherever the words cannot be mistaken for markers. Else it is shown harmless text in their
place, and the words' own ids, made with no special token split off, are put where that text was.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cached_property
from itertools import islice, pairwise, takewhile
from typing import Any

import torch
from torch import Tensor

from effivlm.records import Sample

Entries = list[dict[str, str]]
PRIVATE = range(0xE000, 0xF8FF)
"""Characters without a meaning; one that a prompt does not hold marks the places of its words."""


class Turns:
    """Prompts of one processor with a chat template."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.tokenizer = processor.tokenizer

    def inputs(self, sample: Sample, visual: Mapping[str, Any], before: Sequence[Mapping[str, Any]] = ()) -> Any:
        """The processor's output for the sample's turn, which `visual` gives pixels; `before` are messages ahead of it.

        Raises:
            ValueError: the words hold a marker that the tokenizer cannot be kept from.
        """
        entries = [_entry(part) for part in sample.parts]
        text = self._rendered(entries, before)
        nonce, separator = islice((chr(code) for code in PRIVATE if chr(code) not in text), 2)
        texts = [entry["text"] for entry in entries if "text" in entry]
        words = {f"{nonce}{number}{nonce}": words for number, words in enumerate(texts)}
        names = iter(words)
        bare = self._rendered(
            [{"type": "text", "text": next(names)} if "text" in entry else entry for entry in entries], before
        )
        if self._harmless(text, bare, texts):
            return self._processed(text, visual)
        return self._apart(bare, words, (nonce, separator), visual)

    def _rendered(self, entries: Entries, before: Sequence[Mapping[str, Any]]) -> str:
        """The template's text. Images between pieces of text are written into one text where the template would move them."""
        if not self.in_order:
            lead = list(takewhile(lambda entry: "text" not in entry, entries))
            inline = "".join(entry.get("text", self.processor.image_token) for entry in entries[len(lead) :])
            entries = [*lead, {"type": "text", "text": inline}]
        return self._template([*before, {"role": "user", "content": entries}])

    @cached_property
    def in_order(self) -> bool:
        """Whether the template leaves an image between two pieces of text."""
        entries = [_entry("before"), {"type": "image"}, _entry("after")]
        text = self._template([{"role": "user", "content": entries}])
        return text.find("before") < text.find(self.processor.image_token) < text.find("after")

    def _template(self, messages: Sequence[Mapping[str, Any]]) -> str:
        return str(self.processor.apply_chat_template(list(messages), add_generation_prompt=True))

    def _processed(self, text: str, visual: Mapping[str, Any]) -> Any:
        return self.processor(text=[text], return_tensors="pt", **visual)

    @cached_property
    def markers(self) -> re.Pattern[str]:
        """Every string that the tokenizer or the processor takes for more than text, the longest first."""
        found = {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}
        found |= {*self.tokenizer.all_special_tokens}
        found |= {value for name, value in vars(self.processor).items() if name.endswith("_token")}
        found -= {self.tokenizer.unk_token, None, ""}
        return re.compile("|".join(re.escape(marker) for marker in sorted(found, key=len, reverse=True)))

    @cached_property
    def special(self) -> frozenset[int]:
        """Ids of special tokens; one that stands for whatever the tokenizer does not know may arise from words."""
        added = {index for index, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return frozenset({*added, *self.tokenizer.all_special_ids} - {self.tokenizer.unk_token_id})

    def _harmless(self, text: str, bare: str, words: Iterable[str]) -> bool:
        """Whether the words make no marker, not even together with what stands beside them."""
        if self.markers.findall(text) != self.markers.findall(bare):
            return False
        return all(self.special.isdisjoint(self._ids(self.tokenizer, word)) for word in words)

    def _apart(self, bare: str, words: Mapping[str, str], nonces: tuple[str, str], visual: Mapping[str, Any]) -> Any:
        """The processor's output with the words' own ids in it: all text between two markers that holds words is put in anew."""
        nonce, separator = nonces
        pieces, held = re.split(f"({self.markers.pattern})", bare), dict[str, str]()
        for number, piece in enumerate(pieces):
            if nonce in piece:
                name = pieces[number] = f"{nonce}{number}{nonce}"
                held[name] = re.sub(f"{nonce}[0-9]+{nonce}", lambda found: words[found.group()], piece)
        inputs = self._processed("".join(pieces), visual)
        for name, text in held.items():
            own = self._behind(separator, text)
            if not self.special.isdisjoint(own):
                raise ValueError(f"the tokenizer cannot be kept from reading a special token in {text!r}")
            start, end = self._found(inputs["input_ids"][0].tolist(), self._behind(separator, name))
            _splice(inputs, start, end, own)
        return inputs

    def _found(self, ids: Sequence[int], wanted: Sequence[int]) -> tuple[int, int]:
        """Where the wanted ids are all that stands between two special tokens."""
        ends = [number for number, index in enumerate(ids) if index in self.special]
        found = [
            (start + 1, end)
            for start, end in pairwise([-1, *ends, len(ids)])
            if list(ids[start + 1 : end]) == list(wanted)
        ]
        if len(found) != 1:
            raise ValueError(
                "the question spells a special token, and this tokenizer does not let its words stand apart"
            )
        return found[0]

    def _behind(self, separator: str, text: str) -> list[int]:
        """Ids of text as it stands behind a special token, itself free of any.

        The separator, a character that the text does not hold, is an ordinary added token of a copy of the tokenizer, where it
        ends a stretch of text as a special one does.
        """
        from tokenizers import AddedToken

        self._copy.add_tokens([AddedToken(separator, special=False, normalized=False)])
        return self._ids(self._copy, separator + text, split_special_tokens=True)[1:]

    @cached_property
    def _copy(self) -> Any:
        return deepcopy(self.tokenizer)

    @staticmethod
    def _ids(tokenizer: Any, text: str, **how: Any) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, **how)["input_ids"])


def _splice(inputs: Any, start: int, end: int, ids: Sequence[int]) -> None:
    """Put ids where start to end stood, in all tensors with an entry for each token; the others repeat what stood there."""
    length = inputs["input_ids"].shape
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.shape == length:
            new = value.new_tensor([ids]) if name == "input_ids" else value[:, start : start + 1].expand(-1, len(ids))
            inputs[name] = torch.cat([value[:, :start], new, value[:, end:]], 1)


def _entry(part: Any) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    return {"type": "video"} if isinstance(part, tuple) else {"type": "image"}
