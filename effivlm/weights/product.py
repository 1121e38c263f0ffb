"""From a checkpoint, a method and its budget to a checkpoint on disk: made once, found again by all that decides it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from effivlm import __version__, registry
from effivlm.compression.weights import Solved, WeightMethod
from effivlm.data.places import data_home, write_json
from effivlm.models._adapter import Adapter
from effivlm.models._sources import RANDOM, ModelSource
from effivlm.records import Settings, Unsupported, fingerprint
from effivlm.weights import calibration, formats, libraries, saving, scoring
from effivlm.weights.blocks import Made, Stage, Walk, compressed, install, linears_of, outline
from effivlm.weights.journal import Journal, alone, room
from effivlm.weights.texts import Text, texts

PRODUCT = "effivlm_product.json"
HOME = "EFFIVLM_PRODUCTS"
FORMAT = 1
Progress = Callable[[str, int, int], None]
"""Is told what was done last, how many stages are, and how many there will be."""


def home() -> Path:
    """The folder of products: $EFFIVLM_PRODUCTS, else `products` beside the fetched sets."""
    given = os.environ.get(HOME)
    return Path(given).expanduser() if given else data_home() / "products"


def product(
    source: ModelSource,
    method: WeightMethod,
    settings: Settings,
    progress: Progress | None = None,
    to: Path | None = None,
) -> Path:
    """The folder of the checkpoint that `method` makes of `source`; made now unless it is there already.

    In the cache, or in the new folder `to`. What was begun and stopped goes on where it was, stage by stage, and a folder is
    there only when all of it is.

    Raises:
        Unsupported: the model or the method has no such product; says why.
        ValueError: the source cannot be compressed, calibration is impossible, or `to` holds something else.
        OSError: the disk is full.
    """
    folder = _compressible(source, method)
    facts = plan(source, method, settings)
    name = fingerprint(facts)
    target = (
        to or home() / f"{source.name}-{type(method).__name__.lower()}-{method.goal.label.replace(':', '_')}-{name}"
    )
    with alone(target):
        if target.exists():
            _check_same(target, name)
            return target
        _check_room(folder, target)
        work = target.with_name(target.name + ".partial")
        journal = Journal(work, {**facts, "fingerprint": name})
        adapter = cast(type[Adapter], registry.load("models", source.family)).load(
            source, settings.device, settings.dtype
        )
        try:
            told = _Maker(adapter, method, folder, journal, settings, progress).made()
        finally:
            adapter.close()
        told |= {"fingerprint": name, "source": {"name": source.name, **source.to_json()}}
        _assemble(folder, work, target, journal, {**facts, **told})
    return target


def plan(source: ModelSource, method: WeightMethod, settings: Settings) -> dict[str, Any]:
    """Everything that determines a product.

    Raises:
        ValueError: the method's engine is not here; says what brings it.
    """
    found = versions()
    if method.engine not in found:
        found = {**found, method.engine: libraries.demanded(method.engine)}
    how = {one.name: getattr(method, one.name) for one in fields(method) if one.name not in ("keep", "goal", "seed")}
    asked: dict[str, Any] = {}
    if method.needs == "nothing":
        for name in ("samples", "tokens", "calibration", "sequential"):
            how.pop(name)
    else:
        named = calibration.named(method.calibration, source)
        asked = {"set": named, "samples": method.samples, "seed": method.seed, "tokens": method.tokens}
        asked |= {"data": settings.data} if settings.data else {}
        how["calibration"] = named
    return {
        "format": FORMAT,
        "model": source.identity,
        "method": type(method).__module__.rpartition(".")[2],
        "budget": method.goal.label,
        "fields": how,
        "calibration": asked,
        "precision": [settings.dtype, settings.device.split(":")[0]],
        "packing": method.packing,
        "versions": found,
        "code": _code(type(method).__module__),
    }


@cache
def versions() -> dict[str, str]:
    """Of everything that computes."""
    found = {"effivlm": __version__}
    for name in ("torch", "transformers", "llmcompressor", "compressed-tensors"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return found


@cache
def _code(module: str) -> str:
    """A digest of this folder's code and of the method's file."""
    whole = hashlib.sha256()
    spec = importlib.util.find_spec(module)
    for path in [*sorted(Path(__file__).parent.glob("*.py")), Path(str(spec.origin if spec else ""))]:
        whole.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:20]


def _compressible(source: ModelSource, method: WeightMethod) -> Path:
    if source.source.startswith(RANDOM):
        raise Unsupported(f"model {source.name!r} has random weights and no folder: there is no checkpoint to compress")
    if method.goal.kind == "none":
        raise ValueError(f"{type(method).__name__.lower()} needs a budget such as {', '.join(method.settings)}")
    return Path(source.source)


def _check_same(target: Path, name: str) -> None:
    path = target / PRODUCT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{target} exists already and is no product: name a new folder") from None
    if found.get("fingerprint") != name:
        made = f"{found.get('method')} at {found.get('budget')} of {found.get('source', {}).get('name')}"
        raise ValueError(f"{target} holds another product ({made}): name a new folder")


def _check_room(folder: Path, target: Path) -> None:
    """Raises OSError where the disk has no room for a checkpoint of this size and what is kept meanwhile."""
    wanted = 2 * sum(path.stat().st_size for path in saving.files_of(folder))
    free = shutil.disk_usage(target.parent).free
    if free < wanted:
        raise OSError(
            f"{target.parent} has {free / 1e9:.2f} GB of room, and compressing needs up to {wanted / 1e9:.2f} GB"
        )


class _Maker:
    """One compression in progress."""

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
        self.stored = saving.stored_type(folder)
        self.blocks = outline(adapter, method.targets)
        self.places = self._places()

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
                    made = compressed(stage, self.method, zeros[stage.name], self.stored)
                    self._store(stage, made)
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
        return saving.places(self.folder, self.adapter.model, wanted)

    def _store(self, stage: Stage, made: Made) -> None:
        tensors: dict[str, Tensor] = {}
        facts: dict[str, Any] = {"linears": {}, "new": {}}
        for name, solved in made.solved.items():
            tensors |= self._of_linear(f"{stage.name}.{name}", solved, facts)
        for name in sorted(made.changed):
            full = f"{stage.name}.{name}"
            parameter = stage.module.get_parameter(name)
            rounded = parameter.detach().to(getattr(torch, self.stored))
            parameter.data.copy_(rounded)
            key = self.places[full]
            tensors[f"new:{key}"] = tensors[f"set:{full}"] = rounded
            facts["new"][key] = [key]
        self.journal.store(stage.name, tensors, facts)

    def _of_linear(self, full: str, solved: Solved, facts: dict[str, Any]) -> dict[str, Tensor]:
        key = self.places[f"{full}.weight"]
        stem = key.rpartition(".")[0]
        own = formats.tensors_of(solved, self.stored, self.method.packing)
        about: dict[str, Any] = formats.facts_of(solved, own)
        if grid := solved.grid:
            whole = grid.group == solved.weight.shape[1] and not self.method.goal.group
            about |= {"group": 0 if whole else grid.group, "symmetric": grid.zero is None}
        facts["linears"][full] = about
        facts["new"][key] = [f"{stem}.{last}" for last in own]
        found = {f"new:{stem}.{last}": tensor for last, tensor in own.items()}
        return found | {f"set:{full}.weight": solved.weight.to(getattr(torch, self.stored))}

    def _resumed(self, stage: Stage) -> bool:
        """Put a stage in place that is done already."""
        known = self.journal.stored(stage.name)
        if known is None:
            return False
        modules: dict[str, nn.Module] = dict(self.adapter.model.named_modules())
        for name, tensor in known[0].items():
            kind, _, full = name.partition(":")
            if kind == "set":
                holder, _, last = full.rpartition(".")
                module: Any = modules[holder]
                if isinstance(module, nn.Linear) and last == "weight":
                    install(module, tensor, self.stored)
                else:
                    getattr(module, last).data.copy_(tensor)
        return True

    def _told(self) -> dict[str, Any]:
        """Of every linear what was achieved; which others there are; of the calibration what was drawn."""
        layers: dict[str, Any] = {}
        for name in self.blocks:
            known = self.journal.stored(name)
            if known is None:
                raise ValueError(f"{self.journal.folder} lost stage {name}: run again")
            layers |= known[1]["linears"]
        others = [name for name, one in self.adapter.model.named_modules() if isinstance(one, nn.Linear)]
        found = self.journal.folder / "calibration.json"
        drawn = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
        return {"drawn": drawn, "layers": layers, "untouched": sorted({*others} - {*layers}), "stored": self.stored}


def _assemble(source: Path, work: Path, target: Path, journal: Journal, facts: Mapping[str, Any]) -> None:
    """Write the checkpoint beside its place, then put it there in one step."""
    building = work / "checkpoint"
    shutil.rmtree(building, ignore_errors=True)
    with room(work):
        building.mkdir()
    new: dict[str, dict[str, Tensor]] = {}
    for path in sorted(work.glob("*.safetensors")):
        found = journal.stored(path.name.removesuffix(".safetensors"))
        if found is None:
            raise ValueError(f"{path} is gone: run again")
        tensors, about = found
        new |= {key: {name: tensors[f"new:{name}"] for name in names} for key, names in about["new"].items()}
    layers = facts["layers"]
    config: dict[str, Any] = {}
    from effivlm.compression.weights import Goal

    goal = Goal.parse(facts["budget"])
    if goal.kind == "bits":
        grids = [(name, one["group"], one["symmetric"]) for name, one in layers.items()]
        config = {"quantization_config": formats.configuration(goal, grids, facts["untouched"], facts["packing"])}
    saving.write(source, building, new, config)
    with room(building):
        write_json(building / PRODUCT, {**facts, "achieved": achieved(layers)})
    building.rename(target)
    shutil.rmtree(work)


def achieved(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What all compressed layers come to: the share of zeros and the bits a weight."""
    weights = sum(one["weights"] for one in layers.values())
    return {
        "weights": weights,
        "zeros": sum(one["zeros"] for one in layers.values()) / weights,
        "bits_per_weight": sum(one["bits"] for one in layers.values()) / weights,
    }
