"""The walk through a model, block by block: gather what enters the linears, solve them, go on with what the new weights make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from effivlm.compression.weights import Linear, Solved, WeightMethod
from effivlm.models._adapter import Adapter
from effivlm.records import Sample, Unsupported
from effivlm.weights.seen import gathered, in_order
from effivlm.weights.smoothing import Block
from effivlm.weights.texts import Text, beside, entering, through

PROJECTORS = ("projector", "merger", "connector", "mlp1")


@dataclass(frozen=True, slots=True)
class Stage:
    """A block that is compressed at once: `linears` by their names inside it, `run` for one sample, weights of its tokens."""

    name: str
    module: nn.Module
    linears: Mapping[str, nn.Linear]
    samples: int
    run: Callable[[int], object]
    weights: Callable[[int], Tensor | None]

    @property
    def sizes(self) -> list[int]:
        return [linear.weight.numel() for linear in self.linears.values()]


@dataclass(slots=True)
class Made:
    """What became of a stage: its linears' weights, and the names of other parameters inside it that changed."""

    solved: dict[str, Solved]
    changed: set[str] = field(default_factory=set)


def linears_of(module: nn.Module, name: str) -> dict[str, nn.Linear]:
    """The linear layers inside a module.

    Raises:
        Unsupported: there is none, or one whose forward is not nn.Linear's own.
    """
    found = {}
    for inner, one in module.named_modules():
        if isinstance(one, nn.Linear):
            if type(one) is not nn.Linear or "forward" in vars(one):
                raise Unsupported(
                    f"{name}.{inner} is a {type(one).__name__} with a forward of its own: it is compressed already"
                )
            found[inner] = one
    if not found:
        raise Unsupported(f"{name} has no linear layers of its own to compress")
    return found


def named(adapter: Adapter, module: nn.Module) -> str:
    """The full name of a module in the model."""
    names: dict[int, str] = {id(one): name for name, one in adapter.model.named_modules()}
    return names[id(module)]


def outline(adapter: Adapter, targets: str) -> dict[str, nn.Module]:
    """The blocks that `targets` name, by their full names, in the order of the walk: tower, projector, language model."""
    wanted, found = targets.split("+"), dict[str, nn.Module]()
    inside = {id(module) for module in adapter.text.modules()} | {id(adapter.head)}
    outer = {
        name: module
        for name, module in adapter.model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in inside
    }
    projecting = {name: any(word in name for word in PROJECTORS) for name in outer}
    for part, is_projector in (("tower", False), ("projector", True)):
        if part in wanted:
            names = [_block(name) for name in outer if projecting[name] == is_projector]
            if not names:
                raise Unsupported(f"model {adapter.source.name!r} has no linear layers in its {part}")
            found |= {name: adapter.model.get_submodule(name) for name in dict.fromkeys(names)}
    if "language" in wanted:
        found |= {named(adapter, layer): layer for layer in adapter.layers}
    return found


def _block(name: str) -> str:
    """The numbered block that a linear lies in, or what holds it."""
    words = name.split(".")
    numbers = [place for place, word in enumerate(words) if word.isdigit()]
    return ".".join(words[: numbers[0] + 1] if numbers and numbers[0] + 1 < len(words) else words[:-1])


class Walk:
    """Calibration samples on their way through the model; without any, weights alone are looked at.

    `read` makes of them what enters the language model, and is asked once all blocks before that are done.
    """

    def __init__(self, adapter: Adapter, samples: Sequence[Sample], read: Callable[[], Sequence[Text]]) -> None:
        self.adapter, self.samples, self.read = adapter, samples, read
        self.texts: Sequence[Text] = ()
        self.hidden: list[Tensor] = []
        self.others: list[list[dict[str, Any]]] = []

    def stages(self, blocks: Mapping[str, nn.Module]) -> Iterator[Stage]:
        """The blocks one after another; each sees what those before it make when it is asked for."""
        numbers = {id(layer): number for number, layer in enumerate(self.adapter.layers)}
        for name, module in blocks.items():
            linears = linears_of(module, name)
            if (number := numbers.get(id(module))) is None:
                yield Stage(name, module, linears, len(self.samples), self._encode, lambda sample: None)
                continue
            if self.samples and not self.hidden:
                self._enter()
            yield Stage(name, module, linears, len(self.texts), self._runner(number), self._weights)

    def leave(self, stage: Stage) -> None:
        """Go on with what leaves a decoder layer as it now is."""
        if any(stage.module is layer for layer in self.adapter.layers):
            self.hidden = [stage.run(sample) for sample in range(len(self.texts))]  # type: ignore[misc]

    def _enter(self) -> None:
        self.texts = self.read()
        for text in self.texts:
            first, others = entering(self.adapter, text)
            self.hidden.append(first)
            self.others.append(others)

    def _weights(self, sample: int) -> Tensor | None:
        return self.texts[sample].weights

    def _encode(self, sample: int) -> object:
        with self.adapter.seams():
            return self.adapter.encode(self.adapter.prepare(self.samples[sample]))

    def _runner(self, number: int) -> Callable[[int], Tensor]:
        def run(sample: int) -> Tensor:
            with beside(self.adapter, self.texts[sample]):
                return through(self.adapter.layers[number], self.hidden[sample], self.others[sample][number])

        return run


def compressed(
    stage: Stage, method: WeightMethod, zeros: Sequence[int], stored: str, exact: Callable[[str], Tensor] | None = None
) -> Made:
    """Solve the linears of a stage and put their new weights in place, rounded to the precision in which they are stored.

    `exact` gives a weight by its full name where the model's own precision does not hold all of it.

    Raises:
        ValueError: the method cannot: names the linear and says why.
    """
    wanted = dict(zip(stage.linears, zeros, strict=True))
    made = Made({})
    if method.needs == "nothing":
        groups: list[list[str]] = [list(stage.linears)]
    else:
        ordered = in_order(stage.linears, stage.run)
        unseen = set(stage.linears) - {name for group in ordered for name in group}
        if unseen:
            raise ValueError(f"{stage.name}: no calibration token reached {', '.join(sorted(unseen))}")
        groups = ordered if method.sequential else [[name for group in ordered for name in group]]
    for group in groups:
        linears = {name: stage.linears[name] for name in group}
        seen = {}
        if method.needs != "nothing":
            try:
                seen = gathered(linears, method.needs, stage.samples, stage.run, stage.weights)
            except ValueError as error:
                raise ValueError(f"{stage.name}.{error}") from None
            method.prepare(Block(stage.module, linears, seen, stored, made.changed, stage.samples, stage.run))
        for name, linear in linears.items():
            known = seen.get(name)
            asked = Linear(
                f"{stage.name}.{name}",
                (exact(f"{stage.name}.{name}.weight") if exact else linear.weight.detach()).float(),
                method.goal,
                wanted[name],
                stored,
                known.norms if known else None,
                known.hessian if known else None,
            )
            made.solved[name] = method.solve(asked)
            install(linear, made.solved[name].weight.to(getattr(torch, stored)))
    return made


def install(linear: nn.Linear, weight: Tensor) -> None:
    """Put a weight in place as it is stored.

    Raises:
        ValueError: it is not finite, or of another shape.
    """
    if weight.shape != linear.weight.shape:
        raise ValueError(f"a weight of shape {tuple(weight.shape)} where {tuple(linear.weight.shape)} belongs")
    if not bool(torch.isfinite(weight).all()):
        raise ValueError("a new weight holds NaN or infinity")
    with torch.no_grad():
        linear.weight.copy_(weight)
