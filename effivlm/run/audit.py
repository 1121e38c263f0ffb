"""What was kept, counted on tensors, and whether that is what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from effivlm.compression.base import Method
from effivlm.compression.composed import Composed
from effivlm.records import Achieved, Cell, KeptBy
from effivlm.run.leaf import Leaf
from effivlm.run.paths import of_prompts
from effivlm.run.steps import stored
from effivlm.run.weighed import Weighed


def achieved(cell: Cell, method: Method, leaves: Sequence[Leaf], weighed: Weighed | None = None) -> Achieved:
    """What was kept over samples, from leaves without their caches; `weighed`: what stayed of a changed checkpoint's weights."""
    layers = [sum(counts) / len(leaves) for counts in zip(*(leaf.measured[0] for leaf in leaves), strict=True)]
    shares = list(_shares(cell, method, leaves))
    parts = [weighed.kept_by(stored(cell.method, cell.preset)[0].method)] if weighed else []
    parts += [share.stored for share in shares]
    composed = isinstance(method, Composed)
    following = [one.stored for one in shares if one.method.keep == method.keep] or parts
    counts = [(leaf.kept, leaf.of) for leaf in leaves] if composed else [(parts[0].kept, parts[0].total)]
    kept, total = (sum(numbers) for numbers in zip(*counts, strict=True))
    return Achieved(
        of=method.of,
        asked_keep=following[-1].asked_keep,
        kept=kept,
        total=total,
        keep=kept / total if total else 1.0,
        per_layer=tuple(layers),
        per_head=_per_head(leaves),
        kv_bytes=sum(leaf.measured[1] for leaf in leaves) // len(leaves),
        kv_bytes_dense=sum(leaf.dense_bytes for leaf in leaves) // len(leaves),
        visual_tokens=sum(leaf.visual_tokens for leaf in leaves) // len(leaves),
        parts=tuple(parts) if composed else (),
        asked=following[-1].asked,
        counted=None if composed else parts[0].counted,
    )


def _per_head(leaves: Sequence[Leaf]) -> tuple[tuple[float, ...], ...]:
    """Mean entries of every layer's KV heads; empty where the heads of a layer never differ."""
    if not (some := next((leaf.heads for leaf in leaves if leaf.heads), ())):
        return ()
    alike = (
        tuple((count,) * len(heads) for count, heads in zip(leaf.measured[0], some, strict=True)) for leaf in leaves
    )
    counts = [leaf.heads or same for leaf, same in zip(leaves, alike, strict=True)]
    return tuple(
        tuple(sum(numbers) / len(counts) for numbers in zip(*layer, strict=True)) for layer in zip(*counts, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Share:
    """What one method of a cell kept of each sample: `kept` of `of`, in `units` that are rounded by themselves, and `wanted`."""

    name: str
    method: Method
    kept: tuple[int, ...]
    of: tuple[int, ...]
    units: tuple[int, ...]
    wanted: tuple[Fraction, ...]

    @property
    def asked_keep(self) -> float:
        """The fraction that was asked for; of a number of tokens what it comes to over all samples."""
        if self.method.keep.kind != "tokens":
            return float(self.method.keep)
        return float(sum(self.wanted) / sum(self.of)) if sum(self.of) else 1.0

    @property
    def asked(self) -> str:
        """The budget in its own words, "" for a fraction."""
        return "" if self.method.keep.kind == "fraction" else self.method.keep.label

    @property
    def counted(self) -> float | None:
        """The mean number that stays of a sample (a layer), where a number was asked for."""
        units = sum(count for count, of in zip(self.units, self.of, strict=True) if of)
        return sum(self.kept) / units if self.asked and units else None

    @property
    def stored(self) -> KeptBy:
        kept, of = sum(self.kept), sum(self.of)
        return KeptBy(self.name, self.method.of, self.asked_keep, kept, of, self.asked, self.counted)


def _shares(cell: Cell, method: Method, leaves: Sequence[Leaf]) -> Iterator[_Share]:
    """One entry for each method of a composition that works on prompts, else the method itself."""
    each = of_prompts(method)
    steps = stored(cell.method, cell.preset)
    for number, (step, one) in enumerate(zip(steps[len(steps) - len(each) :], each, strict=True)):
        kept, of = zip(*(leaf.shares[number] for leaf in leaves), strict=True)
        by_layer = one.of == "prompt entries"
        units = tuple(len(leaf.measured[0]) if by_layer else 1 for leaf in leaves)
        each_wanted = (leaf.wanted[number] if leaf.wanted else 0 for leaf in leaves)
        wanted = tuple(Fraction(count) or one.keep.exact(total) for count, total in zip(each_wanted, of, strict=True))
        yield _Share(step.method, one, kept, of, units, wanted)


def verdict(cell: Cell, method: Method, leaves: Sequence[Leaf], weighed: Weighed | None = None) -> tuple[str, str]:
    """Status and reason of a cell by what it kept: "ok" where every sample's count is what was asked, within rounding.

    "unsupported" where the task gives a method nothing to compress, or a budget is less than half a token (a layer), of which at
    least a whole one stays; "failed" where more or fewer stay than a method's `allowance` says. `leaves` are without caches.
    """
    if weighed and weighed.wrong:
        name = stored(cell.method, cell.preset)[0].method
        return "failed", f"{name}: {weighed.wrong}" if isinstance(method, Composed) else weighed.wrong
    for share in _shares(cell, method, leaves):
        if share.method.keep.whole or not share.method.budgeted:
            continue
        for status, reason in (("unsupported", _impossible(share)), ("failed", _off(share))):
            if reason:
                return status, f"{share.name}: {reason}" if isinstance(method, Composed) else reason
    return "ok", ""


def _impossible(share: _Share) -> str:
    """Why no method could keep what was asked; "" where one can."""
    what, keep, total = share.method.of, share.method.keep, sum(share.of)
    if not total:
        return f"no sample of the task has {what}, so there is nothing to keep {keep.label} of"
    units = sum(count for count, of in zip(share.units, share.of, strict=True) if of)
    asked = sum(share.wanted)
    if asked < Fraction(units, 2) < sum(share.kept) - asked:
        return (
            f"keep {keep.label} of {total / units:.0f} {what} is less than half of one, and at least one stays:"
            f" {sum(share.kept) / total:.3g} of them were kept"
        )
    return ""


def _off(share: _Share) -> str:
    """How far what was kept is from what was asked; "" where that is rounding, or what the method declares."""
    wrong = 0
    for kept, wanted, units in zip(share.kept, share.wanted, share.units, strict=True):
        under, over = share.method.allowance(units)
        wrong += not -under <= kept - wanted <= over
    if not wrong:
        return ""
    kept, total = sum(share.kept), sum(share.of)
    return (
        f"kept {kept} of {total} {share.method.of} ({kept / total:.3g}) where {share.method.keep.label} was asked:"
        f" off by more than rounding in {wrong} of {len(share.of)} samples"
    )
