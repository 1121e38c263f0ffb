"""Small sets of the benchmarks that are answered in words, numbers or boxes, in the schemas in which they are published."""

from __future__ import annotations

from pathlib import Path

from published_files import parquet, picture, shard


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


BUILDERS = (
    *(docvqa, docserver, infovqa, chartqa, textvqa, vizwiz, vqa2, ocrbench, gqa),
    *(mathvista, llava_wilder, mmvet, imagedc, mpdoc, refcoco),
)
