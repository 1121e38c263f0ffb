"""How samples are shown to a model: a system turn, limits on its pictures, the processor's backend. All of it is recorded."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from effivlm.models._sources import ModelSource
from effivlm.records import Sample, Settings

if TYPE_CHECKING:
    from PIL.Image import Image

BACKENDS = ("pil", "torchvision")
PER_IMAGE = 8
"""Room for the markers and line breaks around an image, in tokens."""
FRAME = 64
"""Room for the template around the words of a turn."""


@dataclass(frozen=True, slots=True)
class Presenting:
    """`system` is the text of the system turn (None: what the template has); `pixels` and `tiles` limit each picture, 0 not at
    all; `backend` cuts and scales pictures, "pil" or "torchvision"."""

    system: str | None = None
    pixels: int = 0
    tiles: int = 0
    backend: str = BACKENDS[0]

    @classmethod
    def of(cls, settings: Settings) -> Presenting:
        return cls(settings.system, settings.pixels, settings.tiles, settings.processor)

    def differences(self) -> list[str]:
        """What is not as it is without any option, for fingerprints."""
        words = [f"system {self.system!r}"] * (self.system is not None) + [f"pixels {self.pixels}"] * (self.pixels > 0)
        return words + [f"tiles {self.tiles}"] * (self.tiles > 0) + [self.backend] * (self.backend != BACKENDS[0])

    def messages(self) -> list[dict[str, Any]]:
        """What stands before the user's turn."""
        if self.system is None:
            return []
        return [{"role": "system", "content": [{"type": "text", "text": self.system}]}]


def with_backend(image_processor: Any, backend: str) -> Any:
    """The image processor with the same settings in the other backend; itself where it is of that backend already."""
    import transformers

    name = type(image_processor).__name__.removesuffix("Pil")
    wanted = name + ("Pil" if backend == "pil" else "")
    if type(image_processor).__name__ == wanted:
        return image_processor
    return getattr(transformers, wanted).from_dict(image_processor.to_dict())


class Presented(ABC):
    """The part of an adapter that shows samples: `limited_by` says what limits the tokens of a picture, "pixels" or "tiles".

    `limit` is the one in force (0: the processor's own), `answer_tokens` the room that an answer needs, `held` the tighter limit
    of each sample that was given one, by its id.
    """

    limited_by: ClassVar[str] = "tiles"
    processor: Any
    text: Any
    source: ModelSource
    presenting: Presenting = Presenting()
    limit: int = 0
    answer_tokens: int = 0
    held: Mapping[str, int] = MappingProxyType({})

    def present(self, how: Presenting) -> None:
        """Show samples so from now on.

        Raises:
            ValueError: a system turn is asked for, and the chat template leaves it out.
        """
        self.presenting = how
        self.processor.image_processor = with_backend(self.processor.image_processor, how.backend)
        turn = {"role": "user", "content": [{"type": "text", "text": ""}]}
        if how.system and how.system not in self.processor.apply_chat_template([*how.messages(), turn]):
            raise ValueError(
                f"model {self.source.name!r}: its chat template has no system turn, so --vlm-system is without effect"
            )
        self.begin_task(0, 0, 0)

    def begin_task(self, pixels: int, tiles: int, answer: int) -> None:
        """What a task says of its pictures, which the run's own limits go before, and how many tokens an answer may have."""
        run, task = getattr(self.presenting, self.limited_by), {"pixels": pixels, "tiles": tiles}[self.limited_by]
        self.limit, self.answer_tokens = run or task, answer
        self.held = {}
        self.limit_pictures()

    def remarks(self) -> tuple[str, ...]:
        """What outcomes of the task have to say of how its pictures were shown."""
        return held_remarks(self.held, self.limited_by, self.text.config.max_position_embeddings)

    def limit_pictures(self) -> None:  # noqa: B027  most families have nothing to do
        """Put `limit` into effect for all pictures to come, where that is no argument of the processor."""

    def limiting(self, limit: int) -> dict[str, Any]:
        """Arguments of the processor that limit each picture; 0: its own limit."""
        return {}

    def tighter(self) -> Iterator[int]:
        """`limit`, then ever tighter ones."""
        yield self.limit

    def tokens_of(self, sizes: Sequence[tuple[int, int]], limit: int) -> int:
        """Visual tokens of pictures of (height, width) under a limit."""
        return 0

    def fitting(self, sample: Sample, pictures: Sequence[Image]) -> int:
        """The first limit under which the prompt and an answer fit the model's positions; `limit` where none does.

        It is noted where it is not the one asked for.
        """
        sizes = [(picture.height, picture.width) for picture in pictures]
        words = len(self.processor.tokenizer(sample.prompt + (self.presenting.system or ""))["input_ids"])
        room = self.text.config.max_position_embeddings - words - FRAME - PER_IMAGE * len(sizes) - self.answer_tokens
        fits = next((limit for limit in self.tighter() if self.tokens_of(sizes, limit) <= room), self.limit)
        if fits != self.limit:
            self.held = {**self.held, sample.id: fits}
        return fits


def held_remarks(held: Mapping[str, int], word: str, positions: int) -> tuple[str, ...]:
    """What an outcome says of pictures that were shown smaller than asked for, so that their prompts fit."""
    if not held:
        return ()
    lowest, highest = min(held.values()), max(held.values())
    span = f"{lowest:,}" if lowest == highest else f"{lowest:,} to {highest:,}"
    return (
        f"{len(held)} samples hold so many pictures that each was limited to {span} {word}: their prompts would not fit the"
        f" model's {positions:,} positions",
    )
