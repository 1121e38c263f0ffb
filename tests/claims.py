"""Devices that are claimed and not there: a model over two of them on a CPU, where operators refuse what a GPU would.

Inside `Claims`, every tensor claims a device, the host's where nobody said another one. An operator works where its operands
claim one device, as torch's own do: numbers of the host without dimensions go with any, as do indices of the host; copies go
between all. The work itself is the CPU's, with its bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from effivlm.models._adapter import Adapter, devices_of
from effivlm.models._spreading import places

HOST = torch.device("cpu")
ANYWHERE = {"copy_", "expand_as", "view_as", "reshape_as", "set_", "is_same_size"}
"""What takes tensors of several devices, and leaves its first one's."""
STRICT = {"cat", "stack", "concat", "vstack", "hstack", "index_select", "gather", "scatter", "embedding"}
"""What takes no number of the host among others."""
READ = {"numpy", "__array__"}
"""What the host alone can do."""


class Claims(TorchFunctionMode):
    """Inside, devices are what tensors claim; RuntimeError where operands claim several."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if func == Tensor.device.__get__:
            return claimed(args[0])
        if func == Tensor.data.__set__:  # type: ignore[attr-defined]
            func(*args)
            return _claim(args[0], claimed(args[1]))
        if name in ("to", "cpu", "type_as"):
            return _moved(name, args, given)
        if name in READ and claimed(args[0]) != HOST:
            raise TypeError(f"{name} of a tensor on {claimed(args[0])}")
        if name in ("__getitem__", "__setitem__"):
            where = _indexed(*args)
        else:
            where = claimed(args[0]) if name in ANYWHERE else _one(name, [*_tensors((args, given))])
        if given.get("device") is not None:
            where, given["device"] = torch.device(given["device"]), HOST
        found = func(*args, **given)
        if name in ("__iter__", "__reversed__"):
            return iter([_claim(one, where) for one in found])
        for tensor in _tensors(found):
            _claim(tensor, where)
        return found


def claimed(tensor: Tensor) -> torch.device:
    return getattr(tensor, "claims", HOST)


def _claim(tensor: Tensor, device: torch.device) -> Tensor:
    tensor.claims = device  # type: ignore[attr-defined]
    return tensor


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _one(name: str, operands: list[Tensor]) -> torch.device:
    """The one device that operands claim."""
    if len(operands) == 1:
        return claimed(operands[0])
    loose = () if name in STRICT else [one for one in operands if claimed(one) == HOST and one.dim() == 0]
    found = {claimed(one) for one in operands if not any(one is other for other in loose)}
    if len(found) > 1:
        raise RuntimeError(f"{name}: tensors on {', '.join(sorted(map(str, found)))}")
    return found.pop() if found else HOST


def _indexed(whole: Tensor, at: Any, *value: Any) -> torch.device:
    """The device of a tensor that is read or written at some places."""
    home, indices = claimed(whole), [*_tensors(at)]
    if any(claimed(index) not in (HOST, home) for index in indices):
        raise RuntimeError(f"indices on {claimed(indices[0])} into a tensor on {home}")
    for one in _tensors(value):
        if indices and one.dim() and claimed(one) != home:
            raise RuntimeError(f"values on {claimed(one)} into places of a tensor on {home}")
    return home


def _moved(name: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """`to`, `cpu` and `type_as`: another tensor where another device is asked for."""
    whole, *rest = args
    asked: Any = HOST if name == "cpu" else given.pop("device", None)
    if rest and isinstance(rest[0], torch.device | str | Tensor | None):
        first = rest.pop(0)
        asked = claimed(first) if isinstance(first, Tensor) else first
        if isinstance(first, Tensor):
            rest = [first.dtype, *rest]
    rest = [one for one in rest if one is not None]
    where = claimed(whole) if asked is None else torch.device(asked)
    found = whole.to(*rest, **given) if rest or given else whole
    if where != claimed(whole) and found is whole:
        found = whole.clone()
    return found if found is whole else _claim(found, where)


@contextmanager
def spread(model: Adapter, cut: float, kind: str = "cpu") -> Iterator[set[torch.device]]:
    """Inside, an open model stands on devices 0 and 1 of a kind, the first holding the share `cut` of its bytes at most; where
    what lies, and what moves it, is what transformers and accelerate find for two GPUs. Yields the devices of its layers.
    """
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_submodules

    whole, own = model.model, (model.device, model.devices)
    tensors = dict(whole.named_parameters(remove_duplicate=False)) | dict(whole.named_buffers(remove_duplicate=False))
    with Claims():
        there = {name: torch.device(kind, number) for name, number in halves(whole, cut).items()}
        for name, tensor in tensors.items():
            _claim(tensor, next(device for place, device in there.items() if f"{name}.".startswith(f"{place}.")))
        skipped = whole._skip_keys_device_placement
        dispatch_model(whole, there, main_device=torch.device(kind, 0), skip_keys=skipped)
        model.device, model.devices = whole.get_input_embeddings().weight.device, devices_of(whole)
        try:
            yield {part.device for layer in model.layers for part in layer.parameters()}
        finally:
            remove_hook_from_submodules(whole)
            for module in whole.modules():
                vars(module).pop("forward", None)  # its stock one, which accelerate leaves there as the module's own
            for tensor in tensors.values():
                _claim(tensor, HOST)
            model.device, model.devices = own


def halves(model: Any, cut: float) -> dict[str, int]:
    """The number of the GPU, of two, that every part goes to where the first one holds a share `cut` of the bytes at most."""
    whole = sum(part.nbytes for part in (*model.parameters(), *model.buffers()))
    return places(model, lambda classes: {0: int(cut * whole), 1: 2 * whole})
