"""Presses of kvpress that do not run at the cache seam, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping

_LATER = "it compresses while the answer is decoded, and budgets here count what stays of the prompt"
_AGAIN = "it runs the prompt through the model again to score it, and here one prefill serves all methods"
_FETCHED = "it needs weights or statistics that are downloaded for checkpoints of text models alone"
_RATIO = "what it keeps follows from a threshold, and no budget can be given to it"
_ABSTRACT = "it is the base of others and presses nothing itself"

REFUSED: Mapping[str, str] = {
    "BasePress": _ABSTRACT,
    "ScorerPress": _ABSTRACT,
    "CAMPress": _LATER,
    "CompressionRatioDecodingPress": _LATER,
    "DecodingPress": _LATER,
    "PrefillDecodingPress": _LATER,
    "KVComposePress": _AGAIN,
    "KVgradPress": _AGAIN,
    "KVzipPress": _AGAIN,
    "RestoreKVPress": _AGAIN,
    "DuoAttentionPress": _FETCHED,
    "ExpectedAttentionStatsPress": _FETCHED,
    "FastKVzipPress": _FETCHED,
    "KVzapPress": _FETCHED,
    "LUKVPress": _FETCHED,
    "QFilterPress": _FETCHED,
    "DMSPress": _RATIO,
    "SimLayerKVPress": _RATIO,
    "ComposedPress": "each of its presses has a ratio of its own, and a case has one budget: compose methods with + instead",
    "PerLayerCompressionPress": "its layers' ratios are given one by one, and a case has one budget",
    "ThinKPress": "it drops channels of keys, and budgets here count entries",
    "KeyRerotationPress": "it moves entries to other positions, and decoding here goes on at those of the prompt",
    "FinchPress": "it wants a delimiter token in the prompt, and moves entries to other positions",
}


def refusal(name: str) -> str:
    """Why a press cannot run here; "" where it can."""
    return REFUSED.get(name, "")
