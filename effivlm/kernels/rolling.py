"""Triton kernels of `rolling`: one decoding step of rows that keep their size. Imported on CUDA only.

What a step changes and what it reads must not meet within one launch, where programs run in any order: the first kernel
reads the counters and writes the new entry, the last one moves the counters on and reads them from the new entry's place.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from effivlm.kernels.packed import LOG2E, splits_for
from effivlm.kernels.placed import placed

__all__ = ["splits_for", "step"]

BLOCK = 64  # slots that a program attends to at a time
BYTES = 32768  # of keys, or of values, that it holds at most
TILE = 4096  # attention weights that a program adds to sums at a time
LOWEST: tl.constexpr = tl.constexpr(-1e30)  # below any logit, and finite: a stretch may hold the new entry's slot alone


@triton.jit(do_not_specialize=["rows", "slots"])  # type: ignore[untyped-decorator]
def _attend_kernel(  # type: ignore[no-untyped-def]  # the compiler reads annotations, and knows only its own
    q_ptr,
    new_k_ptr,
    new_v_ptr,
    k_ptr,
    v_ptr,
    order_ptr,
    free_ptr,
    facts_ptr,
    logits_ptr,
    part_ptr,
    stats_ptr,
    scale,
    rows,
    slots,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    QUERIES: tl.constexpr,
    DIM: tl.constexpr,
    PADDED: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    SPLITS: tl.constexpr,
    ENTRIES: tl.constexpr,
    SCORED: tl.constexpr,
):
    pair, split = tl.program_id(0), tl.program_id(1)
    base = pair.to(tl.int64) * slots
    free = tl.load(free_ptr + pair)
    newest = tl.load(facts_ptr + pair // HEADS)
    used = tl.load(facts_ptr + 3 * rows + pair // HEADS).to(tl.int32)
    chunk = tl.cdiv(tl.cdiv(used, SPLITS), ENTRIES) * ENTRIES
    first, last = split * chunk, tl.minimum((split + 1) * chunk, used)
    heads, dims, wide = tl.arange(0, QUERIES), tl.arange(0, PADDED), tl.arange(0, WIDE)
    q_at = q_ptr + (pair * GROUP + heads[:, None]) * DIM + dims[None, :]
    query = tl.load(q_at, mask=(heads[:, None] < GROUP) & (dims[None, :] < DIM), other=0.0)
    # the new entry belongs to the first split, whichever slot it takes; nobody reads that slot at this step
    mine = split == 0
    new_key = tl.load(new_k_ptr + pair * DIM + dims, mask=dims < DIM, other=0.0)
    new_value = tl.load(new_v_ptr + pair * WIDTH + wide, mask=wide < WIDTH, other=0.0)
    tl.store(k_ptr + (base + free) * DIM + dims, new_key, mask=mine & (dims < DIM))
    tl.store(v_ptr + (base + free) * WIDTH + wide, new_value, mask=mine & (wide < WIDTH))
    tl.store(order_ptr + base + free, newest, mask=mine)
    own = tl.sum(query.to(tl.float32) * new_key.to(tl.float32)[None, :], 1) * scale
    logit_at = logits_ptr + base * GROUP + heads * slots
    if SCORED:
        tl.store(logit_at + free, own, mask=mine & (heads < GROUP))
    highest = tl.where(mine, own, LOWEST)
    total = tl.where(mine, 1.0, 0.0) + tl.zeros([QUERIES], tl.float32)
    found = tl.where(mine, new_value.to(tl.float32)[None, :], 0.0) + tl.zeros([QUERIES, WIDE], tl.float32)
    for start in range(first, last, ENTRIES):
        at = start + tl.arange(0, ENTRIES)
        there = (at < last) & (at != free)
        k_at = k_ptr + (base + at)[None, :] * DIM + dims[:, None]
        key = tl.load(k_at, mask=there[None, :] & (dims[:, None] < DIM), other=0.0)
        logits = tl.dot(query, key, input_precision="ieee") * scale
        if SCORED:
            tl.store(logit_at[:, None] + at[None, :], logits, mask=there[None, :] & (heads[:, None] < GROUP))
        logits = tl.where(there[None, :], logits, float("-inf"))
        above = tl.maximum(highest, tl.max(logits, 1))
        shrink = tl.exp2((highest - above) * LOG2E)
        weights = tl.exp2((logits - above[:, None]) * LOG2E)
        v_at = v_ptr + (base + at)[:, None] * WIDTH + wide[None, :]
        value = tl.load(v_at, mask=there[:, None] & (wide[None, :] < WIDTH), other=0.0)
        total = total * shrink + tl.sum(weights, 1)
        found = found * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        highest = above
    slot = (pair * SPLITS + split) * GROUP + heads
    inside = (heads[:, None] < GROUP) & (wide[None, :] < WIDTH)
    tl.store(part_ptr + slot[:, None] * WIDTH + wide[None, :], found, mask=inside)
    tl.store(stats_ptr + 2 * slot, highest, mask=heads < GROUP)
    tl.store(stats_ptr + 2 * slot + 1, total, mask=heads < GROUP)


@triton.jit
def _facts(order_ptr, free_ptr, row_ptr, base, pair, rows):  # type: ignore[no-untyped-def]
    """The new entry's slot and number, sinks, recent entries and slots in use."""
    free = tl.load(free_ptr + pair).to(tl.int32)
    newest = tl.load(order_ptr + base + free).to(tl.int32)
    sinks, recent = tl.load(row_ptr + rows).to(tl.int32), tl.load(row_ptr + 2 * rows).to(tl.int32)
    return free, newest, sinks, recent, tl.load(row_ptr + 3 * rows).to(tl.int32)


@triton.jit
def _weigh(worth, order, at, newest, sinks, recent, least, latest, chosen):  # type: ignore[no-untyped-def]  # as above
    """Of every lane the entry worth least so far, of equal ones the later: its worth, its number and its slot."""
    stays = (order < sinks) | (order > newest - recent)
    worth = tl.where(stays, float("inf"), worth)
    better = (worth < least) | ((worth == least) & (order > latest))
    return tl.where(better, worth, least), tl.where(better, order, latest), tl.where(better, at, chosen)


@triton.jit  # type: ignore[untyped-decorator]
def _settle(free_ptr, row_ptr, pair, newest, least, latest, chosen, HEADS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the next victim, of all lanes, and the row's next number."""
    last = tl.max(tl.where(least == tl.min(least, 0), latest, -1), 0)  # numbers differ, so that it says which lane
    slot = tl.max(tl.where(latest == last, chosen, -1), 0)
    tl.store(free_ptr + pair, slot)
    tl.store(row_ptr, newest + 1, mask=pair % HEADS == 0)


@triton.jit  # type: ignore[untyped-decorator]
def _answer(  # type: ignore[no-untyped-def]  # as above
    part_ptr,
    stats_ptr,
    out_ptr,
    pair,
    head,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    SPLITS: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Put together what the splits found for one query head."""
    parts, wide = tl.arange(0, PARTS), tl.arange(0, WIDE)
    slot = (pair * SPLITS + parts) * GROUP + head
    highest = tl.load(stats_ptr + 2 * slot, mask=parts < SPLITS, other=LOWEST)
    total = tl.load(stats_ptr + 2 * slot + 1, mask=parts < SPLITS, other=0.0)
    weights = tl.exp2((highest - tl.max(highest, 0)) * LOG2E)
    inside = (parts[:, None] < SPLITS) & (wide[None, :] < WIDTH)
    found = tl.load(part_ptr + slot[:, None] * WIDTH + wide[None, :], mask=inside, other=0.0)
    answer = tl.sum(found * weights[:, None], 0) / tl.sum(total * weights, 0)
    tl.store(out_ptr + (pair * GROUP + head) * WIDTH + wide, answer.to(out_ptr.dtype.element_ty), mask=wide < WIDTH)


@triton.jit(do_not_specialize=["rows", "slots"])  # type: ignore[untyped-decorator]
def _finish_kernel(  # type: ignore[no-untyped-def]  # as above
    part_ptr,
    stats_ptr,
    logits_ptr,
    out_ptr,
    order_ptr,
    scores_ptr,
    free_ptr,
    facts_ptr,
    rows,
    slots,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    ROUND: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
    SPLITS: tl.constexpr,
    PARTS: tl.constexpr,
    STRETCH: tl.constexpr,
    SCORED: tl.constexpr,
    SHARED: tl.constexpr,
):
    """Of every KV head one program moves it on, first because that takes longest; the others each answer for a query head."""
    pair, task = tl.program_id(0), tl.program_id(1)
    base = pair.to(tl.int64) * slots
    row_ptr = facts_ptr + pair // HEADS
    if task > 0:
        _answer(part_ptr, stats_ptr, out_ptr, pair, task - 1, GROUP, WIDTH, WIDE, SPLITS, PARTS)
    elif SCORED:
        free, newest, sinks, recent, used = _facts(order_ptr, free_ptr, row_ptr, base, pair, rows)
        heads, parts, lanes = tl.arange(0, ROUND), tl.arange(0, PARTS), tl.arange(0, STRETCH)
        stat_at = stats_ptr + 2 * ((pair * SPLITS + parts[None, :]) * GROUP + heads[:, None])
        inside = (heads[:, None] < GROUP) & (parts[None, :] < SPLITS)
        highest = tl.load(stat_at, mask=inside, other=LOWEST)
        total = tl.load(stat_at + 1, mask=inside, other=1.0)  # where there is no head, what is divided is 0
        top = tl.max(highest, 1)
        whole = tl.sum(total * tl.exp2((highest - top[:, None]) * LOG2E), 1)
        least = tl.full([STRETCH], float("inf"), tl.float32)
        latest = tl.full([STRETCH], -1, tl.int32)
        chosen = tl.full([STRETCH], 0, tl.int32)
        for start in range(0, used, STRETCH):
            at = start + lanes
            logit_at = logits_ptr + base * GROUP + heads[:, None] * slots + at[None, :]
            logits = tl.load(logit_at, mask=(heads[:, None] < GROUP) & (at[None, :] < used), other=float("-inf"))
            weights = tl.exp2((logits - top[:, None]) * LOG2E) / whole[:, None]
            before = tl.load(scores_ptr + base + at, mask=(at < used) & (at != free), other=0.0)
            worth = before + tl.sum(weights, 0) / GROUP
            tl.store(scores_ptr + base + at, worth, mask=at < used)
            if not SHARED:
                order = tl.load(order_ptr + base + at, mask=at < used, other=-1).to(tl.int32)
                least, latest, chosen = _weigh(worth, order, at, newest, sinks, recent, least, latest, chosen)
        if not SHARED:
            _settle(free_ptr, row_ptr, pair, newest, least, latest, chosen, HEADS)
    else:
        free, newest, sinks, recent, used = _facts(order_ptr, free_ptr, row_ptr, base, pair, rows)
        behind = tl.where(free + 1 < used, free + 1, sinks)  # slots behind the sinks are a ring
        stays = tl.load(order_ptr + base + behind) > newest - recent  # so do all, and the newest goes
        tl.store(free_ptr + pair, tl.where(stays, free, behind))
        tl.store(row_ptr, newest + 1, mask=pair % HEADS == 0)


@triton.jit  # type: ignore[untyped-decorator]
def _agree_kernel(  # type: ignore[no-untyped-def]  # as above
    order_ptr, scores_ptr, free_ptr, facts_ptr, rows, slots, HEADS: tl.constexpr, STRETCH: tl.constexpr
):
    """The next victim where heads decide as one, after all of them have added to their sums."""
    pair = tl.program_id(0)
    base = pair.to(tl.int64) * slots
    row_ptr = facts_ptr + pair // HEADS
    _, newest, sinks, recent, used = _facts(order_ptr, free_ptr, row_ptr, base, pair, rows)
    row_at = scores_ptr + (pair // HEADS).to(tl.int64) * HEADS * slots
    lanes = tl.arange(0, STRETCH)
    least = tl.full([STRETCH], float("inf"), tl.float32)
    latest = tl.full([STRETCH], -1, tl.int32)
    chosen = tl.full([STRETCH], 0, tl.int32)
    for start in range(0, used, STRETCH):
        at = start + lanes
        worth = tl.zeros([STRETCH], tl.float32)
        for head in tl.static_range(HEADS):
            worth += tl.load(row_at + head * slots + at, mask=at < used, other=0.0)
        order = tl.load(order_ptr + base + at, mask=at < used, other=-1).to(tl.int32)
        least, latest, chosen = _weigh(worth / HEADS, order, at, newest, sinks, recent, least, latest, chosen)
    _settle(free_ptr, row_ptr, pair, newest, least, latest, chosen, HEADS)


@placed
def step(
    new: tuple[Tensor, Tensor, Tensor],
    keys: Tensor,
    values: Tensor,
    order: Tensor,
    scores: Tensor,
    free: Tensor,
    facts: Tensor,
    scaling: float,
    sort: tuple[bool, bool],
    splits: int,
) -> Tensor:
    """As `RollingSegment.attend` for a query of length 1: attention [R, H_q, 1, D_v]; everything but `new` is changed.

    `new` is the query [R, H_q, 1, D] and its key and value [R, H_kv, 1, D]; the rest is as in the segment.
    """
    query, key, value = (one.contiguous() for one in new)
    rows, heads, slots, dim = keys.shape
    group, width = query.shape[1] // heads, values.shape[-1]
    scored, shared = sort
    part = query.new_empty(rows * heads, splits, group, width, dtype=scores.dtype)
    stats = query.new_empty(rows * heads, splits, group, 2, dtype=scores.dtype)
    logits = query.new_empty(rows * heads, group, slots, dtype=scores.dtype) if scored else stats
    out = query.new_empty(rows, heads * group, 1, width)
    whole = triton.next_power_of_2(group)
    padded, wide = (max(16, triton.next_power_of_2(one)) for one in (dim, width))
    entries = max(16, min(BLOCK, BYTES // (max(padded, wide) * keys.element_size())))
    stretch = max(16, min(1024, TILE // whole))
    shape = {"HEADS": heads, "GROUP": group, "WIDTH": width, "WIDE": wide, "SPLITS": splits, "SCORED": scored}
    tiles = {"QUERIES": max(16, whole), "DIM": dim, "PADDED": padded, "ENTRIES": entries}
    seen = (query, key, value, keys, values, order, free, facts, logits, part, stats, scaling, rows, slots)
    _attend_kernel[(rows * heads, splits)](*seen, **shape, **tiles, num_warps=4, num_stages=3)
    tiles = {"ROUND": whole, "PARTS": triton.next_power_of_2(splits), "STRETCH": stretch}
    told = (part, stats, logits, out, order, scores, free, facts, rows, slots)
    _finish_kernel[(rows * heads, group + 1)](*told, **shape, **tiles, SHARED=shared)
    if scored and shared:
        _agree_kernel[(rows * heads,)](order, scores, free, facts, rows, slots, HEADS=heads, STRETCH=stretch)
    return out
