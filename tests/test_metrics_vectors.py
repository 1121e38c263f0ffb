"""Every scorer against cases that the paper's code was run on, in the profile that does as it does and in the fixed one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from effivlm.judging.rubrics import RUBRICS
from effivlm.metrics import categories, mathvista, mmmu, mmvet, normalise, wilder
from effivlm.metrics.ai2d import ai2d
from effivlm.metrics.anls import accuracy_pages, anls, anls_pages
from effivlm.metrics.contains import contains
from effivlm.metrics.egoschema import egoschema_index
from effivlm.metrics.exact import exact_match
from effivlm.metrics.imagedc import imagedc_mark
from effivlm.metrics.mmbench import mmbench, mmbench_letter
from effivlm.metrics.mme import mme_total, yes_no
from effivlm.metrics.mmstar import mmstar
from effivlm.metrics.moviechat import moviechat_verdict
from effivlm.metrics.mvbench import mvbench, mvbench_accuracy
from effivlm.metrics.profiles import Profile
from effivlm.metrics.realworldqa import realworldqa
from effivlm.metrics.relaxed import relaxed_accuracy
from effivlm.metrics.videomme import videomme_letter
from effivlm.metrics.vqa_accuracy import vqa_accuracy
from effivlm.tasks.mathvista import Mathvista

VECTORS = Path(__file__).parent / "data" / "vectors"
Case = Mapping[str, Any]


def mmstar_total(case: Case, profile: Profile) -> float:
    rows = case["meta"]["rows"]
    return categories.mean_of_means([row["score"] for row in rows], [row["l2_category"] for row in rows])


def mme_score(case: Case, profile: Profile) -> float:
    rows = case["meta"]["rows"]
    columns = ([row[key] for row in rows] for key in ("score", "question_id", "category"))
    return mme_total(*columns, profile=profile)


def circular_score(case: Case, profile: Profile) -> float:
    rows = case["meta"]["rows"]
    options = [{mark: row[mark] for mark in "ABCD"} for row in rows]
    found = [mmbench_letter(row["prediction"], own, profile) for row, own in zip(rows, options, strict=True)]
    rights = [float(mark == row["answer"]) for mark, row in zip(found, rows, strict=True)]
    return mmbench([row["index"] for row in rows], rights, profile)


def mmvet_score(case: Case, profile: Profile) -> float:
    total = RUBRICS["mmvet"].total([(row["score"],) for row in case["meta"]["rows"]])
    assert total is not None
    return 100 * total


def mvbench_score(case: Case, profile: Profile) -> float:
    rows = case["meta"]["rows"]
    return 100 * mvbench_accuracy([row["score"] for row in rows], [row["pred_answer"] for row in rows], profile)


def problem(case: Case) -> mathvista.Problem:
    meta = case["meta"]
    return mathvista.Problem(
        meta["question_type"], meta["answer_type"], meta.get("choices") or (), meta.get("precision")
    )


def extracted(case: Case, profile: Profile) -> str:
    """The vectors write <<JUDGE>> where a judge is asked."""
    quoted = case["meta"].get("quick", False)
    found = mathvista.mathvista_direct(case["pred"], problem(case), quoted, profile)
    return "<<JUDGE>>" if found is None else found


def drawn(found: str, gold: str) -> float | str:
    """The vectors write "random" where the official code draws an option; here no such answer names one."""
    return float(found == gold) if found else "random"


def placed(case: Case, profile: Profile) -> int | str:
    found = egoschema_index(case["pred"], case["meta"]["options"], profile)
    return "random" if found < 0 and profile == "compat" else found


def verdict(case: Case, profile: Profile) -> Mapping[str, float]:
    """A missing verdict is shown as the vectors' 0; that it is missing stands in a test of its own."""
    said = moviechat_verdict(case["pred"], profile)
    return {"score": said.mark if said else 0, "acc_counted": float(said.right) if said else 0.0}


def refs(scorer: Callable[..., float]) -> Callable[[Case, Profile], float]:
    return lambda case, profile: scorer(case["pred"], case["refs"], profile=profile)


SCORERS: Mapping[str, Callable[[Case, Profile], Any]] = {
    "ai2d": refs(ai2d),
    "anls_docvqa": refs(anls),
    "anls_mpdocvqa": lambda case, profile: {
        "anls": anls_pages(case["pred"], case["refs"], profile),
        "accuracy": accuracy_pages(case["pred"], case["refs"], profile),
    },
    "dc100_parse": lambda case, profile: _named(imagedc_mark(case["pred"], profile), "invalid"),
    "egoschema": placed,
    "evalai_normalize": lambda case, profile: normalise.evalai(case["pred"]),
    "exact_match_ci_nopunct": refs(exact_match),
    "mathvista": lambda case, profile: mathvista.mathvista(
        case["meta"]["extraction"], case["refs"][0], problem(case), profile
    ),
    "mathvista_extract": extracted,
    "mmbench_circular": circular_score,
    "mmbench_infer": lambda case, profile: mmbench_letter(case["pred"], case["meta"]["choices"], profile) or False,
    "mme_aggregate": mme_score,
    "mme_parse": lambda case, profile: yes_no(case["pred"], profile),
    "mmmu_mc": lambda case, profile: (
        drawn(mmmu.mmmu_letter(case["pred"], case["meta"]["options"], profile), case["refs"][0])
        if profile == "compat"
        else mmmu.mmmu_choice(case["pred"], case["refs"], case["meta"]["options"])
    ),
    "mmmu_open": refs(mmmu.mmmu_open),
    "mmstar": refs(mmstar),
    "mmstar_aggregate": mmstar_total,
    "mmvet_aggregate": mmvet_score,
    "mmvet_parse": lambda case, profile: _named(
        mmvet.mmvet_judged(case["meta"]["replies"], profile), "loops" if profile == "compat" else "invalid"
    ),
    "moviechat_parse": verdict,
    "mvbench": refs(mvbench),
    "mvbench_aggregate": mvbench_score,
    "ocrbench": lambda case, profile: contains(
        case["pred"], case["refs"], formula=case.get("meta", {}).get("dataset") == "HME100k", profile=profile
    ),
    "realworldqa": lambda case, profile: realworldqa(case["pred"], case["refs"], case["meta"]["question"], profile),
    "relaxed_accuracy": refs(relaxed_accuracy),
    "videomme_extract": lambda case, profile: videomme_letter(case["pred"], profile=profile),
    "vqa_accuracy": refs(vqa_accuracy),
    "wilder_aggregate": lambda case, profile: (
        100 * (wilder.wilder_ratio([(left, right) for left, right in case["meta"]["scores"]], profile) or 0.0)
    ),
    "wilder_parse": lambda case, profile: list(wilder.wilder_marks(case["pred"], profile) or wilder.FAILED),
}


def _named(value: float | None, missing: str) -> float | str:
    return missing if value is None else value


def cases(name: str) -> list[Case]:
    found: list[Case] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["vectors"]
    return found


def expected(case: Case, profile: Profile) -> Any:
    return case.get("expected_fixed", case["expected"]) if profile == "fixed" else case["expected"]


def test_every_file_of_vectors_has_its_scorer() -> None:
    assert {path.stem for path in VECTORS.glob("*.json")} == set(SCORERS) | {"mathvista_prompt"}


@pytest.mark.parametrize("profile", ["fixed", "compat"])
@pytest.mark.parametrize(
    ("name", "case"),
    [pytest.param(name, case, id=case["id"]) for name in SCORERS for case in cases(name) if case["expected"] != "EXC"],
)
def test_a_scorer_gives_what_the_official_code_gave_or_what_corrects_it(
    name: str, case: Case, profile: Profile
) -> None:
    wanted = expected(case, profile)
    found = SCORERS[name](case, profile)
    assert found == (wanted if isinstance(wanted, str) else pytest.approx(wanted, abs=1e-9)), case.get("note")


@pytest.mark.parametrize("profile", ["fixed", "compat"])
def test_a_picture_of_mme_without_its_second_question_is_refused(profile: Profile) -> None:
    (case,) = (case for case in cases("mme_aggregate") if case["expected"] == "EXC")
    with pytest.raises(ValueError, match="two questions about a picture, got 1 about 'i1'"):
        mme_score(case, profile)


@pytest.mark.parametrize(
    "case",
    [case for case in cases("mathvista_prompt") if case["meta"]["shot_type"] == "step-by-step"],
    ids=itemgetter("id"),
)
def test_mathvista_is_asked_in_the_official_words(case: Case) -> None:
    assert Mathvista().prompt(case["meta"]["problem"], None) == case["expected"]
