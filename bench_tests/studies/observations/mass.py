"""How much attention sinks hold, and who keeps them: counted in the prefill of some samples, as a tally beside those of runs.

Sinks of text are the first four entries of the prompt, as in StreamingLLM. Visual sinks are the four visual entries that get most
attention from all rows in every other layer; what they hold is counted in the layers between, so that to be chosen is not to win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from bench_tests.studies.observations.tally import DIGITS, Cell, Group, Setting, Tally
from bench_tests.studies.observations.variants.sinks import SINKS
from effivlm.extending import CachePart, LayerView
from effivlm.methods.fastv import FastV
from effivlm.methods.visionzip import VisionZip
from effivlm.models._sources import resolve
from effivlm.records import Budget, Sample, Settings
from effivlm.run.group import open_model, task_of
from effivlm.run.tree import Tree

KEEPS = ("0.01", "0.10")
TEXT, VISUAL = ("mass of text sinks", "1.00"), ("mass of visual sinks", "1.00")
ENTRIES = ("share of entries", "1.00")


@dataclass(frozen=True, kw_only=True)
class Watch(CachePart):
    """Notes what every layer showed, and keeps an even share of the entries."""

    columns: ClassVar[bool] = True

    seen: list[LayerView] = field(default_factory=list, compare=False)

    def select(self, view: LayerView, budget: int, sample_id: str) -> Tensor:
        self.seen.append(view)
        return torch.arange(budget, device=view.keys.device).expand(len(view.keys), -1)


def counted(model: Any, sample: Sample) -> dict[Setting, float]:
    """What one sample's prefill tells, each as a share in [0, 1]."""
    watch = Watch(keep=Budget.parse("0.50"))
    choosing = [kind(keep=Budget.parse(keep)) for kind in (FastV, VisionZip) for keep in KEEPS]
    tree = Tree(model, sample, [watch, *choosing])
    tree.leaf(watch)
    got = torch.stack([view.received.float().mean(0) for view in watch.seen if view.received is not None])  # [L, N]
    got = got / got.sum(1, keepdim=True)
    visual = watch.seen[0].visual.nonzero()[:, 0]
    sinks = got[0::2, visual].mean(0).topk(SINKS).indices
    found = {
        TEXT: float(got[1::2, :SINKS].sum(1).mean()),
        VISUAL: float(got[1::2, visual[sinks]].sum(1).mean()),
        ENTRIES: SINKS / got.shape[1],
    }
    for method in choosing:
        stays = tree.still_seen(method, tree.leaf(method))
        if stays is None:
            raise ValueError(f"{type(method).__name__} does not tell what it kept")
        name = type(method).__name__.lower()
        found[f"sinks kept by {name}", method.keep.label] = float(stays[-1][sinks.cpu().numpy()].mean())
    return found


def count(models: Sequence[str], tasks: Sequence[str], limit: int, command: str) -> Tally:
    """The tally of some samples of every task."""
    groups = []
    settings = Settings(limit=limit)
    for name in models:
        model = open_model(resolve(name), settings)
        for title in tasks:
            samples = task_of(title).samples(limit, settings.seed)
            with torch.inference_mode(), model.seams():
                told = [counted(model, sample) for sample in samples]
            ids = [sample.id for sample in samples]
            group = Group(name, title, "", ids, [*ids], [0] * len(ids))
            for setting in told[0]:
                values = [round(one[setting], DIGITS) for one in told]
                group.cells[setting] = Cell(values, [None] * len(ids), 1.0, 1.0)
            groups.append(group)
    facts = {
        "device": settings.device,
        "dtype": settings.dtype,
        "limit": limit,
        "seed": settings.seed,
        "command": command,
    }
    return Tally(groups, [{**dict.fromkeys(("started", "driver", "versions", "commit")), **facts}])
