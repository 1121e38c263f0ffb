"""What the cells of one group say to a sample, and what that has in common with dense's answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from effivlm.compression.base import Method
from effivlm.compression.choose import Doubts, refuse
from effivlm.decoding.eager import Start, agreements
from effivlm.decoding.engine import Captured, Eager
from effivlm.decoding.generation import spoilt
from effivlm.metrics.choice import listed_options
from effivlm.metrics.same import same
from effivlm.models._adapter import Adapter
from effivlm.records import Answer, Cell, Sample, Unsupported
from effivlm.run.finite import in_step
from effivlm.run.noise import again
from effivlm.run.shown import kept_record
from effivlm.run.tree import Leaf, Tree
from effivlm.tasks._base import Task

Note = Callable[[dict[str, Any]], None]
LACKING = {
    "again": "dense could not be asked again",
    "forced": "token agreement could not be computed",
    "kept": "the kept visual tokens could not be told",
}


@dataclass
class Answers:
    """The answers of a group's cells so far, in the order of its samples. `methods` holds all its cells, dense among them.

    `leaves` are what was kept of each prompt, without tensors; `refused` says why a cell cannot exist; `lacking` holds, by
    cell, what could not be found out beside its answers. `note` gets what a report may show of the first samples.
    """

    model: Adapter
    task: Task
    dense: Cell
    methods: Mapping[Cell, Method]
    note: Note
    engine: Captured | Eager
    given: dict[Cell, list[Answer]] = field(init=False)
    leaves: dict[Cell, list[Leaf]] = field(init=False)
    refused: dict[Cell, str] = field(default_factory=dict)
    lacking: dict[Cell, list[tuple[str, str]]] = field(init=False)

    def __post_init__(self) -> None:
        self.given = {cell: [] for cell in self.methods}
        self.leaves = {cell: [] for cell in self.methods}
        self.lacking = {cell: [] for cell in self.methods}

    def ask(self, sample: Sample, share: bool, show: bool) -> None:
        """One sample under every cell that exists; dense first, because the others are compared with it."""
        cells = sorted((cell for cell in self.methods if cell not in self.refused), key=lambda cell: cell != self.dense)
        for batch in [cells] if share else [[cell] for cell in cells]:
            self._ask(sample, batch, show)

    def remarks(self, cell: Cell) -> list[str]:
        """What could not be found out beside the answers of a cell: how often, and why the first time."""
        found = []
        for what, words in LACKING.items():
            reasons = [reason for lacking, reason in self.lacking[cell] if lacking == what]
            if reasons:
                found.append(f"{words} for {len(reasons)} of {len(self.given[cell])} samples; the first: {reasons[0]}")
        return found

    def _ask(self, sample: Sample, cells: Sequence[Cell], show: bool) -> None:
        """One sample under cells that share what they can."""
        tree = Tree(self.model, sample, [self.methods[cell] for cell in cells])
        grown = self._grown(tree, cells)
        if not grown:
            return
        if show:
            self._show(tree, grown)
        second = self._second(tree) if self.dense in grown else []
        starts = [leaf.start for leaf in grown.values()] + second
        leader = list(grown).index(self.dense) if self.dense in grown and len(starts) > 1 else None
        try:
            said, made = self.engine.followed(starts, self.task.max_new_tokens, self.model.eos, leader)
        except Exception as error:  # one broken sample is recorded and counted; it must not end the others
            for cell in grown:
                self.given[cell].append(_broken(sample, error))
            return
        for (cell, leaf), tokens in zip(grown.items(), said, strict=False):
            if (step := spoilt(tokens)) is not None:
                self.given[cell].append(_broken(sample, in_step(step)))
                continue
            self.leaves[cell].append(leaf.without_cache())
            self.given[cell].append(self._scored(sample, tokens, leaf))
        self._compare(sample, list(grown), starts, said, made)

    def _grown(self, tree: Tree, cells: Sequence[Cell]) -> dict[Cell, Leaf]:
        """The compressed prompt of every cell that has one; of the others it is recorded why not."""
        grown: dict[Cell, Leaf] = {}
        doubts: dict[Cell, Doubts] = {}
        for cell in cells:
            try:
                grown[cell], doubts[cell] = tree.unsure_leaf(self.methods[cell])
            except Unsupported as reason:
                self.refused[cell] = str(reason)
                self.given[cell].clear()
            except Exception as error:  # as in `_ask`
                self.given[cell].append(_broken(tree.sample, tree.cause(self.methods[cell], error)))
        for cell, refused in zip(doubts, refuse(*doubts.values()), strict=True):
            if refused:
                del grown[cell]
                self.given[cell].append(_broken(tree.sample, tree.cause(self.methods[cell], refused)))
        return grown

    def _show(self, tree: Tree, grown: Mapping[Cell, Leaf]) -> None:
        """Note which visual tokens every cell kept."""
        for cell, leaf in grown.items():
            try:
                record = kept_record(cell, self.methods[cell], tree, leaf)
            except Exception as error:  # what is noted beside an answer must not take the answer with it
                self.lacking[cell].append(("kept", _named(error)))
                continue
            if record:
                self.note(record)

    def _second(self, tree: Tree) -> list[Start]:
        """Dense once more, at most one start."""
        try:
            return [again(tree)]
        except Exception as error:  # as in `_show`
            self.lacking[self.dense].append(("again", _named(error)))
            return []

    def _scored(self, sample: Sample, tokens: Sequence[int], leaf: Leaf) -> Answer:
        text = self.model.decode_text(tokens)
        return Answer(
            id=sample.id,
            prompt_sha256=sample.prompt_sha256,
            text=text,
            extracted=self.task.extract(text),
            score=self.task.score(text, sample),
            tokens=tuple(tokens),
            prompt_tokens=leaf.length,
            visual_tokens=leaf.visual_tokens,
            kept=leaf.kept,
            of=leaf.of,
        )

    def _compare(
        self,
        sample: Sample,
        cells: Sequence[Cell],
        starts: Sequence[Start],
        said: Sequence[Sequence[int]],
        made: Sequence[Sequence[int]] | None,
    ) -> None:
        """Set what the newest answers of `cells` have in common with dense's; a start beyond theirs is dense's second run.

        `made` is what each start says after the tokens of dense's answer, where the engine found that out already.
        """
        reference = next((one for one in self.given[self.dense][-1:] if one.id == sample.id and not one.error), None)
        if reference is None:
            return
        steps, eos = self.task.max_new_tokens, self.model.eos
        try:
            choose = self.engine.chosen if made is None else partial(_told, made)
            shares = agreements(choose, starts, said, reference.tokens, steps, eos)
        except Exception as error:  # as in `_show`
            for cell in cells:
                self.lacking[cell].append(("forced", _named(error)))
            shares = []
        forced: list[float | None] = [*shares] or [None] * len(starts)
        kind = self.task.answer_type
        for number, (cell, share) in enumerate(zip(cells, forced, strict=False)):
            if spoilt(said[number]) is not None:
                continue
            if shares and share is None:
                self.lacking[cell].append(("forced", _named(in_step(len(said[number])))))
            ours = _against(self.given[cell][-1], reference, kind, sample)
            if cell != self.dense:
                ours = replace(ours, forced=share)
            elif len(starts) > len(cells) and (step := spoilt(said[-1])) is not None:
                self.lacking[cell].append(("again", _named(in_step(step))))
            elif len(starts) > len(cells):
                tokens = tuple(said[-1])
                ours = replace(ours, again=self.model.decode_text(tokens), again_tokens=tokens, forced=forced[-1])
            self.given[cell][-1] = ours


def _told(
    made: Sequence[Sequence[int]], starts: Sequence[Start], rows: Sequence[int], fed: Sequence[int]
) -> list[list[int]]:
    """As `decode.chosen`, of what is known."""
    return [list(made[row][1 : len(fed) + 1]) for row in rows]


def _broken(sample: Sample, error: Exception) -> Answer:
    return Answer(sample.id, sample.prompt_sha256, "", "", None, error=_named(error))


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def _against(answer: Answer, dense: Answer, kind: str, sample: Sample) -> Answer:
    common = 0
    for ours, theirs in zip(answer.tokens, dense.tokens, strict=False):
        if ours != theirs:
            break
        common += 1
    options = listed_options(sample.prompt) if kind == "choice" else None
    return replace(
        answer,
        same_as_dense=None if kind == "free" else same(kind, answer.text, dense.text, options),
        exact_as_dense=answer.text == dense.text,
        common_prefix_tokens=common,
    )
