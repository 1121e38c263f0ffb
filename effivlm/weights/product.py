"""From a checkpoint, a method and its budget to a checkpoint on disk: made once, found again by all that decides it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from effivlm import __version__, registry
from effivlm.compression.weights import WeightMethod
from effivlm.data.places import data_home, write_json
from effivlm.models._adapter import Adapter
from effivlm.models._sources import RANDOM, ModelSource
from effivlm.records import Settings, Unsupported, fingerprint
from effivlm.weights import calibration, formats, libraries, saving
from effivlm.weights.journal import PLAN, Journal, alone, room
from effivlm.weights.making import Maker, Progress

PRODUCT = "effivlm_product.json"
HOME = "EFFIVLM_PRODUCTS"
FORMAT = 1


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
    if target.name in ("", ".."):
        raise ValueError(f"{target} is no new folder: name one")
    work = target.with_name(target.name + ".partial")
    if target.exists() and not work.exists():  # no lock: the disk may be one that is read alone
        _check_same(target, name, facts)
        return target
    with alone(target):
        if target.exists():
            _check_same(target, name, facts)
            if (work / PLAN).exists():  # a kill between the last two steps
                Journal(work, {**facts, "fingerprint": name}).remove()
            return target
        _check_room(folder, target)
        journal = Journal(work, {**facts, "fingerprint": name})
        try:
            kind = cast(type[Adapter], registry.load("models", source.family))
            adapter = kind.load(source, settings.device, settings.dtype)
            try:
                told = Maker(adapter, method, folder, journal, settings, progress).made()
            finally:
                adapter.close()
        except BaseException:
            journal.leave()
            raise
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
        asked |= calibration.identity(named)
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


def _check_same(target: Path, name: str, facts: Mapping[str, Any]) -> None:
    path = target / PRODUCT
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise ValueError(f"{target} exists already and is no product: name a new folder") from None
    if found.get("fingerprint") != name:
        made = f"{found.get('method')} at {found.get('budget')} of {found.get('source', {}).get('name')}"
        differing = sorted(word for word, value in json.loads(json.dumps(facts)).items() if found.get(word) != value)
        raise ValueError(f"{target} holds another product ({made}; other {', '.join(differing)}): name a new folder")


def _check_room(folder: Path, target: Path) -> None:
    """Raises OSError where the disk has no room for a checkpoint of this size and what is kept meanwhile."""
    wanted = 2 * sum(path.stat().st_size for path in saving.files_of(folder))
    free = shutil.disk_usage(target.parent).free
    if free < wanted:
        raise OSError(
            f"{target.parent} has {free / 1e9:.2f} GB of room, and compressing needs up to {wanted / 1e9:.2f} GB"
        )


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
    journal.remove()


def achieved(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """What all compressed layers come to: the share of zeros and the bits a weight."""
    weights = sum(one["weights"] for one in layers.values())
    return {
        "weights": weights,
        "zeros": sum(one["zeros"] for one in layers.values()) / weights,
        "bits_per_weight": sum(one["bits"] for one in layers.values()) / weights,
    }
