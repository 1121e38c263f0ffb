"""A suite on a cluster: (group, block) jobs for workers anywhere, and their answers in the one record of the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effivlm.cluster.pool import Hand, Lost, Pool, connect, needed
from effivlm.cluster.progress import Progress
from effivlm.cluster.worker import Worker
from effivlm.records import Cell, Outcome, Settings
from effivlm.run.faults import FAULTS
from effivlm.session import record
from effivlm.session.beside import parted
from effivlm.session.blocks import parts
from effivlm.session.groups import Groups, ending
from effivlm.session.journal import checkpoint
from effivlm.session.matrix import Plan
from effivlm.session.recorder import Recorder, facts

if TYPE_CHECKING:
    from effivlm.run.gave import Reference

TRIES = 3  # workers that a sample may take with it
WAIT_S = 1.0
ROOM_S = 60.0  # for a cluster to have room for one worker at all


@dataclass(eq=False)
class Work:
    """The samples of a group that nobody has answered: those waiting, and how many are with workers.

    `cells` are those of one checkpoint; `later` are works of the changed ones, which follow. `begun`: a worker has told how it
    goes, so that a changed checkpoint is there. `references` are dense's answers, for what is no work of dense.
    """

    cells: Sequence[Cell]
    names: Mapping[Cell, str]
    later: Sequence[Work] = ()
    begun: bool = False
    references: Mapping[int, Reference] = field(default_factory=dict)
    total: int = 0
    waiting: list[tuple[range, int]] = field(default_factory=list)
    out: int = 0
    done: int = 0
    ended: tuple[str, str] | None = None  # status and reason of all cells

    @property
    def over(self) -> bool:
        return not self.out and (not self.waiting or self.ended is not None)

    @property
    def ready(self) -> bool:
        """Whether a worker can be given a block: the first one makes the checkpoint, which others need not wait for."""
        return bool(self.waiting) and (self.begun or not self.out or not self.model[1])

    @property
    def model(self) -> tuple[str, str]:
        """Which one answers, and what is made of it for that."""
        return self.cells[0].model, checkpoint(self.cells[0])

    def all(self) -> list[Cell]:
        return [cell for work in (self, *self.later) for cell in work.cells]


@dataclass(eq=False)
class Job:
    """A block with a worker. `left` are its samples without an answer, `tries` how many workers were lost with the first of
    them."""

    work: Work
    left: range
    tries: int = 0


@dataclass(eq=False)
class Suite:
    """One run on a cluster."""

    plan: Plan
    folder: Path
    resuming: bool
    command: Sequence[str]
    root: Path
    kind: type = Worker
    say: Callable[[str], None] = print
    notes: list[str] = field(default_factory=list)

    def run(self, address: str, setup: Callable[[], None] | None = None) -> int:
        """Exit code 0: all cells were measured or are unsupported, 1: some failed, 2: interrupted. ValueError as everywhere."""
        recorder = Recorder(self.folder)
        try:
            ray = connect(address, setup)
            try:
                recorder.hold()
                return self._held(ray, recorder)
            finally:
                ray.shutdown()
        finally:
            recorder.release()

    def _held(self, ray: Any, recorder: Recorder) -> int:
        arguments = (self.plan.settings, dict(self.plan.sources))
        gpus = int(self.plan.settings.device != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)
        pool = Pool(ray, arguments, gpus, self.kind)
        try:
            first = self._first(pool)
            settings = first.here or self.plan.settings
            planned = [(cell, "quality") for cell in self.plan.cells]
            reused = self._begin(recorder, settings, planned)
            groups = Groups(self.plan, settings, self.folder, {"quality": self.plan.cells})
            return self._through(pool, first.memory, groups, recorder, planned, reused)
        finally:
            pool.close()

    def _first(self, pool: Pool) -> Hand:
        """The first worker that is there, which tells on what the others run too; all come at once."""
        deadline = time.monotonic() + ROOM_S
        most = self.plan.settings.limit * len({cell.group for cell in self.plan.cells})
        while not pool.hands:
            if time.monotonic() > deadline:
                raise ValueError(f"the cluster has no room for a worker: {pool.ray.available_resources()} are free")
            pool.staff(most)
            for _ in pool.events(WAIT_S):
                pass
        return pool.hands[0]

    def _begin(self, recorder: Recorder, settings: Settings, planned: Sequence[Any]) -> int:
        header = facts(self.root, self.command, asdict(settings))
        header |= {"resumed": self.resuming, "workers": 0, "on": "ray"}
        header["models"] = {name: source.to_json() for name, source in self.plan.sources.items()}
        header["checkpoints"] = record.identities(self.plan, planned, self.say)
        header["task_versions"] = record.task_versions(self.plan.cells)
        reused = 0
        if self.resuming:
            reused = record.go_on(recorder, self.plan, settings, header, planned, self.say)
        else:
            record.refuse_old(self.folder)
        record.begin(recorder, header, "ray")
        return reused

    def _through(
        self, pool: Pool, memory: int, groups: Groups, recorder: Recorder, planned: Sequence[Any], reused: int
    ) -> int:
        stopped, began = "", time.monotonic()
        try:
            for gpus, cells in self._by_room(pool, groups, memory).items():
                if gpus == pool.gpus:
                    self._answer(pool, groups, recorder, cells)
                    continue
                pool.close()  # whose GPUs these need
                wide = Pool(pool.ray, pool.arguments, gpus, self.kind)
                try:
                    self._answer(wide, groups, recorder, cells)
                finally:
                    wide.close()
        except KeyboardInterrupt:
            stopped = "interrupted from the keyboard"
        finally:
            lost = "; ".join(self.notes)
            said = {"seconds": round(time.monotonic() - began, 3), "rates": {}, "reused": reused}
            record.end(recorder, planned, (), stopped, stopped or lost, lost, self.plan.settings.shard, said)
        failed = any(outcome.status not in ("ok", "unsupported") for outcome in recorder.recorded.values())
        return 2 if stopped else int(failed)

    def _by_room(self, pool: Pool, groups: Groups, memory: int) -> dict[int, list[Cell]]:
        """One cell of each group that is not done, by the GPUs that its model takes; those of the pool at hand first."""
        found: dict[int, list[Cell]] = {pool.gpus: []}
        for cell in {cell.group: cell for cell in reversed(self.plan.cells)}.values():
            gpus = pool.gpus
            if gpus and memory:
                from effivlm.models._memory import needs

                with suppress(ValueError):  # it does not tell its size: its worker will say what is wrong
                    gpus = needed(needs(self.plan.sources[cell.model], groups.settings.dtype).weights, memory)
            found.setdefault(gpus, []).insert(0, cell)
        return found

    def _answer(self, pool: Pool, groups: Groups, recorder: Recorder, firsts: Sequence[Cell]) -> None:
        """Have groups answered, each written down as soon as it is whole."""
        works = []
        for cell in firsts:
            groups.mark(cell)
            if waiting := groups.waiting(cell):
                own, changed = parted(waiting)
                works.append(self._work(own, groups, pool))
                works[-1].later = [self._work(cells, groups, pool) for cells in changed]
            self._store(groups, recorder)
        every = [one for work in works for one in (work, *work.later)]
        progress = Progress(self.say, sum(work.total for work in every), sum(work.done for work in every))
        while works:
            for work in [work for work in works if work.over]:
                works.remove(work)
                if work.ended:
                    groups.end(work.all(), *work.ended)
                else:
                    groups.complete(work.cells, partial(self._made, work, groups))
                    works += self._later(work, groups)
                self._store(groups, recorder)
            if works:
                self._hand_out(pool, works)
                for job, told in pool.events(WAIT_S):
                    if job is not None:
                        self._take(job, told, groups, progress)
                progress.show(pool.size)

    def _work(self, cells: Sequence[Cell], groups: Groups, pool: Pool) -> Work:
        """What of a group is left to answer; an error in that is the group's."""
        names = groups.names(cells)
        work = Work(cells, names)
        try:
            if not pool.slots():
                raise ValueError(f"no node of the cluster has the {pool.gpus} GPUs that model {cells[0].model!r} takes")
            numbers = groups.together.numbers(cells)
            done = self._standing(cells, names, groups)
            work.waiting = [(part, 0) for block in parts(numbers, pool.slots()) for part in without(block, done)]
            work.total, work.done = len(numbers), len(done & set(numbers))
        except FAULTS as error:
            work.ended = ending(error)[:2]
        return work

    def _later(self, work: Work, groups: Groups) -> Sequence[Work]:
        """The works that follow one whose answers are all there."""
        if work.later:
            references = groups.together.references(work.cells[0], work.names)
            for one in work.later:
                one.references = references
        return work.later

    def _standing(self, cells: Sequence[Cell], names: Mapping[Cell, str], groups: Groups) -> set[int]:
        from effivlm.run.assembling import still_answered

        if groups.journal.session <= 1 or groups.journal.how(cells[0]) is None:
            return set()
        family, expects = self.plan.sources[cells[0].model].family, cells[0].group in groups.expecting
        return set(still_answered(cells, groups.settings, family, groups.journal.stored(names), expects))

    def _hand_out(self, pool: Pool, works: Sequence[Work]) -> None:
        """Give workers blocks, of the model that they have open if there are some; a second one each while many wait."""
        live = [work for work in works if work.ended is None]
        pool.staff(sum(len(work.waiting) + work.out for work in live))
        for jobs in (1, 2):
            for hand in pool.free(jobs):
                left = [work for work in live if work.ready]
                if not left or (jobs > 1 and sum(len(work.waiting) for work in left) <= pool.size):
                    return
                work = min(left, key=lambda one: (one.model[0] != hand.model[0], one.model != hand.model))
                numbers, tries = work.waiting.pop(0)
                hand.model = work.model
                work.out += 1
                references = {number: work.references[number] for number in numbers if number in work.references}
                pool.answer(
                    hand, Job(work, numbers, tries), work.cells, work.names, numbers, references, bool(work.later)
                )

    def _take(self, job: Job, told: Any, groups: Groups, progress: Progress) -> None:
        """One event of a job."""
        work = job.work
        if isinstance(told, dict) and "how" in told:
            groups.journal.ran(work.cells[0], told["how"])
            work.begun = True
        elif isinstance(told, dict) and "reason" in told:
            work.ended = work.ended or (str(told["status"]), str(told["reason"]))
        elif isinstance(told, dict):
            groups.journal.put(told)
            job.left, job.tries = job.left[1:], 0
            progress.step()
        else:
            work.out -= 1
            if isinstance(told, Lost):
                self._lost(job, told)
            elif told is not None:
                work.ended = work.ended or ending(told)[:2]

    def _lost(self, job: Job, told: Lost) -> None:
        """The rest of a block that lost its worker waits again; a sample that takes several workers with it fails its group."""
        if not told.at_work:
            job.work.waiting.insert(0, (job.left, job.tries))
            return
        self.notes.append(f"a worker of the cluster was lost ({told})")
        if job.tries + 1 >= TRIES:
            reason = f"{TRIES} workers were lost with samples {[*job.left][:5]}; the last: {told}"
            job.work.ended = job.work.ended or ("failed", reason)
        elif job.left:
            job.work.waiting.insert(0, (job.left, job.tries + 1))

    def _made(self, work: Work, groups: Groups) -> list[Outcome]:
        made, missing = groups.together.assembled(work.cells, work.names, groups.samples.append)
        if missing:
            raise RuntimeError(f"answers to samples {missing[:5]} are missing in {self.folder}")
        return made

    def _store(self, groups: Groups, recorder: Recorder) -> None:
        for outcome in groups.drain():
            recorder.add(outcome)
        for line in groups.drain_samples():
            recorder.add_sample(line)


def without(block: range, done: set[int]) -> Iterator[range]:
    """The stretches of a block that are not done."""
    start = 0
    for place, number in enumerate([*block, None]):
        if number is None or number in done:
            if place > start:
                yield block[start:place]
            start = place + 1
