"""How a published set is written to disk: numbered pictures, tables with declared types, videos and archives."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

SIZE = (48, 32)
VIDEO_FRAMES, VIDEO_FPS = 40, 8


def picture(number: int) -> Image.Image:
    """A plain picture whose red channel says its number."""
    return Image.new("RGB", SIZE, (number % 256, 80, 160))


def _features(columns: Mapping[str, Any]) -> Any:
    import datasets

    words = {
        "s": datasets.Value("string"),
        "i": datasets.Value("int64"),
        "i8": datasets.Value("int8"),
        "i32": datasets.Value("int32"),
        "f": datasets.Value("float64"),
        "f32": datasets.Value("float32"),
        "b": datasets.Value("bool"),
        "img": datasets.Image(),
    }

    def made(kind: Any) -> Any:
        if isinstance(kind, dict):
            return {name: made(inner) for name, inner in kind.items()}
        if isinstance(kind, list):
            return datasets.List(made(kind[0]))
        return words[kind]

    return datasets.Features({name: made(kind) for name, kind in columns.items()})


def parquet(path: Path, columns: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], parts: int = 1) -> None:
    """Write rows as a published table, in `parts` numbered files where there are several; `path` names the first part."""
    import datasets

    datasets.disable_progress_bars()
    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(
        [{name: row.get(name) for name in columns} for row in rows], features=_features(columns)
    )
    for part in range(parts):
        name = path.name.replace("00000-of-00001", f"{part:05d}-of-{parts:05d}")
        table.shard(parts, part, contiguous=True).to_parquet(path.with_name(name))


def video(frames: int = VIDEO_FRAMES, fps: int = VIDEO_FPS) -> bytes:
    """An MP4 file whose frames grow brighter, so that a frame tells its time."""
    import av

    file = BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            level = 20 + number * 200 // frames
            shown = av.VideoFrame.from_image(Image.new("RGB", (64, 48), (level, level, level)))
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return file.getvalue()


def zipped(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def shard(split: str) -> str:
    return f"{split}-00000-of-00001.parquet"
