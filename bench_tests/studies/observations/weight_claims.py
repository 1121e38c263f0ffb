"""Observation 5: parameter compression keeps more than token compression, quantization more than pruning, and both add up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from bench_tests.studies.observations import paper
from bench_tests.studies.observations.book import Book, Pair
from bench_tests.studies.observations.effects import MARGIN, Claim, Effect
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import BITS, BUDGETS, FOUR, HALF, TOKENS, ZEROS, at
from bench_tests.studies.observations.tally import DENSE, Setting
from effivlm.metrics.statistics import Floats

GROUP = "Observation 5: parameter compression keeps more than token compression, and both combine"
SMALL = (
    "A micro model has a thousandth of the weights of the paper's smallest, all of them trained for these tasks: it has less to"
    " spare than a large one, so what pruning of weights costs here is no forecast."
)
OWN = [*at(ZEROS, ("sparsity0.20", HALF, "2:4")), *at(BITS, FOUR)]
"""The paper's own settings of its five methods."""
WITH = ("visionzip", "fastv", "snapkv", "h2o")
"""Token methods that are composed with parameter compression."""
AT = ("0.10", "0.40")


def sides(plus: Sequence[Setting], minus: Sequence[Setting]) -> Callable[[Evidence], Effect]:
    def told(evidence: Evidence) -> Effect:
        return evidence.scores.contrast(plus, minus)

    return told


def together(name: str, label: str, token: str, budget: str) -> tuple[Setting, Setting, Setting]:
    """A composition, and its two sides alone."""
    return (f"{name}:{label}+{token}", budget), (name, label), (token, budget)


def _beyond(book: Book, pair: Pair, both: Setting, weights: Setting, tokens: Setting) -> Floats:
    kept, one, other = (book.at(pair, setting) / book.at(pair, DENSE) for setting in (both, weights, tokens))
    return kept - one * other


def beyond(weights: Sequence[tuple[str, str]]) -> Callable[[Evidence], Effect]:
    """Share of dense's score that a composition keeps, less the product of what each keeps: 0 where neither minds the other."""

    def told(evidence: Evidence) -> Effect:
        book, all_of = evidence.scores, [(name, label, *one) for name, label in weights for one in at(WITH, AT)]
        settings = [one for name, label, token, budget in all_of for one in together(name, label, token, budget)]
        pairs = book.pairs([*settings, DENSE])
        found = np.mean([_beyond(book, pair, *together(*one)) for pair in pairs for one in all_of], axis=0)
        units = book.units(pairs, settings)
        return Effect(float(found[0]), found[1:], units, units, f"{len(pairs)} (model, task) pairs")

    return told


CLAIMS = (
    Claim(
        "5.1 at their own budgets",
        GROUP,
        "Parameter compression keeps more than token compression, each at the budgets that the paper gave it.",
        "score of five methods at 20 %, 50 % and 2:4 sparsity and 4 bits, less that of nine token methods at five budgets",
        sides(OWN, at(TOKENS, BUDGETS)),
        f"{SMALL} The budgets are no common scale: at 1 % nothing of a picture is left, at 4 bits a quarter of the bytes.",
        paper.contrast(OWN, at(TOKENS, BUDGETS)),
    ),
    Claim(
        "5.2 half the weights against 40 % of the tokens",
        GROUP,
        "Even at 50 % sparsity parameter compression keeps more than token compression at its mildest.",
        "score of three pruning methods at 50 % sparsity, less that of nine token methods at 40 %",
        sides(at(ZEROS, HALF), at(TOKENS, "0.40")),
        SMALL,
        paper.contrast(at(ZEROS, HALF), at(TOKENS, "0.40")),
    ),
    Claim(
        "5.3 four bits against 40 % of the tokens",
        GROUP,
        "Quantization to 4 bits keeps more than token compression at its mildest.",
        "score of awq and gptq at 4 bits, less that of nine token methods at 40 %",
        sides(at(BITS, FOUR), at(TOKENS, "0.40")),
        SMALL,
        paper.contrast(at(BITS, FOUR), at(TOKENS, "0.40")),
    ),
    Claim(
        "5.4 quantization against pruning",
        GROUP,
        "Quantization keeps more than pruning.",
        "score of awq and gptq at 4 bits, less that of wanda, sparsegpt and ecoflap at 50 % and 2:4",
        sides(at(BITS, FOUR), at(ZEROS, (HALF, "2:4"))),
        SMALL,
        paper.contrast(at(BITS, FOUR), at(ZEROS, (HALF, "2:4"))),
    ),
    Claim(
        "5.5 four bits and tokens combine",
        GROUP,
        "Quantization and token compression are orthogonal: together they keep no less than the product of what each keeps.",
        f"share of dense's score with awq and {', '.join(WITH)} at 10 and 40 %, less the product of both shares; above -1 point",
        beyond([("awq", FOUR)]),
        SMALL,
        null=-MARGIN,
        bound=0.0,
    ),
    Claim(
        "5.6 half the weights and tokens combine",
        GROUP,
        "Pruning of weights and tokens are orthogonal: together they keep no less than the product of what each keeps.",
        f"share of dense's score with wanda at 50 % and {', '.join(WITH)} at 10 and 40 %, less the product; above -1 point",
        beyond([("wanda", HALF)]),
        SMALL,
        null=-MARGIN,
        bound=0.0,
    ),
)
