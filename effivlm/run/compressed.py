"""The model of a cell whose method changes the checkpoint: made, opened and weighed, one at a time beside the model as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from effivlm.compression.base import Method
from effivlm.compression.composed import Composed
from effivlm.compression.weights import WeightMethod
from effivlm.models._adapter import Adapter
from effivlm.models._compressed import reading
from effivlm.models._memory import needs
from effivlm.models._sources import ModelSource
from effivlm.records import Cell, Product, Settings
from effivlm.run.weighed import Weighed, disk_bytes, record_of, weigh
from effivlm.seams.meters import free_bytes, reclaim
from effivlm.weights.making import Progress
from effivlm.weights.product import plan, product

Open = Callable[[ModelSource, Settings], Adapter]
DENSELY = "zeros stored densely"
"""How zeros are read: no format of sparse weights is written, and no kernel skips them."""
ROOM = 1.3
"""Times the bytes of its weights that a second model needs to be free on the device, to work beside the first."""


def weights_of(method: Method) -> WeightMethod | None:
    """The method of a cell that changes the checkpoint, None where the model stays as it is."""
    first = method.methods[0] if isinstance(method, Composed) else method
    return first if isinstance(first, WeightMethod) else None


def identity(method: Method, source: ModelSource, settings: Settings) -> list[object]:
    """What decides the checkpoint of a cell beside its model: everything that a product is found again by, and how it is read."""
    changing = weights_of(method)
    if changing is None:
        return []
    return [plan(source, changing, settings), *(reading(settings.kernels) if changing.keep.kind == "bits" else ())]


def changed_of(methods: Mapping[Cell, Method]) -> dict[WeightMethod, list[Cell]]:
    """The cells whose method changes the checkpoint, by how: those of one product together."""
    found: dict[WeightMethod, list[Cell]] = {}
    for cell, method in methods.items():
        if changing := weights_of(method):
            found.setdefault(changing, []).append(cell)
    return found


def product_of(method: WeightMethod, folder: Path, opened: Adapter, whole: Adapter) -> Product:
    """What is told of the checkpoint in `folder`, `opened` from there, which `method` made of `whole`."""
    record, bits = record_of(folder), method.keep.kind == "bits"
    asked, drawn = record["calibration"], record["drawn"]
    return Product(
        fingerprint=record["fingerprint"],
        engine=record["fields"]["engine"],
        packing=method.packing if bits else "dense",
        reading=opened.weights.partition(", ")[2] if bits else DENSELY,
        disk_bytes=disk_bytes(folder),
        disk_bytes_dense=disk_bytes(Path(whole.source.source)),
        memory_bytes=opened.weight_bytes(),
        memory_bytes_dense=whole.weight_bytes(),
        seconds=record["seconds"],
        calibration=Path(drawn.get("set", "")).name,
        samples=drawn.get("samples", 0),
        tokens=asked.get("tokens", ""),
        drawn=drawn.get("fingerprint", ""),
    )


@contextmanager
def closing_after(given: Compressed | None, open_model: Open, settings: Settings) -> Iterator[Compressed]:
    """A holder of compressed models: the one that is given, which stays open, or one for this time."""
    holder = given or Compressed(open_model, settings)
    try:
        yield holder
    finally:
        if given is None or given.aside:
            holder.close()


@dataclass
class Compressed:
    """Holds the checkpoint that one method made of one model, opened. `told` hears how the making of one goes on.

    Where the device has no room for two, the model as it is stands aside in the host's memory until `close`.
    """

    open_model: Open
    settings: Settings
    told: Progress | None = None
    _name: tuple[str, WeightMethod] | None = None
    _held: tuple[Adapter, Weighed] | None = None
    _aside: Adapter | None = None

    def opened(self, model: Adapter, method: WeightMethod) -> tuple[Adapter, Weighed]:
        """The model that `method` makes of `model`, opened like it, and what was counted on it.

        Raises:
            Unsupported: there is no such product. ValueError: it cannot be made or opened. OSError: the disk is full.
        """
        name = (model.source.identity, method)
        if self._held is None or self._name != name:
            self.close()
            self._make_room(model, model.source)
            folder = product(model.source, method, self.settings, self.told)
            source = replace(model.source, source=str(folder), repository="", commit="")
            self._make_room(model, source)
            opened = self.open_model(source, self.settings)
            weighed = weigh(method, Path(folder), opened.model)
            told = product_of(method, Path(folder), opened, model)
            self._held, self._name = (opened, replace(weighed, product=told)), name
        return self._held

    @property
    def aside(self) -> bool:
        """Whether the model as it is stands aside."""
        return self._aside is not None

    def of(self, model: Adapter, method: Method) -> tuple[Adapter, Weighed | None]:
        """The model of a cell that is timed, alone on its device: `model` itself, or what its method makes of it."""
        changing = weights_of(method)
        if changing is None:
            self.close()
            return model, None
        found = self.opened(model, changing)
        self._step_aside(model)
        return found

    def close(self) -> None:
        """Let go of the opened one, and put back the one that stood aside."""
        if self._held is not None:
            self._held[0].close()
            self._held = self._name = None
        if self._aside is not None:
            self._aside.model.to(self._aside.device)
            self._aside = None

    def _make_room(self, model: Adapter, source: ModelSource) -> None:
        if model.device.type != "cuda" or model.spread:
            return
        reclaim(model.device)
        if free_bytes(model.device) < ROOM * needs(source, self.settings.dtype).weights:
            self._step_aside(model)

    def _step_aside(self, model: Adapter) -> None:
        if self._aside is None and model.device.type == "cuda" and not model.spread:
            model.model.to("cpu")
            self._aside = model
            torch.cuda.empty_cache()
