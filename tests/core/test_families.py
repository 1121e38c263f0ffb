"""The adapters against transformers' own forward and generate."""

from __future__ import annotations

import pytest
import torch
from forms import FORMS, sample

from effivlm.compression.places import blocks_of, grids_of
from effivlm.decoding.caches import ForkedCache, KeptLayer, PromptCache
from effivlm.decoding.eager import Start, greedy
from effivlm.decoding.engine import Paced
from effivlm.methods.dense import Dense
from effivlm.methods.fastv import FastV
from effivlm.methods.snapkv import SnapKv
from effivlm.models._adapter import Adapter, _placement
from effivlm.records import Budget
from effivlm.run.tree import Tree
from effivlm.seams.pruning import Entering, Stay, pruning


@pytest.mark.parametrize("form", FORMS)
def test_dense_prefill_is_the_stock_forward_bit_for_bit(model: Adapter, form: str) -> None:
    inputs = model.prepare(sample(form))
    with torch.inference_mode():
        expected = model.model(**inputs, logits_to_keep=1).logits[0, -1]
    with model.seams():
        prompt = model.prompt(inputs, model.encode(inputs))
        cache = PromptCache()
        assert torch.equal(model.prefill(prompt, cache), expected)
    assert [key.shape[2] for key in cache.keys] == [inputs["input_ids"].shape[1]] * len(model.layers)


@pytest.mark.parametrize("form", FORMS)
def test_dense_answers_are_those_of_generate(model: Adapter, form: str) -> None:
    inputs = model.prepare(sample(form, 1))
    with torch.inference_mode():
        full = model.model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None)
    with model.seams():
        leaf = Tree(model, sample(form, 1), [Dense()]).leaf(Dense())
        answer = greedy(model.step, [Start(leaf.cache, leaf.token, leaf.position)], 8, (), model.device)[0]
    assert answer == full[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("form", FORMS)
def test_visual_tokens_have_a_place_each_and_belong_to_their_image(model: Adapter, form: str) -> None:
    inputs = model.prepare(sample(form))
    with model.seams():
        visual = model.encode(inputs)
        prompt = model.prompt(inputs, visual)
    assert [len(place) for place in visual.places] == visual.counts
    assert int(prompt.visual.sum()) == sum(visual.counts) == len(model.visual_positions(inputs))
    assert [int((prompt.image == number).sum()) for number in range(len(visual.counts))] == visual.counts
    for place in visual.places:
        real = place[place[:, 0] >= 0]
        assert len({tuple(row) for row in real.tolist()}) == len(real), "two tokens claim one place"
        for grid in grids_of(place):
            assert len(grid) == int((place[grid, 1:].amax(0) + 1).prod()), (
                "a grid is full; tiles side by side share one"
            )
        for block in blocks_of(place):
            assert len(block) == int((place[block, 1:].amax(0) - place[block, 1:].amin(0) + 1).prod()), "a rectangle"


def test_the_model_is_untouched_after_use_and_after_an_error(model: Adapter) -> None:
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    inputs = model.prepare(sample("one"))
    with torch.inference_mode():
        expected = model.model(**inputs).logits
    hooks = [len(module._forward_pre_hooks) + len(module._forward_hooks) for module in model.model.modules()]
    with model.seams():
        Tree(model, sample("one"), [Dense()]).leaf(Dense())

    def choose(entering: Entering) -> Stay:
        raise ZeroDivisionError

    with model.seams():
        prompt = model.prompt(inputs, model.encode(inputs))
        with pytest.raises(ZeroDivisionError), pruning(model.layers, {2: choose}):
            model.prefill(prompt, PromptCache())
    config = model.model.config
    assert {config._attn_implementation, config.text_config._attn_implementation} == {"sdpa"}
    assert config.vision_config._attn_implementation == "sdpa"
    assert [len(m._forward_pre_hooks) + len(m._forward_hooks) for m in model.model.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in model.model.state_dict().items())
    with torch.inference_mode():
        assert torch.equal(model.model(**inputs).logits, expected)


def test_a_model_with_another_attention_is_refused(model: Adapter) -> None:
    model.model.set_attn_implementation("eager")
    try:
        with pytest.raises(ValueError, match="eager is in use"), model.seams():
            pass
    finally:
        model.model.set_attn_implementation("sdpa")


def test_features_that_do_not_fit_their_placeholders_are_refused(model: Adapter) -> None:
    inputs = model.prepare(sample("one"))
    with model.seams():
        visual = model.encode(inputs)
        short = type(visual)((visual.features[0][:-1],), visual.places)
        with pytest.raises(ValueError, match="visual features for"):
            model.prompt(inputs, short)


def test_rows_of_a_batch_answer_as_they_do_alone(model: Adapter) -> None:
    with model.seams():
        tree = Tree(model, sample("two"), [Dense()])
        leaf = tree.leaf(Dense())
        shorter = [KeptLayer(layer.keys[:, -3:], layer.values[:, -3:]) for layer in leaf.cache]
        starts = [Start(leaf.cache, leaf.token, leaf.position), Start(shorter, leaf.token, leaf.position)]
        together = greedy(model.step, starts * 3, 12, model.eos, model.device)
        alone = [greedy(model.step, [start], 12, model.eos, model.device)[0] for start in starts]
    assert together == alone * 3
    assert alone[0] != alone[1], "the test needs caches that disagree"


def test_paced_steps_are_the_greedy_ones_and_can_be_taken_again(model: Adapter) -> None:
    with model.seams():
        leaf = Tree(model, sample("two"), [Dense()]).leaf(Dense())
        start = Start(leaf.cache, leaf.token, leaf.position)
        paced = Paced(model.step, start, 6, model.device)
        first, again = (paced().flatten().tolist() for _ in range(2))
        expected = greedy(model.step, [start], 7, (), model.device)[0]
    assert first == again == expected[1:]
    assert paced.engine == "eager"


def test_several_images_of_llava_onevision_get_one_crop_each_and_one_image_gets_tiles(model: Adapter) -> None:
    with model.seams():
        two, one = (model.encode(model.prepare(sample(form))) for form in ("two", "one"))
    blocks = [len(set(place[:, 0].tolist()) - {-1}) for place in two.places]
    assert blocks == ([1, 1] if model.source.family == "llava_onevision" else blocks)
    if model.source.family != "qwen2_vl":
        assert len(set(one.places[0][:, 0].tolist()) - {-1}) > 1


def test_tokens_nearer_than_rounding_are_told_apart_by_the_row_alone(model: Adapter) -> None:
    """A batch that rounds the other way must not decide: its logits are nudged so that every close pair swaps."""

    def nudged(tokens: torch.Tensor, positions: torch.Tensor, cache: ForkedCache) -> torch.Tensor:
        logits = model.step(tokens, positions, cache)
        if len(tokens) > 1:
            top = logits.topk(2, dim=-1)
            swap = torch.zeros_like(logits).scatter(
                -1, top.indices[..., :1], -(top.values[..., :1] - top.values[..., 1:]) - 1e-5
            )
            return logits + swap.where(top.values[..., :1] - top.values[..., 1:] < 5e-4, 0)
        return logits

    with model.seams():
        leaf = Tree(model, sample("one"), [Dense()]).leaf(Dense())
        start = Start(leaf.cache, leaf.token, leaf.position)
        alone = greedy(model.step, [start], 12, (), model.device)[0]
        coarse = lambda *given: (model.step(*given) * 4).round() / 4e4  # noqa: E731  many tokens closer than TIE
        together = greedy(coarse, [start] * 3, 12, (), model.device)
        single = greedy(coarse, [start], 12, (), model.device)[0]
        assert greedy(nudged, [start] * 3, 12, (), model.device) == [alone] * 3
    assert together == [single] * 3


def test_a_model_that_accelerate_dispatched_answers_the_same(model: Adapter) -> None:
    """Layers on several devices run through accelerate's forward hooks; here they all sit on the CPU."""
    from accelerate import dispatch_model
    from accelerate.hooks import remove_hook_from_submodules

    def answers() -> list[list[int]]:
        kinds = [Dense(), FastV(keep=Budget.parse("0.3")), SnapKv(keep=Budget.parse("0.3"))]
        with model.seams():
            leaves = [Tree(model, sample("two"), kinds).leaf(kind) for kind in kinds]
            starts = [Start(leaf.cache, leaf.token, leaf.position) for leaf in leaves]
            return greedy(model.step, starts, 8, (), model.device)

    plain = answers()
    halves = {name: "cpu" for name, _ in model.model.named_children()}
    dispatch_model(model.model, halves, main_device="cpu", force_hooks=True)
    try:
        assert hasattr(model.text, "_hf_hook") or hasattr(model.model.model, "_hf_hook")
        assert answers() == plain
    finally:
        remove_hook_from_submodules(model.model)
        for module in model.model.modules():
            vars(module).pop(
                "forward", None
            )  # its stock one, which accelerate leaves there as if it were the module's own


@pytest.mark.parametrize(
    ("device", "cards", "total", "placed"),
    [("cpu", 2, 1, "cpu"), ("cuda:1", 1, 1, "cuda:1"), ("cuda:1", 2, 1, "auto"), ("cuda:1", 2, 10**12, "cuda:1")],
)
def test_only_a_model_too_large_for_its_gpu_is_spread_over_all(
    model: Adapter, monkeypatch: pytest.MonkeyPatch, device: str, cards: int, total: int, placed: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (total, total))
    assert _placement(model.source, device, "bfloat16") == placed
