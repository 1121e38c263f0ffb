"""What was asked for in a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that was asked for, built once; what a run needs beside its cells. `shard`: "2/8", or "" for all samples.

    `data`: where published sets lie ("" = what was fetched, or the hub); `folders`: tasks that are a user's folder, by name.
    `judge`, `second_judge`: as typed ("none": answers wait), without a key; `judge_repeats`: times it is asked the same.
    `scoring`: the profile of the scorers, fixed or compat. `kl`: also of cells that leave the checkpoint as it is it is measured
    how far their next tokens are from dense's.
    """

    limit: int = 100
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    share: bool = True
    engine: str = "auto"
    batch: int = 1
    prompt: int = 0
    data: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    pixels: int = 0
    tiles: int = 0
    processor: str = "pil"
    generation: str = "checkpoint"
    judge: str = ""
    second_judge: str = ""
    judge_repeats: int = 3
    kernels: str = "auto"
    scoring: str = "fixed"
    shard: str = ""
    kl: bool = False
