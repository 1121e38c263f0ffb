"""Rules of single benchmarks that the shipped cases do not show: letters, contractions, boxes, figures, missing marks."""

from __future__ import annotations

import pytest

from effivlm.metrics import boxes, categories, mathvista, mmmu, mmvet, normalise
from effivlm.metrics.anls import anls
from effivlm.metrics.choice import letter, lettered
from effivlm.metrics.imagedc import imagedc_mark
from effivlm.metrics.mmbench import mmbench, mmbench_questions
from effivlm.metrics.mme import CATEGORY_SCALE, COGNITION, PERCEPTION, mme_total
from effivlm.metrics.moviechat import Verdict, moviechat_verdict
from effivlm.metrics.mvbench import mvbench_accuracy
from effivlm.metrics.pope import pope
from effivlm.metrics.scienceqa import scienceqa
from effivlm.metrics.seedbench import seedbench
from effivlm.metrics.videomme import longvideobench_letter, mlvu_letter, videomme_letter
from effivlm.metrics.vqa_accuracy import unanswerable, vqa_accuracy, vqav2_accuracy
from effivlm.metrics.wilder import wilder_marks, wilder_ratio

ANIMALS = {"A": "cat", "B": "dog", "C": "bird", "D": "fish"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("The correct answer is B. Option A shows a dog, which is not in the picture.", "B"),
        ("Option A shows a dog. The answer is B.", "B"),
        ("B is correct; A is a dog.", "B"),
        ("Answer: b", "B"),
        ("The answer is b.", "B"),
        ("The answer is (b) because of the tail", "B"),
        ("answer - c", "C"),
        ("I would choose option D.", "D"),
        ("The answer is option C", "C"),
        ("**Answer:** B", "B"),
        ("B\n\nExplanation: A is a cat.", "B"),
        ("The answer is B and A is wrong", "B"),
        ("Neither A nor B, so C", "C"),
        ("It is not A, it is B", "B"),
        ("The correct option is (C), not (A).", "C"),
        ("(A) is wrong, so (C)", "C"),
        ("the answer is a", "A"),
        ("It is A because the tail is long", "A"),
    ],
)
def test_the_letter_that_is_called_the_answer_is_found(text: str, named: str) -> None:
    assert letter(text, "ABCD") == named


@pytest.mark.parametrize(
    "text",
    [
        *("Neither A nor B", "Neither A, B, nor C", "The answer is not B", "A or B", "(A) or (B)", "A/B"),
        *("The answer is A or B.", "The answer is A, B", "both A and B", "Option A shows a cat. Option B shows a dog."),
        *(
            "the answer is a dog",
            "A dog and a tree",
            "Answer:",
            "B is wrong",
            "It can't be B",
            "I see it",
            "E",
            "None of A and B",
        ),
    ],
)
def test_a_denied_or_hedged_letter_is_none(text: str) -> None:
    assert letter(text, "ABCD") is None


def test_an_option_is_also_named_by_its_text_unless_it_is_denied() -> None:
    assert letter("It is a dog, I think", options=ANIMALS) == "B"
    assert letter("It isn't a dog but a cat", options=ANIMALS) == "A"
    assert letter("not a dog", options=ANIMALS) is None
    assert letter("y", options={"A": "x", "B": "y"}) == "B"
    assert lettered(["A. cat", "B. dog"]) == lettered(["cat", "dog"]) == {"A": "cat", "B": "dog"}
    assert lettered(["A. cat", "C. dog"]) == {"A": "A. cat", "B": "C. dog"}


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("im here", "im here"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("couldntve", "couldntve"),
        ("shes", "shes"),
        ("hes", "he's"),
        ("she's", "she 's"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("ow's'at x", "ow 's'at x"),
        ("its", "its"),
        ("Ive", "ive"),
        ("." * 33 + "x", ".x"),
    ],
)
def test_contractions_and_full_stops_follow_the_official_table(text: str, form: str) -> None:
    assert normalise.evalai(text) == form


def test_vqa_accuracy_of_contractions_is_that_of_the_official_table() -> None:
    assert vqa_accuracy("im here", ["i'm here"] * 10) == 0.0
    assert vqa_accuracy("couldnt've", ["couldn't've"] * 10) == 1.0
    assert vqav2_accuracy("yes", ["Yes"] * 10) == 1.0
    assert vqav2_accuracy("yes", ["Yes"] * 10, "compat") == 0.0
    assert unanswerable("Unanswerable.")
    assert not unanswerable("no answer")


def test_anls_divides_by_the_length_of_the_upper_cased_strings() -> None:
    assert anls("Weis", ["Weiß"]) == pytest.approx(1 - 1 / len("WEISS"))
    assert anls("İ", ["i"]) == 0.0  # two characters in small letters, one in capitals


def test_the_letters_of_long_videos_are_no_parts_of_words_unless_compat_asks() -> None:
    assert (videomme_letter("Based on it: C"), videomme_letter("Based on it: C", profile="compat")) == ("C", "B")
    assert mlvu_letter("B) a dog") == longvideobench_letter("B) a dog") == "B"
    assert longvideobench_letter("Best option: E", profile="compat") == "E"
    assert videomme_letter("Best option: D", profile="compat") == "B"
    assert longvideobench_letter("who knows", profile="compat") == ""


def test_the_first_character_counts_for_compat_alone() -> None:
    assert (scienceqa("B. dog", ["B"]), scienceqa("B. dog", ["B"], profile="compat")) == (1.0, 0.0)
    assert (seedbench("Answer: B", ["B"]), seedbench("Answer: B", ["A"], profile="compat")) == (1.0, 1.0)


def test_pope_counts_an_answer_without_yes_or_no_as_wrong_and_as_invalid() -> None:
    said, wanted = ["Yes, there is", "no", "maybe", "yes"], ["yes", "no", "yes", "no"]
    figures = pope(said, wanted)
    assert (figures.accuracy, figures.precision, figures.recall) == (0.5, 0.5, 0.5)
    assert (figures.f1, figures.yes_ratio, figures.invalid) == (0.5, 0.5, 1)
    official = pope(said, wanted, "compat")
    assert (official.accuracy, official.recall, official.yes_ratio, official.invalid) == (0.25, 0.0, 0.5, 2)
    with pytest.raises(ValueError, match="references yes or no"):
        pope(["yes"], ["maybe"])


@pytest.mark.parametrize(
    ("text", "coordinates", "size"),
    [
        ("[0.1, 0.2, 0.6, 0.7]", "unit", None),
        ("The box is [[100, 200, 600, 700]].", "thousand", None),
        ("(100,200),(600,700)", "thousand", None),
        ("100, 200, 600, 700", "thousand", None),
        ('{"bbox_2d": [60, 80, 10, 20]}', "pixels", (100.0, 100.0)),
        ("[64, 96, 384, 336]", "pixels", (640.0, 480.0)),
    ],
)
def test_a_box_is_read_in_the_coordinates_of_its_family(
    text: str, coordinates: boxes.Coordinates, size: tuple[float, float] | None
) -> None:
    box = boxes.parse_box(text, coordinates, size)
    wanted = boxes.Box(0.1, 0.2, 0.6, 0.8) if "bbox" in text else boxes.Box(0.1, 0.2, 0.6, 0.7)
    assert box is not None
    assert tuple(box) == pytest.approx(tuple(wanted))
    assert boxes.box_hit(text, wanted, coordinates, size) == 1.0
    assert boxes.box_hit(text, boxes.Box(0.5, 0.5, 1.0, 1.0), coordinates, size) == 0.0


def test_an_answer_without_a_box_is_invalid_and_unknown_coordinates_are_refused() -> None:
    assert boxes.parse_box("to the left") is None
    assert boxes.parse_box("to the left", profile="compat") == boxes.Box(0, 0, 0, 0)
    assert boxes.iou(boxes.Box(0, 0, 0.5, 1), boxes.Box(0, 0, 1, 1)) == 0.5
    assert boxes.iou(boxes.Box(0, 0, 0, 0), boxes.Box(0, 0, 0, 0)) == 0.0
    with pytest.raises(ValueError, match="'percent' are not one of unit, thousand, pixels"):
        boxes.parse_box("x", "percent")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width and height above 0, got None"):
        boxes.parse_box("x", "pixels")


CHOICE = mathvista.Problem("multi_choice", "text", ("3/11", "8/11", "6/11", "3/5"))
INTEGER = mathvista.Problem("free_form", "integer")
FLOAT = mathvista.Problem("free_form", "float", precision=2.0)
LIST = mathvista.Problem("free_form", "list")


@pytest.mark.parametrize(
    ("text", "problem", "extracted"),
    [
        ("We count 3 rows of 5. So the answer is 1,515 cm.", INTEGER, "1515"),
        ("x = 4, thus \\boxed{12}", INTEGER, "12"),
        ("12 plus 2.\nIn all there are $14.", INTEGER, "14"),
        ("The answer is \\frac{3}{4}.", FLOAT, "0.75"),
        ("Answer: -0.5", FLOAT, "-0.5"),
        ("Between [2007, 2008], no: [2010, 2012].", LIST, "[2010, 2012]"),
        ("The correct answer is (B) 8/11.", CHOICE, "B"),
        ("It must be 3/5", CHOICE, "D"),
        ("I cannot tell", INTEGER, ""),
        ("A or B", CHOICE, ""),
        ("", LIST, ""),
    ],
)
def test_mathvista_finds_an_answer_by_rule_or_says_that_there_is_none(
    text: str, problem: mathvista.Problem, extracted: str
) -> None:
    assert mathvista.mathvista_rule(text, problem) == extracted


def test_mathvista_compares_values_and_never_the_shortest_choice_with_a_blank() -> None:
    assert mathvista.mathvista("1.5", "1.50", FLOAT) == 1.0
    assert mathvista.mathvista("1.5", "1.5", FLOAT, "compat") == 0.0
    assert mathvista.mathvista("b", "8/11", CHOICE) == 1.0
    assert mathvista.mathvista("I do not know", "3/5", CHOICE) == 0.0
    assert mathvista.mathvista_normalised("8/1", CHOICE) == "8/11"
    assert mathvista.mathvista_normalised(" ", CHOICE) is None


def test_the_disciplines_of_mmmu_hold_its_thirty_subjects() -> None:
    assert (len(mmmu.DISCIPLINES), len(set(mmmu.DISCIPLINES.values()))) == (30, 6)
    assert mmmu.mmmu_invalid("dog or cat", ["cat", "dog"])
    assert not mmmu.mmmu_invalid("dog", ["cat", "dog"])
    assert mmmu.mmmu_invalid(" ")
    assert not mmmu.mmmu_invalid("12")


def test_a_failed_judge_is_missing_and_never_zero() -> None:
    assert wilder_marks("The first is better") is None
    assert wilder_marks("100 80") is None
    assert wilder_ratio([(10.0, 8.0), None]) == wilder_ratio([(10.0, 8.0)]) == 0.8
    assert wilder_ratio([None]) is None
    assert imagedc_mark("I cannot see it") is None
    assert imagedc_mark("Final Score: 8/10") is None
    assert imagedc_mark("the final score is **85.5**/100") == 85.5
    assert moviechat_verdict("yes, 4") is None
    assert moviechat_verdict("{'pred': 'yes', 'score': 7}") is None
    assert moviechat_verdict("yes, 4", "compat") == Verdict(right=False, mark=0)


@pytest.mark.parametrize(
    ("said", "gold", "abilities", "mark"),
    [
        ("x = -1 or x = 5", "-1 <AND> -5", "ocr,math", 0.5),
        ("It costs 1,000.0 dollars", "1000", "ocr", 1.0),
        ("hotdogs", "dog", "rec", 0.0),
        ("a cat", "dog<OR>cat", "rec", 1.0),
        ("the red dog sleeps", "a red big dog", "rec,gen", 0.5),
        ("", "dog", "rec", 0.0),
    ],
)
def test_the_proxy_of_mmvet_marks_elements_that_stand_in_the_answer(
    said: str, gold: str, abilities: str, mark: float
) -> None:
    assert mmvet.mmvet_proxy(said, gold, abilities) == pytest.approx(mark)


def test_scores_of_parts_are_means_or_means_of_means() -> None:
    scores, kinds = [1.0, 0.0, 1.0], ["human", "human", "augmented"]
    assert categories.means(scores, kinds) == {"human": 0.5, "augmented": 1.0}
    assert categories.mean_of_means(scores, kinds) == 0.75
    assert mvbench_accuracy([1.0, 0.0], ["A", ""]) == 0.5
    assert mvbench_accuracy([1.0, 0.0], ["A", ""], "compat") == 1.0
    with pytest.raises(ValueError, match="3 scores need as many categories, got 1"):
        categories.means(scores, ["human"])
    with pytest.raises(ValueError, match="at least one score"):
        categories.mean_of_means([], [])


def test_mme_gives_2800_to_one_who_is_always_right() -> None:
    names = [*PERCEPTION, *COGNITION]
    rights, kinds = [1.0] * 28, [name for name in names for _ in range(2)]
    assert mme_total(rights, kinds, kinds) == len(names) * CATEGORY_SCALE == 2800.0


def test_a_question_of_mmbench_is_right_if_all_of_its_rows_are() -> None:
    indices, rights = [1, 1_000_001, 2, 1_000_003], [1.0, 0.0, 1.0, 1.0]
    assert mmbench_questions(indices, rights) == {1: 0.0, 2: 1.0, 3: 1.0}
    assert mmbench_questions(indices, rights, "compat") == {1: 0.0, 2: 1.0}
    assert mmbench(indices, rights) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="each once, got 2"):
        mmbench([1, 1], [1.0, 1.0])
    with pytest.raises(ValueError, match="at least one question"):
        mmbench([], [])
