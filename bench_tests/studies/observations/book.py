"""Means of cells in every resample: whole units are drawn by task, alike for all models and settings, so that all is paired."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from bench_tests.studies.observations.effects import Effect
from bench_tests.studies.observations.tally import Missing, Scores, Setting, Tally
from effivlm.metrics.resampling import Places
from effivlm.metrics.statistics import LEAST, Floats, means, weights

Pair = tuple[str, str]


@dataclass(frozen=True)
class Page:
    """Values of one task, (samples, models, settings), NaN where there is none, and their means: as they are (row 0), then in
    each resample (1 + rounds, models, settings)."""

    units: Places
    values: Floats
    means: Floats


@dataclass(frozen=True)
class Book:
    """The pages of all tasks."""

    models: list[str]
    settings: dict[Setting, int]
    pages: dict[str, Page]

    @classmethod
    def of(cls, tally: Tally, measure: str = "scores") -> Book:
        """Of the answers' "scores", or of whether they are the "same" as dense's."""
        models = sorted({group.model for group in tally.groups})
        found = dict.fromkeys(setting for group in tally.groups for setting in group.cells)
        settings = {setting: number for number, setting in enumerate(found)}
        pages = {}
        for task in sorted({group.task for group in tally.groups}):
            own = [group for group in tally.groups if group.task == task]
            units = dict(pair for group in own for pair in zip(group.ids, group.units, strict=True))
            places = {name: place for place, name in enumerate(units)}
            values = np.full((len(units), len(models), len(settings)), np.nan)
            for group in own:
                rows = [places[name] for name in group.ids]
                for setting, cell in group.cells.items():
                    column: Scores = getattr(cell, measure)
                    values[rows, models.index(group.model), settings[setting]] = np.array(column, dtype=np.float64)
            _, numbers = np.unique(list(units.values()), return_inverse=True)
            pages[task] = Page(numbers, values, _means(numbers, values, task))
        return cls(models, settings, pages)

    @property
    def tasks(self) -> list[str]:
        return list(self.pages)

    def has(self, setting: Setting) -> bool:
        return setting in self.settings

    def pairs(
        self, wanted: Collection[Setting], tasks: Collection[str] = (), models: Collection[str] = ()
    ) -> list[Pair]:
        """(model, task) pairs that have all settings. Raises Missing where there is none."""
        lacking = [" at ".join(setting) for setting in wanted if setting not in self.settings]
        if lacking:
            raise Missing(f"not run: {', '.join(lacking)}")
        columns = [self.settings[setting] for setting in wanted]
        found = [
            (model, task)
            for task in (tasks or self.tasks)
            for at, model in enumerate(self.models)
            if task in self.pages and (not models or model in models)
            if not np.isnan(self.pages[task].means[0, at, columns]).any()
        ]
        if not found:
            raise Missing(f"no model ran {', '.join(sorted({one for one, _ in wanted}))} on one of these tasks")
        return found

    def at(self, pair: Pair, setting: Setting) -> Floats:
        """Means of one cell (1 + rounds)."""
        found: Floats = self.pages[pair[1]].means[:, self.models.index(pair[0]), self.settings[setting]]
        return found

    def over(self, pairs: Sequence[Pair], settings: Sequence[Setting]) -> Floats:
        """Mean over pairs and settings (1 + rounds)."""
        found: Floats = np.mean([self.at(pair, setting) for pair in pairs for setting in settings], axis=0)
        return found

    def contrast(
        self,
        plus: Sequence[Setting],
        minus: Sequence[Setting],
        tasks: Collection[str] = (),
        models: Collection[str] = (),
    ) -> Effect:
        """Mean of some settings less that of others, over all pairs that have both."""
        pairs = self.pairs([*plus, *minus], tasks, models)
        found = self.over(pairs, plus) - self.over(pairs, minus)
        return Effect(
            float(found[0]),
            found[1:],
            self.units(pairs, [*plus, *minus]),
            self._unlike(pairs, plus, minus),
            _told(pairs),
        )

    def units(self, pairs: Sequence[Pair], settings: Sequence[Setting]) -> int:
        """As many as a mean over tasks can count: tasks times the units of the smallest, of those that the settings answered."""
        columns, sizes = [self.settings[one] for one in settings], []
        for task in {task for _, task in pairs}:
            page, own = self.pages[task], [self.models.index(model) for model, one in pairs if one == task]
            told = ~np.isnan(page.values[:, own][:, :, columns]).any((1, 2))
            sizes.append(len(np.unique(page.units[told])))
        return len(sizes) * min(sizes) if min(sizes) >= LEAST else 0

    def _unlike(self, pairs: Sequence[Pair], plus: Sequence[Setting], minus: Sequence[Setting]) -> int:
        """Units whose two sides differ."""
        count = 0
        for task in {task for _, task in pairs}:
            page, own = self.pages[task], [self.models.index(model) for model, one in pairs if one == task]
            sides = [
                np.nan_to_num(page.values[:, own][:, :, [self.settings[one] for one in side]]).mean((1, 2))
                for side in (plus, minus)
            ]
            gains = np.bincount(page.units, sides[0] - sides[1])
            count += int(np.count_nonzero(np.abs(gains) > 1e-12))
        return count


def _told(pairs: Sequence[Pair]) -> str:
    models, tasks = ({pair[at] for pair in pairs} for at in (0, 1))
    return f"{len(models)} models, {len(tasks)} tasks"


def _means(units: Places, values: Floats, task: str) -> Floats:
    flat = values.reshape(len(values), -1)
    drawn = weights(int(units.max()) + 1, zlib.crc32(task.encode()))[:, units]
    rows: Floats = np.vstack([means(np.ones((1, len(flat))), flat), means(drawn, flat)])
    return rows.reshape(-1, *values.shape[1:])
