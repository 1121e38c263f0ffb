"""Small sets of the benchmarks over videos, in the schemas in which they are published."""

from __future__ import annotations

import json
from pathlib import Path

from published_files import parquet, picture, shard, video, zipped


def videomme(root: Path) -> None:
    columns = {"video_id": "s", "duration": "s", "domain": "s", "sub_category": "s", "url": "s", "videoID": "s"} | {
        "question_id": "s",
        "task_type": "s",
        "question": "s",
        "options": ["s"],
        "answer": "s",
    }
    rows = [
        {"video_id": f"{n:03d}", "duration": duration, "videoID": f"vid{n}", "question_id": f"{n:03d}-{k}"}
        | {
            "question": f"What does one see, {k}?",
            "options": ["A. Snow.", "B. Rain.", "C. Sun.", "D. Fog."],
            "answer": "C",
        }
        for n, duration in enumerate(("short", "medium", "long", "short"))
        for k in range(1, 4)
    ]
    parquet(root / "videomme" / shard("test"), columns, rows)
    zipped(root / "videos_chunked_01.zip", {f"data/vid{n}.mp4": video() for n in range(2)})
    zipped(root / "videos_chunked_02.zip", {f"data/vid{n}.mp4": video() for n in range(2, 4)})


def mvbench(root: Path) -> None:
    from effivlm.tasks.mvbench import FOLDERS

    (root / "json").mkdir(parents=True)
    content = video(16)
    for number, (kind, folder) in enumerate(FOLDERS.items()):
        frames = kind == "episodic_reasoning"
        name = f"clip{number}" if frames else f"clip{number}.mp4"
        row = {"video": name, "question": f"What of {kind}?", "candidates": ["left", "right"], "answer": "right"}
        times = {"start": 0.5, "end": 1.5} if kind.startswith("action_se") else {}
        (root / "json" / f"{kind}.json").write_text(json.dumps([row | times]))
        if frames:
            (root / "video" / folder / name).mkdir(parents=True)
            for place in range(3):
                picture(place).save(root / "video" / folder / name / f"{place:05d}.jpg")
        else:
            zipped(root / "video" / f"{kind}.zip", {f"{folder.rpartition('/')[2]}/{name}": content})


def egoschema(root: Path) -> None:
    columns = {"question_idx": "s", "question": "s", "video_idx": "s", "option": ["s"], "answer": "s"}
    options = [f"{mark}. C does {mark.lower()}" for mark in "ABCDE"]
    rows = [
        {
            "question_idx": str(n),
            "question": f"Why does C act, {n}?",
            "video_idx": f"u-{n}",
            "option": options,
            "answer": "4",
        }
        for n in range(2)
    ]
    parquet(root / "Subset" / shard("test"), columns, rows)
    parquet(root / "MC" / shard("test"), columns, [{**rows[0], "answer": None}])
    zipped(root / "videos_chunked_01.zip", {f"videos/u-{n}.mp4": video() for n in range(2)})


def longvideobench(root: Path) -> None:
    columns = {"video_id": "s", "question": "s", "question_wo_referring_query": "s"} | {
        f"option{n}": "s" for n in range(5)
    }
    columns |= {"correct_choice": "i", "topic_category": "s", "question_category": "s", "level": "s", "id": "s"}
    columns |= {"video_path": "s", "subtitle_path": "s", "duration_group": "i", "duration": "f"}
    columns |= {"starting_timestamp_for_subtitles": "f"}
    rows = [
        {
            "video_id": "a",
            "question": f"When does he wave, {n}?",
            **{f"option{k}": f"o{k}" for k in range(4)},
            "option4": "N/A",
        }
        | {"correct_choice": 3, "id": f"a_{n}", "video_path": "a.mp4", "duration": 5.0, "duration_group": 15}
        for n in range(2)
    ]
    parquet(root / shard("validation"), columns, rows)
    (root / "videos").mkdir()
    (root / "videos" / "a.mp4").write_bytes(video())


def mlvu(root: Path) -> None:
    columns = {"video_name": "s", "duration": "f", "question": "s", "answer": "s", "task_type": "s"}
    rows = [
        {
            "video_name": f"{n}.mp4",
            "duration": 5.0,
            "question": f"What, {n}?\n(A) x\n(B) y\n(C) z\n(D) w",
            "answer": "D",
        }
        | {"task_type": ("count", "ego")[n % 2]}
        for n in range(3)
    ]
    parquet(root / "data" / shard("test"), columns, rows)
    zipped(root / "video_part_1.zip", {f"{n}.mp4": video() for n in range(3)})


def moviechat(root: Path) -> None:
    columns = {"video_name": "s", "question": "s", "answer": "s", "time": "f"}
    rows = [{"video_name": "1.mp4", "question": f"What film is it, {n}?", "answer": "A comedy."} for n in range(3)]
    parquet(root / "moviechat_global" / shard("test"), columns, rows)
    zipped(root / "videos.zip", {"1.mp4": video()})


BUILDERS = (mvbench, egoschema, longvideobench, mlvu, moviechat)
