"""What a checkpoint's `quantization_config` says of the storage of its layers. Nothing is read but the configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from effivlm.models._formats import Scheme

KEY = "quantization_config"
METHODS = ("compressed-tensors", "awq", "gptq", "fp8")
FORMATS = {"pack-quantized": "packed", "int-quantized": "plain", "float-quantized": "plain", "naive-quantized": "plain"}
DENSE = "dense"
"""compressed-tensors' word for weights as they are, which were rounded or pruned before."""
Schemes = Mapping[tuple[str, ...], Scheme]
"""By what layers are named by: their type, their names, or patterns of these with "re:" before them."""
ALL = ("Linear",)
FRONTS = ("model.language_model.", "language_model.model.", "model.")
"""What stands before the layers of a decoder: in a model, in a file of one, and in a model of text alone."""


def stated(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The entry of a configuration, of the whole or of its text model; None where nothing is compressed."""
    found = config.get(KEY) or (config.get("text_config") or {}).get(KEY)
    if found is not None and not isinstance(found, Mapping):
        raise ValueError(f"its {KEY} is no object but {type(found).__name__}")
    return found


def schemes(stated: Mapping[str, Any]) -> Schemes:
    """How layers are stored, by their targets; nothing where weights are stored as they are.

    Raises:
        ValueError: the method or its format is not read here; names what is.
    """
    method = str(stated.get("quant_method"))
    if method == "compressed-tensors":
        return _compressed_tensors(stated)
    if method == "awq":
        return {ALL: _awq(stated)}
    if method == "gptq":
        return {ALL: _gptq(stated)}
    if method == "fp8":
        return {ALL: _fp8(stated)}
    raise ValueError(f"quant_method {method!r} is not read here; these are: {', '.join(METHODS)}")


def scheme_of(name: str, schemes: Schemes) -> Scheme:
    """The scheme of the layer with this name: by its name or a pattern, or else by its type.

    Raises:
        ValueError: no group of the configuration names it.
    """
    for targets, scheme in schemes.items():
        if any(_named(one, target) for one in _spellings(name) for target in targets):
            return scheme
    for targets, scheme in schemes.items():
        if "Linear" in targets or len(schemes) == 1:
            return scheme
    raise ValueError("no group of the configuration names it")


def _spellings(name: str) -> list[str]:
    """A layer's name in its file, and those that modules of its decoder have had: configurations are written with either."""
    found = re.fullmatch(r"(?:model\.|language_model\.)*(layers\..+)", name)
    return [name] if found is None else [name, *(f"{front}{found[1]}" for front in FRONTS)]


def _named(name: str, target: str) -> bool:
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), name) is not None
    return target == name or name.endswith(f".{target}") or target.endswith(f".{name}")


def _compressed_tensors(stated: Mapping[str, Any]) -> Schemes:
    if stated.get("kv_cache_scheme"):
        raise ValueError("its cache is quantised too (kv_cache_scheme), which is not done here")
    sparsity = (stated.get("sparsity_config") or {}).get("format", DENSE)
    if sparsity != DENSE:
        raise ValueError(f"sparsity format {sparsity!r} is not read here; save it with sparsity format dense")
    found = {}
    for name, group in (stated.get("config_groups") or {}).items():
        if not isinstance(group, Mapping):
            raise ValueError(f"its group {name!r} is no object: {str(group)[:60]!r}")
        form = str(group.get("format") or stated.get("format"))
        if form == DENSE or not group.get("weights"):
            continue
        if form not in FORMATS:
            raise ValueError(f"compressed-tensors format {form!r} is not read here; these are: {', '.join(FORMATS)}")
        found[tuple(group.get("targets") or ALL)] = _group(
            FORMATS[form], group["weights"], group.get("input_activations")
        )
    return found


def _group(kind: str, weights: Mapping[str, Any], activations: Mapping[str, Any] | None) -> Scheme:
    bits, floating = int(weights.get("num_bits", 8)), weights.get("type") == "float"
    if not 1 < bits <= 8 or ((kind == "plain" or floating) and bits != 8):
        raise ValueError(f"{'floating ' * floating}weights of {bits} bits are not read here")
    strategy = weights.get("strategy") or ("group" if weights.get("group_size") else "tensor")
    group = int(weights.get("group_size") or 0) if strategy == "group" else 0
    block = _block(weights.get("block_structure")) if strategy == "block" else (0, 0)
    entered = activations or {}
    rows = entered.get("strategy") == "token" and bool(entered.get("dynamic"))
    dynamic = floating and rows and entered.get("type") == "float" and entered.get("num_bits") == 8
    demanded = () if weights.get("symmetric", True) else ("weight_zero_point",)
    activations_bits = int(entered.get("num_bits", 16))
    return Scheme(kind, bits, max(0, group), block, activations_bits, dynamic, floating, demanded=demanded)


def _awq(stated: Mapping[str, Any]) -> Scheme:
    bits, version = int(stated.get("bits", stated.get("w_bit", 4))), str(stated.get("version", "gemm")).lower()
    if bits != 4 or version != "gemm":
        raise ValueError(f"AWQ of {bits} bits in version {version!r} is not read here; 4 bits in version 'gemm' are")
    return Scheme("awq", bits, _size(stated.get("group_size", stated.get("q_group_size", 128))))


def _gptq(stated: Mapping[str, Any]) -> Scheme:
    bits, form = int(stated.get("bits", 4)), str(stated.get("checkpoint_format") or "gptq")
    if bits not in (2, 3, 4, 8) or form not in ("gptq", "gptq_v2"):
        raise ValueError(
            f"GPTQ of {bits} bits in format {form!r} is not read here; 2, 3, 4 and 8 in 'gptq' or 'gptq_v2' are"
        )
    group = _size(stated.get("group_size", 128))
    return Scheme("gptq", bits, group, version=form, demanded=("g_idx",) if group and stated.get("desc_act") else ())


def _fp8(stated: Mapping[str, Any]) -> Scheme:
    block = _block(stated.get("weight_block_size")) if stated.get("weight_block_size") else (0, 0)
    return Scheme("plain", 8, 0, block, 8, floating=True, version="weight_scale_inv")


def _size(value: Any) -> int:
    """Inputs of a group; -1 and None stand for all of them."""
    return max(0, int(value if value is not None else -1))


def _block(value: Sequence[int] | None) -> tuple[int, int]:
    if value is None or len(value) != 2 or min(value) < 1:
        raise ValueError(f"a block of {value!r} is no two sizes")
    return int(value[0]), int(value[1])
