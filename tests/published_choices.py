"""Small sets of the benchmarks that let a model choose (letters, options, yes or no), in the schemas of their publishers."""

from __future__ import annotations

from pathlib import Path

from published_files import parquet, picture, shard


def ai2d(root: Path) -> None:
    columns = {"question": "s", "options": ["s"], "answer": "s", "image": "img"}
    rows = [
        {"question": f"Which part is {n}?", "options": ["leaf", "root", "stem", "bud"], "answer": str(n % 4)}
        | {"image": picture(n)}
        for n in range(4)
    ]
    parquet(root / "data" / shard("test"), columns, rows)


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


BUILDERS = (ai2d, mmmu, mme_image, pope, realworldqa, mmstar, mmbench_en, mmbench_cn, scienceqa, seed_image)
