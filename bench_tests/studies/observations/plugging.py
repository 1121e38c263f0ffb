"""The variants as an installed package: a folder for PYTHONPATH whose entry points name them."""

from __future__ import annotations

from pathlib import Path

PLACE = "bench_tests.studies.observations.variants"
METHODS = {
    "layerwise": "layerwise:Layerwise",
    "shared_window": "one_choice:SharedWindow",
    "shared_columns": "one_choice:SharedColumns",
    "shared_question": "one_choice:SharedQuestion",
    "folding": "merging:Folding",
    "recent_only": "sinks:RecentOnly",
    "looked_at": "sinks:LookedAt",
    "tower_looked": "sinks:TowerLooked",
    "robbed": "sinks:Robbed",
}


def plug(folder: Path) -> Path:
    """Write what pip would leave in `folder`, and return it."""
    facts = folder / "effivlm_observations-1.0.dist-info"
    facts.mkdir(parents=True, exist_ok=True)
    facts.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: effivlm-observations\nVersion: 1.0\n")
    points = [f"{name} = {PLACE}.{at}" for name, at in METHODS.items()]
    facts.joinpath("entry_points.txt").write_text("\n".join(["[effivlm.methods]", *points, ""]))
    return folder
