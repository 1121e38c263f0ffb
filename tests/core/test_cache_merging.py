"""Merging of evicted cache entries into kept ones, against the rules written out entry by entry."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_methods import asked, view

from effivlm.compression import merge
from effivlm.compression.base import LayerView, taken
from effivlm.decoding.caches import KeptLayer
from effivlm.methods.h2o import H2o
from effivlm.methods.look_m import LookM
from effivlm.records import Budget


def merged(shown: LayerView, chosen: torch.Tensor, rule: str, scope: str) -> KeptLayer:
    return merge.merged(shown, chosen, rule, merge.partners([shown], [chosen], scope)[0])


RULES = ["averaged", "pivotal", "weighted"]


def partners(shown: LayerView, kept: list[int], head: int, scope: str) -> dict[int, tuple[int, float]]:
    """For every evicted entry its partner among the kept ones and their cosine."""
    keys = shown.keys[head].double()
    found = {}
    for entry in sorted(set(range(shown.length)) - set(kept)):
        may = [place for place in kept if scope == "all" or shown.visual[place] == shown.visual[entry]]
        cosines = [float(torch.cosine_similarity(keys[entry], keys[place], dim=0)) for place in may]
        if may:
            found[entry] = (may[cosines.index(max(cosines))], max(cosines))
    return found


def brute(shown: LayerView, kept: list[int], head: int, rule: str, scope: str, entries: torch.Tensor) -> torch.Tensor:
    """Keys or values [K, D] after merging, in float64."""
    made, assigned = [], partners(shown, kept, head, scope)
    for place in kept:
        x, total, count = entries[place].double(), entries[place].double(), 0
        for entry, (partner, cosine) in assigned.items():
            if partner == place:
                y = entries[entry].double()
                total = total + {"averaged": y, "pivotal": (x + y) / 2, "weighted": cosine * y}[rule]
                count += 1
        made.append(total / (count + 1))
    return torch.stack(made)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 10**6),
    st.integers(2, 40),
    st.sampled_from(RULES),
    st.sampled_from(["all", "same_modality"]),
    st.sampled_from([(4, 2), (3, 3), (5, 1)]),
    st.data(),
)
def test_merging_follows_its_rule_entry_by_entry(seed, length, rule, scope, heads, data) -> None:
    shown, count = view(seed, length, *heads), data.draw(st.integers(1, length))
    rng = torch.Generator().manual_seed(seed)
    chosen = torch.stack([torch.randperm(length, generator=rng)[:count].sort().values for _ in shown.keys])
    ours = merged(shown, chosen, rule, scope)
    assert torch.equal(ours.indices, chosen)  # type: ignore[arg-type]
    for head, row in enumerate(chosen.tolist()):
        keys, values = (brute(shown, row, head, rule, scope, one[head]) for one in (shown.keys, shown.values))
        torch.testing.assert_close(ours.keys[head].double(), keys, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.values[head].double(), values, rtol=1e-5, atol=1e-5)
        alone = [
            at
            for at, place in enumerate(row)
            if place not in {p for p, _ in partners(shown, row, head, scope).values()}
        ]
        assert torch.equal(ours.keys[head, alone], shown.keys[head, row][alone]), "nothing to merge leaves every bit"


@pytest.mark.parametrize(
    ("rule", "expected"), [("averaged", [0.867, 0.267]), ("pivotal", [0.933, 0.133]), ("weighted", [0.787, 0.16])]
)
def test_merging_worked_examples(rule: str, expected: list[float]) -> None:
    keys = torch.tensor([[[1.0, 0], [1, 0], [0.6, 0.8]]])
    shown = LayerView(keys[:, :0], keys, keys * 2, torch.zeros(3, dtype=torch.bool), 0)
    layer = merged(shown, torch.tensor([[0]]), rule, "all")
    torch.testing.assert_close(layer.keys[0, 0], torch.tensor(expected), rtol=0, atol=6e-4)
    torch.testing.assert_close(layer.values[0, 0], torch.tensor(expected) * 2, rtol=0, atol=1.2e-3)


def test_averaging_loses_nothing_of_the_sum() -> None:
    shown, chosen = view(1, 50), torch.arange(0, 50, 5).expand(2, -1)
    layer = merged(shown, chosen, "averaged", "all")
    for head, row in enumerate(chosen.tolist()):
        counts = torch.ones(len(row))
        for partner, _ in partners(shown, row, head, "all").values():
            counts[row.index(partner)] += 1
        torch.testing.assert_close((layer.values[head] * counts[:, None]).sum(0), shown.values[head].sum(0))


@pytest.mark.parametrize("rule", RULES)
def test_merging_within_a_modality_keeps_images_out_of_the_text(rule: str) -> None:
    shown, chosen = view(6, 40), torch.arange(1, 40, 4).expand(2, -1)
    other = replace(
        shown,
        values=torch.where(shown.visual[:, None], shown.values + 1, shown.values),
        keys=torch.where(shown.visual[:, None], -shown.keys, shown.keys),
    )
    text = ~shown.visual[chosen[0]]
    assert text.any()
    for scope, same in (("same_modality", True), ("all", False)):
        ours, theirs = (merged(one, chosen, rule, scope) for one in (shown, other))
        assert torch.equal(ours.values[:, text], theirs.values[:, text]) == same
    only_images = replace(shown, visual=torch.arange(40) != 0)
    layer = merged(only_images, chosen, rule, "same_modality")
    without = replace(only_images, keys=shown.keys[:, 1:], values=shown.values[:, 1:], visual=only_images.visual[1:])
    torch.testing.assert_close(layer.values, merged(without, chosen - 1, rule, "same_modality").values)


def test_merging_equal_entries_changes_nothing() -> None:
    shown = view(2, 30)
    same = replace(shown, keys=shown.keys[:, :1].expand(-1, 30, -1), values=shown.values[:, :1].expand(-1, 30, -1))
    for rule in RULES:
        layer = merged(same, torch.tensor([[3, 9], [4, 5]]), rule, "all")
        torch.testing.assert_close(layer.values, same.values[:, :2])
        torch.testing.assert_close(layer.keys, same.keys[:, :2])


def test_merging_does_not_depend_on_tiles_or_on_precision_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, chosen = view(8, 60), torch.arange(0, 60, 7).expand(2, -1)
    whole = merged(shown, chosen, "pivotal", "all")
    half = replace(shown, keys=shown.keys.bfloat16(), values=shown.values.bfloat16())
    rounded = replace(shown, keys=half.keys.float(), values=half.values.float())
    assert torch.equal(
        merged(half, chosen, "pivotal", "all").values, merged(rounded, chosen, "pivotal", "all").values.bfloat16()
    )
    monkeypatch.setattr("effivlm.compression.merge.TILE", 7)
    torch.testing.assert_close(merged(shown, chosen, "pivotal", "all").values, whole.values)


def test_the_prior_without_merging_is_a_plain_choice_and_merging_moves_no_entry() -> None:
    method = LookM(keep=Budget.parse("0.2"))
    shown = asked(view(4, 80), method)
    chosen = method.select(shown, 16, "s")
    plain = replace(method, merge="none").layer(shown, 16, "s")
    assert torch.equal(plain.keys, taken([shown], [chosen])[0].keys)
    assert torch.equal(method.layer(shown, 16, "s").indices, chosen)  # type: ignore[arg-type]
    assert not torch.equal(method.layer(shown, 16, "s").keys, plain.keys)
    bare = replace(method, merge="none", prior="none")
    assert torch.equal(bare.select(shown, 16, "s"), H2o(keep=method.keep).select(shown, 16, "s"))
