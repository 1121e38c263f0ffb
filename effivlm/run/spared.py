"""Which layers of a sample's prefills are spared, because the whole prompt's prefill went through them before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from effivlm.compression.base import CachePart, LayerPart
from effivlm.models._adapter import Adapter, Prompt
from effivlm.run.faults import FAULTS
from effivlm.run.paths import Path


def stages_spared(
    model: Adapter, prompt: Prompt, path: Path, observers: Mapping[Path, Sequence[CachePart]]
) -> tuple[int, ...]:
    """Layers before which the prefill at `path` of a whole `prompt` serves those of `observers` that are pruned there first, and
    that nobody watches.

    On a CPU alone: a GPU prefills them side by side, which spares them that already. A prompt to which the tower adds again
    behind some layers (`deep`) is left alone.
    """
    if path[2] is not None or model.device.type != "cpu" or prompt.deep is not None:
        return ()
    depth, found = len(model.layers), set[int]()
    for other, watching in observers.items():
        if other[:2] == path[:2] and isinstance(other[2], LayerPart) and not watching:
            with suppress(*FAULTS):  # its own prefill asks again, and says so
                found.update(other[2].stages(depth)[:1])
    return tuple(sorted(at for at in found if 0 < at < depth))
