"""Every benchmark over its set in the original schema: samples, prompts, groups, subsets, and a whole run with a twin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from published_files import VIDEO_FPS, VIDEO_FRAMES
from published_sets import NAMES, Opened

from effivlm import registry
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import SCORINGS, Cell, Outcome, Settings, dump
from effivlm.run.group import open_model, run_group
from effivlm.run.scoring import HANDED_IN, WAITS
from effivlm.tasks._benchmark import Benchmark

SNAPSHOTS = Path(__file__).parent.parent / "data" / "benchmark_prompts.json"
FAMILIES = ("llava_onevision", "qwen2_vl", "internvl2_5")
every_benchmark = pytest.mark.parametrize("name", NAMES)


def test_every_benchmark_has_a_set_in_its_schema() -> None:
    assert [name for name in registry.names("tasks") if not name.endswith("_micro")] == NAMES


@every_benchmark
def test_a_benchmark_says_where_it_comes_from_and_what_its_score_means(name: str) -> None:
    kind = registry.load("tasks", name)
    text = " ".join((kind.__doc__ or "").split())
    assert issubclass(kind, Benchmark)
    assert kind.source.licence
    assert kind.source.split
    assert kind.scoring in SCORINGS
    assert re.fullmatch(r"main|video|[0-9a-f]{40}", kind.source.revision), "a branch, or a commit in full"
    assert set(kind.index) <= set(kind.source.columns)
    assert not set(kind.index) & set(kind.source.pictures), "the index would read every picture"
    for word in ("arXiv", "icence"):
        assert word in text or name in ("llava_wilder", "imagedc", "realworldqa"), (name, word)
    assert set(kind.dense) in (set(), set(FAMILIES))
    assert all(0 <= value <= kind.scale for value in kind.dense.values())
    assert bool(kind.dense) <= (kind.comparable != "not in the paper")


@every_benchmark
def test_prompts_are_those_of_the_snapshot_for_every_family(name: str, opened: Opened) -> None:
    expected = json.loads(SNAPSHOTS.read_text(encoding="utf-8"))[name]
    for family in FAMILIES:
        samples = list(opened(name, family=family).samples(10**6, 0))
        found = {one.id: [one.prompt, list(one.references), len(one.images), len(one.video)] for one in samples}
        assert found == {one: [*facts[:3], facts[3][family]] for one, facts in expected.items()}, family


@every_benchmark
def test_a_subset_keeps_groups_whole_and_is_the_same_for_every_family(name: str, opened: Opened) -> None:
    every = [one.id for one in opened(name).samples(10**6, 3)]
    for limit in (1, 3):
        ids = [[one.id for one in opened(name, family=family).samples(limit, 3)] for family in FAMILIES[:2]]
        assert ids[0] == ids[1] == every[: len(ids[0])]
        assert len(ids[0]) >= min(limit, len(every))
        if registry.load("tasks", name).group > 1:
            left = {one.rpartition("-")[0] for one in every[len(ids[0]) :]}
            assert not left & {one.rpartition("-")[0] for one in ids[0]}


def test_pictures_and_frames_are_those_of_the_row(opened: Opened) -> None:
    reds = {one.id: one.images[0].getpixel((0, 0))[0] for one in opened("docvqa").samples(10, 0)}
    assert reds == {f"{7 + n // 2}-{100 + n}": n for n in range(6)}
    joined = {one.id: one.images[0].getpixel((0, 0))[0] for one in opened("gqa").samples(10, 0)}
    assert {name.partition("-")[0]: red for name, red in joined.items()} == {"n0": 50, "n1": 51}
    pages = {one.id: [page.getpixel((0, 0))[0] for page in one.images] for one in opened("mpdoc").samples(10, 0)}
    assert pages == {"d0-0": [1], "d0-1": [11, 12], "d1-2": [21, 22, 23]}
    swapped = next(one for one in opened("mmmu").samples(10, 0) if one.id == "validation_Math_2")
    shown = [one if isinstance(one, str) else one.getpixel((0, 0))[0] for one in swapped.parts]  # type: ignore[union-attr]
    assert shown[:4] == ["From ", 3, " and ", 2]
    assert shown[4].startswith(", find x.")


def test_a_video_is_shown_from_its_first_to_its_last_frame_at_the_times_that_are_recorded(opened: Opened) -> None:
    sample = opened("videomme_all", family="internvl2_5").samples(1, 0)[0]
    levels = [frame.getpixel((30, 20))[0] for frame in sample.video]
    assert len(levels) == 8
    assert levels == sorted(levels)
    assert levels[0] < 30
    assert levels[-1] > 190
    times = sample.facts["times_s"]
    assert times[0] == 0.0
    assert times[-1] == pytest.approx((VIDEO_FRAMES - 1) / VIDEO_FPS, abs=0.01)
    assert all(
        level == pytest.approx(20 + round(second * VIDEO_FPS) * 200 // VIDEO_FRAMES, abs=6)
        for level, second in zip(levels, times, strict=True)
    )


def test_mme_is_the_sum_over_categories_of_accuracy_and_pairs(opened: Opened) -> None:
    task = opened("mme_image")
    samples = list(task.samples(10**6, 0))
    rights = [float(one.references == ("Yes",) or one.id.startswith("OCR/")) for one in samples]
    settled = task.settle([one.id for one in samples], rights)
    score = task.overall([one.id for one in samples], [value or 0.0 for value in settled])
    assert score * task.scale == pytest.approx((200 + 50 + 50) / 3 * 14)


def test_mmbench_is_the_share_of_questions_with_all_rotations_right(opened: Opened) -> None:
    task = opened("mmbench_en")
    samples = list(task.samples(10**6, 0))
    ids = [one.id for one in samples]
    settled = task.settle(ids, [float(one != "11-2") for one in ids])
    assert task.overall(ids, [value or 0.0 for value in settled]) == pytest.approx(2 / 3)
    partly = task.settle(ids, [None if one == "11-2" else 1.0 for one in ids])
    assert [one for one, value in zip(ids, partly, strict=True) if value is None] == [f"11-{n}" for n in range(4)]


@pytest.mark.parametrize(
    ("name", "torn", "fallen"),
    [("mmbench_en", "11-2", ["11-0", "11-1", "11-2", "11-3"]), ("docvqa", "7-101", ["7-101"])],
)
def test_a_picture_that_cannot_be_read_takes_along_what_is_scored_with_it(
    name: str,
    torn: str,
    fallen: list[str],
    model: Adapter,
    opened: Opened,
    mirror: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = type(opened(name))
    whole = kind.sample

    def sample(task: Benchmark, one: str, row: object, item: object = None) -> object:
        if one == torn:
            raise ValueError("the picture inside the table cannot be decoded")
        return whole(task, one, row, item)

    monkeypatch.setattr(kind, "sample", sample)
    monkeypatch.setattr(kind, "max_new_tokens", 2)
    (outcome,) = run_group([Cell("twin", "dense", "paper", "1.00", name)], model, Settings(limit=100, data=str(mirror)))
    assert outcome.broken == len(fallen)
    assert outcome.n == len(outcome.answers) - len(fallen)


@pytest.mark.parametrize(
    ("name", "text", "score"),
    [
        *[("ai2d", "The answer is (B).", 1.0), ("ai2d", "B or C", 0.0), ("ocrbench", "it says w1", 0.0)],
        *[("ocrbench", "it says W 1", 1.0), ("mathvista", "So the answer is 1.2", 1.0), ("mvbench", "(B) right", 1.0)],
        *[
            ("refcoco", "[0.26, 0.25, 0.75, 0.75]", 1.0),
            ("refcoco", "(260,250),(750,750)", 1.0),
            ("refcoco", "no", 0.0),
        ],
        *[
            ("mmmu", "x = 3.429", 1.0),
            ("realworldqa", "two", 1.0),
            ("pope", "Yes, there is.", 1.0),
            ("pope", "maybe", 0.0),
        ],
        *[("vqa2", "Yes", 1.0), ("docvqa", "value 1", 1.0), ("chartqa", "10.4", 1.0), ("gqa", "No.", 1.0)],
    ],
)
def test_an_answer_is_scored_by_the_official_rule(name: str, text: str, score: float, opened: Opened) -> None:
    wanted = {"ai2d": "000001", "ocrbench": "000001", "mathvista": "2", "mmmu": "validation_Math_2", "docvqa": "7-101"}
    wanted |= {"realworldqa": "000001", "chartqa": "000001", "pope": "COCO_val2014_000000000000-0"}
    task = opened(name)
    sample = next(one for one in task.samples(10**6, 0) if one.id.startswith(wanted.get(name, "")))
    assert task.score(text, sample) == score


@pytest.fixture(scope="module")
def model(twin: Path) -> Iterator[Adapter]:
    opened = open_model(resolve(f"twin={twin}"), Settings())
    yield opened
    opened.close()


@every_benchmark
def test_a_benchmark_runs_end_to_end(
    name: str, model: Adapter, opened: Opened, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(name)  # tells the class how few rows there are
    kind = registry.load("tasks", name)
    monkeypatch.setattr(kind, "max_new_tokens", 3)
    settings = Settings(limit=2, data=str(mirror))
    (outcome,) = run_group([Cell("twin", "dense", "paper", "1.00", name)], model, settings)
    later = WAITS if kind.rubric else f"{HANDED_IN} {kind.elsewhere}" if kind.elsewhere else ""
    waits = bool(later)
    assert (outcome.status, outcome.reason) == ("unsupported" if waits else "ok", later), outcome.reason
    assert outcome.broken == 0, outcome.remarks
    assert (outcome.score is None) == waits
    assert outcome.n >= (0 if waits else 2)
    assert len(outcome.answers) >= 2
    assert 0 <= (outcome.score or 0.0) <= 1
    assert outcome.samples_from == f"a folder of {kind.source.home}, which tells no commit"
    assert all(isinstance(answer.invalid, bool) for answer in outcome.answers)
    assert all(answer.visual_tokens > 0 or answer.id == "v1_1" for answer in outcome.answers)
    assert Outcome.from_json(json.loads(dump(outcome.to_json()))) == outcome
