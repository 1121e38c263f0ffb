"""Sets that are not as they should be, other layouts of a mirror, subsets, videos, and samples made ahead."""

from __future__ import annotations

import gc
import json
import threading
import time
import warnings
from collections import Counter
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import published_sets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from published_files import SIZE, parquet, picture, shard, video
from published_sets import Opened

from effivlm.data.ahead import Ahead, ahead
from effivlm.data.pictures import picture as decoded
from effivlm.data.places import data_home
from effivlm.data.seen import check_ids
from effivlm.data.source import Source, ids_hash, suits
from effivlm.data.subset import subset
from effivlm.data.videos import clip, spread

CHARTQA = {"type": "s", "question": "s", "answer": "s", "image": "img"}


def chartqa_row(number: int, **changes: Any) -> dict[str, Any]:
    row = {"type": ("human_test", "augmented_test")[number % 2], "question": f"q{number}", "answer": "1"}
    return {**row, "image": picture(number), **changes}


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path, opened: Opened) -> None:
    columns = {name: kind for name, kind in CHARTQA.items() if name != "type"}
    parquet(tmp_path / "chartqa" / "data" / shard("test"), columns, [chartqa_row(0)])
    with pytest.raises(ValueError, match="has no column 'type'; it has answer, image, question"):
        opened("chartqa", tmp_path).samples(1, 0)


def test_a_column_of_another_type_is_named(tmp_path: Path, opened: Opened) -> None:
    parquet(tmp_path / "chartqa" / "data" / shard("test"), {**CHARTQA, "answer": "i"}, [chartqa_row(0, answer=3)])
    with pytest.raises(ValueError, match=r"column 'answer' of the set at .* is int, and text is wanted"):
        opened("chartqa", tmp_path).samples(1, 0)


def test_another_number_of_rows_than_declared_is_refused(opened: Opened) -> None:
    with pytest.raises(
        ValueError, match="has 6 rows and 5349 are known: it is another split, a part, or it was changed"
    ):
        opened("docvqa", rows=5349).samples(1, 0)


def test_a_part_of_a_table_that_is_missing_is_found(tmp_path: Path, opened: Opened) -> None:
    published_sets.build("docvqa", tmp_path)
    (tmp_path / "docvqa" / "DocVQA" / "validation-00001-of-00002.parquet").unlink()
    with pytest.raises(ValueError, match="holds 1 of 2 parts of its table"):
        opened("docvqa", tmp_path).samples(1, 0)


@pytest.mark.parametrize("torn", [b"", b"\x89PNG\r\n\x1a\n cut", None])
def test_a_torn_picture_breaks_its_sample_and_not_the_set(torn: bytes | None, tmp_path: Path, opened: Opened) -> None:
    rows = [chartqa_row(n) for n in range(4)]
    rows[2]["image"] = None if torn is None else {"bytes": torn, "path": "2.png"}
    columns = {**CHARTQA, "image": "img"}
    parquet(tmp_path / "chartqa" / "data" / shard("test"), columns, rows)
    samples = opened("chartqa", tmp_path).samples(10, 0)
    broken = {}
    for place in range(4):
        try:
            assert samples[place].images[0].size == SIZE
        except ValueError as error:
            broken[place] = str(error)
    assert len(broken) == 1
    (reason,) = broken.values()
    assert ("cannot be decoded" if torn is not None else "has no picture") in reason


def test_a_mirror_may_be_json_lines_beside_pictures(tmp_path: Path, opened: Opened) -> None:
    folder = tmp_path / "ChartQA"  # the repository's name serves as well as the task's
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(4):
        picture(number).save(folder / "images" / f"{number}.png")
        lines.append(
            json.dumps({**chartqa_row(number), "image": f"images/{number}.png", "question": f"line\u2028{number}"})
        )
    (folder / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    samples = list(opened("chartqa", tmp_path).samples(10, 0))
    assert sorted(one.images[0].getpixel((0, 0))[0] for one in samples) == [0, 1, 2, 3]
    assert all("\u2028" in one.prompt for one in samples)


def test_a_mirror_without_the_set_says_how_its_folder_may_be_called(tmp_path: Path, opened: Opened) -> None:
    with pytest.raises(ValueError, match=r"holds no folder of it; it may be called docvqa, DocVQA"):
        opened("docvqa", tmp_path).samples(1, 0)
    (tmp_path / "docvqa").mkdir()
    with pytest.raises(ValueError, match=r"no table of split 'validation' \(wanted: DocVQA/validation-\*.parquet"):
        opened("docvqa", tmp_path).samples(1, 0)


def test_a_table_that_is_no_parquet_is_one_sentence(tmp_path: Path, opened: Opened) -> None:
    (tmp_path / "chartqa" / "data").mkdir(parents=True)
    (tmp_path / "chartqa" / "data" / shard("test")).write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"the table at .*chartqa cannot be read"):
        opened("chartqa", tmp_path).samples(1, 0)


def test_videos_in_a_table_without_its_files_send_to_fetch(opened: Opened) -> None:
    with pytest.raises(ValueError, match=r"bring the set first with `python -m effivlm fetch videomme_all` \(95 GB\)"):
        opened("videomme_all", "").samples(1, 0)


SOURCE = Source(homes=("a/b",), split="test", columns={}, licence="")


def test_what_was_loaded_first_is_compared_with_later() -> None:
    check_ids("toy", SOURCE, ["1", "2", "3"], "here")
    check_ids("toy", SOURCE, ["3", "2", "1"], "elsewhere")
    record = data_home() / "seen" / "toy.json"
    assert json.loads(record.read_text())["samples"] == 3
    with pytest.raises(
        ValueError, match=r"holds 2 samples where 3 were known, others than the one loaded on .* from here"
    ):
        check_ids("toy", SOURCE, ["1", "2"], "elsewhere")
    with pytest.raises(ValueError, match=r"holds other samples than the one loaded on .* delete .*toy.json"):
        check_ids("toy", SOURCE, ["1", "2", "4"], "elsewhere")
    record.unlink()
    check_ids("toy", SOURCE, ["1", "2", "4"], "elsewhere")


def test_a_declared_hash_decides_and_doubled_ids_are_refused() -> None:
    known = replace(SOURCE, ids_sha256=ids_hash(["b", "a"]))
    check_ids("toy", known, ["a", "b"], "here")
    assert not (data_home() / "seen").exists()
    with pytest.raises(ValueError, match="than declared"):
        check_ids("toy", known, ["a", "c"], "here")
    with pytest.raises(ValueError, match="holds the id 'a' twice"):
        check_ids("toy", SOURCE, ["a", "b", "a"], "here")


@pytest.mark.parametrize(
    ("kind", "found", "right"),
    [
        *[("text", "text", True), ("text|int", "int", True), ("float", "int", True), ("int", "float", False)],
        *[("[text]", "[text]", True), ("[text]", "text", False), ("text", "[text]", False), ("[any]", "[text]", True)],
        *[("text?", "null", True), ("text", "null", False), ("[float]", "[int]", True), ("image", "any", False)],
    ],
)
def test_types_of_columns(kind: str, found: str, right: bool) -> None:
    assert suits(kind, found) is right


KEYS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=1, max_size=60).map(
    lambda pairs: [(f"g{group}", f"s{group % 3}") for group, _ in pairs]
)


@given(KEYS, st.integers(1, 80), st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_a_subset_holds_whole_groups_and_every_stratum(keys: list[tuple[str, str]], limit: int, seed: int) -> None:
    taken = subset(keys, limit, seed)
    assert len(set(taken)) == len(taken) >= min(limit, len(keys))
    groups = {keys[place][0] for place in taken}
    assert sorted(taken) == [place for place, (group, _) in enumerate(keys) if group in groups]
    assert {keys[place][1] for place in taken} == {stratum for _, stratum in keys}
    longer = subset(keys, limit + 7, seed)
    assert longer[: len(taken)] == taken
    assert subset(list(keys), limit, seed) == taken
    counts = Counter(stratum for _, stratum in {keys[place] for place in taken})
    total = Counter(stratum for _, stratum in set(keys))
    assert all(counts[one] in (total[one], max(counts.values())) for one in total), "strata take turns"


def test_another_seed_draws_another_subset() -> None:
    keys = [(str(number), "") for number in range(1000)]
    assert len(set(subset(keys, 100, 0)) & set(subset(keys, 100, 1))) < 30
    with pytest.raises(ValueError, match="lies in 'a' and in 'b'"):
        subset([("g", "a"), ("g", "b")], 1, 0)


@given(st.integers(0, 5000), st.integers(1, 64))
def test_frames_are_spread_from_the_first_to_the_last(total: int, count: int) -> None:
    places = spread(total, count)
    assert places == sorted(set(places))
    assert len(places) == min(total, count)
    assert not places or (places[0] == 0 and (places[-1] == total - 1 or count == 1))


@pytest.mark.parametrize("rate", [1, 30])
def test_a_frame_is_the_one_of_its_time_also_after_a_jump(rate: int, tmp_path: Path) -> None:
    frames = 400 if rate == 30 else 60
    (tmp_path / "a.mp4").write_bytes(video(frames, rate))
    found = clip(["a.mp4"], tmp_path, 5)
    wanted = [place / rate for place in spread(frames, 5)]
    assert found.times_s == pytest.approx(wanted, abs=0.6 / rate)
    levels = [frame.getpixel((10, 10))[0] for frame in found.frames]
    assert levels == pytest.approx([20 + place * 200 // frames for place in spread(frames, 5)], abs=6)
    assert found.fps == pytest.approx(4 / (wanted[-1] - wanted[0]), rel=0.02)


def test_videos_that_are_missing_or_torn_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the video a.mp4 is neither under .* nor in a zip file there"):
        clip(["a.mp4"], tmp_path, 4)
    (tmp_path / "b.mp4").write_bytes(video()[:300])
    with pytest.raises(ValueError, match=r"b.mp4 cannot be decoded"):
        clip(["b.mp4"], tmp_path, 4)


def test_a_picture_may_be_bytes_a_path_or_decoded(tmp_path: Path) -> None:
    file = BytesIO()
    picture(7).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    forms = [
        picture(7),
        file.getvalue(),
        "a.png",
        {"bytes": file.getvalue(), "path": None},
        {"bytes": None, "path": "a.png"},
    ]
    assert [decoded(form, tmp_path).getpixel((0, 0)) for form in forms] == [(7, 80, 160)] * 5
    with pytest.raises(ValueError, match=r"b.png is missing"):
        decoded("b.png", tmp_path)


class Slow:
    """Items that say when they are made and by whom."""

    def __init__(self, size: int) -> None:
        self.size, self.made = size, list[int]()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, number: int) -> int:
        time.sleep(0.002)
        self.made.append(number)
        if number == 3:
            raise IndexError("torn")
        return number * 10


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "mpo"])
def test_a_picture_of_several_frames_holds_no_file_open(kind: str, tmp_path: Path) -> None:
    first, *others = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue", "green"))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=others)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = decoded(f"a.{kind}", tmp_path)
        red, _, blue = found.convert("RGB").getpixel((4, 3))
        del found
        gc.collect()
    assert red > 200 > blue
    assert [one for one in told if one.category is ResourceWarning] == []


def test_items_are_made_ahead_in_order_with_their_own_errors_and_few_at_a_time() -> None:
    slow = Slow(12)
    got: list[object] = []
    with ahead(slow, depth=3) as ready:  # type: ignore[arg-type]
        assert isinstance(ready, Ahead)
        for number in range(len(ready)):
            try:
                got.append(ready[number])
            except IndexError as error:
                got.append(str(error))
            assert max(slow.made) <= number + 3
    assert got == [0, 10, 20, "torn", *range(40, 120, 10)]
    assert sorted(slow.made) == list(range(12)), "each is made once"
    assert not any(thread.name.startswith("samples") for thread in threading.enumerate())


def test_items_are_ready_while_the_asker_works() -> None:
    slow = Slow(12)
    with ahead(slow, depth=4) as ready:  # type: ignore[arg-type]
        assert ready[0] == 0
        deadline = time.monotonic() + 5
        while len(slow.made) < 5 and time.monotonic() < deadline:
            time.sleep(0.002)
        assert sorted(slow.made) == [0, 1, 2, 3, 4]
        assert ready[1:3] == [10, 20]
    with ahead(slow, depth=0) as plain:  # type: ignore[arg-type]
        assert plain is slow
