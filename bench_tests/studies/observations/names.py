"""Groups of methods, tasks and budgets that claims speak of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bench_tests.studies.observations.tally import Setting

MODELS = ("micro_llava_onevision", "micro_qwen2_vl", "micro_internvl2_5")
BUDGETS = ("0.01", "0.05", "0.10", "0.20", "0.40")
LOWEST, LOW = "0.01", BUDGETS[:3]
ENCODER = ("visionzip", "prumerge_plus")
DECODER = ("fastv",)
PRUNING = (*DECODER, *ENCODER)
CACHE = ("streaming_llm", "h2o", "snapkv", "pyramidkv", "look_m", "vl_cache")
TOKENS = (*PRUNING, *CACHE)
ZEROS = ("wanda", "sparsegpt", "ecoflap")
BITS = ("awq", "gptq")
FOUR = "w4g128"
HALF = "sparsity0.50"

FINE = ("docvqa_micro", "chartqa_micro", "textvqa_micro", "ocrbench_micro")
COARSE = ("gqa_micro", "mmbench_micro", "mme_image_micro")
LONG = ("imagedc_micro",)
SEVERAL = ("mpdoc_micro",)
VIDEO = ("video_micro",)
SINGLE = (*FINE, *COARSE, *LONG)
SHORT = (*FINE, *COARSE, *SEVERAL, *VIDEO)


def at(methods: Iterable[str] | str, budgets: Sequence[str] | str) -> list[Setting]:
    """Every method at every budget."""
    named = [methods] if isinstance(methods, str) else list(methods)
    return [(one, label) for one in named for label in ([budgets] if isinstance(budgets, str) else budgets)]
