"""How much the loss feels each block: by noise on its weights, or by the gradient's size, which noise measures in the limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from effivlm.compression.base import generator
from effivlm.models._adapter import Adapter
from effivlm.weights.texts import Text, beside, entering, through

Loss = Callable[[int], Tensor]


def loss_of(adapter: Adapter, text: Text, start: int = 0, entered: Tensor | None = None, others: Any = None) -> Tensor:
    """Mean cross-entropy of the answer's tokens, from decoder layer `start` on, which `entered` [1, N, d] enters."""
    if entered is None:
        entered, others = entering(adapter, text)
    with beside(adapter, text):
        hidden = entered
        for number in range(start, len(adapter.layers)):
            hidden = through(adapter.layers[number], hidden, others[number])
    hidden = adapter.text.norm(hidden)
    count = len(text.answer)
    logits = adapter.head(hidden[0, -count - 1 : -1]).float()
    return functional.cross_entropy(logits, text.answer)


def by_noise(linears: Sequence[nn.Linear], loss: Loss, samples: int, epsilon: float, *names: object) -> float:
    """The sum over linears of the mean over samples of |L(W + eps z) - L(W - eps z)| / (2 eps), z standard normal.

    Every weight is afterwards what it was, bit for bit; `names` seed the noise.
    """
    total = 0.0
    for number, linear in enumerate(linears):
        before = linear.weight.detach().clone()
        for sample in range(samples):
            rng = generator(0, *names, number, sample)
            noise = torch.randn(before.shape, generator=rng).to(before.device) * epsilon
            try:
                linear.weight.data.copy_(before.float() + noise)
                above = float(loss(sample))
                linear.weight.data.copy_(before.float() - noise)
                total += abs(above - float(loss(sample))) / (2 * epsilon) / samples
            finally:
                linear.weight.data.copy_(before)
    return total


def by_gradient(groups: Mapping[str, Sequence[nn.Linear]], loss: Loss, samples: int) -> dict[str, float]:
    """The sum over a group's linears of the mean over samples of the gradient's norm."""
    weights = {name: [linear.weight for linear in group] for name, group in groups.items()}
    everything = [weight for group in weights.values() for weight in group]
    total = dict.fromkeys(groups, 0.0)
    for weight in everything:
        weight.requires_grad_(True)
    try:
        for sample in range(samples):
            with torch.enable_grad():
                found = torch.autograd.grad(loss(sample), everything)
            sizes = iter([float(one.float().norm()) for one in found])
            for name, group in weights.items():
                total[name] += sum(next(sizes) for _ in group) / samples
    finally:
        for weight in everything:
            weight.requires_grad_(False)
    return total


def scores(
    adapter: Adapter,
    groups: Mapping[str, Sequence[nn.Linear]],
    texts: Sequence[Text],
    by: str,
    epsilon: float,
    seed: int,
) -> dict[str, float]:
    """The score of every decoder block, by its name.

    Raises:
        ValueError: a loss is not finite.
    """
    if by == "gradient":
        return by_gradient(groups, lambda sample: loss_of(adapter, texts[sample]), len(texts))
    found = {}
    with torch.no_grad():
        states = [entering(adapter, text) for text in texts]
        hidden = [first for first, _ in states]
        for number, (name, linears) in enumerate(groups.items()):

            def loss(sample: int, number: int = number) -> Tensor:
                return loss_of(adapter, texts[sample], number, hidden[sample], states[sample][1])

            found[name] = by_noise(linears, loss, len(texts), epsilon, seed, name)
            for sample, text in enumerate(texts):
                with beside(adapter, text):
                    hidden[sample] = through(adapter.layers[number], hidden[sample], states[sample][1][number])
    return found
