"""A judge behind an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from effivlm.judging.judge import LONGEST, Query, Reply, Unanswered

KEY_VARIABLE = "OPENAI_API_KEY"
_HIDDEN = "[key]"
_MAGIC = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp", b"GIF8": "gif"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model of a server that speaks OpenAI's chat protocol, asked with temperature 0.

    The key comes from the environment variable `key_variable` alone, when it is needed: no field, record, file or message
    holds it, and where a server sends it back it is cut out. Time-outs, lost connections, refusals for want of quota (429) and
    errors of the server (5xx) are tried again, `attempts` times in all, after `first_wait_s`, twice that, and so on, or as long
    as the server asks for, never over `most_wait_s`; other refusals are final.

    Raises ValueError for a base_url that is no http(s) address or holds a user's name, and for attempts under 1.
    """

    model: str
    base_url: str = "https://api.openai.com/v1"
    key_variable: str = KEY_VARIABLE
    timeout_s: float = 60.0
    attempts: int = 5
    first_wait_s: float = 1.0
    most_wait_s: float = 60.0
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False, compare=False)

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url {self.base_url!r} is no address: it must begin with http:// or https://")
        if "@" in address.netloc:
            raise ValueError("base_url holds a user's name or password: a key belongs into the environment")
        if self.attempts < 1:
            raise ValueError(f"attempts must be at least 1, got {self.attempts}")

    @property
    def name(self) -> str:
        return f"endpoint:{urlsplit(self.base_url).netloc}:{self.model}"

    def reply(self, query: Query, repeat: int = 0) -> Reply:
        """The reply to a query. Raises Unanswered when all attempts failed, or no key is set."""
        key = os.environ.get(self.key_variable, "")
        if not key:
            raise Unanswered(f"the environment variable {self.key_variable} holds no key")
        try:
            return self._tried(query, key)
        except Unanswered as error:
            raise Unanswered(_without(str(error), key)) from None  # a cause could hold the key

    def _tried(self, query: Query, key: str) -> Reply:
        import openai

        client = openai.OpenAI(api_key=key, base_url=self.base_url, timeout=self.timeout_s, max_retries=0)
        passing = (openai.APIConnectionError, openai.RateLimitError, openai.InternalServerError)
        create: Any = client.chat.completions.create
        with client:
            for attempt in range(self.attempts):
                try:
                    return _read(create(**self._request(query)), key)
                except passing as error:
                    reason, wait = _short(error), self._wait(attempt, error)
                except (openai.OpenAIError, ValueError, RecursionError) as error:
                    raise Unanswered(f"{self.name} refused or sent what is no reply: {_short(error)}") from None
                if attempt + 1 < self.attempts:
                    self.sleep(wait)
        raise Unanswered(f"{self.name} did not reply in {self.attempts} attempts: {reason}")

    def _request(self, query: Query) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": query.text.encode("utf-8", "replace").decode()}]
        parts += [{"type": "image_url", "image_url": {"url": _data_url(image)}} for image in query.images]
        content: Any = parts if query.images else parts[0]["text"]
        messages = [{"role": "user", "content": content}]
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": query.max_tokens}

    def _wait(self, attempt: int, error: Exception) -> float:
        """Seconds until the next attempt: what the server asks for, else twice as long each time."""
        headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
        try:
            asked = float(headers.get("retry-after", ""))
        except ValueError:
            asked = self.first_wait_s * 2**attempt
        return min(self.most_wait_s, asked) if asked >= 0 else self.first_wait_s


def _read(response: Any, key: str) -> Reply:
    """The text of the first choice. Raises ValueError for anything else: a server may send what it likes."""
    choices = getattr(response, "choices", None)
    message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
    content = getattr(message, "content", None)
    if not isinstance(content, str) or not content.strip():
        raise ValueError("the reply holds no text")
    model = getattr(response, "model", None)
    return Reply(_without(content[:LONGEST], key), _without(model[:200], key) if isinstance(model, str) else "")


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _without(text: str, key: str) -> str:
    return text.replace(key, _HIDDEN)


def _data_url(image: bytes) -> str:
    kind = next((kind for magic, kind in _MAGIC.items() if image.startswith(magic)), "png")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
