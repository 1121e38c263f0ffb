"""Checkpoints whose linear layers are stored compressed: loaded as plain layers with dequantised weights, or behind a kernel.

Nothing of the library that wrote them is needed. Layers keep no forward of their own: what reaches below the model's forward
would miss a decompression there, and a wrapped forward costs more than the product of a small layer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.decoding.weights import Packed
from effivlm.kernels import int4
from effivlm.models._formats import Scheme, Stored, stored
from effivlm.models._guards import told
from effivlm.models._hub import files
from effivlm.models._kernels import able, install
from effivlm.models._quantization import KEY, Schemes, scheme_of, schemes, stated
from effivlm.models._sources import RANDOM, ModelSource
from effivlm.models._spreading import over_all

TRAINED, DEQUANTISED = "trained", "dequantised"
PLAIN = ("F64", "F32", "BF16", "F16")
"""What a file calls the types of weights that stand in it as they are."""
SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1}
LASTS = {
    *("weight_packed", "weight_shape", "weight_scale", "weight_zero_point", "weight_g_idx", "weight_scale_inv"),
    *("qweight", "qzeros", "scales", "g_idx"),
}
"""Last names of tensors that stand for a weight."""
BESIDE = {
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "activation_scale",
    "output_scale",
    "output_zero_point",
}
"""Last names of what is said of activations, which are not rounded here, or row by row."""
FIRST = {
    "packed": ("weight_packed", "weight_shape"),
    "plain": ("weight",),
    "awq": ("qweight",),
    "gptq": ("qweight",),
}
"""Last names of the tensors that tell a layer's shape."""


class Late:
    """A tensor that is made when the loader asks for all of it, as it asks files."""

    def __init__(self, make: Callable[[], Tensor]) -> None:
        self._make = make

    def __getitem__(self, at: Any) -> Tensor:
        return self._make()[at]


@dataclass(frozen=True, slots=True)
class Layer:
    """One compressed linear layer of a checkpoint: its name, its tensors by last name, as files hold them, and their scheme."""

    name: str
    parts: Mapping[str, Any]
    scheme: Scheme

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        if self.scheme.kind == "packed":
            outputs, inputs = self.parts["weight_shape"][...].tolist()
            return int(outputs), int(inputs)
        first, second = self.parts[FIRST[self.scheme.kind][0]].get_shape()
        each = 32 // self.scheme.bits
        return {"plain": (first, second), "awq": (second * each, first), "gptq": (second, first * each)}[
            self.scheme.kind
        ]

    def read(self, device: str) -> Stored:
        """ValueError where its tensors do not fit each other; names it."""
        tensors = {last: part[...].to(device) for last, part in self.parts.items()}
        try:
            return stored(tensors, self.scheme)
        except (ValueError, RuntimeError, IndexError) as error:
            raise ValueError(
                f"layer {self.name}: {told(error) if not isinstance(error, ValueError) else error}"
            ) from error


class Compressed:
    """The compressed layers of a folder, and everything else of it as it is."""

    def __init__(self, folder: Path, schemes: Schemes) -> None:
        found: dict[str, dict[str, Any]] = {}
        self.others: dict[str, Any] = {}
        for name, part in _parts(folder).items():
            place, _, last = name.rpartition(".")
            if last in LASTS or last in BESIDE:
                found.setdefault(place, {})[last] = part
            else:
                self.others[name] = part
        self.layers: list[Layer] = []
        for place, parts in found.items():
            if (layer := self._layer(place, parts, schemes)) is not None:
                self.layers.append(layer)
        for name, part in self.others.items() if schemes else ():
            if name.endswith(".weight") and part.get_dtype() not in PLAIN:
                raise ValueError(
                    f"layer {name.removesuffix('.weight')} is stored as {part.get_dtype()} without a scale"
                )
        if schemes and not self.layers:
            raise ValueError(f"its {KEY} says that layers are compressed, but none of them is")
        self._held: dict[int, tuple[Layer, Tensor]] = {}
        self._whole = False

    def _layer(self, place: str, parts: dict[str, Any], schemes: Schemes) -> Layer | None:
        """None where the weight of such a place stands there as it is, rounded or not, or where it has none."""
        if not LASTS & parts.keys():
            return None
        weight = self.others.get(f"{place}.weight")
        if weight is not None and weight.get_dtype() in PLAIN:
            return None
        if not schemes:
            raise ValueError(
                f"layer {place} is compressed ({', '.join(sorted(parts))}), of which its {KEY} says nothing"
            )
        if weight is not None:
            parts["weight"] = self.others.pop(f"{place}.weight")
        try:
            scheme = scheme_of(place, schemes)
        except ValueError as error:
            raise ValueError(f"layer {place}: {error}") from None
        for first in FIRST[scheme.kind]:
            if first not in parts:
                raise ValueError(f"layer {place} has no {first}, only {', '.join(sorted(parts))}")
        return Layer(place, {last: part for last, part in parts.items() if last not in BESIDE}, scheme)

    def loaded_bytes(self, size: int, dtype: torch.dtype, device: str) -> int:
        """Bytes of all weights once they are loaded there, in numbers of `size` bytes or as a kernel reads them."""
        total: int = sum(size * math.prod(part.get_shape()) for part in self.others.values())
        for layer in self.layers:
            if able(layer.scheme, *layer.shape, device, dtype):
                total += sum(math.prod(part.get_shape()) * SIZES[part.get_dtype()] for part in layer.parts.values())
            else:
                total += size * math.prod(layer.shape)
        return total

    def state(self, device: str, dtype: torch.dtype, kernels: bool) -> dict[str, Any]:
        """Tensors by name as a plain checkpoint would hold them, made when they are asked for.

        With `kernels`, the weights of layers that one may read are a single number in their shape, which `finish` replaces.
        """
        made: dict[str, Any] = dict(self.others)
        for layer in self.layers:
            name = f"{layer.name}.weight"
            if kernels and able(layer.scheme, *layer.shape, device, dtype):
                number = torch.zeros(1, device=device, dtype=dtype)
                self._held[number.data_ptr()] = layer, number
                made[name] = number.expand(layer.shape)
            else:
                self._whole = True
                made[name] = Late(lambda layer=layer: layer.read(device).dense(dtype))  # type: ignore[misc]
        return made

    def finish(self, model: nn.Module, layers: Sequence[nn.Module], device: str, dtype: torch.dtype) -> list[str]:
        """Put kernels into the decoder's layers, and dequantised weights where they are not used after all; kernels' names."""
        if not self._held:
            return []
        inside = {part for layer in layers for part in layer.modules() if type(part) is nn.Linear}
        kernels: set[str] = set()
        for block in [*layers, model]:  # what is in no decoder layer comes last
            packed: dict[nn.Module, Packed] = {}
            for part in block.modules():
                weight = getattr(part, "weight", None)
                if not isinstance(weight, Tensor) or weight.data_ptr() not in self._held:
                    continue
                held, _ = self._held.pop(weight.data_ptr())
                weights = held.read(device)
                found = weights.packed() if part in inside else None
                if found is None:
                    part.weight = nn.Parameter(weights.dense(dtype), requires_grad=False)
                    self._whole = True
                else:
                    packed[part] = found
            kernels |= install([block], packed, dtype)
        if self._held:
            left, _ = next(iter(self._held.values()))
            raise ValueError(f"layer {left.name} went into no layer of the model as it is")
        return sorted(kernels)

    def words(self, kernels: Sequence[str]) -> str:
        """What records say of the weights: their forms, and the kernels that read them."""
        if not self.layers:
            return TRAINED
        forms = dict.fromkeys(layer.scheme.words for layer in self.layers)
        how = [*kernels, *[DEQUANTISED] * self._whole]
        return f"{' + '.join(forms)}, {' and '.join(how)}"


def readers(source: ModelSource, kernels: str) -> list[str]:
    """What decides how the weights of a compressed checkpoint are read; nothing for any other."""
    if source.source.startswith(RANDOM) or not (config := _config(Path(source.source))) or stated(config) is None:
        return []
    return reading(kernels)


def reading(kernels: str) -> list[str]:
    """What decides how compressed weights are read, of whatever checkpoint."""
    library = [version("humming-kernels")] if kernels == "auto" and int4.installed() else []
    return [f"kernels {kernels}", *library]


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}


def compressed(folder: Path, config: Any) -> Compressed | None:
    """The compressed layers of a checkpoint, or None where it holds none; `config` forgets that it was compressed.

    Raises:
        ValueError: it is compressed in a way that is not read here, or lacks tensors; names both.
    """
    said = stated(config.to_dict())
    if said is None:
        return None
    for one in (config, config.get_text_config()):
        if hasattr(one, KEY):
            delattr(one, KEY)
    return Compressed(folder, schemes(said))


def _parts(folder: Path) -> dict[str, Any]:
    """All tensors of a folder's files by name, none of them read."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for file in files(folder):
        if not (folder / file).is_file():
            raise ValueError(f"{file} is missing")
        try:
            opened: Any = safe_open(folder / file, framework="pt")
        except Exception as error:  # the library has kinds of its own
            raise ValueError(f"{file} is damaged ({told(error)})") from error
        found |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  it is no mapping
    return found


def opened(
    kind: Any, folder: Path, config: Any, device_map: str, dtype: str, kernels: bool
) -> tuple[Any, Mapping[str, Any], str]:
    """A model of this class of transformers' from a folder, what its loader says of names, and what the weights are.

    `device_map` is one device, or "auto": its parts are spread over all GPUs.

    Raises:
        ValueError: the folder is compressed in a way that is not read here, or the GPUs have no room for all parts; anything that
            the loader raises.
    """
    place: dict[str, Any] = {"pretrained_model_name_or_path": str(folder)}
    held, kept = compressed(folder, config), getattr(torch, dtype)
    apart = device_map == "auto"
    device = "cpu" if apart else device_map
    if held is not None:
        state = held.state(device, kept, kernels and not apart)
        place = {"pretrained_model_name_or_path": None, "state_dict": state}
    model, info = kind.from_pretrained(
        **place,
        config=config,
        dtype=kept,
        device_map=over_all(kind, config, kept) if apart else device_map,
        attn_implementation="sdpa",
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    if held is None:
        return model, info, TRAINED
    if (folder / "generation_config.json").is_file():
        model.generation_config = type(model.generation_config).from_pretrained(str(folder))
    fits = not any(info.get(word) for word in ("missing_keys", "mismatched_keys"))
    used = held.finish(model, model.get_decoder().layers, device, kept) if fits else []
    return model, info, held.words(used)
