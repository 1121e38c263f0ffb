"""The insights about caches: how layers share one, whether heads choose for themselves, and what merging does."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench_tests.studies.observations import paper
from bench_tests.studies.observations.effects import MARGIN, Claim, Effect
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import LOW, LOWEST, at

LAYERS = "Insight: layer-adaptive budgets"
HEADS = "Insight: head-adaptive choice"
MERGING = "Insight: merging of evicted entries"
EIGHT = "Micro decoders have eight layers, the paper's 28 to 64: there is less to share out, and less to starve."
FEW_HEADS = "Micro models have two to four KV heads in eight layers."
SMALL = (
    "At 1 % a micro cache holds fewer entries than a question has words, so LOOK-M keeps text alone: the setting in which the"
    " paper saw harm, in the extreme."
)


def apart(plus: Sequence[str], minus: Sequence[str], budgets: Sequence[str] | str) -> Callable[[Evidence], Effect]:
    """The score of some methods less that of others at the same budgets."""

    def told(evidence: Evidence) -> Effect:
        return evidence.scores.contrast(at(plus, budgets), at(minus, budgets))

    return told


def claim(
    name: str,
    group: str,
    text: str,
    sides: tuple[Sequence[str], Sequence[str]],
    caveat: str,
    budgets: Sequence[str] | str = LOWEST,
    null: float = 0.0,
    bound: float = MARGIN,
    printed: Callable[[], float | None] | None = None,
) -> Claim:
    plus, minus = sides
    where = "1 %" if budgets == LOWEST else "1 to 10 %" if budgets == LOW else f"{float(str(budgets)):.0%}"
    measured = f"score of {' and '.join(plus)} less that of {' and '.join(minus)}, at {where}"
    printed = printed or paper.contrast(at(plus, budgets), at(minus, budgets))
    return Claim(name, group, text, measured, apart(plus, minus, budgets), caveat, printed, null, bound)


CLAIMS = (
    claim(
        "L1 named methods",
        LAYERS,
        "Layer-adaptive methods (PyramidKV, VL-Cache) do not beat the uniform SnapKV at 1 %.",
        (("snapkv",), ("pyramidkv", "vl_cache")),
        f"{EIGHT} The methods differ in windows and scores too.",
        null=-MARGIN,
        bound=0.0,
    ),
    claim(
        "L2 cake",
        LAYERS,
        "CAKE's preferences of layers do not beat the uniform SnapKV at 1 % either.",
        (("snapkv",), ("cake",)),
        EIGHT,
        null=-MARGIN,
        bound=0.0,
    ),
    claim(
        "L3 split alone",
        LAYERS,
        "With scores and window alike, splitting by a pyramid or by density does not beat an even split at 1 %.",
        (("layerwise@even",), ("layerwise@pyramid", "layerwise@density")),
        EIGHT,
        null=-MARGIN,
        bound=0.0,
    ),
    claim(
        "L4 split alone, 10 %",
        LAYERS,
        "With scores and window alike, splitting by a pyramid or by density does not beat an even split at 10 %.",
        (("layerwise@even",), ("layerwise@pyramid", "layerwise@density")),
        EIGHT,
        "0.10",
        null=-MARGIN,
        bound=0.0,
    ),
    claim(
        "L5 hybrid VL-Cache",
        LAYERS,
        "A hybrid of 80 % uniform and 20 % adaptive improves VL-Cache at 1 %.",
        (("vl_cache@hybrid",), ("vl_cache",)),
        EIGHT,
    ),
    claim(
        "L6 hybrid, 1 to 10 %",
        LAYERS,
        "With SnapKV's scores and window, the hybrid improves a split by density from 1 to 10 %.",
        (("layerwise@mixed",), ("layerwise@density",)),
        EIGHT,
        LOW,
    ),
    claim(
        "H1 own choice at 1 %",
        HEADS,
        "Heads that choose for themselves beat one choice for all at 1 % (H2O, SnapKV, VL-Cache).",
        (("snapkv", "h2o", "vl_cache"), ("shared_window", "shared_columns", "shared_question")),
        FEW_HEADS,
        printed=paper.heads,
    ),
    claim(
        "H2 own choice, 10 %",
        HEADS,
        "Heads that choose for themselves beat one choice for all at 10 % (H2O, SnapKV, VL-Cache).",
        (("snapkv", "h2o", "vl_cache"), ("shared_window", "shared_columns", "shared_question")),
        FEW_HEADS,
        "0.10",
    ),
    claim(
        "H3 own budgets",
        HEADS,
        "Budgets that differ from head to head (Ada-KV) beat SnapKV's equal ones at 1 %.",
        (("adakv",), ("snapkv",)),
        f"{FEW_HEADS} Both windows shrink to all but one entry at 1 %, so little is left to share out.",
    ),
    claim(
        "H4 own budgets, 10 %",
        HEADS,
        "Budgets that differ from head to head (Ada-KV) beat SnapKV's equal ones at 10 %.",
        (("adakv",), ("snapkv",)),
        FEW_HEADS,
        "0.10",
    ),
    claim(
        "M1 across hurts",
        MERGING,
        "Merging across modalities hurts at 1 %: LOOK-M without merging beats LOOK-M.",
        (("folding@nothing",), ("folding@across",)),
        SMALL,
    ),
    claim(
        "M2 within beats across",
        MERGING,
        "Merging within each modality beats merging across them at 1 %.",
        (("folding@within",), ("folding@across",)),
        SMALL,
    ),
    claim(
        "M3 within beats nothing",
        MERGING,
        "Merging within each modality recovers information: it beats merging nothing, from 1 to 10 %.",
        (("folding@within",), ("folding@nothing",)),
        SMALL,
        LOW,
    ),
    claim(
        "M4 across, no preference for text",
        MERGING,
        "Where text has no precedence, merging across modalities hurts from 1 to 10 %.",
        (("folding@plain_nothing",), ("folding@plain_across",)),
        "Entries of the two modalities are told apart by place; what a micro decoder has mixed by then is not known.",
        LOW,
    ),
    claim(
        "M5 within, no preference for text",
        MERGING,
        "Where text has no precedence, merging within each modality beats merging across them from 1 to 10 %.",
        (("folding@plain_within",), ("folding@plain_across",)),
        "Entries of the two modalities are told apart by place; what a micro decoder has mixed by then is not known.",
        LOW,
    ),
)
