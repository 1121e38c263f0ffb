"""A checkpoint like another one, with some of its tensors replaced: same files, same names, same everything else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effivlm.data.places import write_json
from effivlm.models._sources import SUMS
from effivlm.weights.journal import room, write_tensors

INDEX = "model.safetensors.index.json"
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx"}


def files_of(folder: Path) -> list[Path]:
    """The files of tensors that a checkpoint is made of."""
    index = folder / INDEX
    if index.exists():
        names = sorted({*json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
        return [folder / name for name in names]
    return sorted(folder.glob("*.safetensors"))


KNOWN = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
"""Precisions that weights are computed in, by what files call them."""


def types_of(folder: Path, keys: Collection[str]) -> dict[str, str]:
    """The precisions in which a checkpoint holds these tensors.

    Raises:
        ValueError: one is none that weights are computed in.
    """
    from safetensors import safe_open

    found: dict[str, str] = {}
    for path in files_of(folder):
        with safe_open(path, "pt") as file:
            for key in {*keys} & {*file.keys()}:
                kind = file.get_slice(key).get_dtype()
                if kind not in KNOWN:
                    allowed = ", ".join(KNOWN)
                    raise ValueError(f"{path} holds {key} as {kind}, which cannot be compressed; {allowed} can")
                found[key] = KNOWN[kind]
    return found


def tensor(folder: Path, key: str) -> Tensor:
    """A tensor of a checkpoint, as its file holds it. KeyError where there is none."""
    from safetensors import safe_open

    for path in files_of(folder):
        with safe_open(path, "pt") as file:
            if key in file.keys():  # noqa: SIM118
                found: Tensor = file.get_tensor(key)
                return found
    raise KeyError(key)


def places(folder: Path, wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """The names that parameters have in a checkpoint's files: transformers may know them by others.

    `wanted`: parameters as they were loaded, by their names in the model. The name with the longest common end is the one, and
    what it holds must be what was loaded.

    Raises:
        ValueError: a parameter is not found, or holds NaN or infinity.
    """
    from safetensors import safe_open

    ends: dict[str, list[tuple[int, str, Path]]] = {name: [] for name in wanted}
    by_last: dict[str, list[str]] = {}
    for name in wanted:
        by_last.setdefault(".".join(name.split(".")[-2:]), []).append(name)
    for path in files_of(folder):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                for name in by_last.get(".".join(key.split(".")[-2:]), ()):
                    ends[name].append((_common(name, key), key, path))
    found: dict[str, str] = {}
    for name, value in wanted.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name} holds NaN or infinity, as it is loaded from {folder}")
        for _, key, path in sorted(ends[name], key=lambda one: -one[0]):
            if key not in found.values() and _same(path, key, value):
                found[name] = key
                break
        else:
            raise ValueError(f"{folder} holds no tensor that became {name}: it cannot be written in the same structure")
    return found


def _common(name: str, key: str) -> int:
    """How many of the last words of two names are the same."""
    pairs = zip(reversed(name.split(".")), reversed(key.split(".")), strict=False)
    count = 0
    for one, other in pairs:
        if one != other:
            break
        count += 1
    return count


def _same(path: Path, key: str, value: Tensor) -> bool:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        if tuple(file.get_slice(key).get_shape()) != tuple(value.shape):
            return False
        return torch.equal(file.get_tensor(key).to(value.dtype), value.cpu())


def write(source: Path, target: Path, new: Mapping[str, Mapping[str, Tensor]], config: Mapping[str, Any]) -> None:
    """Write a checkpoint into the empty folder `target`.

    `new`: by the name of a tensor in the source, what stands there instead, by full names; `config`: what is added to
    config.json.
    """
    with room(target):
        for path in sorted(source.iterdir()):
            if path.is_file() and path.suffix not in WEIGHTS and path.name not in (SUMS, INDEX, "config.json"):
                shutil.copyfile(path, target / path.name)
        described = json.loads((source / "config.json").read_text(encoding="utf-8"))
        write_json(target / "config.json", {**described, **config})
    where, size = dict[str, str](), 0
    for path in files_of(source):
        tensors = dict(_replaced(path, new))
        write_tensors(target / path.name, tensors, {"format": "pt"})
        where |= dict.fromkeys(tensors, path.name)
        size += sum(tensor.nbytes for tensor in tensors.values())
    if (source / INDEX).exists():
        with room(target):
            write_json(target / INDEX, {"metadata": {"total_size": size}, "weight_map": where})


def _replaced(path: Path, new: Mapping[str, Mapping[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118
            if key in new:
                yield from new[key].items()
            else:
                yield key, file.get_tensor(key)
