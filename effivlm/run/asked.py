"""What the cells of one group say to one sample, and what that has in common with dense's answer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from effivlm.compression.base import CachePart, Method
from effivlm.compression.choose import Doubts, refuse
from effivlm.decoding.caches import row_bytes
from effivlm.decoding.eager import Choose, Start, agreements
from effivlm.decoding.engine import Captured, Eager
from effivlm.decoding.generation import spoilt
from effivlm.models._adapter import Adapter
from effivlm.records import HALF_PAIR, Answer, Cell, Sample, Unsupported
from effivlm.run.diverging import Diverging
from effivlm.run.faults import FAULTS, told
from effivlm.run.finite import in_step
from effivlm.run.gave import Asked, broken
from effivlm.run.leaf import Leaf
from effivlm.run.lengths import Positions
from effivlm.run.noise import again
from effivlm.run.scoring import against, mute, scored
from effivlm.run.shown import kept_record
from effivlm.run.tree import Tree
from effivlm.run.untouched import Blamed, Meddled
from effivlm.seams.meters import OUT_OF_MEMORY, reclaim
from effivlm.tasks._base import Task


@dataclass
class Asking:
    """One sample under the cells of a group; `show`: note which visual tokens each kept; `twice`: ask dense once more.

    Cells are decoded together as far as their prompts and caches take `most_bytes`, dense among the first, and one after another
    in batches that size; a batch that runs out of memory all the same is halved. `lead` is dense's prompt, for batches after the
    first, where the engine takes steps that follow its answer. `reference` is dense's answer where it is not among the cells;
    `diverging` measures how far cells are from it.
    """

    model: Adapter
    task: Task
    dense: Cell
    methods: Mapping[Cell, Method]
    engine: Captured | Eager
    sample: Sample
    show: bool
    twice: bool
    diverging: Diverging
    most_bytes: float = math.inf
    lead: Start | None = None
    reference: Answer | None = None
    found: Asked = field(default_factory=Asked)

    def ask(self, cells: Sequence[Cell], share: bool) -> Asked:
        """What `cells` say, dense first; without `share` each computes all by itself."""
        if half := HALF_PAIR.search(self.sample.prompt):
            self.found.lack(cells, "prompt", f"U+{ord(half[0]):04X} at place {half.start()}")
        for batch in [cells] if share else [[cell] for cell in cells]:
            self.lead = None
            self._ask(batch)
        return self.found

    def _ask(self, cells: Sequence[Cell]) -> None:
        """The sample under cells that share what they can, grown anew without whoever broke or changed what the others share."""
        while left := [cell for cell in cells if self._open(cell)]:
            try:
                tree = self._tree(left)
            except Unsupported as reason:  # what the samples are, the model does not take
                self.found.refused |= dict.fromkeys(left, str(reason))
                return
            except FAULTS as error:  # the sample cannot be prepared, or is too long: for no cell
                self._broken(left, error)
                return
            try:
                self._through(tree, [cell for cell in left if self._open(cell)])
            except Blamed as blamed:
                guilty = [cell for cell in left if blamed.part in self.methods[cell].parts] or left
                if isinstance(blamed.error, Meddled):
                    self.found.failed |= dict.fromkeys(guilty, told(blamed.error))
                    self.lead = None  # its cache may be what was changed
                else:
                    self._broken(guilty, blamed.error)

    def _open(self, cell: Cell) -> bool:
        """Whether a cell still has to say something, or why it does not."""
        return not any(cell in of for of in (self.found.answers, self.found.refused, self.found.failed))

    def _through(self, tree: Tree, cells: Sequence[Cell]) -> None:
        """Grow and decode cells, as many at once as fit; those that wait for the prefill last, so that it runs meanwhile."""
        waiting, grown, size = sorted(cells, key=self._waits), dict[Cell, tuple[Leaf, Doubts]](), 0.0
        while waiting:
            cell = waiting[0]
            try:
                leaf, doubts = tree.unsure_leaf(self.methods[cell])
            except OUT_OF_MEMORY as error:
                if not grown:
                    self._broken([waiting.pop(0)], error)
                self._free(tree, grown, waiting)
                size = 0.0
                continue
            except Blamed:
                raise
            except Unsupported as reason:
                self.found.refused[cell] = str(reason)
            except FAULTS as error:  # one broken sample is recorded and counted; it must not end the others
                self._broken([cell], tree.cause(self.methods[cell], error))
            else:
                cost = (1 + self.engine.copies) * row_bytes(leaf.cache, self.task.max_new_tokens)
                if grown and size + cost > self.most_bytes:
                    self._free(tree, grown, waiting)
                    size = 0.0
                grown[cell], size = (leaf, doubts), size + cost
            waiting.pop(0)
        for short in tree.beside.short:
            self.found.lack(cells[:1], "beside", short)
        self._decoded(tree, grown)

    def _waits(self, cell: Cell) -> bool:
        return any(part.waits for part in self.methods[cell].parts if isinstance(part, CachePart))

    def _free(self, tree: Tree, grown: dict[Cell, tuple[Leaf, Doubts]], waiting: Sequence[Cell]) -> None:
        """Decode what is grown, and let go of it and of what those that wait do not need."""
        self._decoded(tree, grown)
        grown.clear()
        tree.release([self.methods[cell] for cell in waiting])
        reclaim(self.model.device)

    def _decoded(self, tree: Tree, pairs: Mapping[Cell, tuple[Leaf, Doubts]]) -> None:
        """The answers of cells that are grown."""
        grown = dict[Cell, Leaf]()
        for cell, (leaf, _) in pairs.items():
            try:
                grown[cell] = tree.begun(self.methods[cell], leaf)
            except FAULTS as error:  # as in `_through`
                if isinstance(error, OUT_OF_MEMORY) and grown:
                    continue  # stays open, and is grown anew once those before it are decoded and gone
                self._broken([cell], tree.cause(self.methods[cell], error))
        for cell, refused in zip(pairs, refuse(*(doubts for _, doubts in pairs.values())), strict=True):
            if refused and grown.pop(cell, None):
                self._broken([cell], tree.cause(self.methods[cell], refused))
        if self.show:
            self._show(tree, grown)
        second = self._second(tree) if self.twice and self.dense in grown else []
        if grown:
            self._together(grown, second)

    def _together(self, grown: Mapping[Cell, Leaf], second: Sequence[Start]) -> None:
        """Decode cells as one batch, `second` being dense's second run; in halves where that takes more memory than there is, or
        one of them breaks it: what a method left may be nothing that can be decoded."""
        try:
            self._batch(grown, second)
        except OUT_OF_MEMORY as error:
            self.engine.forget()
            reclaim(self.model.device)
            cells = list(grown)
            if len(cells) == 1 and self.lead is None and not second:
                self._broken(cells, error)
                return
            reason = str(error).partition("\n")[0]
            self.found.lack(cells, "memory", reason)
            if len(cells) == 1:
                self.lead = None
                self.found.lack(cells if second else (), "again", reason)
                self._together(grown, ())
                return
            self._halved(grown, second)
        except FAULTS as error:  # as in `_through`
            left = {cell: leaf for cell, leaf in grown.items() if self._open(cell)}
            if len(left) < 2:
                self._broken(left, error)
                return
            self.engine.forget()
            self._halved(left, second if self.dense in left else ())

    def _halved(self, grown: Mapping[Cell, Leaf], second: Sequence[Start]) -> None:
        """As `_together`, of each half by itself; dense, if it is there, is in the first."""
        cells = list(grown)
        half = len(cells) // 2
        self._together({cell: grown[cell] for cell in cells[:half]}, second)
        self._together({cell: grown[cell] for cell in cells[half:]}, ())

    def _batch(self, grown: Mapping[Cell, Leaf], second: Sequence[Start]) -> None:
        """As `_together`, of what fits."""
        starts = [leaf.start for leaf in grown.values()] + list(second)
        leader = list(grown).index(self.dense) if self.dense in grown and len(starts) > 1 else None
        led = starts if self.dense in grown or self.lead is None else [*starts, self.lead]
        leader = len(starts) if len(led) > len(starts) else leader
        said, made = self.engine.followed(led, self.task.max_new_tokens, self.model.eos, leader)
        for (cell, leaf), tokens in zip(grown.items(), said, strict=False):
            if (step := spoilt(tokens)) is not None:
                self._broken([cell], in_step(step))
                continue
            self.found.leaves[cell] = leaf.without_cache()
            self.found.answers[cell] = self._scored(tokens, leaf)
        if self.dense in grown and self.engine.follows:
            self.lead = grown[self.dense].start
        self._compare(list(grown), starts, said, made)
        self._diverge(grown)

    def _tree(self, cells: Sequence[Cell]) -> Tree:
        """The tree of the cells whose methods can say where they work; the others' answers are broken.

        Raises:
            Ill: the prompt is longer than the model's positions. What the processor raises comes through.
        """
        positions = Positions(self.model)
        positions.refuse_text(self.sample.prompt)
        shown, able = replace(self.sample, prompt=HALF_PAIR.sub("\ufffd", self.sample.prompt)), []
        for cell in cells:
            try:
                Tree(self.model, shown, [self.methods[cell]])
                able.append(cell)
            except FAULTS as error:  # as in `_through`
                self._broken([cell], error)
        tree = Tree(self.model, shown, [self.methods[cell] for cell in able])
        positions.refuse(tree.whole_inputs, self.task.max_new_tokens)
        return tree

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
            if self.task.rubric or self.task.elsewhere:  # somebody marks it, once all are given
                return replace(answer, invalid=mute(self.task, text, self.sample))
            return replace(answer, **scored(self.task, text, self.sample)._asdict())
        except FAULTS as error:  # as in `_through`
            return replace(answer, error=told(error))

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
        answers, reference = self.found.answers, self._reference()
        if reference is None:
            return
        try:
            choose = self.engine.chosen if made is None else partial(_told, made)
            shares = self._agreements(choose, starts, said[: len(starts)], reference.tokens)
        except FAULTS as error:  # as in `_show`
            self.found.lack(cells, "forced", error)
            shares = []
        forced: list[float | None] = [*shares] or [None] * len(starts)
        kind = self.task.answer_type
        for number, (cell, share) in enumerate(zip(cells, forced, strict=False)):
            if answers[cell].error:
                continue
            if shares and share is None:
                self.found.lack([cell], "forced", in_step(len(said[number])))
            ours = against(answers[cell], reference, kind, self.sample)
            if cell != self.dense:
                ours = replace(ours, forced=share)
            elif len(starts) > len(cells) and (step := spoilt(said[len(cells)])) is not None:
                self.found.lack([cell], "again", in_step(step))
            elif len(starts) > len(cells):
                tokens = tuple(said[len(cells)])
                ours = replace(
                    ours, again=self.model.decode_text(tokens), again_tokens=tokens, forced=forced[len(cells)]
                )
            answers[cell] = ours

    def _reference(self) -> Answer | None:
        """Dense's answer, whoever gave it; None where it broke."""
        found = self.found.answers.get(self.dense, self.reference)
        return None if found is None or found.error else found

    def _diverge(self, grown: Mapping[Cell, Leaf]) -> None:
        """Set how far what cells expect is from what dense does, where that is asked for."""
        answers, reference = self.found.answers, self._reference()
        if reference is None:
            return
        for cell in grown:
            if answers[cell].error:
                continue
            try:
                if cell == self.dense:
                    self.found.expected = self.diverging.begin(grown[cell], reference.tokens)
                else:
                    kl = self.diverging.of(grown[cell], reference.tokens, self.dense not in self.methods)
                    answers[cell] = replace(answers[cell], kl=kl)
            except FAULTS as error:  # as in `_show`
                self.found.lack([cell], "kl", error)

    def _agreements(
        self, choose: Choose, starts: Sequence[Start], said: Sequence[Sequence[int]], target: Sequence[int]
    ) -> list[float | None]:
        """As `eager.agreements`, in halves where that takes more memory than there is."""
        try:
            return agreements(choose, starts, said, target, self.task.max_new_tokens, self.model.eos)
        except OUT_OF_MEMORY:
            if len(starts) == 1:
                raise
        self.engine.forget()
        reclaim(self.model.device)
        half = len(starts) // 2
        return [
            *self._agreements(choose, starts[:half], said[:half], target),
            *self._agreements(choose, starts[half:], said[half:], target),
        ]


def _told(
    made: Sequence[Sequence[int]], starts: Sequence[Start], rows: Sequence[int], fed: Sequence[int]
) -> list[list[int]]:
    """As `decode.chosen`, of what is known."""
    return [list(made[row][1 : len(fed) + 1]) for row in rows]
