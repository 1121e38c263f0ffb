"""Families beside the paper's three: exact against stock in every form, every method runs, and what is peculiar to them."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import test_families
import test_oracle
import test_visual_families
import torch
import twins
from brute_visual import KINDS
from forms import FORMS, picture, sample
from oracle import everything, logits
from PIL import Image
from toy_task import Toy, cells

from effivlm import registry
from effivlm.compression.base import Method
from effivlm.decoding.eager import Start, forced, greedy
from effivlm.methods.dense import Dense
from effivlm.methods.fastv import FastV
from effivlm.methods.visionzip import VisionZip
from effivlm.models._adapter import Adapter
from effivlm.models._guards import unfit
from effivlm.models._sources import resolve
from effivlm.records import Budget, Sample, Settings, Unsupported
from effivlm.run.group import open_model, run_group
from effivlm.run.tree import Tree
from effivlm.seams.windows import Pack

BETWEEN = Sample("between", "See  and , which?", ("x",), (picture(60, 50, 1), picture(40, 70, 2)), places=(4, 9))
SHOWN = {form: sample(form) for form in FORMS} | {"between": BETWEEN}
SHOWN |= {"slow": replace(sample("video"), fps=0.25), "fast": replace(sample("both"), fps=7.5)}
# Of what runs over the paper's families: all that a family can break, where it could break.
CHECKS: tuple[tuple[Callable[..., None], tuple[Any, ...]], ...] = (
    *((test_families.test_visual_tokens_have_a_place_each_and_belong_to_their_image, (form,)) for form in FORMS),
    (test_families.test_the_model_is_untouched_after_use_and_after_an_error, ()),
    (test_families.test_rows_of_a_batch_answer_as_they_do_alone, ()),
    (test_families.test_a_model_that_accelerate_dispatched_answers_the_same, ()),
    (test_oracle.test_a_compressed_cache_equals_a_masked_full_one, ("two", "heads")),
    (test_oracle.test_fastv_equals_a_masked_full_forward, ("two", "0.3")),
    (test_oracle.test_fastv_equals_a_masked_full_forward, ("video", "0.3")),
    (test_oracle.test_random_visual_equals_a_prompt_built_without_the_dropped_tokens, ()),
    *((test_visual_families.test_inside_a_family_a_prompt_holds_what_loops_choose, (kind, "two")) for kind in KINDS),
)


REFUSED = "takes (no videos|images or a video)"


def refused(model: Adapter, shown: Sample) -> bool:
    form = ("both" if shown.images else "video") if shown.video else "images"
    return form in twins.REFUSES.get(model.model_type, ())


@pytest.mark.parametrize("form", SHOWN)
def test_prefill_and_answer_are_those_of_stock_bit_for_bit(newer: Adapter, form: str) -> None:
    shown = SHOWN[form]
    if refused(newer, shown):
        with pytest.raises(Unsupported, match=REFUSED + r", and '\w+-0' (is one|holds both)"):
            newer.prepare(shown)
        return
    inputs = newer.prepare(shown)
    with torch.inference_mode():
        stock = newer.model.generate(
            **inputs,
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
    with newer.seams():
        tree = Tree(newer, shown, [Dense()])
        leaf = tree.leaf(Dense())
        answer = greedy(newer.step, [leaf.start], 8, (), newer.device)[0]
        first = tree.prefilled((None, None, None)).logits
    assert torch.equal(first, stock.logits[0][0])
    assert answer == stock.sequences[0, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize(("check", "given"), CHECKS, ids=lambda one: getattr(one, "__name__", "")[5:] or str(one))
def test_what_holds_for_the_papers_families_holds(
    newer: Adapter, check: Callable[..., None], given: tuple[Any, ...]
) -> None:
    if {*twins.REFUSES.get(newer.model_type, ())} & {*given}:
        with pytest.raises(ValueError, match=REFUSED):
            check(newer, *given)
    else:
        check(newer, *given)


@pytest.mark.parametrize("name", registry.token_methods())
def test_every_method_keeps_to_its_budget_or_says_why_not(newer: Adapter, name: str) -> None:
    kind: Any = registry.load("methods", name)
    method: Method = (
        kind(keep=Budget.parse("0.5")) if registry.declared("methods", name).get("budgeted", True) else kind()
    )
    with newer.seams():
        tree = Tree(newer, sample("two"), [method])
        if name == "downsample" and "qwen" not in newer.model_type:
            with pytest.raises(Unsupported, match="the smallest image still makes"):
                tree.leaf(method)
            return
        leaf = tree.leaf(method)
        answer = greedy(newer.step, [leaf.start], 4, (), newer.device)[0]
    assert len(answer) == 4
    share = leaf.kept / leaf.of
    assert share == 1 if name == "dense" else 0.3 < share <= 0.55


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 1), (2, 3)])
def test_the_tower_shows_a_planted_patch_where_it_is(
    newer: Adapter, place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a tower whose attention adds nothing, so that only what was planted can have changed."""
    for name, weight in newer.model.named_parameters():
        if name.endswith(("attn.proj.weight", "out_proj.weight")):
            monkeypatch.setattr(weight, "data", torch.zeros_like(weight))
    side, rows = {"llava": (8, 4), "llava_next": (8, 4), "smolvlm": (16, 4)}.get(newer.model_type, (16, 6))
    row, column = place
    pixels = np.random.default_rng(1).integers(100, 150, (rows * side, 4 * side, 3), dtype=np.uint8)
    planted = pixels.copy()
    planted[row * side : (row + 1) * side, column * side : (column + 1) * side] = 255 - 2 * planted[:side, :side]
    with newer.seams():
        inputs = [
            newer.prepare(Sample("one", "Where?", ("x",), (Image.fromarray(array),))) for array in (pixels, planted)
        ]
        (before, after) = (newer.encode(one, looking=True) for one in inputs)
    assert before.towers is not None
    assert after.towers is not None
    changed = (after.towers[0].keys - before.towers[0].keys).flatten(1).norm(dim=1)
    found = [after.places[0][at].tolist() for at in changed.nonzero()[:, 0]]
    if newer.model_type == "smolvlm":  # four tiles, with the whole picture as a fifth
        assert len(changed) == rows * 4 + 4
        assert [one for one in found if one[0] < 4] == [[row // 2 * 2 + column // 2, row % 2, column % 2]]
        assert [4, row // 2, column // 2] in found
    elif newer.model_type == "llava_next":  # the whole picture, then in the middle of two tiles, with newlines
        assert len(changed) == rows * 4 + rows * (4 + 1)
        assert found == [[0, row, column], [1 + column // 2, row, column]]
    else:
        assert len(changed) == rows * 4
        assert found == [[0, row, column]]


@pytest.mark.parametrize("limit", [0, 1, 3, 4])
def test_a_limit_on_pictures_gives_the_tokens_it_promises(newer: Adapter, limit: int) -> None:
    sizes = [(70, 100), (100, 30), (32, 32)]
    pictures = tuple(picture(width, height, 0) for height, width in sizes)
    pixels, tiles = (limit * 16 * 16, 0) if newer.limited_by == "pixels" else (0, limit)
    newer.begin_task(pixels, tiles, 8)
    try:
        inputs = newer.prepare(Sample("limited", "What?", ("x",), pictures))
    finally:
        newer.begin_task(0, 0, 0)
    promised = newer.tokens_of(sizes, pixels or tiles)
    assert promised in (0, len(newer.visual_positions(inputs)))
    assert (promised > 0) is (newer.model_type not in ("llava", "llava_next")), (
        "pictures of LLaVA are as many tokens as they are"
    )


def only(family: str, folder: Any) -> Adapter:
    return open_model(resolve(f"twin={twins.build(family, folder)}"), Settings())


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    return only("qwen3_vl", tmp_path_factory.mktemp("deep"))


TOKENS = test_oracle.TOKENS


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_deep_features_reach_what_is_left_of_a_prompt_pruned_among_them(deep: Adapter, layer: int) -> None:
    method = FastV(keep=Budget.parse("0.4"), layer=layer)
    with deep.seams():
        tree = Tree(deep, sample("both"), [method])
        leaf = tree.leaf(method)
        prompt, left = tree.prompt((None, None)), tree.prefilled((None, None, method)).stays[-1]
        ours = forced(deep.step, Start(leaf.cache, 0, leaf.position), TOKENS, deep.device)
    assert prompt.deep is not None
    assert len(prompt.deep) == 3
    assert left is not None
    gone = torch.ones(prompt.length, dtype=torch.bool)
    gone[left] = False
    dropped = gone.nonzero()[:, 0]
    visible = everything(deep, prompt.length + len(TOKENS))
    for rows in visible[layer:]:
        rows[:, :, dropped] = False
        rows[:, dropped, dropped] = True
    torch.testing.assert_close(ours, logits(deep, prompt, TOKENS, visible), rtol=0, atol=1e-5)
    without = logits(deep, replace(prompt, deep=None), TOKENS, visible)
    assert (ours - without).abs().max() > 1e-2


def test_a_merged_token_takes_the_deep_features_of_the_place_it_keeps(deep: Adapter) -> None:
    method = VisionZip(keep=Budget.parse("0.4"))
    with deep.seams():
        tree = Tree(deep, sample("two"), [method])
        cut, whole = tree.prompt((None, method)), tree.prompt((None, None))
        kept = tree._chosen(None, method)[0]
    assert cut.deep is not None
    assert whole.deep is not None
    assert torch.equal(cut.deep, whole.deep[:, kept])
    assert bool((cut.deep[:, cut.visual] != 0).any(-1).all())
    assert not cut.deep[:, ~cut.visual].any()


def test_a_tower_of_windows_makes_one_call_a_length_of_them(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations import sdpa_attention

    model = only("qwen2_5_vl", tmp_path_factory.mktemp("windows"))
    inputs = model.prepare(Sample("tall", "What?", ("x",), (picture(48, 144, 0), picture(64, 64, 1))))
    calls: list[tuple[int, ...]] = []
    stock = sdpa_attention.sdpa_attention_forward
    monkeypatch.setattr(
        sdpa_attention,
        "sdpa_attention_forward",
        lambda module, query, *given, **more: (
            calls.append((query.shape[0], query.shape[2])),
            stock(module, query, *given, **more),
        )[1],
    )
    with torch.inference_mode():
        expected = model.model.get_image_features(
            inputs["pixel_values"], inputs["image_grid_thw"], return_dict=True
        ).pooler_output
    with model.seams():
        features = model.encode(inputs).features
    # 9 x 3 tokens of four patches are windows of 4, 2 and 1 token, 4 x 4 are 4 of 4; then each picture as a whole
    assert sorted(calls) == sorted([(4 + 4, 16), (4 + 1, 8), (1, 4), (1, 108), (1, 64)])
    assert all(torch.equal(*pair) for pair in zip(features, expected, strict=True))


def test_windows_of_any_lengths_in_any_order_are_attended_apart() -> None:
    heads = tuple(torch.randn(1, 2, 23, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))

    def one(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, None]:
        return torch.nn.functional.scaled_dot_product_attention(query, key, value).transpose(1, 2), None

    pack = Pack.of(torch.tensor([0, 3, 4, 9, 12, 13, 18, 23]))
    assert [tuple(places.shape) for places in pack.places] == [(2, 3), (2, 1), (3, 5)]
    torch.testing.assert_close(pack.attend(one, heads), pack.attend(one, heads, apart=True))


def test_windows_that_nobody_asks_for_are_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = only("qwen2_5_vl", tmp_path_factory.mktemp("outside"))
    inputs = model.prepare(sample("one"))
    with torch.inference_mode(), pytest.raises(RuntimeError, match="2 attention modules never reached the wrapper"):
        model.encode(inputs)


@pytest.mark.parametrize(("limit", "tokens"), [(0, 3 * 36), (9 * 256, 3 * 9), (4 * 256, 3 * 4)])
def test_a_limit_is_that_of_each_frame_of_a_video_whose_bounds_are_those_of_all(
    deep: Adapter, limit: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = tuple(picture(96, 96, seed) for seed in range(6))
    bounds = {"shortest_edge": 256, "longest_edge": 6 * 96 * 96}
    monkeypatch.setattr(deep.processor.video_processor, "size", bounds)
    deep.begin_task(limit, 0, 8)
    try:
        inputs = deep.prepare(Sample("frames", "What?", ("x",), (), frames, fps=2.0))
    finally:
        deep.begin_task(0, 0, 0)
    assert len(deep.visual_positions(inputs)) == tokens


def test_a_tower_that_gives_another_width_than_the_text_takes_is_refused(deep: Adapter) -> None:
    config = deepcopy(deep.model.config)
    assert unfit(config) == ""
    config.vision_config.out_hidden_size = 48
    assert unfit(config) == "its vision tower gives 48 channels to a text model of 64"


@pytest.mark.parametrize("form", ["video", "both"])
def test_a_task_of_samples_that_a_family_does_not_take_is_unsupported(newer: Adapter, form: str, toy_task: Toy) -> None:
    toy_task.forms = (form,)
    found = run_group(cells(methods=["dense", "snapkv"], keeps=("0.30",)), newer, Settings(limit=1))
    status = "unsupported" if refused(newer, sample(form)) else "ok"
    assert {one.status for one in found} == {status}
    assert all(not one.reason or re.search(REFUSED, one.reason) for one in found)
