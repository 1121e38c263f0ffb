"""No method holds a square of a long prompt: the largest tensor of a prefill with it grows with the length, not faster."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import twins
from forms import picture, sample
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from effivlm import registry
from effivlm.compression import merge, similar
from effivlm.methods import cake, expected_attention
from effivlm.models._adapter import Adapter
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.run.group import open_model
from effivlm.run.tree import Tree
from effivlm.seams import columns

SIDES = (16, 32)  # tokens along one side of the picture, beside 32 along the other


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.by = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for part in out if isinstance(out, tuple | list) else (out,):
            # what no memory of its own stands behind (an expanded view) counts as what it views
            if isinstance(part, Tensor):
                held = min(part.numel(), part.untyped_storage().nbytes() // part.element_size())
                if held > self.elements:
                    self.elements, self.by = held, str(func)
        return out


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """The family that takes a picture of any size as one grid."""
    folder = twins.build("qwen2_vl", tmp_path_factory.mktemp("wide"))
    opened = open_model(resolve(f"twin={folder}"), Settings())
    opened.processor.image_processor.size = {"shortest_edge": 256, "longest_edge": 1 << 22}
    return opened


def tree_of(model: Adapter, method: Any, side: int) -> Tree:
    shown = replace(sample("one"), images=(picture(16 * 32, 16 * side, 1),))
    tree = Tree(model, shown, [method])
    assert len(model.visual_positions(tree._inputs(None))) == 32 * side
    return tree


def largest(model: Adapter, method: Any, side: int) -> Largest:
    """Of all that follows the vision tower, whose pixels would hide the rest."""
    with model.seams():
        tree = tree_of(model, method, side)
        tree._encoded(None)
        with Largest() as seen:
            tree.leaf(method)
    return seen


@pytest.mark.parametrize(
    ("name", "preset"),
    [
        (name, preset)
        for name in registry.token_methods()
        for preset in registry.load("methods", name).presets  # type: ignore[attr-defined]
        if (name, preset) != ("downsample", "paper")  # other pictures, and nothing else
    ],
)
def test_the_largest_tensor_grows_with_the_prompt_and_not_with_its_square(
    name: str, preset: str, wide: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = [(columns, "BLOCK", 32), (merge, "TILE", 32), (similar, "ELEMENTS", 1 << 14)]
    limits += [(cake, "MOST", 1 << 14), (expected_attention, "MOST", 1 << 14)]
    for module, blocks, size in limits:
        monkeypatch.setattr(module, blocks, size)  # small, so that blocks are many at lengths that take no time
    kind = registry.load("methods", name)
    method = kind(keep=Budget.parse("0.6"), **kind.presets[preset])  # type: ignore[attr-defined]
    short, long = (largest(wide, method, side) for side in SIDES)
    assert long.elements <= 2.2 * short.elements, f"{long.by}: {long.elements}, {short.by}: {short.elements} elements"
    assert long.elements < (32 * SIDES[1]) ** 2 / 4


def test_looking_at_the_tower_makes_no_square_of_its_patches(wide: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "ELEMENTS", 1 << 16)
    patches, found = 4 * 32 * SIDES[1], {}
    for looking in (False, True):
        with wide.seams():
            inputs = wide.prepare(tree_of(wide, registry.load("methods", "dense")(), SIDES[1]).sample)
            with Largest() as seen:
                wide.encode(inputs, looking)
        found[looking] = seen.elements
    assert found[True] == found[False] < patches**2 / 8
