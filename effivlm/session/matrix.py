"""From options to a matrix of cells: what was asked for, checked before anything heavy is imported. No pytest here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from effivlm import suites
from effivlm.data.places import STREAM
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import PARTS, Budget, Cell, Settings
from effivlm.registry import names, token_methods, unknown, unusable
from effivlm.run import sharding, steps
from effivlm.session import judges

_T = TypeVar("_T")

DEFAULT_MODEL = "micro_llava_onevision"
DEFAULT_TASK = "docvqa_micro"
DEFAULT_BUDGETS = ("0.01", "0.05", "0.10", "0.20", "0.40")
DEFAULT_LIMIT = 100  # samples a cell: keeps the whole default run under 15 minutes on two cores
MOST = 2**31 - 1  # of a whole number: what every library takes as a seed or a size
ENGINES = ("auto", "eager", "cuda_graph")
KERNELS = ("auto", "none")
GENERATIONS = ("checkpoint", "greedy")
DTYPES = ("auto", "float32", "bfloat16", "float16")
NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
PROCESSORS = ("pil", "torchvision")
SCORINGS = ("fixed", "compat")
DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options as typed; empty tuples stand for the defaults."""

    models: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    budgets: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    limit: str = str(DEFAULT_LIMIT)
    seed: str = "0"
    device: str = "auto"
    dtype: str = "auto"
    engine: str = "auto"
    batch: str = "1"
    prompt: str = "0"
    data: str = ""
    system: str | None = None
    pixels: str = "0"
    tiles: str = "0"
    processor: str = PROCESSORS[0]
    generation: str = "checkpoint"
    kernels: str = "auto"
    judge: str = ""
    second_judge: str = ""
    judge_repeats: str = "3"
    scoring: str = SCORINGS[0]
    shard: str = ""
    share: bool = True
    kl: bool = False


@dataclass(frozen=True)
class Plan:
    """The checked matrix of one session: cells in running order and where their models come from.

    `left_out` says which installed methods nobody named cannot be used, and why.
    """

    settings: Settings
    sources: Mapping[str, ModelSource]
    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()

    @cached_property
    def by_id(self) -> Mapping[str, Cell]:
        return {cell.id: cell for cell in self.cells}

    @cached_property
    def order(self) -> Mapping[Cell, int]:
        return {cell: place for place, cell in enumerate(self.cells)}

    def cell_of(self, nodeid: str) -> Cell | None:
        """The cell in the brackets of a test's node id, also beside other parameters; None for any other test."""
        _, bracket, parameters = nodeid.rpartition("[")
        if not bracket:
            return None
        parameters = parameters.removesuffix("]")
        if parameters in self.by_id:
            return self.by_id[parameters]
        padded = f"-{parameters}-"
        found = [name for name in self.by_id if f"-{name}-" in padded]
        return self.by_id[max(found, key=len)] if found else None


def part_of(nodeid: str) -> str:
    """The part that a test measures, by the last word of its name (`test_ttft` -> ttft); quality otherwise."""
    word = nodeid.partition("[")[0].rpartition("::")[2].rpartition("_")[2]
    return word if word in PARTS else "quality"


def build(asked: Asked) -> Plan:
    """Check every option and multiply them out.

    Raises ValueError naming the option, the value and what is allowed; no model is loaded, nothing is written.
    """
    named, folders = _tasks(asked.tasks or (DEFAULT_TASK,))
    settings = Settings(
        limit=_whole("--vlm-limit", asked.limit, least=1),
        seed=_whole("--vlm-seed", asked.seed, least=0),
        device=_device(asked.device),
        dtype=_choice("--vlm-dtype", asked.dtype, DTYPES),
        share=asked.share,
        engine=_engine(asked.engine, asked.device),
        batch=_whole("--vlm-batch", asked.batch, least=1),
        prompt=_whole("--vlm-prompt", asked.prompt, least=0),
        data=_data(asked.data),
        folders=folders,
        system=asked.system,
        pixels=_whole("--vlm-pixels", asked.pixels, least=0),
        tiles=_whole("--vlm-tiles", asked.tiles, least=0),
        processor=_choice("--vlm-processor", asked.processor, PROCESSORS),
        generation=_choice("--vlm-generation", asked.generation, GENERATIONS),
        kernels=_choice("--vlm-kernels", asked.kernels, KERNELS),
        judge=asked.judge,
        second_judge=asked.second_judge,
        judge_repeats=_whole("--vlm-judge-repeats", asked.judge_repeats, least=1),
        scoring=_choice("--vlm-scoring", asked.scoring, SCORINGS),
        shard=_shard(asked.shard, asked.judge),
        kl=asked.kl,
    )
    judges.check(named, settings)
    budgets = _unique(_budget(text) for text in asked.budgets)
    methods = _unique(steps.asked(text) for text in suites.expanded("methods", asked.methods) or _all_methods())
    varied = _budgets(methods, budgets)
    sources = _sources(suites.expanded("models", asked.models) or (DEFAULT_MODEL,))
    cells = [cell for model in sources for task in named for cell in _column(model, task, methods, varied)]
    return Plan(settings, sources, tuple(cells), () if asked.methods else tuple(unusable("methods").values()))


def _budgets(methods: Sequence[tuple[str, str]], named: Sequence[Budget]) -> dict[str, Sequence[str]]:
    """By stored method that has a budget to vary, its budgets: those named that it takes, else its own, else the default ones.

    Raises ValueError where none of the methods takes a budget that was named.
    """
    found: dict[str, Sequence[str]] = {}
    taken: set[Budget] = set()
    for method in _unique(method for method, _ in methods if steps.budgeted(method)):
        own = [budget for budget in named if steps.takes(method, budget)]
        taken.update(own)
        labels = [budget.label for budget in own] or [*(steps.settings(method) or DEFAULT_BUDGETS)]
        found[method] = _unique(Budget.parse(label).label for label in labels)
    lost = [budget.label for budget in named if budget not in taken]
    if lost and found:
        examples = _unique(f"{method} takes {steps.wanted(method)}" for method in found)
        raise ValueError(f"--vlm-budgets: none of the methods takes {', '.join(lost)}; {examples[0]}")
    return found


def _column(
    model: str, task: str, methods: Sequence[tuple[str, str]], budgets: Mapping[str, Sequence[str]]
) -> Iterable[Cell]:
    """The cells of one (model, task): methods without a budget once, and first: the others are compared with them."""
    for method, preset in methods:
        if method not in budgets:
            yield Cell(model, method, preset, "1.00", task)
    for method, preset in methods:
        yield from (Cell(model, method, preset, keep, task) for keep in budgets.get(method, ()))


def _sources(values: Iterable[str]) -> dict[str, ModelSource]:
    sources: dict[str, ModelSource] = {}
    for value in _unique(values):
        source = resolve(value)
        other = sources.setdefault(source.name, source)
        if other != source:
            raise ValueError(
                f"--vlm-models: {other.source} and {source.source} would both be called {source.name!r};"
                f" name them: NAME=FOLDER_OR_HUB_ID"
            )
    return sources


def _tasks(values: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Names of tasks, suites expanded, and the folders of those that are given as NAME=DIR."""
    found: list[str] = []
    folders: dict[str, str] = {}
    for value in suites.expanded("tasks", values):
        name, equals, folder = value.partition("=")
        if not equals:
            if value not in folders and value not in (known := names("tasks")):
                raise ValueError(unknown("task", value, [*suites.suites("tasks"), *known]))
            found.append(value)
            continue
        path = Path(folder).expanduser()
        if not NAME.fullmatch(name):
            raise ValueError(
                f"--vlm-tasks: {name!r} is no name: lower-case letters, digits and underscores, e.g. my_set={folder}"
            )
        if name in names("tasks"):
            raise ValueError(f"--vlm-tasks: {name!r} is the name of a task already; choose another for {folder}")
        if not path.is_dir():
            raise ValueError(f"--vlm-tasks: {folder} is no folder (for {name}=DIR)")
        if folders.setdefault(name, str(path.resolve())) != str(path.resolve()):
            raise ValueError(f"--vlm-tasks: {name!r} names two folders")
        _look(name, folders[name])
        found.append(name)
    return _unique(found), folders


def _look(name: str, folder: str) -> None:
    """ValueError where a user's own set is not as it should be: now, not when a model is open."""
    from effivlm.tasks._folder import Folder

    Folder(name, folder)


def _data(text: str) -> str:
    """What `--vlm-data` says, a folder as an absolute path: workers may stand elsewhere."""
    if text in ("", STREAM):
        return text
    path = Path(text).expanduser()
    if not path.is_dir():
        raise ValueError(f"--vlm-data: {text!r} is no folder, and not {STREAM!r}")
    return str(path.resolve())


def _all_methods() -> list[str]:
    """What runs where no method is named: all that need no checkpoint of their own."""
    found = token_methods()
    if not found:
        raise ValueError("no methods are installed")
    return found


def _budget(text: str) -> Budget:
    try:
        return Budget.parse(text)
    except ValueError as error:
        raise ValueError(f"--vlm-budgets: {error}") from None


def _device(text: str) -> str:
    if not DEVICE.fullmatch(text):
        raise ValueError(f"--vlm-device: {text!r} is not one of auto, cpu, cuda, cuda:N")
    return text


def _engine(text: str, device: str) -> str:
    engine = _choice("--vlm-engine", text, ENGINES)
    if engine == "cuda_graph" and device == "cpu":
        raise ValueError("--vlm-engine: cuda_graph needs a GPU, and --vlm-device is cpu")
    return engine


def _shard(text: str, judge: str) -> str:
    """What `--vlm-shard` says in its plainest form. A judge marks whole cells, which no shard has."""
    if not text:
        return ""
    if judge not in ("", judges.NONE):
        raise ValueError("--vlm-judge marks whole cells: give --vlm-judge none to a shard, and rescore the merged run")
    try:
        return "{}/{}".format(*sharding.shard_of(text))
    except ValueError as error:
        raise ValueError(f"--vlm-shard: {error}") from None


def _choice(option: str, text: str, choices: Sequence[str]) -> str:
    if text not in choices:
        raise ValueError(f"{option}: {text!r} is not one of {', '.join(choices)}")
    return text


def _whole(option: str, text: str, least: int) -> int:
    found = re.fullmatch(r"[+]?0*([0-9]+)", text.strip())
    # Of the digits no more than these are read: Python refuses to read thousands of them, in other words.
    value = int(found[1][: len(str(MOST)) + 1]) if found else -1
    if value < least:
        raise ValueError(f"{option}: {_short(text)} is not a whole number of at least {least}")
    if value > MOST:
        raise ValueError(f"{option}: {_short(text)} is more than {MOST:,}")
    return value


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _unique(values: Iterable[_T]) -> list[_T]:
    return list(dict.fromkeys(values))
