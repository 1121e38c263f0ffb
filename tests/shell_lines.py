"""Lines of a shell as the documentation prints them, each read by the parser that would run it: options and names must exist."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from toy_session import ROOT

from effivlm import __main__ as cli
from effivlm import registry
from effivlm.commands import compress, run
from effivlm.models._sources import checkpoints, resolve
from effivlm.plugin.options import asked_of
from effivlm.plugin.selection import Selection
from effivlm.records import PARTS, Budget
from effivlm.run import steps
from effivlm.session.judges import NONE
from effivlm.session.matrix import build
from effivlm.suites import expanded

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PUBLISHED = {name for name, (place, _) in checkpoints().items() if not place.startswith("package:")}
"""Checkpoints that a reader fetches; that they are known is all that is looked at."""
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
ELSEWHERE = ("sbatch", "hf", "ray", "export", "cd", "git")
"""Programs of others, whose options nobody here knows."""


def lines(text: str) -> list[str]:
    """The commands of a block: continued lines joined, comments gone, what stands between && apart."""
    joined = re.sub(r"\\\n\s*", " ", text)
    plain = [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()]
    return [part.strip() for line in plain for part in line.split("&&") if part.strip()]


def check(line: str, config: pytest.Config) -> None:
    """Raise ValueError, SystemExit or pytest.UsageError, or fail, where this line would not start as it is meant."""
    words = shlex.split(line)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if not words or words[0] in ELSEWHERE:
        return
    for head, reader in READERS.items():
        if words[: len(head)] == list(head):
            reader(words[len(head) :], config)
            return
    raise ValueError(f"nothing here reads {words[0]!r} in {line!r}")


def _pytest(words: Sequence[str], config: pytest.Config) -> None:
    given = config._parser.parse(list(words))  # type: ignore[attr-defined]
    places = [] if given.pyargs else given.file_or_dir
    for place in places:
        assert (ROOT / place).exists(), place
    if not given.pyargs and "bench_tests" not in " ".join(places):
        return
    asked = asked_of(given)
    named = expanded("models", asked.models)
    plan = build(replace(asked, models=tuple(name for name in named if name not in PUBLISHED)))
    for name in ("baseline", "update_baseline"):
        file = getattr(given, f"vlm_{name}")
        assert not file or (ROOT / file).is_file(), f"{file} is in no checkout"
    chosen = Selection(given.keyword, "", (), ROOT, {})
    assert any(chosen.takes(cell.id, part) for cell in plan.cells for part in PARTS), (
        f"-k {given.keyword!r} takes no case"
    )


def _effivlm(words: Sequence[str], config: pytest.Config) -> None:
    given = cli._parser().parse_args(list(words))
    if given.command in NAMED:
        NAMED[given.command](given, config)


def _run(given: Any, config: pytest.Config) -> None:
    asked = {name: run._words(given, name) for name in run.LISTS}
    given.judge = given.judge or (NONE if given.dry_run else "")  # what nobody runs needs no judge
    _pytest(run._command(asked, given)[3:], config)


def _compress(given: Any, config: pytest.Config) -> None:
    resolve(given.model)
    assert given.method.partition("@")[0] in compress.methods()
    assert steps.takes(steps.asked(given.method)[0], Budget.parse(given.budget))


def _certify(given: Any, config: pytest.Config) -> None:
    assert steps.takes(steps.asked(given.method)[0], Budget.parse(given.keep))


def _fetch(given: Any, config: pytest.Config) -> None:
    named = [task.partition("@")[0] for task in given.tasks]
    assert set(expanded("tasks", named)) <= set(registry.names("tasks"))


def _make(words: Sequence[str], config: pytest.Config) -> None:
    given = dict(word.split("=", 1) for word in words if "=" in word)
    (target,) = [word for word in words if "=" not in word]
    assert target in TARGETS, target
    assert set(given) <= {"K", "ARGS", "PYTHON"}, given
    chosen = ["-k", given["K"]] if "K" in given else []
    if target == "bench":
        _pytest(["bench_tests", *chosen, *shlex.split(given.get("ARGS", ""))], config)


def _pip(words: Sequence[str], config: pytest.Config) -> None:
    for extra in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"]), extra
    for file in [after for word, after in pairwise(words) if word == "-c"]:
        assert (ROOT / file).is_file(), file
    for place in [after for word, after in pairwise(words) if word == "-e"]:
        assert (ROOT / place.partition("[")[0] / "pyproject.toml").is_file(), place


def _python(words: Sequence[str], config: pytest.Config) -> None:
    """A script of this repository: it exists, and its text knows every option."""
    script = ROOT / words[0]
    text = script.read_text(encoding="utf-8")
    for option in [word.partition("=")[0] for word in words[1:] if word.startswith("--")]:
        assert f'"{option}"' in text, f"{words[0]} knows no {option}"


NAMED: dict[str, Callable[[Any, pytest.Config], None]] = {
    "run": _run,
    "compress": _compress,
    "certify": _certify,
    "fetch": _fetch,
}
READERS: dict[tuple[str, ...], Callable[[Sequence[str], pytest.Config], None]] = {
    ("pytest",): _pytest,
    ("python", "-m", "effivlm"): _effivlm,
    ("python",): _python,
    ("make",): _make,
    ("pip", "install"): _pip,
}
