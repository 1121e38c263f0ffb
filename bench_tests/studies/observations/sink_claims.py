"""The insight about attention sinks: that there are some in text and images, who keeps them, and what their loss costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench_tests.studies.observations.effects import Claim, Effect
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import BUDGETS, LOW, at
from bench_tests.studies.observations.tally import Setting

GROUP = "Insight: attention sinks"
MASS = (
    "Sinks grow with scale and training: in large models the first entry alone is known to hold much of all attention, so shares"
    " measured here are a lower end."
)
PART = "What micro models lose with their sinks follows from how much attention those hold, which is less than in large models."
SINK = "sinks kept by"
ABOVE, TWICE = ("0.10", "0.20", "0.40"), ("0.99", "0.98")


def apart(plus: Sequence[Setting], minus: Sequence[Setting]) -> Callable[[Evidence], Effect]:
    def told(evidence: Evidence) -> Effect:
        return evidence.scores.contrast(plus, minus)

    return told


def sinks(name: str, text: str, measured: str, plus: list[Setting], minus: list[Setting], caveat: str) -> Claim:
    return Claim(name, GROUP, text, measured, apart(plus, minus), caveat)


CLAIMS = (
    sinks(
        "S1 sinks of text",
        "Text holds attention sinks: the first four entries get more attention than four entries would.",
        "share of all attention, mean over heads and every other layer, less four's share of all entries",
        [("mass of text sinks", "1.00")],
        [("share of entries", "1.00")],
        MASS,
    ),
    sinks(
        "S2 visual sinks",
        "Images hold attention sinks too: four visual entries get more attention than four entries would.",
        "share of all attention less four's share of all entries; the four are those that get most in the layers between, so that"
        " to be chosen is not to win",
        [("mass of visual sinks", "1.00")],
        [("share of entries", "1.00")],
        MASS,
    ),
    sinks(
        "S3 who keeps visual sinks",
        "Pruning guided by text (FastV) misses visual sinks that pruning guided by the image (VisionZip) keeps.",
        "share of the four visual sinks that visionzip keeps at 10 %, less that of fastv",
        [(f"{SINK} visionzip", "0.10")],
        [(f"{SINK} fastv", "0.10")],
        "A sink is told by the decoder's attention here; VisionZip sees the tower's.",
    ),
    sinks(
        "S4 sinks of text kept",
        "To keep sinks of text (StreamingLLM) beats to keep as many more of the recent entries.",
        "score of streaming_llm less that of the same without sinks (recent_only), mean over five budgets",
        at("streaming_llm", BUDGETS),
        at("recent_only", BUDGETS),
        PART,
    ),
    sinks(
        "S5 exactly the sinks of text gone",
        "A cache that loses exactly its most attended text loses more than one that loses as much text at random.",
        "score with 1 % of all entries gone, drawn from the text, less that with the most attended text gone",
        at("robbed@text_drawn", "0.99"),
        at("robbed@text", "0.99"),
        PART,
    ),
    sinks(
        "S6 exactly the visual sinks gone",
        "A cache that loses exactly its most attended visual entries loses more than one that loses as many at random.",
        "score with 1 and 2 % of all entries gone, drawn from the visual ones, less that with the most attended of them gone",
        at("robbed@visual_drawn", TWICE),
        at("robbed@visual", TWICE),
        f"{PART} On pages the most attended entries are those that are read.",
    ),
    sinks(
        "S7 FastV with visual sinks",
        "FastV gains where visual sinks are kept for certain.",
        "score of fastv whose four visual sinks stay (looked_at@guarded), less that of fastv, from 10 to 40 %",
        at("looked_at@guarded", ABOVE),
        at("fastv", ABOVE),
        PART,
    ),
    sinks(
        "S8 FastV without them",
        "FastV loses where visual sinks go for certain.",
        "score of fastv less that of fastv whose four visual sinks go (looked_at@gone), from 10 to 40 %",
        at("fastv", ABOVE),
        at("looked_at@gone", ABOVE),
        PART,
    ),
    sinks(
        "S9 VisionZip without the tower's",
        "VisionZip loses where the tokens that its tower attends most are never kept as they are.",
        "score of visionzip less that of the same without the four most attended of every tile (tower_looked), from 1 to 10 %",
        at("visionzip", LOW),
        at("tower_looked", LOW),
        "A micro tower has few layers and no class token; large towers keep scratch values in such tokens.",
    ),
)
