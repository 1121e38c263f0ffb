"""Makes `tests/data/weights_originals.json`: what the authors' code of SparseGPT and EcoFLaP makes of seeded layers.

    python tests/core/make_weights_golden.py FOLDER

FOLDER holds one file of each, fetched from its repository; none of it is part of this one.

    sparsegpt.py  IST-DASLab/sparsegpt, sparsegpt.py
    ecoflap.py    ylsung/ECoFLaP, CoOp/trainers/pruners/layer_single_base_pruner.py

The authors' SparseGPT removes one weight more in every block than its share of it, so it is asked for one less. EcoFLaP's loop
over what is too much adds where it should take away, and does not end; only cases that never enter it are kept.
"""

from __future__ import annotations

import ast
import json
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

OUTPUT = Path(__file__).parent.parent / "data" / "weights_originals.json"
LAYERS: tuple[dict[str, Any], ...] = (
    {"seed": 0, "rows": 6, "columns": 24, "block": 8, "share": "0.50", "pattern": None},
    {"seed": 1, "rows": 5, "columns": 20, "block": 128, "share": "0.20", "pattern": None},
    {"seed": 2, "rows": 7, "columns": 28, "block": 16, "share": "0.75", "pattern": None},
    {"seed": 3, "rows": 4, "columns": 24, "block": 8, "share": None, "pattern": [2, 4]},
    {"seed": 4, "rows": 3, "columns": 40, "block": 16, "share": None, "pattern": [4, 8]},
)
SHARES: tuple[dict[str, Any], ...] = (
    {"scores": [3.0, 1.0], "sizes": [1000, 1000], "zeros": "0.50", "most": "0.60"},
    {"scores": [3.0, 1.0], "sizes": [1000, 1000], "zeros": "0.50", "most": "0.90"},
    {"scores": [5.0, 2.0, 1.0], "sizes": [800, 800, 800], "zeros": "0.50", "most": "0.75"},
    {"scores": [4.0, 2.0, 1.0, 1.0], "sizes": [640, 640, 640, 640], "zeros": "0.25", "most": "0.50"},
)


def layer(case: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Weight [rows, columns] and correlated inputs [tokens, columns]."""
    rng = torch.Generator().manual_seed(case["seed"])
    weight = torch.randn(case["rows"], case["columns"], generator=rng)
    mixed = torch.randn(case["columns"], case["columns"], generator=rng) / case["columns"] ** 0.5
    return weight, torch.randn(200, case["columns"], generator=rng) @ mixed


def share(case: dict[str, Any]) -> float:
    """What the authors' code is asked for so that every block loses its rounded share."""
    return float(case["share"]) - 0.5 / (case["rows"] * min(case["block"], case["columns"]))


def sparsegpt(path: Path, case: dict[str, Any]) -> list[list[float]]:
    for name in ("transformers", "quant"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["transformers"].Conv1D = type("Conv1D", (), {})  # type: ignore[attr-defined]
    torch.cuda.synchronize = lambda *given: None
    space: dict[str, Any] = {}
    exec(compile(path.read_text(), str(path), "exec"), space)
    weight, inputs = layer(case)
    module = nn.Linear(case["columns"], case["rows"], bias=False)
    module.weight.data = weight.clone()
    pruner = space["SparseGPT"](module)
    pruner.add_batch(inputs[None], None)
    pattern = case["pattern"] or [0, 0]
    asked = share(case) if case["share"] else 0.0
    pruner.fasterprune(asked, *pattern, blocksize=case["block"], percdamp=0.01)
    return [[round(float(value), 5) for value in row] for row in module.weight.data]


def ecoflap(path: Path, case: dict[str, Any]) -> list[int]:
    tree = ast.parse(path.read_text())
    wanted = "compute_the_sparsity_per_group"
    (node,) = [one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef) and one.name == wanted]
    space: dict[str, Any] = {"torch": torch}
    exec(textwrap.dedent(ast.unparse(node)), space)
    names = [str(number) for number in range(len(case["sizes"]))]
    total = round((1 - float(case["zeros"])) * sum(case["sizes"]))
    lost = space[wanted](
        None,
        total,
        dict(zip(names, case["scores"], strict=True)),
        dict(zip(names, case["sizes"], strict=True)),
        float(case["most"]),
    )
    return [round(lost[name] * size) for name, size in zip(names, case["sizes"], strict=True)]


def main() -> None:
    folder = Path(sys.argv[1])
    found = {
        "sparsegpt": [{**case, "weight": sparsegpt(folder / "sparsegpt.py", case)} for case in LAYERS],
        "ecoflap": [{**case, "lost": ecoflap(folder / "ecoflap.py", case)} for case in SHARES],
    }
    OUTPUT.write_text(json.dumps(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
