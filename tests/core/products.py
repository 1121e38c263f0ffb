"""What lies in the folder of a product, for tests that make one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from effivlm.weights.product import PRODUCT

FEW: dict[str, Any] = {"samples": 2, "calibration": "micro"}


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / PRODUCT).read_text())
    return found
