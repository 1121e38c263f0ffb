"""What benchmarks over videos share: frames spread evenly over the whole video, as many as the paper shows a family."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from effivlm.data.rows import Row
from effivlm.data.videos import Clip, clip
from effivlm.records import Sample
from effivlm.tasks._benchmark import Benchmark, Choice

FRAMES = 32


class Video(Benchmark):
    """Questions about videos; the seconds at which frames were taken stand in a sample's facts as `times_s`."""

    frames: ClassVar[Mapping[str, int]] = {"llava_onevision": 32, "qwen2_vl": 32, "internvl2_5": 8}
    """Frames by family (arXiv 2506.00479); 32 for others."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[tuple[str, ...], Clip] | None = None
        self._decoding = Lock()

    @abstractmethod
    def videos(self, row: Row) -> Sequence[str]:
        """Paths under the set's folder, or inside its zip files, that the row's video may have."""

    def images(self, row: Row) -> Sequence[Any]:
        return ()

    def sample(self, one: str, row: Row, item: Any = None) -> Sample:
        if not self.pictured:
            return super().sample(one, row, item)
        shown = self._clip(tuple(self.videos(row)))
        facts = {**self.facts(row, item), "times_s": shown.times_s}
        return Sample(
            one, self.prompt(row, item), self.references(row, item), video=shown.frames, facts=facts, fps=shown.fps
        )

    def _clip(self, names: tuple[str, ...]) -> Clip:
        """Questions about one video come one after the other, so the last one is kept."""
        with self._decoding:
            if self._last is None or self._last[0] != names:
                if self.folder is None:
                    raise ValueError(f"the video {names[0]} is not in the table: fetch the set, or name its folder")
                self._last = (names, clip(names, Path(self.folder), self.frames.get(self.family, FRAMES)))
            return self._last[1]


class VideoChoice(Video, Choice):
    """Multiple choice over videos."""
