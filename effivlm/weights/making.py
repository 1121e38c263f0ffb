"""One compression in progress: blocks one after another, each kept in the journal once it is done."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.compression.weights import Solved, WeightMethod
from effivlm.data.places import write_json
from effivlm.models._adapter import Adapter
from effivlm.records import Settings, Unsupported
from effivlm.weights import calibration, formats, saving, scoring
from effivlm.weights.blocks import Made, Stage, Walk, compressed, install, linears_of, outline
from effivlm.weights.journal import Journal
from effivlm.weights.texts import Text, texts

Progress = Callable[[str, int, int], None]
"""Is told what was done last, how many stages are, and how many there will be."""


class Maker:
    """Makes what a method leaves of a loaded model, stage by stage, in the folder of a journal."""

    def __init__(
        self,
        adapter: Adapter,
        method: WeightMethod,
        folder: Path,
        journal: Journal,
        settings: Settings,
        progress: Progress | None,
    ) -> None:
        self.adapter, self.method, self.folder, self.journal = adapter, method, folder, journal
        self.settings, self.progress = settings, progress or (lambda what, done, of: None)
        if getattr(adapter.model.config, "quantization_config", None) is not None:
            raise Unsupported(
                f"model {adapter.source.name!r} is quantised already: compress the checkpoint it was made of"
            )
        if adapter.spread:
            raise Unsupported(
                f"model {adapter.source.name!r} stands on {len(adapter.devices)} devices: it is compressed where one holds it"
            )
        self.blocks = outline(adapter, method.targets)
        self.places = self._places()
        types = saving.types_of(folder, self.places.values())
        self.types = {name: types[key] for name, key in self.places.items()}
        self.since = time.perf_counter()

    def made(self) -> dict[str, Any]:
        """Do what is not done yet; returns what the product says of it beside the plan."""
        done = sum(self.journal.stored(name) is not None for name in self.blocks)
        if done == len(self.blocks):
            return self._told()
        drawn = self._drawn()
        read = lambda: self._read(drawn)  # noqa: E731
        zeros = self._zeros(read)
        walk = Walk(self.adapter, drawn.samples if drawn else (), read)
        with torch.no_grad():
            for number, stage in enumerate(walk.stages(self.blocks)):
                if not self._resumed(stage):
                    stored = self._stored(stage)
                    made = compressed(stage, self.method, zeros[stage.name], stored, self._exact)
                    self._store(stage, made, stored)
                if number + 1 < len(self.blocks):
                    walk.leave(stage)
                self.progress(stage.name, number + 1, len(self.blocks))
        return self._told()

    def _drawn(self) -> calibration.Drawn | None:
        if self.method.needs == "nothing":
            return None
        videos = getattr(self.adapter.processor, "video_processor", None) is not None
        method, source = self.method, self.adapter.source
        found = calibration.drawn(method.calibration, source, method.samples, method.seed, videos, self.settings.data)
        known = self.journal.folder / "calibration.json"
        if not known.exists():
            write_json(known, {"set": found.name, "fingerprint": found.fingerprint, "samples": len(found.samples)})
        elif json.loads(known.read_text(encoding="utf-8"))["fingerprint"] != found.fingerprint:
            raise ValueError(f"{known.parent} was begun with other calibration samples: remove it to start anew")
        return found

    def _read(self, drawn: calibration.Drawn | None) -> list[Text]:
        if drawn is None:
            return []
        self.progress("calibration samples", 0, len(self.blocks))
        return texts(self.adapter, drawn.samples, self.method.tokens)

    def _zeros(self, read: Callable[[], list[Text]]) -> dict[str, list[int]]:
        """How many weights each linear of each stage loses."""
        linears = {name: linears_of(block, name) for name, block in self.blocks.items()}
        sizes = {name: [linear.weight.numel() for linear in block.values()] for name, block in linears.items()}
        if not self.method.scoring:
            return self.method.zeros(sizes, {})
        known = self.journal.folder / "scores.json"
        if not known.exists():
            if self.method.targets != "language":
                raise Unsupported("blocks are scored in the language model alone: leave targets at language")
            self.progress("scores of blocks", 0, len(self.blocks))
            groups = {name: list(block.values()) for name, block in linears.items()}
            few = read()[: getattr(self.method, "scored_samples", self.method.samples)]
            epsilon = getattr(self.method, "epsilon", 1e-3)
            found = scoring.scores(self.adapter, groups, few, self.method.scoring, epsilon, self.method.seed)
            write_json(known, found)
        return self.method.zeros(sizes, json.loads(known.read_text(encoding="utf-8")))

    def _places(self) -> dict[str, str]:
        """Where every parameter of the blocks stands in the source's files."""
        wanted: dict[str, Tensor] = {}
        for name, block in self.blocks.items():
            wanted |= {f"{name}.{inner}": parameter.data for inner, parameter in block.named_parameters()}
        return saving.places(self.folder, wanted)

    def _stored(self, stage: Stage) -> str:
        """The precision in which a stage's linears are written: that of the source, the finest where they differ."""
        found = {self.types[f"{stage.name}.{name}.weight"] for name in stage.linears}
        return max(found, key=list(saving.KNOWN.values()).index)

    def _exact(self, full: str) -> Tensor:
        """A weight as the source holds it, in the model's precision where that holds all of it."""
        weight: Tensor = self.adapter.model.get_parameter(full).detach()
        if weight.dtype in (torch.float32, getattr(torch, self.types[full])):
            return weight
        found = saving.tensor(self.folder, self.places[full]).to(weight.device)
        return found if torch.equal(found.to(weight.dtype), weight) else weight  # not if a method scaled it before

    def _store(self, stage: Stage, made: Made, stored: str) -> None:
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {"linears": {}, "new": {}, "set": {}, "seconds": self._lap()}
        for name, solved in made.solved.items():
            tensors |= self._of_linear(f"{stage.name}.{name}", solved, stored, facts)
        for name in sorted(made.changed):
            full = f"{stage.name}.{name}"
            parameter = stage.module.get_parameter(name)
            rounded = parameter.detach().to(getattr(torch, self.types[full]))
            parameter.data.copy_(rounded)
            key = self.places[full]
            tensors[f"new:{key}"] = rounded
            facts["new"][key], facts["set"][full] = [key], f"new:{key}"
        self.journal.store(stage.name, tensors, facts)

    def _lap(self) -> float:
        """Seconds since the stage before this one was done, or this run began: reading calibration samples and scores are the
        first stage's. What a run that was killed spent on an unfinished stage is in none."""
        before, self.since = self.since, time.perf_counter()
        return self.since - before

    def _of_linear(self, full: str, solved: Solved, stored: str, facts: dict[str, Any]) -> dict[str, Tensor]:
        key = self.places[f"{full}.weight"]
        stem = key.rpartition(".")[0]
        own = formats.tensors_of(solved, stored, self.method.packing)
        about: dict[str, Any] = formats.facts_of(solved, own)
        if grid := solved.grid:
            whole = grid.group == solved.weight.shape[1] and not self.method.goal.group
            about |= {"group": 0 if whole else grid.group, "symmetric": grid.zero is None}
        facts["linears"][full] = about
        facts["new"][key] = [f"{stem}.{last}" for last in own]
        found = {f"new:{stem}.{last}": tensor for last, tensor in own.items()}
        plain = solved.codes is None
        facts["set"][f"{full}.weight"] = place = f"new:{key}" if plain else f"set:{full}.weight"
        return found if plain else found | {place: solved.weight.to(getattr(torch, stored))}

    def _resumed(self, stage: Stage) -> bool:
        """Put a stage in place that is done already."""
        known = self.journal.stored(stage.name)
        if known is None:
            return False
        modules: dict[str, nn.Module] = dict(self.adapter.model.named_modules())
        tensors, facts = known
        for full, place in facts["set"].items():
            holder, _, last = full.rpartition(".")
            module: Any = modules[holder]
            if isinstance(module, nn.Linear) and last == "weight":
                install(module, tensors[place])
            else:
                getattr(module, last).data.copy_(tensors[place])
        return True

    def _told(self) -> dict[str, Any]:
        """Of every linear what was achieved; which others there are; of the calibration what was drawn; how long it all took."""
        layers: dict[str, Any] = {}
        seconds = 0.0
        for name in self.blocks:
            known = self.journal.stored(name)
            if known is None:
                raise ValueError(f"{self.journal.folder} lost stage {name}: run again")
            layers |= known[1]["linears"]
            seconds += known[1]["seconds"]
        others = [name for name, one in self.adapter.model.named_modules() if isinstance(one, nn.Linear)]
        found = self.journal.folder / "calibration.json"
        drawn = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
        untouched = sorted({*others} - {*layers})
        return {"drawn": drawn, "layers": layers, "untouched": untouched, "seconds": seconds}
