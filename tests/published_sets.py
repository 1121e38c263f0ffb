"""Small sets in the schemas in which benchmarks are published: all columns, types, nulls, text-encoded lists, configs, videos.

`build(task, root)` writes the files of one task under `root/<task>/` as its repository has them. Every picture is drawn from its
number, so that a test can tell which one a sample got.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
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


def docvqa(root: Path) -> None:
    columns = {"questionId": "s", "question": "s", "question_types": ["s"], "image": "img", "docId": "i"} | {
        "ucsf_document_id": "s",
        "ucsf_document_page_no": "s",
        "answers": ["s"],
        "data_split": "s",
    }
    rows = [
        {
            "questionId": str(100 + n),
            "question": f"What is in field {n}?",
            "question_types": ["form"],
            "image": picture(n),
        }
        | {"docId": 7 + n // 2, "ucsf_document_id": "ab", "ucsf_document_page_no": "1", "answers": [f"value {n}", "v"]}
        | {"data_split": "val"}
        for n in range(6)
    ]
    parquet(root / "DocVQA" / shard("validation"), columns, rows, parts=2)
    nothing = [{**rows[0], "answers": None, "data_split": "test"}]
    parquet(root / "DocVQA" / shard("test"), columns, nothing)
    parquet(root / "InfographicVQA" / shard("validation"), {"questionId": "s", "question": "s"}, [{"questionId": "1"}])


def docserver(root: Path) -> None:
    docvqa(root)
    columns = {
        "questionId": "s",
        "question": "s",
        "question_types": ["s"],
        "image": "img",
        "docId": "i",
        "answers": ["s"],
    }
    rows = [
        {"questionId": str(500 + n), "question": f"What is in box {n}?", "image": picture(n), "docId": 60 + n // 2}
        for n in range(4)
    ]
    parquet(root / "DocVQA" / shard("test"), columns, rows)


def infovqa(root: Path) -> None:
    columns = {"questionId": "s", "question": "s", "answers": ["s"], "answer_type": ["s"], "image": "img"} | {
        "image_url": "s",
        "operation/reasoning": ["s"],
        "ocr": "s",
        "data_split": "s",
    }
    rows = [
        {"questionId": str(n), "question": f"How many, {n}?", "answers": [f"{n}%"], "answer_type": ["single span"]}
        | {"image": picture(n // 2), "image_url": f"https://nowhere/{n // 2}.jpeg", "ocr": "{}", "data_split": "val"}
        for n in range(4)
    ]
    parquet(root / "InfographicVQA" / shard("validation"), columns, rows)
    parquet(root / "DocVQA" / shard("validation"), {"questionId": "s"}, [{"questionId": "1"}])


def chartqa(root: Path) -> None:
    columns = {"type": "s", "question": "s", "answer": "s", "image": "img"}
    rows = [
        {"type": ("human_test", "augmented_test")[n % 2], "question": f"What of bar {n}?", "answer": str(n * 10)}
        | {"image": picture(n)}
        for n in range(6)
    ]
    parquet(root / "data" / shard("test"), columns, rows)


def textvqa(root: Path) -> None:
    columns = {"image_id": "s", "question_id": "i32", "question": "s", "question_tokens": ["s"], "image": "img"} | {
        "image_width": "i32",
        "image_height": "i32",
        "flickr_original_url": "s",
        "flickr_300k_url": "s",
        "answers": ["s"],
        "image_classes": ["s"],
        "set_name": "s",
        "ocr_tokens": ["s"],
    }
    rows = [
        {"image_id": f"im{n // 2}", "question_id": n, "question": f"what BRAND is {n}?", "image": picture(n // 2)}
        | {"image_width": 48, "image_height": 32, "answers": ["nokia"] * 8 + ["a", "b"], "set_name": "val"}
        for n in range(4)
    ]
    parquet(root / "data" / shard("validation"), columns, rows)


def vizwiz(root: Path) -> None:
    columns = {"question_id": "s", "image": "img", "question": "s", "answers": ["s"], "category": "s"}
    rows = [
        {"question_id": f"VizWiz_val_{n}", "image": picture(n), "question": "what IS this", "category": "other"}
        | {"answers": ["unanswerable"] * 10}
        for n in range(3)
    ]
    parquet(root / "data" / shard("val"), columns, rows)


def vqa2(root: Path) -> None:
    answer = {"answer": "s", "answer_confidence": "s", "answer_id": "i"}
    columns = {"question_type": "s", "multiple_choice_answer": "s", "answers": [answer], "image_id": "i"} | {
        "answer_type": "s",
        "question_id": "i",
        "question": "s",
        "image": "img",
    }
    rows = [
        {"question_type": "is", "multiple_choice_answer": "yes", "image_id": n // 2, "answer_type": "yes/no"}
        | {"answers": [{"answer": "yes", "answer_confidence": "yes", "answer_id": k} for k in range(10)]}
        | {"question_id": n, "question": f"Is it {n}?", "image": picture(n // 2)}
        for n in range(4)
    ]
    parquet(root / "data" / shard("validation"), columns, rows)


def ocrbench(root: Path) -> None:
    columns = {"dataset": "s", "question": "s", "question_type": "s", "answer": ["s"], "image": "img"}
    rows = [
        {"dataset": ("IIIT5K", "HME100k")[n % 2], "question": "what is written in the image?", "answer": [f"W{n}"]}
        | {"question_type": "Regular Text Recognition", "image": picture(n)}
        for n in range(4)
    ]
    parquet(root / "data" / shard("test"), columns, rows)


def ai2d(root: Path) -> None:
    columns = {"question": "s", "options": ["s"], "answer": "s", "image": "img"}
    rows = [
        {"question": f"Which part is {n}?", "options": ["leaf", "root", "stem", "bud"], "answer": str(n % 4)}
        | {"image": picture(n)}
        for n in range(4)
    ]
    parquet(root / "data" / shard("test"), columns, rows)


def gqa(root: Path) -> None:
    semantic = {"operation": "s", "argument": "s", "dependencies": ["i32"]}
    columns = {"id": "s", "imageId": "s", "question": "s", "answer": "s", "fullAnswer": "s", "isBalanced": "b"} | {
        "groups": {"global": "s", "local": "s"},
        "entailed": "s",
        "equivalent": "s",
        "types": {"structural": "s", "semantic": "s", "detailed": "s"},
        "semantic": [semantic],
        "semanticStr": "s",
    }
    rows = [
        {
            "id": f"2{n:04d}",
            "imageId": f"n{n // 3}",
            "question": f"Is the cup {n} left?",
            "answer": "no",
            "isBalanced": True,
        }
        | {"semantic": [{"operation": "select", "argument": "cup", "dependencies": []}]}
        for n in range(6)
    ]
    parquet(root / "testdev_balanced_instructions" / shard("testdev"), columns, rows)
    pictures = [{"id": f"n{n}", "image": picture(50 + n)} for n in (1, 0)]
    parquet(root / "testdev_balanced_images" / shard("testdev"), {"id": "s", "image": "img"}, pictures)


def mmmu(root: Path) -> None:
    numbered = {f"image_{n}": "img" for n in range(1, 8)}
    columns = {
        "id": "s",
        "question": "s",
        "options": "s",
        "explanation": "s",
        **numbered,
        "img_type": "s",
        "answer": "s",
    } | {
        "topic_difficulty": "s",
        "question_type": "s",
        "subfield": "s",
    }
    rows = [
        {"id": "validation_Art_1", "question": "Who drew <image 1>?", "options": "['Klee', \"O'Keeffe\", 'Dix']"}
        | {"image_1": picture(1), "answer": "B", "question_type": "multiple-choice"},
        {"id": "validation_Math_2", "question": "From <image 2> and <image 1>, find x.", "options": "[]"}
        | {"image_1": picture(2), "image_2": picture(3), "answer": "['24/7', '3.429']", "question_type": "open"},
        {"id": "validation_Bio_3", "question": "Which one shows a cell?", "question_type": "multiple-choice"}
        | {"options": "['<image 1>', '<image 2>']", "image_1": picture(4), "image_2": picture(5), "answer": "A"},
    ]
    parquet(root / "data" / shard("validation"), columns, rows)


def mme_image(root: Path) -> None:
    columns = {"question_id": "s", "image": "img", "question": "s", "answer": "s", "category": "s"}
    rows = [
        {"question_id": f"{category}/{n:04d}.png", "image": picture(n), "category": category}
        | {"question": f"Is there {n}? Please answer yes or no.", "answer": answer}
        for category in ("OCR", "count", "code_reasoning")
        for n in range(3 if category == "OCR" else 2)
        for answer in ("Yes", "No")
    ]
    parquet(root / "data" / shard("test"), columns, rows, parts=2)


def pope(root: Path) -> None:
    columns = {"id": "s", "question_id": "s", "question": "s", "answer": "s", "image_source": "s", "image": "img"} | {
        "category": "s"
    }
    rows = [
        {
            "id": str(n),
            "question_id": str(n),
            "question": f"Is there a cat {n} in the image?",
            "answer": ("yes", "no")[n % 2],
        }
        | {"image_source": f"COCO_val2014_{n // 4:012d}", "image": picture(n // 4), "category": "popular"}
        for n in range(8)
    ]
    parquet(root / "data" / shard("test"), columns, rows)
    parquet(root / "Full" / shard("test"), columns, rows[:1])


def realworldqa(root: Path) -> None:
    columns = {"image": "img", "question": "s", "answer": "s", "image_path": "s"}
    asked = "Where does the sign point?\n\nA. Left\nB. Right\nPlease answer directly with only the letter."
    rows = [
        {"image": picture(1), "question": asked, "answer": "B", "image_path": "1.webp"},
        {
            "image": picture(2),
            "question": "How many cars? Answer with a number.",
            "answer": "2",
            "image_path": "2.webp",
        },
    ]
    parquet(root / "data" / shard("test"), columns, rows)


def mmstar(root: Path) -> None:
    columns = {"index": "i", "question": "s", "image": "img", "answer": "s", "category": "s", "l2_category": "s"} | {
        "meta_info": {"source": "s", "split": "s", "image_path": "s"}
    }
    rows = [
        {"index": n, "question": "What is it?\nOptions: A: a cat, B: a dog", "image": picture(n), "answer": "AB"[n % 2]}
        | {"category": "math" if n < 3 else "logic", "l2_category": f"field {n // 2}"}
        for n in range(6)
    ]
    parquet(root / "mmstar.parquet", columns, rows)


def mathvista(root: Path) -> None:
    meta = {"category": "s", "context": "s", "grade": "s", "img_height": "i", "img_width": "i", "language": "s"}
    columns = {"pid": "s", "question": "s", "image": "s", "decoded_image": "img", "choices": ["s"], "unit": "s"} | {
        "precision": "f",
        "answer": "s",
        "question_type": "s",
        "answer_type": "s",
        "metadata": {**meta, "skills": ["s"], "source": "s", "split": "s", "task": "s"},
        "query": "s",
    }
    kinds = [
        ("multi_choice", "text", ["1", "2"], None, "2", "cm"),
        ("free_form", "integer", None, None, "14", None),
        ("free_form", "float", None, 1.0, "1.2", None),
        ("free_form", "list", None, None, "[1, 2]", None),
    ]
    rows = [
        {
            "pid": str(n),
            "question": "Find x",
            "image": f"images/{n}.jpg",
            "decoded_image": picture(n),
            "choices": choices,
        }
        | {
            "unit": unit,
            "precision": precision,
            "answer": answer,
            "question_type": kind,
            "answer_type": of,
            "query": "?",
        }
        for n, (kind, of, choices, precision, answer, unit) in enumerate(kinds)
    ]
    parquet(root / "data" / "testmini-00000-of-00001-725687bf7a18d64b.parquet", columns, rows)
    parquet(root / "data" / "test-00000-of-00002-6b81bd7f7e2065e6.parquet", columns, rows[:1])


def llava_wilder(root: Path) -> None:
    columns = {"image": "img", "Question": "s", "Answer": "s", "Category": "s"}
    rows = [{"image": picture(n), "Question": f"What happens in {n}?", "Answer": "A cat sleeps."} for n in range(2)]
    parquet(root / "data" / shard("test"), columns, rows)


def _mmbench(root: Path, config: str) -> None:
    columns = {"index": "i", "question": "s", "hint": "s", "answer": "s", "A": "s", "B": "s", "C": "s", "D": "s"} | {
        "category": "s",
        "image": "img",
        "source": "s",
        "L2-category": "s",
        "comment": "s",
        "split": "s",
    }
    rows = []
    for question, options in (
        (3, ["cat", "dog"]),
        (11, ["red", "blue", "green", "white"]),
        (12, ["up", "down", "left"]),
    ):
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            said = dict(zip("ABCD", [*turned, *["nan"] * (4 - len(options))], strict=True))
            rows.append(
                {"index": question + 1_000_000 * turn, "question": f"Which is right, {question}?", **said}
                | {"hint": "nan" if question == 3 else "Look closely.", "answer": "ABCD"[turned.index(options[0])]}
                | {"image": picture(question), "category": "x", "L2-category": "y", "split": "dev"}
            )
    parquet(root / config / shard("dev"), columns, sorted(rows, key=lambda row: row["index"]))
    parquet(root / config / shard("test"), columns, rows[:1])


def mmbench_en(root: Path) -> None:
    _mmbench(root, "en")


def mmbench_cn(root: Path) -> None:
    _mmbench(root, "cn")


def mmvet(root: Path) -> None:
    columns = {
        "question_id": "s",
        "image": "img",
        "question": "s",
        "answer": "s",
        "image_source": "s",
        "capability": "s",
    }
    rows = [
        {
            "question_id": "v1_0",
            "image": picture(1),
            "question": "What is x?",
            "answer": "-1<AND>-5",
            "capability": "ocr,math",
        },
        {"question_id": "v1_1", "image": None, "question": "Tell a joke.", "answer": "a<OR>b", "capability": "gen"},
    ]
    parquet(root / "data" / shard("test"), columns, rows)


def imagedc(root: Path) -> None:
    columns = {"question_id": "s", "question": "s", "image": "img", "answer": "s"}
    rows = [{"question_id": str(n), "question": "Describe it.", "image": picture(n), "answer": "A"} for n in range(2)]
    parquet(root / "data" / shard("test"), columns, rows)


def mpdoc(root: Path) -> None:
    pages = {f"image_{n}": "img" for n in range(1, 21)}
    columns = {"questionId": "s", "question": "s", "doc_id": "s", "page_ids": "s", "answers": "s"} | {
        "answer_page_idx": "s",
        "data_split": "s",
        **pages,
    }
    rows = [
        {"questionId": str(n), "question": f"What is on page {n}?", "doc_id": f"d{n // 2}", "page_ids": "['p0', 'p1']"}
        | {"answers": str([f"it's {n}", "it"]), "answer_page_idx": "0", "data_split": "val"}
        | {f"image_{page}": picture(10 * n + page) for page in range(1, 2 + n)}
        for n in range(3)
    ]
    parquet(root / "data" / shard("val"), columns, rows)


def scienceqa(root: Path) -> None:
    columns = {
        "image": "img",
        "question": "s",
        "choices": ["s"],
        "answer": "i8",
        "hint": "s",
        "task": "s",
        "grade": "s",
    } | {
        "subject": "s",
        "topic": "s",
        "category": "s",
        "skill": "s",
        "lecture": "s",
        "solution": "s",
    }
    rows = [
        {"image": picture(n), "question": f"Which state, {n}?", "choices": ["Iowa", "Ohio"], "answer": n % 2}
        | {"hint": "" if n else "A map is shown."}
        for n in range(3)
    ]
    parquet(root / "ScienceQA-IMG" / shard("test"), columns, rows)
    parquet(root / "ScienceQA-FULL" / shard("test"), columns, [{**rows[0], "image": None}])


def seed_image(root: Path) -> None:
    columns = {"answer": "s", "choice_a": "s", "choice_b": "s", "choice_c": "s", "choice_d": "s", "data_id": "s"} | {
        "data_type": "s",
        "question": "s",
        "question_id": "s",
        "question_type_id": "i32",
        "image": ["img"],
        "segment": ["i"],
    }
    rows = [
        {"answer": "ABCD"[n % 4], **{f"choice_{mark}": f"{mark}{n}" for mark in "abcd"}, "data_id": f"p{n // 2}"}
        | {"data_type": "video" if n == 4 else "image", "question": f"How many, {n}?", "question_id": str(n)}
        | {"question_type_id": 1, "image": [picture(n // 2)] * (3 if n == 4 else 1), "segment": None}
        for n in range(5)
    ]
    parquet(root / "data" / shard("test"), columns, rows)


def refcoco(root: Path) -> None:
    columns = {"question_id": "s", "image": "img", "question": "s", "answer": ["s"], "segmentation": ["f32"]} | {
        "bbox": ["f32"],
        "iscrowd": "i8",
        "file_name": "s",
    }
    rows = [
        {"question_id": str(n), "image": picture(n), "question": "Please carefully observe the area", "iscrowd": 0}
        | {"answer": [f"cup {n}", "the left one"], "segmentation": [1.0, 2.0], "bbox": [12.0, 8.0, 24.0, 16.0]}
        | {"file_name": f"COCO_train2014_{n // 2:012d}_{n}.jpg"}
        for n in range(3)
    ]
    parquet(root / "data" / shard("val"), columns, rows)
    parquet(root / "data" / shard("testA"), columns, rows[:1])


def _videomme(root: Path) -> None:
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


BUILDERS: dict[str, Callable[[Path], None]] = {
    **{
        build.__name__: build
        for build in (docvqa, docserver, infovqa, chartqa, textvqa, vizwiz, vqa2, ocrbench, ai2d, gqa, mmmu)
    },
    **{build.__name__: build for build in (mme_image, pope, realworldqa, mmstar, mathvista, llava_wilder, mmbench_en)},
    **{build.__name__: build for build in (mmbench_cn, mmvet, imagedc, mpdoc, scienceqa, seed_image, refcoco, mvbench)},
    **{build.__name__: build for build in (egoschema, longvideobench, mlvu, moviechat, docserver)},
    **dict.fromkeys(("videomme_all", "videomme_short"), _videomme),
    "mmvet_proxy": mmvet,
}


NAMES = sorted(BUILDERS)
Opened = Callable[..., Any]
"""The fixture `opened`: a task by name, over the mirror or a folder, for a family."""


def build(task: str, root: Path) -> Path:
    """Write the set of `task` into a mirror at `root`; returns `root`."""
    BUILDERS[task](root / task)
    return root
