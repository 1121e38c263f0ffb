"""Frames of a video at evenly spread times, through PyAV (`pip install "effivlm[video]"`)."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
SEEK_S = 4.0  # a nearer frame is reached sooner by decoding on than by jumping to a key frame


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames in order, and the second of the video that each one shows."""

    frames: tuple[Image, ...]
    times_s: tuple[float, ...]

    @property
    def fps(self) -> float:
        """Frames a second among those taken; 1 where a single frame has no rate."""
        span = self.times_s[-1] - self.times_s[0] if self.times_s else 0.0
        return (len(self.times_s) - 1) / span if span > 0 else 1.0


def spread(total: int, count: int) -> list[int]:
    """Indices of `count` of `total` frames, evenly from the first to the last, as numpy's linspace cut to whole numbers; all
    frames where there are no more."""
    if total <= count:
        return list(range(total))
    return [int(number * (total - 1) / (count - 1)) if count > 1 else 0 for number in range(count)]


def clip(names: Sequence[str], folder: Path, count: int) -> Clip:
    """`count` evenly spread frames of a video.

    `names` are the paths that the video may have under `folder`: a file, a folder of numbered pictures, or a member of a zip
    file there, by any of its endings.

    Raises:
        ValueError: the video is missing or cannot be decoded, or PyAV is not installed.
    """
    for name in names:
        if (folder / name).is_dir():
            return _of_pictures(folder / name, count)
    with _opened(names, folder) as (file, named):
        return _decoded(file, named, count)


def _of_pictures(folder: Path, count: int) -> Clip:
    from effivlm.data.pictures import picture

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not files:
        raise ValueError(f"the video {folder} is a folder without pictures")
    places = spread(len(files), count)
    return Clip(tuple(picture(files[place]) for place in places), tuple(float(place) for place in places))


@contextmanager
def _opened(names: Sequence[str], folder: Path) -> Iterator[tuple[str | IO[bytes], str]]:
    for name in names:
        if (folder / name).is_file():
            yield str(folder / name), str(folder / name)
            return
    members = _members(folder)
    for name in names:
        if name in members:
            archive, member = members[name]
            with zipfile.ZipFile(archive) as opened, opened.open(member) as file:
                yield file, f"{archive}:{member}"
            return
    raise ValueError(f"the video {names[0]} is neither under {folder} nor in a zip file there")


@cache
def _members(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files in the zip archives of a folder, by every ending of their path ("a/b.mp4" and "b.mp4")."""
    found: dict[str, tuple[Path, str]] = {}
    for archive in sorted(folder.rglob("*.zip")):
        try:
            with zipfile.ZipFile(archive) as opened:
                names = opened.namelist()
        except zipfile.BadZipFile:
            raise ValueError(f"{archive} is no complete zip file: fetch it again") from None
        for name in names:
            parts = name.split("/")
            for first in range(len(parts)):
                found.setdefault("/".join(parts[first:]), (archive, name))
    return found


def _decoded(file: str | IO[bytes], named: str, count: int) -> Clip:
    try:
        import av
    except ImportError:
        raise ValueError('videos are decoded by PyAV, which is not installed: pip install "effivlm[video]"') from None
    try:
        with av.open(file) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            total, rate = _length(container, stream)
            wanted = [place / rate for place in spread(total, count)]
            frames, times = zip(*_at(container, stream, wanted, 0.5 / rate), strict=True)
    except (av.FFmpegError, IndexError, ValueError, ZeroDivisionError) as error:
        raise ValueError(f"the video {named} cannot be decoded: {error}") from None
    return Clip(frames, times)


def _length(container: Any, stream: Any) -> tuple[int, float]:
    """Number of frames and frames a second; counted where the file does not say."""
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    if not rate:
        raise ValueError("it names no frame rate")
    total = stream.frames
    if not total and stream.duration:
        total = round(float(stream.duration * stream.time_base) * rate)
    if not total and container.duration:
        total = round(container.duration / 1e6 * rate)
    if not total:
        total = sum(1 for _ in container.decode(stream))
        container.seek(0)
    return total, rate


def _at(container: Any, stream: Any, wanted: Sequence[float], slack: float) -> Iterator[tuple[Image, float]]:
    """The frames shown at seconds `wanted`, ascending, and their own seconds; the last frame where the video ends sooner."""
    start = float((stream.start_time or 0) * stream.time_base)
    decoded = container.decode(stream)
    frame = next(decoded, None)
    if frame is None:
        raise ValueError("it holds no frame")
    for second in wanted:
        if second - (frame.time - start) > SEEK_S:
            container.seek(int((second + start) / stream.time_base), stream=stream)
            decoded = container.decode(stream)
            frame = next(decoded, frame)
        while frame.time - start < second - slack:
            following = next(decoded, None)
            if following is None:
                break
            frame = following
        yield frame.to_image(), round(frame.time - start, 3)
