"""Observation 1: what compression costs depends on the task, and at 1 % most of it goes; where pruning is done matters there."""

from __future__ import annotations

import numpy as np

from bench_tests.studies.observations import paper
from bench_tests.studies.observations.effects import Claim, Effect
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import (
    BUDGETS,
    COARSE,
    DECODER,
    ENCODER,
    FINE,
    LONG,
    LOWEST,
    TOKENS,
    at,
)

GROUP = "Observation 1: token compression depends on the task, and degrades sharply at 1 %"
FLOOR = (
    "A micro page has a tenth of the visual tokens that LLaVA-OneVision-7B makes of one, so a budget leaves a tenth as many:"
    " the fall begins earlier here, and where all methods are at the floor nothing can be told apart."
)
HALVINGS = {("0.40", "0.20"): 1.0, ("0.05", "0.01"): float(np.log2(5))}


def fall(evidence: Evidence) -> Effect:
    """Loss for each halving of the budget: between 5 % and 1 % less between 40 % and 20 %."""
    book = evidence.scores
    pairs = book.pairs(at(TOKENS, BUDGETS))
    kept = {label: book.over(pairs, at(TOKENS, label)) for label in BUDGETS}
    high, low = ((kept[a] - kept[b]) / halvings for (a, b), halvings in HALVINGS.items())
    found = low - high
    units = book.units(pairs, at(TOKENS, BUDGETS))
    return Effect(float(found[0]), found[1:], units, units, f"{len(pairs)} (model, task) pairs")


def _lost(evidence: Evidence, tasks: tuple[str, ...], others: tuple[str, ...]) -> Effect:
    """Share of dense's score that is lost at 1 % on some tasks, less that on others."""
    book, dense = evidence.scores, ("dense", "1.00")
    sides, every = [], []
    for of in (tasks, others):
        pairs = book.pairs([*at(TOKENS, LOWEST), dense], of)
        every += pairs
        sides.append(1 - book.over(pairs, at(TOKENS, LOWEST)) / book.over(pairs, [dense]))
    found = sides[0] - sides[1]
    units = book.units(every, at(TOKENS, LOWEST))
    return Effect(float(found[0]), found[1:], units, units, f"{len(every)} (model, task) pairs")


def fine(evidence: Evidence) -> Effect:
    return _lost(evidence, FINE, COARSE)


def long(evidence: Evidence) -> Effect:
    return _lost(evidence, LONG, COARSE)


def encoder(evidence: Evidence) -> Effect:
    return evidence.scores.contrast(at(ENCODER, LOWEST), at(DECODER, LOWEST))


def encoder_effivlm(evidence: Evidence) -> Effect:
    return evidence.scores.contrast(
        at([f"{name}@effivlm" for name in ENCODER], LOWEST), at([f"{name}@effivlm" for name in DECODER], LOWEST)
    )


def encoder_ten(evidence: Evidence) -> Effect:
    return evidence.scores.contrast(at(ENCODER, "0.10"), at(DECODER, "0.10"))


CLAIMS = (
    Claim(
        "1.1 sharp fall",
        GROUP,
        "Token compression is stable at high budgets and falls sharply at the lowest: a halving costs more between 5 % and 1 %"
        " than between 40 % and 20 %.",
        "score lost by each halving of the budget from 5 % to 1 %, less that from 40 % to 20 %, over the paper's nine methods",
        fall,
        FLOOR,
    ),
    Claim(
        "1.2 fine detail",
        GROUP,
        "At 1 % tasks that need fine visual detail lose more than others.",
        "share of dense's score lost at 1 %: reading of pages, charts, signs and words, less what and where, options, yes or no",
        fine,
        "Answers by chance are right more often on the coarse tasks, in micro models as in large ones, so part of the difference"
        " is guessing.",
    ),
    Claim(
        "1.3 long output",
        GROUP,
        "At 1 % tasks with long outputs lose more than others.",
        "share of dense's score lost at 1 %: describing a whole picture, less what and where, options and yes or no",
        long,
        "One task only has long outputs here, of some hundred characters.",
    ),
    Claim(
        "1.4 encoder at 1 %",
        GROUP,
        "At 1 % pruning in the vision encoder (VisionZip, PruMerge+) beats pruning in the decoder (FastV).",
        "score of visionzip and prumerge_plus less that of fastv, at 1 %",
        encoder,
        FLOOR,
        paper.contrast(at(ENCODER, LOWEST), at(DECODER, LOWEST)),
    ),
    Claim(
        "1.5 encoder at 1 %, the paper's variants",
        GROUP,
        "In the variants of the paper's code, too, pruning in the vision encoder beats pruning in the decoder at 1 %.",
        "as above, presets effivlm",
        encoder_effivlm,
        FLOOR,
        paper.contrast(at(ENCODER, LOWEST), at(DECODER, LOWEST)),
    ),
    Claim(
        "1.6 encoder at 10 %",
        GROUP,
        "At 10 % pruning in the vision encoder beats pruning in the decoder.",
        "as above, at 10 %",
        encoder_ten,
        "Two decoder layers of eight come before FastV's cut here, two of 28 in the paper.",
        paper.contrast(at(ENCODER, "0.10"), at(DECODER, "0.10")),
    ),
)
