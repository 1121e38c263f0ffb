"""Which GPU every part of a model goes to that is too large for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

Room = Mapping[int | str, int]
"""Bytes of parts that a device may get, by its number; "cpu" and "disk" are what is left to the host."""


def over_all(kind: Any, config: Any, dtype: torch.dtype) -> dict[str, int]:
    """The number of the GPU by the name of each part of a model of this class of transformers': GPUs are filled alike, as far as
    memory is free.

    Raises:
        ValueError: as `places`.
    """
    from transformers.integrations.accelerate import get_balanced_memory

    with torch.device("meta"):
        model = kind._from_config(config, dtype=dtype)
    return places(model, lambda whole: get_balanced_memory(model, no_split_module_classes=whole))


def places(model: Any, room: Callable[[set[str]], Room]) -> dict[str, int]:
    """The same by accelerate's rule, which fills devices with parts in their order, where there is `room`, given the classes of
    those that stay whole: decoder layers, the tower, and what leads from it to the decoder.

    Raises:
        ValueError: there is no room for all parts, so that some would go to the host in silence; names the first.
    """
    from transformers.integrations.accelerate import infer_auto_device_map

    decoder = model.get_decoder()
    around = {type(part).__name__ for part in model.base_model.children() if part is not decoder}
    whole = {*model._no_split_modules, *around}
    found = dict(infer_auto_device_map(model, max_memory=dict(room(whole)), no_split_module_classes=whole))
    if left := [name for name, place in found.items() if not isinstance(place, int)]:
        raise ValueError(f"{left[0]} finds no room in what is free of all GPUs")
    return found
