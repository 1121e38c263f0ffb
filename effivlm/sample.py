"""One question of a benchmark, as a task gives it and a model is asked it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: text of the user's turn, images or video frames, and the accepted answers.

    `places` are the offsets in `prompt` (characters, ascending) before which the images stand; (): all stand in front of the
    text. A video stands in front of it too, behind the images that do. `fps` is how many of the video's frames make a second;
    0: unknown.

    Raises:
        ValueError: id, prompt or a reference is no text, `references` is one text instead of several, places that do not fit
            the images or the prompt, or a negative fps.
    """

    id: str
    prompt: str
    references: tuple[str, ...]
    images: tuple[Image, ...] = ()
    video: tuple[Image, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    places: tuple[int, ...] = ()
    fps: float = 0.0

    def __post_init__(self) -> None:
        for name in ("id", "prompt"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"the {name} of sample {self.id!r} is no text: {getattr(self, name)!r}")
        if isinstance(self.references, str) or not all(isinstance(one, str) for one in self.references):
            raise ValueError(f'references of sample {self.id!r} must be several texts, ("...",): {self.references!r}')
        if not 0 <= self.fps < float("inf"):
            raise ValueError(f"sample {self.id!r}: fps {self.fps} is no number of frames a second")
        if not self.places:
            return
        if len(self.places) != len(self.images):
            raise ValueError(f"sample {self.id!r}: {len(self.places)} places for {len(self.images)} images")
        if list(self.places) != sorted(self.places) or not 0 <= self.places[0] <= self.places[-1] <= len(self.prompt):
            raise ValueError(
                f"sample {self.id!r}: places {self.places} do not ascend within the prompt's {len(self.prompt)} characters"
            )
        if not any(self.places):
            object.__setattr__(self, "places", ())

    @classmethod
    def of(
        cls,
        id: str,
        parts: Sequence[str | Image | tuple[Image, ...]],
        references: Sequence[str],
        facts: Mapping[str, Any] | None = None,
        fps: float = 0.0,
    ) -> Sample:
        """A sample from pieces of text and images in the order in which they stand; a tuple of images is the one video.

        Raises:
            ValueError: two videos, or one behind text.
        """
        prompt, images, places = "", list[Any](), list[int]()
        video: tuple[Image, ...] = ()
        for part in parts:
            if isinstance(part, str):
                prompt += part
            elif isinstance(part, tuple):
                if video or prompt:
                    raise ValueError(f"sample {id!r}: the one video of a sample stands in front of its text")
                video = part
            else:
                images.append(part)
                places.append(len(prompt))
        return cls(id, prompt, tuple(references), tuple(images), video, facts or {}, tuple(places), fps)

    @property
    def parts(self) -> tuple[str | Image | tuple[Image, ...], ...]:
        """Text, images and the video (a tuple of frames) in the order in which they stand; the text is never left out."""
        places = self.places or (0,) * len(self.images)
        found: list[Any] = [image for image, place in zip(self.images, places, strict=True) if not place]
        found += [self.video] if self.video else []
        start = 0
        for image, place in zip(self.images, places, strict=True):
            if place:
                found += [self.prompt[start:place]] if place > start else []
                found.append(image)
                start = place
        if start < len(self.prompt) or not self.prompt:
            found.append(self.prompt[start:])
        return tuple(found)

    @property
    def prompt_sha256(self) -> str:
        """Of the text, and of where images stand in it."""
        where = f"\0{self.places}" if self.places else ""
        return hashlib.sha256((self.prompt + where).encode("utf-8", "surrogatepass")).hexdigest()
