"""VQA accuracy of one answer: the score of TextVQA, VizWiz and VQAv2."""

from __future__ import annotations

from collections.abc import Sequence

from effivlm.metrics import normalise
from effivlm.metrics.profiles import FIXED, Profile, compat

AGREEING = 3


def vqa_accuracy(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """Share of people who gave this answer, full from three on, as visualqa.org/evaluation defines it (TextVQA, VizWiz).

    Each person is left out in turn, and min(1, agreeing others / 3) is averaged: of ten, agreeing 0, 1, 2, 3, 4 score 0, 0.3,
    0.6, 0.9, 1. All answers are normalised by `normalise.evalai`, so an article alone is the empty answer. Both profiles do
    this. Raises ValueError without references.
    """
    compat(profile)
    forms = {reference: normalise.evalai(reference) for reference in set(references)}  # people often say the same
    return _agreement(normalise.evalai(prediction), [forms[reference] for reference in references])


def vqav2_accuracy(prediction: str, references: Sequence[str], profile: Profile = FIXED) -> float:
    """VQA accuracy for VQAv2: that of `vqa_accuracy`, but the fork has the quirk of the challenge's own script.

    `compat` leaves people's answers as they are where all of them gave the same (so ten "Yes" make "yes" wrong), and elsewhere
    treats their commas and "'s" by the rule of punctuation alone. Raises ValueError without references.
    """
    if not compat(profile):
        return vqa_accuracy(prediction, references)
    answer = normalise.evalai(prediction)
    people = [reference.replace("\n", " ").replace("\t", " ").strip() for reference in references]
    if len(set(people)) > 1:
        forms = {person: normalise.evalai_words(normalise.punctuation(person)) for person in set(people)}
        people = [forms[person] for person in people]
        answer = normalise.evalai_words(normalise.punctuation(answer))
    return _agreement(answer, people)


def unanswerable(text: str) -> bool:
    """Whether an answer says that the picture does not tell: "unanswerable", which VizWiz asks for and counts as an answer."""
    return normalise.evalai(text) == "unanswerable"


def _agreement(answer: str, people: Sequence[str]) -> float:
    if not people:
        raise ValueError("VQA accuracy needs the answers of people, got none")
    agree = [person == answer for person in people]
    return sum(min(1.0, (sum(agree) - one) / AGREEING) for one in agree) / len(agree)
