"""What a judge is: somebody who answers a query with text, or says why there is none."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Protocol

LONGEST = 20_000  # characters of a reply that are kept: no rubric asks for a hundredth of them


class Unanswered(Exception):
    """A query without a reply; the message is the reason that the record shows. The answer's mark is then missing, never 0."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a judge is asked: a text, pictures (as encoded files: PNG, JPEG), and the most tokens of its reply."""

    text: str
    images: tuple[bytes, ...] = ()
    max_tokens: int = 512

    def sha256(self) -> str:
        """A hash of all that is asked, in hexadecimal."""
        digest = hashlib.sha256(f"{self.max_tokens}\n".encode())
        for part in (self.text.encode("utf-8", "surrogatepass"), *self.images):
            digest.update(f"{len(part)}\n".encode())
            digest.update(part)
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Reply:
    """A judge's text, and the model that the judge says it is (an alias may move on to another)."""

    text: str
    model: str


class Judge(Protocol):
    """Anything with a recorded name that replies, always with temperature 0."""

    @property
    def name(self) -> str:
        """Kind, model and revision in one word, e.g. "endpoint:gpt-4o-2024-08-06"; holds no secret."""

    def reply(self, query: Query, repeat: int = 0) -> Reply:
        """The reply to a query; `repeat` tells the k-th asking of the same from the first. Raises Unanswered."""
