"""What the inputs of linear layers were: sums over calibration tokens, gathered by hooks while a block runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.seams.hooked import hooked


class Seen:
    """Sums over the tokens that one input had, each token with its weight.

    norms [in]: of squares; sizes [in]: of absolute values; hessian [in, in]: of products, where asked for. All float32.
    """

    def __init__(self, width: int, device: torch.device, products: bool) -> None:
        self.norms = torch.zeros(width, device=device)
        self.sizes = torch.zeros(width, device=device)
        self.hessian = torch.zeros(width, width, device=device) if products else None
        self.total = 0.0

    def add(self, inputs: Tensor, weights: Tensor | None) -> None:
        """Tokens [N, in] with weights [N]; None: all weigh 1."""
        rows = inputs.float()
        root = None if weights is None else weights.to(rows.device, torch.float32).sqrt()[:, None]
        scaled = rows if root is None else rows * root
        self.norms += scaled.square().sum(0)
        self.sizes += (rows.abs() if root is None else scaled.abs() * root).sum(0)
        if self.hessian is not None:
            self.hessian.addmm_(scaled.T, scaled)
        self.total += float(len(rows) if weights is None else weights.sum())

    def check(self, name: str) -> None:
        """
        Raises:
            ValueError: nothing was seen, or what was seen is not finite, or all zero.
        """
        if self.total <= 0:
            raise ValueError(f"{name}: no calibration token reached it")
        if not bool(torch.isfinite(self.norms).all()):
            raise ValueError(f"{name}: its calibration inputs hold NaN or infinity")
        if not bool(self.norms.any()):
            raise ValueError(f"{name}: its calibration inputs are all zero")


def gathered(
    linears: Mapping[str, nn.Linear],
    needs: str,
    count: int,
    run: Callable[[int], object],
    weights: Callable[[int], Tensor | None],
) -> dict[str, Seen]:
    """Run `count` samples and sum what entered each linear layer; layers with one and the same input share its sums.

    `weights(i)` are those of sample i's tokens; None, or another number of them than rows: all weigh 1.

    Raises:
        ValueError: an input is not finite, is all zero, or was never there.
    """
    seen: dict[str, Seen] = {}
    with _watching(linears, seen, needs == "hessian") as now:
        for sample in range(count):
            now["weights"], now["inputs"] = weights(sample), {}
            run(sample)
    for name in linears:
        if name not in seen:
            raise ValueError(f"{name}: no calibration token reached it")
        seen[name].check(name)
    return seen


@contextmanager
def _watching(linears: Mapping[str, nn.Linear], seen: dict[str, Seen], products: bool) -> Iterator[dict[str, Any]]:
    now: dict[str, Any] = {"weights": None, "inputs": {}}

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            (given,) = args
            known = now["inputs"].get(id(given))
            if known is not None and seen.setdefault(name, known[1]) is known[1]:
                return  # another layer's very input, summed already
            if name not in seen:
                seen[name] = Seen(given.shape[-1], given.device, products)
            now["inputs"][id(given)] = (given, seen[name])  # held, so that no other tensor gets its id
            rows = given.flatten(0, -2)
            weights = now["weights"]
            seen[name].add(rows, weights if weights is not None and len(weights) == len(rows) else None)

        return hook

    with hooked(linear.register_forward_pre_hook(look(name)) for name, linear in linears.items()):
        yield now


def in_order(linears: Mapping[str, nn.Linear], run: Callable[[int], object]) -> list[list[str]]:
    """Names of linear layers in the order in which one sample meets them, those with the same input together."""
    met: list[tuple[Tensor, list[str]]] = []

    def look(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            if any(name in names for _, names in met):
                return
            same = next((names for given, names in met if given is args[0]), None)
            met.append((args[0], [name])) if same is None else same.append(name)

        return hook

    with hooked(linear.register_forward_pre_hook(look(name)) for name, linear in linears.items()):
        run(0)
    return [names for _, names in met]
