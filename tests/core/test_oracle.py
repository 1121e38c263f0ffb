"""Compressed caches and pruned prompts against one masked full forward."""

from __future__ import annotations

import pytest
import torch
from forms import sample
from oracle import everything, logits

from effivlm import registry
from effivlm.compression.base import ImageView
from effivlm.decoding.caches import ForkedCache, KeptLayer, PromptCache
from effivlm.decoding.eager import Start, forced
from effivlm.methods.fastv import FastV
from effivlm.methods.random_visual import RandomVisual
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree
from effivlm.seams.pruning import Stay, pruning

TOKENS = (40, 77, 40, 12, 90)
CLOSE = {"rtol": 0, "atol": 1e-5}


def prefilled(model: Adapter, form: str):
    inputs = model.prepare(sample(form))
    prompt = model.prompt(inputs, model.encode(inputs))
    cache = PromptCache()
    model.prefill(prompt, cache)
    return prompt, cache


def kept_layer(cache: PromptCache, layer: int, kept: list[torch.Tensor]) -> KeptLayer:
    """Per head another set, possibly of another size (padded at the end with what must not be seen)."""
    longest = max(len(part) for part in kept)
    shape = (len(kept), longest, cache.keys[layer].shape[-1])
    keys, values = torch.full(shape, 1e3), torch.full(shape, 1e3)
    for head, part in enumerate(kept):
        keys[head, : len(part)] = cache.keys[layer][0, head, part]
        values[head, : len(part)] = cache.values[layer][0, head, part]
    lengths = tuple(len(part) for part in kept)
    return KeptLayer(keys, values, lengths if len(set(lengths)) > 1 else None)


@pytest.mark.parametrize("form", ["text", "one", "two", "video"])
@pytest.mark.parametrize("ragged", ["layers", "heads"])
def test_a_compressed_cache_equals_a_masked_full_one(model: Adapter, form: str, ragged: str) -> None:
    rng = torch.Generator().manual_seed(len(form))
    with model.seams():
        prompt, cache = prefilled(model, form)
        length, total = prompt.length, prompt.length + len(TOKENS)
        visible = everything(model, total)
        kept_layers = []
        for number, rows in enumerate(visible):
            counts = [5 + 3 * number + (head * 4 if ragged == "heads" else 0) for head in range(len(rows))]
            kept = [torch.randperm(length, generator=rng)[:count].sort().values for count in counts]
            for head, part in enumerate(kept):
                rows[head, length:, :length] = False
                rows[head, length:, part] = True
            kept_layers.append(kept_layer(cache, number, kept))
        ours = forced(model.step, Start(kept_layers, 0, prompt.next_position), TOKENS, model.device)
        at_once = ForkedCache([kept_layers], len(TOKENS))
        ahead = torch.arange(len(TOKENS))[None] + prompt.next_position
        together = model.step(torch.tensor([TOKENS]), ahead, at_once)[0]
    expected = logits(model, prompt, TOKENS, visible)
    torch.testing.assert_close(ours, expected, **CLOSE)
    torch.testing.assert_close(together, expected, **CLOSE)
    assert (logits(model, prompt, TOKENS, everything(model, total)) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("form", ["one", "two", "video", "both"])
@pytest.mark.parametrize("keep", ["0.1", "0.5"])
def test_fastv_equals_a_masked_full_forward(model: Adapter, form: str, keep: str) -> None:
    method = FastV(keep=Budget.parse(keep))
    with model.seams():
        tree = Tree(model, sample(form), [method])
        leaf = tree.leaf(method)
        prompt, _ = prefilled(model, form)
        ours = forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device)
        views = tree.prefilled((None, None, method)).views
    dropped = prompt.length - views[-1].length
    assert dropped == leaf.of - leaf.kept > 0
    shown = tree.prefilled((None, None, method)).cache.keys
    assert [key.shape[2] for key in shown] == [prompt.length] * 2 + [prompt.length - dropped] * (len(shown) - 2)
    # which entries stayed is read off the keys of layer 2 themselves, not off the method
    with model.seams():
        gone = removed(model, form, method)
    visible = everything(model, prompt.length + len(TOKENS))
    for rows in visible[method.layer :]:
        rows[:, :, gone] = False
        rows[:, gone, gone] = True  # a row nobody sees needs something to look at
    torch.testing.assert_close(ours, logits(model, prompt, TOKENS, visible), **CLOSE)


def removed(model: Adapter, form: str, method: FastV) -> torch.Tensor:
    """Positions that FastV drops: the least attended visual ones, from an attention written out in float64."""
    inputs = model.prepare(sample(form))
    prompt = model.prompt(inputs, model.encode(inputs))
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    from effivlm.seams.hooks import watching

    module = model.layers[method.layer - 1].self_attn
    with watching({module: lambda q, k, v: seen.append((q[0].double(), k[0].double()))}):
        model.prefill(prompt, PromptCache())
    query, key = seen[0]
    key = key.repeat_interleave(len(query) // len(key), 0)
    weights = torch.softmax((key @ query[:, -1, :, None])[..., 0] / query.shape[-1] ** 0.5, -1).mean(0)
    visual = prompt.visual.nonzero()[:, 0]
    order = visual[weights[visual].argsort(descending=True, stable=True)]
    return order[method.keep.of(len(visual)) :]


def test_random_visual_equals_a_prompt_built_without_the_dropped_tokens(model: Adapter) -> None:
    method = RandomVisual(keep=Budget.parse("0.3"))
    with model.seams():
        tree = Tree(model, sample("two"), [method])
        leaf = tree.leaf(method)
        inputs = model.prepare(sample("two"))
        visual = model.encode(inputs)
        prompt = model.prompt(inputs, visual)
        chosen = method.select([ImageView(*pair) for pair in zip(visual.features, visual.places, strict=True)], "two-0")
        ours = forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device)
    stay = ~prompt.visual
    for number, selection in enumerate(chosen):
        stay[(prompt.image == number).nonzero()[selection.kept, 0]] = True
    assert int(stay.sum()) == prompt.length - leaf.of + leaf.kept
    if model.positions_after_pruning == "original":  # as if the dropped ones were never looked at
        visible = everything(model, prompt.length + len(TOKENS))
        for rows in visible:
            rows[:, :, : prompt.length] &= (
                stay | torch.eye(prompt.length + len(TOKENS), dtype=torch.bool)[:, : prompt.length]
            )
        expected = logits(model, prompt, TOKENS, visible)
    else:
        short = type(prompt)(
            prompt.embeds[:, stay], torch.arange(int(stay.sum()))[None], int(stay.sum()), prompt.image[stay]
        )
        expected = logits(model, short, TOKENS, everything(model, short.length + len(TOKENS)))
    torch.testing.assert_close(ours, expected, **CLOSE)


@pytest.mark.parametrize("name", registry.token_methods())
@pytest.mark.parametrize("form", ["one", "two", "text"])
def test_keep_one_is_bit_identical_to_dense(model: Adapter, name: str, form: str) -> None:
    kind = registry.load("methods", name)
    dense = registry.load("methods", "dense")()
    for preset in kind.presets.values():  # type: ignore[attr-defined]
        method = kind(**preset)
        with model.seams():
            ours = Tree(model, sample(form), [method]).leaf(method)
            theirs = Tree(model, sample(form), [dense]).leaf(dense)
            runs = [
                forced(model.step, Start(leaf.cache, 0, leaf.position), TOKENS, model.device) for leaf in (ours, theirs)
            ]
        assert ours.token == theirs.token
        assert ours.kept == ours.of
        assert torch.equal(*runs)


def test_the_pruning_hooks_themselves_change_nothing_when_everything_stays(model: Adapter) -> None:
    with model.seams():
        prompt, cache = prefilled(model, "two")
        hooked = PromptCache()
        with pruning(model.layers, {2: lambda entering: Stay(torch.arange(len(entering.hidden)))}):
            model.prefill(prompt, hooked)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(hooked.keys, cache.keys, strict=True))
    assert all(not layer._forward_pre_hooks for layer in model.layers)


def test_pruning_that_never_happens_is_an_error(model: Adapter) -> None:
    with (
        pytest.raises(RuntimeError, match="never reached"),
        pruning(model.layers, {1: lambda entering: Stay(torch.arange(1))}),
    ):
        pass
    with (
        pytest.raises(ValueError, match="layers 0 to 3"),
        pruning(model.layers, {9: lambda entering: Stay(torch.arange(1))}),
    ):
        pass


def test_watching_a_module_that_is_never_called_is_an_error(model: Adapter) -> None:
    from effivlm.seams.hooks import watching

    with pytest.raises(RuntimeError, match="1 of 1 watched"), watching({model.head: lambda q, k, v: None}):
        pass
