"""Presses of kvpress at the cache seam against the library's own run: its hooks on the model's stock attention, one prefill."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import twins
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "core"))
from forms import sample
from toy_task import Toy

from effivlm import registry
from effivlm.compression.base import generator
from effivlm.compression.gather import rows_of
from effivlm.decoding.caches import KeptLayer
from effivlm.methods import _presses
from effivlm.methods._kvpress import KvPress
from effivlm.methods._refused import REFUSED
from effivlm.methods._shown import again
from effivlm.models._adapter import Adapter, Prompt
from effivlm.models._sources import resolve
from effivlm.records import Budget, Cell, Settings
from effivlm.run import group, provenance
from effivlm.run.group import cell_fingerprint, method_of, open_model, run_group
from effivlm.run.steps import asked
from effivlm.run.tree import Tree
from effivlm.seams.pruning import adding
from effivlm.seams.stock import attention_as_it_was
from effivlm.session.groups import _unusable
from effivlm.weights._kvpress import kvpress

pytestmark = pytest.mark.kvpress
EXACT = (
    "CURPress",
    "CompactorPress(sink_size_start=2,sink_size_end=2,sketch_dimension=8,chunk_size=32,blending=0.4)",
    "CriticalKVPress(press=SnapKVPress(window_size=4))",
    "KeyDiffPress",
    "KnormPress",
    "LagKVPress(lag_size=8)",
    "LeverageScorePress(sketch_dimension=8)",
    "NonCausalAttnPress(chunk_size=32)",
    "ObservedAttentionPress",
    "RandomPress",
    "SnapKVPress(window_size=4,kernel_size=3)",
    "StreamingLLMPress",
    "TOVAPress",
    "AdaKVPress(press=SnapKVPress(window_size=4))",
    "AdaKVPress(press=KnormPress,alpha_safeguard=0.5)",
    "BlockPress(press=KnormPress,block_size=16)",
    "CriticalAdaKVPress(press=SnapKVPress(window_size=4))",
    "EntropyGatedChunkKVPress(press=SnapKVPress(window_size=4))",
    "MergingPress(press=SnapKVPress(window_size=4))",
    "PyramidKVPress(window_size=4)",
)
"""Those that leave the number of entries that was asked for."""
FUTURE = ("CapPress", "ExpectedAttentionPress(n_future_positions=64)", "ExpectedAttentionPress(use_covariance=False)")
"""They too; they look at positions to come, which ours knows and the library counts."""
CHUNKED = (
    "ChunkKVPress(press=SnapKVPress(window_size=4),chunk_length=4)",
    "ChunkPress(press=KnormPress,chunk_length=24)",
)
"""What these leave goes by chunks."""


@pytest.fixture(scope="module", params=(*twins.FAMILIES, *twins.NEWER))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    if request.param in twins.NEEDS:
        pytest.importorskip(twins.NEEDS[request.param])
    torch.set_num_threads(1)
    return open_model(resolve(f"twin={twins.build(request.param, tmp_path_factory.mktemp(request.param))}"), Settings())


@pytest.fixture(scope="module", autouse=True)
def toy() -> Iterator[None]:
    """The one task there is, in all of this file."""
    task, declared, load = Toy(), registry.declared, registry.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "task_of", lambda name: task)
        patch.setattr(registry, "load", lambda kind, name: Toy if kind == "tasks" else load(kind, name))
        patch.setattr(registry, "declared", lambda kind, name: {} if kind == "tasks" else declared(kind, name))
        yield


def cell(method: str, keep: str = "0.30") -> Cell:
    return Cell("twin", *asked(method), keep, "toy")


def ours(model: Adapter, name: str, keep: str, form: str = "two") -> tuple[list[KeptLayer], Tree]:
    method = method_of(cell(f"kvpress:{name}", keep))
    with ties(), torch.no_grad(), model.seams():
        tree = Tree(model, sample(form), [method])
        return tree.leaf(method).cache, tree


def stable(scores: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """As `topk`, which leaves open what stays of entries with equal scores: here the lower ones."""
    from torch.return_types import topk

    values, places = scores.sort(dim=dim, descending=largest, stable=True)
    return topk((values.narrow(dim, 0, k), places.narrow(dim, 0, k)))


@contextmanager
def ties() -> Iterator[pytest.MonkeyPatch]:
    """Inside, equal scores are no matter of chance."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "topk", stable)
        patch.setattr(Tensor, "topk", stable)
        yield patch


@contextmanager
def library(model: Adapter, press: Any, prompt: Prompt) -> Iterator[list[Tensor]]:
    """The library at work on the next prefill, with what transformers 5.17 no longer tells it; gives each layer's keys as they
    were.

    What is drawn is seeded as ours is, equal scores go to the lower entry, and it knows a norm of heads in every class.
    """
    import kvpress

    attentions = [cast(Any, layer).self_attn for layer in model.layers]
    places, before = torch.arange(prompt.length), list[Tensor]()

    def enter(number: int, module: Any, args: Any, given: Any) -> Any:
        torch.manual_seed(generator(0, sample("two").id, number).initial_seed())
        return args, {**given, "cache_position": places}

    def leave(number: int, module: Any, args: Any, given: Any, output: Any) -> None:
        before.append(given["past_key_values"].layers[number].keys[0].clone())

    handles = [one.register_forward_pre_hook(partial(enter, at), with_kwargs=True) for at, one in enumerate(attentions)]
    handles += [one.register_forward_hook(partial(leave, at), with_kwargs=True) for at, one in enumerate(attentions)]
    with ties() as patch:
        if hasattr(attentions[0], "q_norm"):
            patch.setattr(kvpress.utils, "Qwen3Attention", type(attentions[0]))
        patch.setattr(attentions[0].config, "head_dim", attentions[0].head_dim, raising=False)
        for one in attentions:
            patch.setattr(one, "masked_key_indices", None, raising=False)
        inner = model.model.model
        if inner is not model.text and not hasattr(inner, "language_model"):  # the one name that it knows for a decoder
            patch.setattr(type(inner), "language_model", model.text, raising=False)
        try:
            with press(model.model):
                yield before
        finally:
            for handle in handles:
                handle.remove()
    for one in attentions:
        del one.rotary_emb


def theirs(model: Adapter, name: str, keep: str, tree: Tree) -> list[tuple[list[list[int]], Tensor | None]]:
    """Of every layer: the entries of each head that the library leaves of the same prompt, and their values; None where it
    masks others."""
    from transformers import DynamicCache

    press, prompt = cast(KvPress, method_of(cell(f"kvpress:{name}", keep))).press, tree.prompt((None, None))
    budget = Budget.parse(keep).of(prompt.length)
    press.compression_ratio = 1 - (budget + 0.25) / prompt.length
    observed = "Observed" in name
    mask = torch.ones(prompt.length, prompt.length).tril().log()[None, None] if observed else None
    model.model.set_attn_implementation("eager" if observed else "sdpa")
    cache, found = DynamicCache(), []
    with torch.no_grad(), library(model, press, prompt) as before, adding(model.layers, prompt.deep):
        model.text(
            inputs_embeds=prompt.embeds,
            position_ids=prompt.positions,
            past_key_values=cache,
            use_cache=True,
            attention_mask=mask,
        )
        for whole, one, layer in zip(before, cache.layers, model.layers, strict=True):
            there, dropped = (
                torch.ones(whole.shape[:2], dtype=torch.bool),
                cast(Any, layer).self_attn.masked_key_indices,
            )
            if dropped is not None:
                there[dropped[1], dropped[2]] = False
                found.append(([row.nonzero()[:, 0].tolist() for row in there], None))
                continue
            places = again(whole, one.keys[0])
            assert places is not None
            places, order = places.sort(-1)
            found.append((places.tolist(), rows_of(one.values[0], order)))
    model.model.set_attn_implementation("sdpa")
    return found


def kept(layer: KeptLayer) -> list[list[int]]:
    assert layer.indices is not None
    counts = layer.lengths or (layer.indices.shape[1],) * len(layer.indices)
    return [row[:count].tolist() for row, count in zip(layer.indices, counts, strict=True)]


def plain(model: Adapter) -> bool:
    """Whether the library counts positions to come as the model has them."""
    return model.text.config.model_type in ("qwen2", "llama")


@pytest.mark.parametrize("name", [*EXACT, *FUTURE, *CHUNKED])
def test_a_press_leaves_what_the_library_leaves_of_the_same_prompt(model: Adapter, name: str) -> None:
    if name in FUTURE and not plain(model):
        pytest.skip("the library gives plain positions to a rotary embedding of three axes")
    seen = set()
    for keep in ("0.50", "0.30"):
        cache, tree = ours(model, name, keep)
        for layer, (places, values) in zip(cache, theirs(model, name, keep, tree), strict=True):
            assert kept(layer) == places
            seen |= set(map(tuple, places))
            assert values is None or torch.allclose(layer.values, values, atol=1e-5)
    assert len(seen) > 6 or "Streaming" in name, "they must differ for this to mean much"


def test_every_press_of_the_library_runs_or_says_why_not() -> None:
    tried = {name.partition("(")[0] for name in (*EXACT, *FUTURE, *CHUNKED)}
    assert tried == set(_presses.able())
    assert set(REFUSED) == set(_presses.presses()) - tried
    assert KvPress.library == _presses.LIBRARY


def test_shared_answers_of_presses_are_those_alone_and_budgets_are_exact(model: Adapter) -> None:
    names = [f"kvpress:{name}" for name in (*EXACT, *FUTURE, *CHUNKED)]
    cells = [
        cell(name) for name in (*names, "fastv:0.50+kvpress:SnapKVPress(window_size=4)", "fastv+kvpress:TOVAPress:0.50")
    ]
    together, alone = (run_group(cells, model, Settings(limit=3, share=share)) for share in (True, False))
    assert together == alone
    assert len({tuple(answer.text for answer in one.answers) for one in together}) > len(cells) / 3
    for one in together:
        assert (one.status, one.reason, one.broken) == ("ok", "", 0), one.cell.id
        found = one.achieved
        assert found is not None
        if one.cell.method in names[: len(EXACT) + len(FUTURE)] and "Pyramid" not in one.cell.method:
            asked_for = sum(Budget.parse("0.30").of(answer.prompt_tokens) for answer in one.answers)
            assert found.kept == asked_for * len(model.layers), one.cell.id
    heads = next(one for one in together if "AdaKVPress(press=Snap" in one.cell.method).achieved
    assert heads is not None
    assert any(len(set(layer)) > 1 for layer in heads.per_head)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    torch.set_num_threads(1)
    return open_model(resolve(f"twin={twins.build('qwen2_vl', tmp_path_factory.mktemp('one'))}"), Settings())


def test_a_head_may_lose_all_its_entries(one: Adapter) -> None:
    """The safeguard is what forbids it; decoding goes on with what is new."""
    name = "kvpress:AdaKVPress(press=KnormPress,alpha_safeguard=0.0)"
    cache, _ = ours(one, name.removeprefix("kvpress:"), "0.05")
    assert 0 in {count for layer in cache for count in layer.lengths or ()}
    (_, found) = run_group([cell(name, "0.05")], one, Settings(limit=2))
    assert (found.status, found.broken) == ("ok", 0)
    assert all(answer.text for answer in found.answers)


def test_what_a_press_cannot_do_with_a_sample_is_told_in_its_words(one: Adapter) -> None:
    (_, found) = run_group([cell("kvpress:SnapKVPress(window_size=500)")], one, Settings(limit=2))
    assert found.broken == 2
    for answer in found.answers:
        assert answer.error.startswith("kvpress:SnapKVPress(window_size=500): Query length")


def test_values_that_the_library_refuses_fail_the_case_before_a_model_opens(one: Adapter) -> None:
    wrong = cell("kvpress:AdaKVPress(press=KnormPress,alpha_safeguard=2.0)")
    said = "kvpress:AdaKVPress(press=KnormPress,alpha_safeguard=2.0): alpha_safeguard should be in [0, 1]"
    assert _unusable(wrong, Settings()) == said
    assert _unusable(cell("kvpress:KnormPress"), Settings()) == ""


def test_a_resumed_run_wants_the_same_version_of_the_library(one: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    pressed, other = (cell(name) for name in ("kvpress:KnormPress", "snapkv"))
    composed = cell("fastv:0.50+kvpress:KnormPress")
    before = [cell_fingerprint(a, one.source, Settings()) for a in (pressed, composed, other)]
    assert len({*before, cell_fingerprint(cell("kvpress:KeyDiffPress"), one.source, Settings())}) == 4
    real = provenance.version
    monkeypatch.setattr(provenance, "version", lambda name: "0.5.6" if name == "kvpress" else real(name))
    after = [cell_fingerprint(a, one.source, Settings()) for a in (pressed, composed, other)]
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, False, True]


def test_nothing_but_the_press_itself_changes(one: Adapter) -> None:
    """Neither transformers' attention functions, which the library wraps when it is imported, nor what others draw."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    kvpress()
    assert not [name for name, found in ALL_ATTENTION_FUNCTIONS.items() if "attention_patch" in found.__qualname__]
    assert ALL_ATTENTION_FUNCTIONS["sdpa"].__module__.startswith("transformers.")
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    ours(one, "RandomPress", "0.30")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not any(hasattr(cast(Any, layer).self_attn, "rotary_emb") for layer in one.layers)


def test_attention_functions_come_back_whoever_replaced_them() -> None:
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def replace() -> None:
        with attention_as_it_was():
            ALL_ATTENTION_FUNCTIONS["sdpa"] = print
            assert ALL_ATTENTION_FUNCTIONS["sdpa"] is print
            raise RuntimeError("half done")

    before = dict(ALL_ATTENTION_FUNCTIONS)
    with pytest.raises(RuntimeError, match="half done"):
        replace()
    assert dict(ALL_ATTENTION_FUNCTIONS) == before
    ALL_ATTENTION_FUNCTIONS["sdpa"] = max  # somebody's own, which stays
    try:
        with pytest.raises(RuntimeError, match="half done"):
            replace()
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is max
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]
    assert dict(ALL_ATTENTION_FUNCTIONS) == before


def test_entries_are_found_again_by_their_bits_or_not_at_all() -> None:
    rng = torch.Generator().manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16):
        entries = torch.randn(3, 40, 8, generator=rng).to(dtype)
        places = torch.stack([torch.randperm(40, generator=rng)[:11] for _ in range(3)])
        found = again(entries, rows_of(entries, places))
        assert found is not None
        assert torch.equal(found, places)
        assert again(entries, rows_of(entries, places) + 1) is None
        entries[1, 5] = entries[1, 9]
        assert again(entries, entries[:, [5, 9]]) is None, "one entry cannot stay twice"
