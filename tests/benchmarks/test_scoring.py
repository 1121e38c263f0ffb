"""How benchmarks score: by their official scorer in both profiles, what counts as invalid, and what they report by part."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from published_sets import NAMES, Opened

from effivlm import registry
from effivlm.metrics import choice
from effivlm.metrics.categories import means
from effivlm.metrics.mme import mme_categories
from effivlm.metrics.mvbench import mvbench_accuracy
from effivlm.records import Answer, Sample
from effivlm.run.scoring import overall, reported, settled
from effivlm.tasks._benchmark import Benchmark, Choice

PACKAGE = Path(registry.__file__).parent
CHOICES = [name for name in NAMES if issubclass(registry.load("tasks", name), Choice)]
ODD = (
    *("A", "b", "(C)", "D.", " The answer is (B).", "answer: c", "Answer: B", "B or C", "neither A nor B", "not B"),
    *(
        "",
        " ",
        "\n",
        "A.\nB.",
        "Ａ",
        "the left",
        "both",
        "A dog sits",
        "I think so",
        "a. leaf",
        "root",
        "Because C",
        "é",
        "\ud83d",
    ),
    *("**B**", "option D", "B) b1", "E", "Z", "C and only C", "B is wrong, so A", "snow", "fog."),
)

# Of one answer to the first question of a set: right by the rule that is meant, right as the paper's code has it.
DIFFER = [
    ("ai2d", "The answer is (A).", 1.0, 0.0),
    ("egoschema", "(A) or no, the answer is E", 1.0, 0.0),
    ("longvideobench", "Based on it, D", 1.0, 0.0),
    ("mathvista", "1.2", 1.0, 0.0),
    ("mlvu", "Answer: D", 1.0, 0.0),
    ("mmbench_en", "The answer is **A**", 1.0, 0.0),
    ("mmmu", "The answer is A or B, so B", 0.0, 1.0),
    ("mmstar", "Surely A", 1.0, 0.0),
    ("mvbench", "B and A", 0.0, 1.0),
    ("ocrbench", "W1", 1.0, 0.0),
    ("pope", "Yes, there is.", 1.0, 0.0),
    ("realworldqa", "Answer: B", 1.0, 0.0),
    ("refcoco", "(260,250),(750,750)", 1.0, 0.0),
    ("scienceqa", "A. Iowa", 1.0, 0.0),
    ("seed_image", "(A)", 1.0, 0.0),
    ("videomme_all", "Answer: C", 1.0, 0.0),
    ("vqa2", "yes.", 1.0, 1.0),
]
FIRST = {
    "mathvista": "2",
    "mmbench_en": "3-0",
    "mmmu": "validation_Art_1",
    "ocrbench": "000001",
    "realworldqa": "000000",
    "pope": "COCO_val2014_000000000000-0",
    "mmstar": "0",
    "seed_image": "p0-0",
    "scienceqa": "000000",
    "ai2d": "000000",
}
EQUAL = ("docvqa", "infovqa", "chartqa", "textvqa", "vizwiz", "gqa", "mpdoc", "mme_image")


def first(task: Benchmark, name: str) -> Sample:
    return next(one for one in task.samples(10**6, 0) if one.id.startswith(FIRST.get(name, "")))


def said(task: Benchmark, texts: Sequence[str] | None = None, right: Sequence[bool] | None = None) -> list[Answer]:
    """Answers to all questions of a set, in order: given texts, or the first reference where `right`, else nothing."""
    found = []
    for number, one in enumerate(task.samples(10**6, 0)):
        text = texts[number] if texts else one.references[0] if right is None or right[number] else "?"
        answer = Answer(one.id, one.prompt_sha256, text, task.read(text, one), task.score(text, one))
        found.append(replace(answer, invalid=task.invalid(text, one)))
    return settled(found, task)


@pytest.mark.parametrize("name", CHOICES)
def test_a_choice_is_right_if_it_names_the_option_and_invalid_if_it_names_none(name: str, opened: Opened) -> None:
    task = opened(name)
    for sample in list(task.samples(10**6, 0))[:3]:
        options = sample.facts["options"]
        for text in (*ODD, *options.values()):
            found = choice.letter(text, options=options)
            assert task.score(text, sample) == float(found == sample.references[0]), (text, sample.id)
            assert task.read(text, sample) == (found or ""), text
            assert task.invalid(text, sample) == (found is None), text


@pytest.mark.parametrize(("name", "text", "fixed", "compat"), DIFFER)
def test_a_task_scores_as_the_papers_code_where_that_is_asked(
    name: str, text: str, fixed: float, compat: float, opened: Opened
) -> None:
    task = opened(name)
    sample = first(task, name)
    assert task.score(text, sample) == fixed
    task.profile = "compat"
    assert task.score(text, sample) == compat


def test_every_task_knows_both_profiles_or_has_none_to_know(opened: Opened) -> None:
    """What the paper's code does is known for every benchmark but those whose judges are gone, a server's, and our own proxy."""
    without = {name for name in NAMES if registry.load("tasks", name).profiles == ("fixed",)}
    assert without == {"docserver", "imagedc", "llava_wilder", "mmvet", "mmvet_proxy", "moviechat"}
    told = {name for name, *_ in DIFFER} | set(EQUAL) | {"mmbench_cn", "videomme_short"}
    assert told == set(NAMES) - without


@pytest.mark.parametrize("name", EQUAL)
def test_where_both_profiles_do_the_same_the_scores_are_the_same(name: str, opened: Opened) -> None:
    tasks = [opened(name), opened(name)]
    tasks[1].profile = "compat"
    for sample in list(tasks[0].samples(10**6, 0))[:2]:
        scores = [[task.score(text, sample) for text in (*ODD, *sample.references)] for task in tasks]
        assert scores[0] == scores[1]
        assert max(scores[0]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("name", "text", "invalid"),
    [
        *[("mme_image", "I think yes", True), ("mme_image", "No, it is not", False), ("pope", "maybe", True)],
        *[("pope", "No", False), ("refcoco", "on the left", True), ("refcoco", "[0, 0, 1, 1]", False)],
        *[("mathvista", "who knows", True), ("mathvista", "it is 7.5", False), ("docvqa", " ", True)],
        *[("docvqa", "wrong", False), ("chartqa", "twelve", True), ("chartqa", "12", False), ("mlvu", "A or B", True)],
        *[("mlvu", "(B)", False), ("realworldqa", "a car", True), ("mmmu", "a dog", True), ("mmvet", "", True)],
        *[("imagedc", "A cat.", False), ("gqa", "it cannot be told", False)],
    ],
)
def test_an_answer_is_invalid_where_it_says_nothing_that_can_be_scored(
    name: str, text: str, invalid: bool, opened: Opened
) -> None:
    task = opened(name)
    sample = first(task, name)
    assert task.invalid(text, sample) is invalid
    task.profile = "compat"
    assert task.invalid(text, sample) is invalid, "what is counted does not depend on the profile"


def test_a_question_for_a_number_or_for_a_word_decides_what_says_nothing(opened: Opened) -> None:
    task = opened("realworldqa")
    count = next(one for one in task.samples(10**6, 0) if one.references == ("2",))
    assert not task.invalid("a car", count), "no letter was asked for"
    chart = opened("chartqa")
    sample = first(chart, "chartqa")
    assert not chart.invalid("blue", replace(sample, references=("red",)))
    assert chart.invalid("blue", replace(sample, references=("12.5",)))


def test_mme_reports_perception_and_cognition_as_the_official_sum_has_them(opened: Opened) -> None:
    task = opened("mme_image")
    ids = [one.id for one in task.samples(10**6, 0)]
    right = [number % 3 > 0 for number in range(len(ids))]
    answers = said(task, right=right)
    official = mme_categories(
        [float(one) for one in right], [one.rpartition("-")[0] for one in ids], [one.partition("/")[0] for one in ids]
    )
    found = reported(answers, task)
    shown = {name: one.score * one.scale for name, one in found.items()}
    assert shown == pytest.approx(
        {"perception": official["OCR"] + official["count"], "cognition": official["code_reasoning"]}
    )
    assert {name: one.scale for name, one in found.items()} == {"perception": 400.0, "cognition": 200.0}
    assert overall(answers, task) * 600 == pytest.approx(sum(shown.values()))


def test_parts_are_those_that_benchmarks_report(opened: Opened) -> None:
    hits = opened("ocrbench")
    answers = said(hits, right=[True, False, True, True])
    (kind,) = reported(answers, hits).values()
    assert kind.score * kind.scale == sum(one.score or 0.0 for one in answers) == 3
    chart = opened("chartqa")
    answers = said(chart, right=[True, True, True, False, True, False])
    parts = {name: one.score for name, one in reported(answers, chart).items()}
    assert parts == means([one.score or 0.0 for one in answers], [one.part.removesuffix("_test") for one in answers])
    assert set(parts) == {"human", "augmented"}
    subjects = opened("mmmu")
    assert {one.part for one in said(subjects)} == {"Art", "Math", "Bio"}
    assert set(reported(said(subjects), subjects)) == {"Art and Design", "Science", "Bio"}
    lengths = opened("videomme_all")
    assert set(reported(said(lengths), lengths)) == {"short", "medium", "long"}
    assert reported(said(opened("videomme_short")), opened("videomme_short")) == {}


def test_pope_and_mpdocvqa_report_their_other_figures(opened: Opened) -> None:
    task = opened("pope")
    wanted = [one.references[0] for one in task.samples(10**6, 0)]
    found = reported(said(task, texts=["yes"] * len(wanted)), task)
    assert (found["precision"].score, found["recall"].score, found["yes ratio"].score) == (0.5, 1.0, 1.0)
    assert found["F1"].score == pytest.approx(2 / 3)
    assert (found["popular"].score, found["popular"].of) == (0.5, ("popular",))
    pages = opened("mpdoc")
    near = [one.references[0] + "x" for one in pages.samples(10**6, 0)]
    assert overall(said(pages, texts=near), pages) > 0.5
    assert reported(said(pages, texts=near), pages)["accuracy"].score == 0.0
    asked = opened("vizwiz")
    assert reported(said(asked, texts=["x", "Unanswerable.", "y"]), asked)["says unanswerable"].score == pytest.approx(
        1 / 3
    )


def test_abilities_of_mm_vet_are_the_official_means(opened: Opened) -> None:
    task = opened("mmvet_proxy")
    answers = said(task, right=[True, False])
    parts = {name: one.score for name, one in reported(answers, task).items()}
    abilities = {ability for one in answers for ability in one.part.split(",")}
    assert len(abilities) > 1
    for ability in abilities:
        scores = [one.score or 0.0 for one in answers if ability in one.part.split(",")]
        assert parts.pop(ability) == sum(scores) / len(scores)
    assert not parts


def test_mvbench_leaves_empty_answers_out_as_the_papers_code_alone_does(opened: Opened) -> None:
    task = opened("mvbench")
    count = len(task.samples(10**6, 0))
    texts = ["B"] * (count - 1) + [" "]
    answers = said(task, texts=texts)
    assert overall(answers, task) == pytest.approx((count - 1) / count)
    task.profile = "compat"
    again = [replace(one, part="all") for one in answers]
    assert (
        overall(again, task)
        == mvbench_accuracy([one.score or 0.0 for one in again], [*texts[:-1], ""], "compat")
        == 1.0
    )


SCORED = {"prediction", "predictions", "reply", "replies", "rights", "marks", "profile"}
"""What a scorer is told: a parameter of one of these names makes a function of `metrics` one."""


def public(path: Path) -> Iterator[str]:
    """Functions that a file of `metrics` offers which give a score, a mark, a letter or an aggregate of a benchmark."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if SCORED & {one.arg for one in (*node.args.args, *node.args.kwonlyargs)}:
            yield node.name


# What no task calls by itself, and why it is public all the same.
BLOCKS = {
    "compat": "what a scorer asks of its profile",
    "mathvista_direct": "what the official code finds without a judge; mathvista_rule begins with it",
    "mathvista_normalised": "the first half of mathvista",
    "mmbench_questions": "which questions mmbench averages",
    "mme_categories": "what mme_total adds up",
    "nearest": "the best of several references, for all scorers",
    "mmvet_mark": "how mmvet_judged reads one reply",
}


def test_every_public_scorer_is_called_by_a_task_or_a_rubric_or_says_what_it_is_part_of() -> None:
    users = [*(PACKAGE / "tasks").glob("*.py"), PACKAGE / "judging" / "rubrics.py"]
    names = {
        node.id if isinstance(node, ast.Name) else node.attr
        for path in users
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name | ast.Attribute)
    }
    scorers = {name for path in (PACKAGE / "metrics").glob("*.py") for name in public(path)}
    assert len(scorers) > 30
    assert scorers - names - set(BLOCKS) == set(), "an unused scorer is another truth about its benchmark"
    assert set(BLOCKS) <= scorers
