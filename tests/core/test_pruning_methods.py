"""The methods that look at frames, at the question and at stretches, and MixKV: against loops in float64, and their edges."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from brute_visual import Array, cosine, gap, seen, top
from forms import sample
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from make_pruning_golden import keys_and_values, tiles, video
from test_methods import grids

from effivlm.compression.base import ImageView, LayerView
from effivlm.compression.frames import Clip
from effivlm.compression.per_image import Seen
from effivlm.compression.similar import unit
from effivlm.methods.cdpruner import CdPruner, determinant
from effivlm.methods.evs import Evs
from effivlm.methods.fast_vid import FastVid
from effivlm.methods.holov import HoloV
from effivlm.methods.mixkv import MixKv
from effivlm.methods.vidcom2 import VidCom2
from effivlm.models._adapter import Adapter
from effivlm.records import Budget
from effivlm.run.tree import Tree

few = settings(deadline=None, max_examples=25)
SEEDS = st.integers(0, 10**6)
FRAMES = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(2, 7))


@few
@given(SEEDS, st.integers(1, 20), st.integers(2, 9), st.integers(1, 4), st.data())
def test_cdpruner_picks_what_raises_the_determinant_most(seed, length, dim, words, data) -> None:
    budget = data.draw(st.integers(1, min(length, dim)))
    tokens, text = (part.double() for part in tiles(seed, 1, length, dim, words))
    shown = tokens[0].numpy()
    likeness = [sum(cosine(token, word) for word in text.numpy()) / words for token in shown]
    low, high = min(likeness), max(likeness)
    relevance = [(one - low + 1e-6) / max(high - low, 1e-6) for one in likeness]
    kernel = np.array(
        [
            [a * cosine(x, y) * b for y, b in zip(shown, relevance, strict=True)]
            for x, a in zip(shown, relevance, strict=True)
        ]
    )
    picked: list[int] = []
    for _ in range(budget):
        base = np.linalg.det(kernel[np.ix_(picked, picked)]) if picked else 1.0
        left = [n for n in range(length) if n not in picked]
        gains = {n: float(np.linalg.det(kernel[np.ix_([*picked, n], [*picked, n])]) / base) for n in left}
        first = max(left, key=lambda n: gains[n])
        assume(gains[first] > 1e-3)
        assume(all(gains[first] - gains[n] > 1e-4 for n in left if n != first))
        picked.append(first)
    places = torch.cartesian_prod(torch.arange(1), torch.arange(1), torch.arange(length)).reshape(-1, 3)
    view = ImageView(tokens[0].float(), places, None, text.float())
    method = CdPruner()
    whole = method.whole(view)
    assert determinant(unit(view.features), whole, budget).tolist() == picked
    assert method.choose(Seen(view.features, None, whole), budget).kept.tolist() == sorted(picked)


def test_more_picks_than_dimensions_go_on_by_relevance() -> None:
    tokens = torch.eye(3).repeat(3, 1)
    relevance = torch.tensor([0.9, 0.5, 1, 0.1, 0.8, 0.2, 0.3, 0.4, 0.6])
    assert determinant(tokens, relevance, 9).tolist() == [2, 0, 4, 8, 1, 7, 6, 5, 3]


def test_the_least_relevant_token_stands_still_where_all_are_equally_relevant() -> None:
    view = ImageView(torch.ones(4, 3), grids([(1, 2, 2, False)])[0], None, torch.ones(2, 3))
    assert CdPruner().whole(view).tolist() == [1.0] * 4


def test_cdpruner_asks_another_question_and_keeps_other_tokens(model: Adapter) -> None:
    method = CdPruner(keep=Budget.parse("0.3"))
    with model.seams():
        tree = Tree(model, sample("one"), [method])
        prompt, other = (tree.prompt((None, part)) for part in (method, None))
        visual = model.encode(model.prepare(sample("one")))
        question = other.embeds[0, int(other.visual.nonzero()[-1, 0]) + 1 :]
        views = [ImageView(*pair, None, question) for pair in zip(visual.features, visual.places, strict=True)]
        again = [ImageView(view.features, view.places, None, question[:1]) for view in views]
    ours = method.select(views, "s")[0].kept
    assert torch.equal(prompt.embeds[0, prompt.visual], visual.features[0][ours])
    assert ours.tolist() != method.select(again, "s")[0].kept.tolist()
    with pytest.raises(ValueError, match="question"):
        method.select([ImageView(views[0].features, views[0].places)], "s")


@few
@given(SEEDS, FRAMES, st.data())
def test_evs_keeps_what_changed_most_since_the_frame_before(seed, shape, data) -> None:
    frames, size, _ = shape
    budget = data.draw(st.integers(1, frames * size))
    clip, _ = video(seed, *shape)
    tokens = clip.double().numpy()
    if budget < size:
        expected = [math.floor((2 * part + 1) * size / (2 * budget)) for part in range(budget)]
    else:
        scores = [9.0] * size + [
            1 - cosine(tokens[t, n], tokens[t - 1, n]) for t in range(1, frames) for n in range(size)
        ]
        assume(gap(scores[size:]) > 1e-6)
        expected = top(np.array(scores), budget)
    assert Evs().choose(Clip(clip), budget).kept.tolist() == expected


def vidcom2(tokens: Array) -> tuple[Array, Array]:
    """Weights of the frames [T] and scores of the tokens [T, n]."""
    frames, size, width = tokens.shape
    spread = tokens.reshape(-1, width).var(0)
    chosen = tokens[:, :, top(-spread, max(1, width // 2))]
    chosen = chosen / np.linalg.norm(chosen, axis=-1, keepdims=True)
    video, scores = np.zeros((frames, size)), np.zeros((frames, size))
    for t in range(frames):
        for n in range(size):
            for power in (-3, -2, -1, 0, 1):
                for centre, into in ((chosen.mean((0, 1)), (video, scores)), (chosen[t].mean(0), (scores,))):
                    for one in into:
                        one[t, n] += math.exp(-((chosen[t, n] - centre) ** 2).sum() / (2 * 2.0**power))
    unusual = np.exp(-video.mean(1) / 0.01 + video.mean(1).min() / 0.01)
    return 1 + unusual / unusual.sum() - 1 / frames, scores


@few
@given(SEEDS, FRAMES, st.data())
def test_vidcom2_keeps_the_least_usual_tokens_and_more_of_unusual_frames(seed, shape, data) -> None:
    frames, size, _ = shape
    budget = data.draw(st.integers(1, frames * size))
    clip, _ = video(seed, *shape)
    weights, scores = vidcom2(clip.double().numpy())
    kept = VidCom2().choose(Clip(clip), budget).kept
    counts = [int((kept // size == frame).sum()) for frame in range(frames)]
    assert sum(counts) == budget
    ideal = [budget / frames * weight for weight in weights]
    if all(1 <= share <= size - 1 for share in ideal):
        assert all(abs(count - share) < 1 + 1e-4 for count, share in zip(counts, ideal, strict=True))
    for frame, count in enumerate(counts):
        assume(gap(list(scores[frame])) > 1e-5)
        rows = kept[kept // size == frame] - frame * size
        assert rows.tolist() == top(-scores[frame], count)


def fast_vid(tokens: Array, attention: Array, budget: int) -> tuple[dict[int, Array], float]:
    """Kept tokens with their features, and the smallest margin of a decision."""
    frames, size, width = tokens.shape
    each = [budget // frames + (frame < budget % frames) for frame in range(frames)]
    wanted = [count * 2 // 5 for count in each]
    means = tokens.mean(1)
    alike = np.array([cosine(a, b) for a, b in pairwise(means)])
    cuts = {*top(-alike, min(7, len(alike))), *(n for n, value in enumerate(alike) if value < 0.9)}
    kept: dict[int, Array] = {}
    margin, free, start = math.inf, [], 0
    for frame in range(frames):
        salient = top(attention[frame], each[frame] - wanted[frame])
        free.append([n for n in range(size) if n not in salient])
        kept |= {frame * size + n: tokens[frame, n] for n in salient}
    for end in range(frames):
        if end not in cuts and end < frames - 1:
            continue
        turns = [frame for frame in range(start, end + 1) if (end - frame) % 4 == 0]
        total = sum(wanted[start : end + 1])
        rest = [tokens[frame, n] for frame in range(start, end + 1) for n in free[frame]]
        for place, frame in enumerate(turns):
            count = total // len(turns) + (place < total % len(turns))
            if count > len(free[frame]):
                return kept, 0.0
            points = [tokens[frame, n] / math.sqrt(width) for n in free[frame]]
            apart = np.array([[float(np.linalg.norm(a - b)) for b in points] for a in points])
            density = [-float((np.sort(row)[:4] ** 2).mean()) for row in apart]
            peak = [
                math.log(
                    min([apart[i, j] for j in range(len(points)) if density[j] > density[i]], default=apart.max()) or 1
                )
                + density[i]
                for i in range(len(points))
            ]
            if count:
                margin = min(margin, gap(density), gap(peak))
            centres = [free[frame][i] for i in top(np.array(peak), count)]
            joined: dict[int, list[Array]] = {n: [] for n in centres}
            for one in rest if centres else []:
                values = [cosine(one, tokens[frame, n]) for n in centres]
                margin = min(margin, gap(values))
                joined[centres[int(np.argmax(values))]].append(one)
            for n, members in joined.items():
                weight = max(1 / (len(members) + 1), 0.6)
                kept[frame * size + n] = weight * tokens[frame, n] + (1 - weight) * np.mean(members, 0)
        start = end + 1
    return kept, margin


@few
@given(SEEDS, st.tuples(st.integers(1, 12), st.integers(6, 12), st.integers(3, 7)), st.integers(5, 40))
def test_fast_vid_keeps_and_merges_what_loops_in_float64_do(seed, shape, percent) -> None:
    clip, attention = video(seed, *shape, offset=3)
    budget = max(1, shape[0] * shape[1] * percent // 100)
    expected, margin = fast_vid(clip.double().numpy(), attention.double().numpy(), budget)
    assume(margin > 1e-5)
    ours = FastVid().choose(Clip(clip, attention), budget)
    assert ours.kept.tolist() == sorted(expected)
    theirs = torch.from_numpy(np.array([expected[n] for n in sorted(expected)])).float()
    torch.testing.assert_close(ours.features, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("budget", range(1, 37))
def test_fast_vid_is_exact_where_anchor_frames_cannot_hold_their_share(budget: int) -> None:
    clip, attention = video(1, 6, 6, 4, offset=9)
    ours = FastVid(cuts=0).choose(Clip(clip, attention), budget)
    assert len(ours.kept) == len(ours.features) == budget == len(set(ours.kept.tolist()))


def holov(tokens: Array, attention: Array, budget: int) -> list[int]:
    parts = np.array_split(np.arange(len(tokens)), min(16, len(tokens)))
    weights = []
    for part in parts:
        alike = [[cosine(tokens[i], tokens[j]) if i != j else 0.0 for j in part] for i in part]
        varied = 0.0
        if len(part) > 1:
            others = len(part) - 1
            varied = float(np.mean([sum((x - sum(row) / others) ** 2 for x in row) / others for row in alike]))
        weight = attention[part].mean() * 1e3
        weights.append(weight + 0.09 * varied * weight / (varied + 1e-6))
    quotas = [math.floor(weight / (sum(weights) + 1e-6) * budget) for weight in weights]
    for heaviest in sorted(range(len(parts)), key=lambda n: (-weights[n], n))[: budget - sum(quotas)]:
        quotas[heaviest] += 1
    kept = {int(part[n]) for part, quota in zip(parts, quotas, strict=True) for n in top(attention[part], quota)}
    rest = sorted(set(range(len(tokens))) - kept, key=lambda n: (-attention[n], n))
    return sorted([*kept, *rest[: budget - len(kept)]])


@few
@given(SEEDS, st.integers(1, 60), st.data())
def test_holov_keeps_what_loops_in_float64_keep(seed, length, data) -> None:
    budget = data.draw(st.integers(1, length))
    shown = seen(seed, length)
    expected = holov(shown.features.double().numpy(), shown.shown.received.double().numpy(), budget)
    assert HoloV().choose(shown, budget).kept.tolist() == expected


@few
@given(SEEDS, st.sampled_from([(4, 2), (2, 1), (6, 3)]), st.integers(3, 40), st.integers(1, 12), st.data())
def test_mixkv_ranks_by_importance_and_diversity_of_every_head(seed, heads, length, window, data) -> None:
    budget = data.draw(st.integers(2, length))
    queries, keys, values = (part.double().numpy() for part in keys_and_values(seed, *heads, length, 4))
    window = max(1, min(window, budget - 1, length - 1))
    early, group = length - window, heads[0] // heads[1]
    expected, margin = [], math.inf
    for head in range(heads[1]):
        sums = np.zeros(length)
        for query in queries[head * group : (head + 1) * group]:
            for row in range(early, length):
                logits = [query[row] @ keys[head, n] / 2 for n in range(row + 1)]
                powers = np.exp(np.array(logits) - max(logits))
                sums[: row + 1] += powers / powers.sum()
        sums = sums[:early] / group
        attention = np.array([sum(sums[max(0, n - 2) : n + 3]) / 5 for n in range(early)])
        unit_keys = keys[head] / np.linalg.norm(keys[head], axis=1, keepdims=True)
        mean = unit_keys.mean(0)
        unlike, norms = -(unit_keys @ mean)[:early], np.linalg.norm(values[head], axis=1)[:early]
        both = []
        for part in (unlike, norms):
            ranged = (part - part.min()) / (part.max() - part.min() + 1e-8)
            both.append(ranged * attention.mean() / (ranged.mean() + 1e-8))
        weight = sum(unit_keys[i] @ unit_keys[j] for i in range(length) for j in range(length) if i != j)
        weight /= length * (length - 1)
        scores = weight * both[0] + (1 - weight) * (attention + both[1])
        margin = min(margin, gap(list(scores)))
        expected.append(top(scores, budget - window) + list(range(early, length)))
    assume(margin > 1e-5)
    method = MixKv(keep=Budget.parse(f"{budget / length:.6f}"), window=window)
    assume(method.keep.of(length) == budget)
    parts = keys_and_values(seed, *heads, length, 4)
    view = LayerView(*parts, torch.ones(length, dtype=torch.bool), 0)
    assert method.select(view, budget, "s").tolist() == expected
