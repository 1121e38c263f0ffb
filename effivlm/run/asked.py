"""What the cells of one group say to one sample, and what that has in common with dense's answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from effivlm.compression.base import Method
from effivlm.compression.choose import Doubts, refuse
from effivlm.decoding.eager import Start, agreements
from effivlm.decoding.engine import Captured, Eager
from effivlm.metrics.choice import listed_options
from effivlm.metrics.same import same
from effivlm.models._adapter import Adapter
from effivlm.records import HALF_PAIR, Answer, Cell, Sample, Unsupported
from effivlm.run.faults import FAULTS, told
from effivlm.run.noise import again
from effivlm.run.scoring import scored
from effivlm.run.shown import kept_record
from effivlm.run.tree import Leaf, Tree
from effivlm.run.untouched import Blamed, Meddled
from effivlm.tasks._base import Task

_T = TypeVar("_T")


def _of(cells: Sequence[Cell], held: Mapping[Cell, _T]) -> dict[Cell, _T]:
    return {cell: held[cell] for cell in cells if cell in held}


@dataclass
class Asked:
    """All that one sample gave: answers, what was kept of its prompt (without tensors), and what could not be found out.

    `refused` are cells that turned out not to exist, `failed` cells that are given up; they have no answers. `notes` are lines
    that a report may show. Nothing in here holds a tensor, so that it can be stored.
    """

    answers: dict[Cell, Answer] = field(default_factory=dict)
    leaves: dict[Cell, Leaf] = field(default_factory=dict)
    refused: dict[Cell, str] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)
    lacking: list[tuple[Cell, str, str]] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    @property
    def ends(self) -> tuple[Mapping[Cell, Any], ...]:
        """What a cell comes to: an answer, or one of two reasons for having none."""
        return self.answers, self.refused, self.failed

    def of(self, cells: Sequence[Cell]) -> Asked:
        """The same of these cells alone, in their order."""
        lacking = [one for one in self.lacking if one[0] in cells]
        parts = (_of(cells, self.answers), _of(cells, self.leaves), _of(cells, self.refused), _of(cells, self.failed))
        return Asked(*parts, lacking, self.notes)

    def lack(self, cells: Iterable[Cell], what: str, error: BaseException | str) -> None:
        reason = error if isinstance(error, str) else told(error)
        self.lacking += [(cell, what, reason) for cell in cells]


@dataclass
class Asking:
    """One sample under the cells of a group; `show`: note which visual tokens each kept."""

    model: Adapter
    task: Task
    dense: Cell
    methods: Mapping[Cell, Method]
    engine: Captured | Eager
    sample: Sample
    show: bool
    found: Asked = field(default_factory=Asked)

    def ask(self, cells: Sequence[Cell], share: bool) -> Asked:
        """What `cells` say, dense first; without `share` each computes all by itself."""
        if half := HALF_PAIR.search(self.sample.prompt):
            self.found.lack(cells, "prompt", f"U+{ord(half[0]):04X} at place {half.start()}")
        for batch in [cells] if share else [[cell] for cell in cells]:
            self._ask(batch)
        return self.found

    def _ask(self, cells: Sequence[Cell]) -> None:
        """The sample under cells that share what they can."""
        tree, grown = self._grown(cells)
        if not grown:
            return
        if self.show:
            self._show(tree, grown)
        second = self._second(tree) if self.dense in grown else []
        starts = [leaf.start for leaf in grown.values()] + second
        leader = list(grown).index(self.dense) if self.dense in grown and len(starts) > 1 else None
        try:
            said, made = self.engine.followed(starts, self.task.max_new_tokens, self.model.eos, leader)
        except FAULTS as error:  # one broken sample is recorded and counted; it must not end the others
            self._broken(grown, error)
            return
        for (cell, leaf), tokens in zip(grown.items(), said, strict=False):
            self.found.leaves[cell] = leaf.without_cache()
            self.found.answers[cell] = self._scored(tokens, leaf)
        self._compare(list(grown), starts, said, made)

    def _tree(self, cells: Sequence[Cell]) -> Tree:
        """The tree of the cells whose methods can say where they work; the others' answers are broken."""
        shown, able = replace(self.sample, prompt=HALF_PAIR.sub("\ufffd", self.sample.prompt)), []
        for cell in cells:
            try:
                Tree(self.model, shown, [self.methods[cell]])
                able.append(cell)
            except FAULTS as error:  # as in `_ask`
                self._broken([cell], error)
        return Tree(self.model, shown, [self.methods[cell] for cell in able])

    def _grown(self, cells: Sequence[Cell]) -> tuple[Tree, dict[Cell, Leaf]]:
        """The compressed prompt of every cell that has one, grown anew without whoever broke or changed what the others share."""
        while True:
            found = self.found
            left = [
                cell for cell in cells if not any(cell in of for of in (found.answers, found.refused, found.failed))
            ]
            tree = self._tree(left)
            try:
                return tree, self._leaves(tree, [cell for cell in left if cell not in found.answers])
            except Blamed as blamed:
                guilty = [cell for cell in left if blamed.part in self.methods[cell].parts]
                if isinstance(blamed.error, Meddled):
                    found.failed |= dict.fromkeys(guilty or left, told(blamed.error))
                else:
                    self._broken(guilty or left, blamed.error)

    def _leaves(self, tree: Tree, cells: Sequence[Cell]) -> dict[Cell, Leaf]:
        """The compressed prompts of a tree; of cells without one it is recorded why not."""
        grown: dict[Cell, Leaf] = {}
        doubts: dict[Cell, Doubts] = {}
        for cell in cells:
            try:
                grown[cell], doubts[cell] = tree.unsure_leaf(self.methods[cell])
            except Blamed:
                raise
            except Unsupported as reason:
                self.found.refused[cell] = str(reason)
            except FAULTS as error:  # as in `_ask`
                self._broken([cell], error)
        for cell, refused in zip(doubts, refuse(*doubts.values()), strict=True):
            if refused:
                del grown[cell]
                self._broken([cell], refused)
        return grown

    def _broken(self, cells: Iterable[Cell], error: BaseException) -> None:
        for cell in cells:
            self.found.answers[cell] = broken(self.sample.id, self.sample.prompt_sha256, error)

    def _show(self, tree: Tree, grown: Mapping[Cell, Leaf]) -> None:
        """Note which visual tokens every cell kept."""
        for cell, leaf in grown.items():
            try:
                record = kept_record(cell, self.methods[cell], tree, leaf)
            except FAULTS as error:  # what is noted beside an answer must not take the answer with it
                self.found.lack([cell], "kept", error)
                continue
            if record:
                self.found.notes.append(record)

    def _second(self, tree: Tree) -> list[Start]:
        """Dense once more, at most one start."""
        try:
            return [again(tree)]
        except FAULTS as error:  # as in `_show`
            self.found.lack([self.dense], "again", error)
            return []

    def _scored(self, tokens: Sequence[int], leaf: Leaf) -> Answer:
        """An answer and its score; one that cannot be scored is broken, and what was said stays on record."""
        text = self.model.decode_text(tokens)
        answer = Answer(
            id=self.sample.id,
            prompt_sha256=self.sample.prompt_sha256,
            text=text,
            extracted="",
            score=None,
            tokens=tuple(tokens),
            prompt_tokens=leaf.length,
            visual_tokens=leaf.visual_tokens,
            kept=leaf.kept,
            of=leaf.of,
        )
        try:
            extracted, score = scored(self.task, text, self.sample)
        except FAULTS as error:  # as in `_ask`
            return replace(answer, error=told(error))
        return replace(answer, extracted=extracted, score=score)

    def _compare(
        self,
        cells: Sequence[Cell],
        starts: Sequence[Start],
        said: Sequence[Sequence[int]],
        made: Sequence[Sequence[int]] | None,
    ) -> None:
        """Set what the answers of `cells` have in common with dense's; a start beyond theirs is dense's second run.

        `made` is what each start says after the tokens of dense's answer, where the engine found that out already.
        """
        answers, reference = self.found.answers, self.found.answers.get(self.dense)
        if reference is None or reference.error:
            return
        steps, eos = self.task.max_new_tokens, self.model.eos
        try:
            choose = self.engine.chosen if made is None else partial(_told, made)
            shares = agreements(choose, starts, said, reference.tokens, steps, eos)
        except FAULTS as error:  # as in `_show`
            self.found.lack(cells, "forced", error)
            shares = []
        forced: list[float | None] = [*shares] or [None] * len(starts)
        kind = self.task.answer_type
        for cell, share in zip(cells, forced, strict=False):
            if answers[cell].error:
                continue
            ours = against(answers[cell], reference, kind, self.sample)
            if cell != self.dense:
                ours = replace(ours, forced=share)
            elif len(starts) > len(cells):
                tokens = tuple(said[-1])
                ours = replace(ours, again=self.model.decode_text(tokens), again_tokens=tokens, forced=forced[-1])
            answers[cell] = ours


def _told(
    made: Sequence[Sequence[int]], starts: Sequence[Start], rows: Sequence[int], fed: Sequence[int]
) -> list[list[int]]:
    """As `decode.chosen`, of what is known."""
    return [list(made[row][1 : len(fed) + 1]) for row in rows]


def broken(sample: str, prompt_sha256: str, error: BaseException) -> Answer:
    """No answer to a sample, and why."""
    return Answer(sample, prompt_sha256, "", "", None, error=told(error))


def against(answer: Answer, dense: Answer, kind: str, sample: Sample) -> Answer:
    """An answer with what it has in common with dense's."""
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
