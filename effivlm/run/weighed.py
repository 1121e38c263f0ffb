"""What a method of the checkpoint did to weights, counted on tensors, and whether that is what was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from effivlm.compression.weights import WeightMethod
from effivlm.records import Budget, KeptBy, Product
from effivlm.weights.product import PRODUCT
from effivlm.weights.saving import files_of

ZEROS_OFF = 1e-4
"""Of all weights that were to change: how far zeros may be from what was asked, and from what the product says of itself."""
BITS_OFF = 0.05
"""Of the bits that were asked for: what scales, shapes and groups that do not come out even may add or save."""
PLAIN = 16
PARTS = {
    *("weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"),
    *("qweight", "qzeros", "scales", "g_idx"),
}
"""Last names of tensors that stand for one weight together, beside "weight" where a scale stands beside it."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """The weights that a method was to change: how many there are, `zeros` among them and `bits` that they take in the files.

    `said` is the fraction of zeros (bits of a weight) by the record that came with them; `full`: groups of M inputs of which more
    than N weights are left, where N:M was asked; `product`: what the record of a run says of the checkpoint.
    """

    method: WeightMethod
    weights: int
    zeros: int
    bits: int
    said: float
    full: int = 0
    product: Product | None = None

    @classmethod
    def from_json(cls, method: WeightMethod, data: Mapping[str, Any]) -> Weighed:
        """KeyError for what is none."""
        counted = {name: data[name] for name in cls.__dataclass_fields__ if name not in ("method", "product")}
        return cls(method, **counted, product=Product(**data["product"]) if data["product"] else None)

    def to_json(self) -> dict[str, Any]:
        """All but the method, which a cell names."""
        counted = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("method", "product")}
        return {**counted, "product": self.product and asdict(self.product)}

    @property
    def of_bits(self) -> bool:
        return self.method.keep.kind == "bits"

    @property
    def counted(self) -> float:
        """The fraction of zeros, or bits of a weight."""
        return (self.bits if self.of_bits else self.zeros) / self.weights

    def kept_by(self, name: str) -> KeptBy:
        """What stays: weights that are no zeros of all, or bits of those that plain weights would take."""
        kept, total = (self.bits, PLAIN * self.weights) if self.of_bits else (self.weights - self.zeros, self.weights)
        keep = self.method.keep
        return KeptBy(name, self.method.of, float(keep), kept, total, keep.label, self.counted)

    @property
    def wrong(self) -> str:
        """How far what was counted is from what was asked, or from what the product says; "" where it is not."""
        asked = _asked(self.method.keep)
        allowed = BITS_OFF * asked if self.of_bits else ZEROS_OFF
        what = "bits a weight" if self.of_bits else "of the weights are zero"
        if self.full:
            return f"{self.full} groups of weights are not {self.method.keep.label}"
        if abs(self.counted - asked) > allowed:
            return f"{self.counted:.5g} {what} where {self.method.keep.label} was asked"
        if abs(self.counted - self.said) > ZEROS_OFF:
            return f"{self.counted:.5g} {what}, and {PRODUCT} says {self.said:.5g}"
        return ""


def _asked(keep: Budget) -> float:
    return PLAIN * float(keep) if keep.kind == "bits" else 1 - float(keep)


def record_of(folder: Path) -> dict[str, Any]:
    """What a product says of itself.

    Raises:
        ValueError: the folder is no product.
    """
    try:
        found: dict[str, Any] = json.loads((folder / PRODUCT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is no product of a method: {PRODUCT} cannot be read ({error})") from None
    return found


def weigh(method: WeightMethod, folder: Path, model: nn.Module) -> Weighed:
    """Count the layers that a product says it changed: zeros on the weights of the opened model, bits in its files.

    Raises:
        ValueError: the record and the model do not fit each other.
    """
    record = record_of(folder)
    layers: Mapping[str, Any] = record["layers"]
    weights, zeros, full = sum(int(one["weights"]) for one in layers.values()), 0, 0
    for name in layers if method.keep.kind != "bits" else ():
        try:
            weight = model.get_submodule(name).get_parameter("weight")
        except AttributeError:
            raise ValueError(f"{folder / PRODUCT} names a layer {name!r}, which the model has not") from None
        if weight.numel() != layers[name]["weights"]:
            raise ValueError(
                f"layer {name!r} of {folder} has {weight.numel()} weights, not those that its record names"
            )
        zeros += weight.numel() - int(weight.count_nonzero())
        full += _full(weight, method.keep)
    bits = packed_bits(folder) if method.keep.kind == "bits" else PLAIN * weights
    said = record["achieved"]["bits_per_weight" if method.keep.kind == "bits" else "zeros"]
    return Weighed(method, weights, zeros, bits, float(said), full)


def disk_bytes(folder: Path) -> int:
    """Bytes of the files of tensors of a checkpoint."""
    return sum(path.stat().st_size for path in files_of(folder))


def _full(weight: Tensor, keep: Budget) -> int:
    """Groups of neighbouring inputs in a weight [out, in] of which more stay than a pattern allows."""
    if keep.kind != "n:m":
        return 0
    stay, among = keep.numbers
    groups = weight[:, : weight.shape[1] // among * among].reshape(len(weight), -1, among)
    return int(((groups != 0).sum(-1) > stay).sum())


def packed_bits(folder: Path) -> int:
    """Bits of all tensors of a checkpoint's files that stand for a weight of fewer bits."""
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for path in files_of(folder):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name.rpartition(".")[2] in (*PARTS, "weight"):
                    sizes[name] = file.get_tensor(name).nbytes
    scaled = {name.rpartition(".")[0] for name in sizes if name.endswith((".weight_scale", ".scales"))}
    return 8 * sum(size for name, size in sizes.items() if name.rpartition(".")[0] in scaled)
