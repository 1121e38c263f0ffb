"""What the processor makes of samples before they are asked: the GPU need not wait for pictures to be cut and scaled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock, RLock
from typing import Any, overload

import torch
from torch import Tensor

from effivlm.records import Sample

MOST = 8  # a page of LLaVA-OneVision takes some 30 MB
Made = Mapping[str, Any] | Exception
"""What the processor gave, or what went wrong in it."""


@dataclass
class Ahead:
    """Outputs of a processor that wait for their samples; at most `MOST`, the oldest goes first."""

    waiting: OrderedDict[str, tuple[Sample, Made]] = field(default_factory=OrderedDict)
    lock: Lock = field(default_factory=Lock)

    def put(self, sample: Sample, made: Made) -> None:
        with self.lock:
            self.waiting[sample.id] = (sample, made)
            while len(self.waiting) > MOST:
                self.waiting.popitem(last=False)

    def take(self, sample: Sample) -> Mapping[str, Any] | None:
        """What was made of this very sample, once; None where nothing was, or of one that holds something else.

        What went wrong meanwhile is raised.
        """
        with self.lock:
            first, made = self.waiting.pop(sample.id, (None, None))
        words = (sample.prompt, sample.places, sample.fps)
        same = first is not None and words == (first.prompt, first.places, first.fps)
        pictures = same and [*map(id, sample.images + sample.video)] == [*map(id, first.images + first.video)]  # type: ignore[union-attr]
        if pictures and isinstance(made, Exception):
            raise made
        return made if pictures else None  # type: ignore[return-value]


class Prepared(ABC):
    """The part of an adapter that has samples processed, one at a time, in whatever thread."""

    device: torch.device
    dtype: torch.dtype
    ahead: Ahead
    processing: RLock

    @abstractmethod
    def given(self, sample: Sample) -> Mapping[str, Any]:
        """Processor output for one sample: token ids [1, N], pixel values and grids."""

    def prepare(self, sample: Sample) -> dict[str, Any]:
        """The same on the model's device, in its precision."""
        made = self.ahead.take(sample) or self._processed(sample)
        return {
            name: (value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device))
            if isinstance(value, Tensor)
            else value
            for name, value in made.items()
        }

    def process(self, sample: Sample, fit: Callable[[str], None]) -> None:
        """Have the processor's output of a sample, whose text `fit` lets through, ready for the one `prepare` to come."""
        try:
            fit(sample.prompt)
            made: Made = self._processed(sample)
        except Exception as error:
            made = error
        self.ahead.put(sample, made)

    def _processed(self, sample: Sample) -> Mapping[str, Any]:
        with self.processing:  # tokenizers and image processors serve one thread at a time
            return self.given(sample)


@dataclass(frozen=True)
class Processed(Sequence[Sample]):
    """The same samples; whoever reads one has it processed too."""

    samples: Sequence[Sample]
    process: Callable[[Sample], None]

    def __len__(self) -> int:
        return len(self.samples)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        sample = self.samples[index]
        if isinstance(sample, Sample):
            self.process(sample)
        return sample
