"""Spellings of presses, read off the files of a library that is never imported: a small one of this file's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression
from toy_session import ROOT

from effivlm import registry
from effivlm.methods import _presses, _refused
from effivlm.records import Budget, Cell
from effivlm.report.additive import methods_alone
from effivlm.run.steps import Step, asked, stored, takes
from effivlm.session import matrix
from effivlm.session.matrix import Asked
from effivlm.spelling import apart
from effivlm.weights import libraries

FILES = {
    "__init__.py": """
from kvpress.presses.base_press import BasePress
from kvpress.presses.scorer_press import ScorerPress, WindowPress as SnapKVPress
from kvpress.presses.ada_press import AdaKVPress, OldPress, KVzipPress
from kvpress.pipeline import Pipeline
raise ImportError("nobody imports this library")
""",
    "presses/base_press.py": "class BasePress: ...",
    "presses/scorer_press.py": """
from typing import Literal, Optional
from dataclasses import dataclass, field
from kvpress.presses.base_press import BasePress
@dataclass
class ScorerPress(BasePress):
    compression_ratio: float = 0.0
@dataclass
class WindowPress(ScorerPress):
    window_size: int = 64
    share: float = 0.5
    kind: Literal["key", "value"] = "key"
    seed: Optional[int] = None
    found: list = field(init=False, default=None)
    buffer: dict = field(default_factory=dict)
    _inner: int = 3
""",
    "presses/ada_press.py": """
from kvpress.presses.base_press import BasePress
from kvpress.presses.scorer_press import ScorerPress
class AdaKVPress(BasePress):
    press: ScorerPress = None
    alpha: float = 0.2
    on: bool = False
class OldPress(ScorerPress):
    def __init__(self, press: ScorerPress, epsilon: float = 1e-4): ...
class KVzipPress(ScorerPress): ...
""",
}


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the library, installed as far as anybody asks; what is known of another one is forgotten before and after."""
    for name, text in FILES.items():
        file = tmp_path / "kvpress" / name
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "kvpress", raising=False)
    monkeypatch.setattr(libraries, "version", lambda name: "0.5.5")
    caches = (_presses.named, _presses.arguments, _presses._exported, _presses._imports, _presses._tree)
    for one in caches:
        one.cache_clear()
    yield tmp_path
    for one in caches:
        one.cache_clear()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SnapKVPress", "SnapKVPress"),
        (" SnapKVPress( ) ", "SnapKVPress"),
        ("SnapKVPress(share=.25, window_size = 0x10)", "SnapKVPress(window_size=16,share=0.25)"),
        ('SnapKVPress(kind="value",seed=None)', "SnapKVPress(kind='value',seed=None)"),
        ("SnapKVPress(window_size=-1)", "SnapKVPress(window_size=-1)"),
        ("AdaKVPress(on=True,press=SnapKVPress)", "AdaKVPress(press=SnapKVPress,on=True)"),
        (
            "OldPress(press=OldPress(press=SnapKVPress(window_size=8)),epsilon=1e-06)",
            "OldPress(press=OldPress(press=SnapKVPress(window_size=8)),epsilon=1e-06)",
        ),
    ],
)
def test_a_press_has_one_spelling_whatever_was_typed(text: str, name: str) -> None:
    assert _presses.spelled(text) == name
    assert _presses.spelled(name) == name
    assert asked(f"kvpress:{text}") == (f"kvpress:{name}", "paper")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "SnapKVPres",
            r"unknown press 'SnapKVPres'. Did you mean 'SnapKVPress'\? Choose from: AdaKVPress, OldPress, SnapKV",
        ),
        ("Pipeline", r"unknown press 'Pipeline'"),
        (
            "SnapKVPress(window=64)",
            r"SnapKVPress has no argument 'window'. Choose from: window_size, share, kind, seed, buffer$",
        ),
        ("SnapKVPress(_inner=1)", r"no argument '_inner'"),
        ("SnapKVPress(found=1)", r"no argument 'found'"),
        ("SnapKVPress(**more)", r"no argument '\*\*'"),
        ("SnapKVPress(16)", r"SnapKVPress: arguments are named: window_size=..., share=..."),
        ("SnapKVPress(compression_ratio=0.5)", r"SnapKVPress: compression_ratio is what --vlm-budgets says"),
        ("SnapKVPress(window_size='8')", r"SnapKVPress: window_size '8' must be of kind int"),
        ("SnapKVPress(window_size=8.5)", r"window_size 8.5 must be of kind int"),
        ("SnapKVPress(window_size=True)", r"window_size True must be of kind int"),
        ("SnapKVPress(window_size=None)", r"window_size None must be of kind int"),
        ("SnapKVPress(kind='both')", r"kind 'both' is not one of 'key', 'value'"),
        ("SnapKVPress(window_size=__import__('os').getpid())", r"is no number, True, False, None or text in quotes"),
        ("SnapKVPress(window_size=[1])", r"window_size \[1\] is no number, True, False, None or plain word in quotes"),
        ("SnapKVPress(kind='a+b')", r"kind 'a\+b' is no number, True, False, None or plain word in quotes"),
        ("AdaKVPress", r"AdaKVPress needs press=..."),
        ("AdaKVPress()", r"AdaKVPress needs press=..."),
        ("AdaKVPress(press='SnapKVPress')", r"AdaKVPress: press 'SnapKVPress' is no press, such as KnormPress"),
        ("AdaKVPress(press=SnapKVPress(window=1))", r"SnapKVPress has no argument 'window'"),
        ("AdaKVPress(press=KVzipPress)", r"kvpress:KVzipPress cannot run: it runs the prompt through the model again"),
        ("ScorerPress", r"kvpress:ScorerPress cannot run: it is the base of others"),
        ("OldPress(epsilon=1.0)", r"OldPress needs press=..."),
        ("", r"kvpress: is no press: NAME or NAME\(argument=value\)"),
        ("a b", r"kvpress:a b is no press"),
        ("os.system('ls')", r"is no press"),
        ("(lambda: 1)()", r"is no press"),
        ("SnapKVPress(", r"is no press"),
        ("(" * 300 + ")" * 300, r"is no press"),
    ],
)
def test_what_is_no_press_is_refused_with_what_is_allowed(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        asked(f"kvpress:{text}")


def test_only_those_that_run_are_offered() -> None:
    assert _presses.presses() == ["AdaKVPress", "BasePress", "KVzipPress", "OldPress", "ScorerPress", "SnapKVPress"]
    assert _presses.able() == ["AdaKVPress", "OldPress", "SnapKVPress"]
    assert all(reason and reason[0].islower() for reason in _refused.REFUSED.values())


def test_without_the_library_the_command_that_brings_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", nowhere)
    with pytest.raises(ValueError, match="kvpress:SnapKVPress: kvpress is not installed: make env-kvpress brings it"):
        matrix.build(Asked(methods=("kvpress:SnapKVPress",)))


def test_an_open_method_is_no_method_alone_and_runs_only_when_named() -> None:
    with pytest.raises(ValueError, match="method 'kvpress' runs what is named behind it: kvpress:NAME"):
        asked("kvpress")
    with pytest.raises(ValueError, match="unknown method 'kvpres'"):
        asked("kvpres:SnapKVPress")
    assert list(registry.open_methods()) == ["kvpress"]
    assert not set(registry.open_methods()) & set(registry.names("methods"))
    assert not any(cell.method.startswith("kvpress") for cell in matrix.build(Asked()).cells)


@pytest.mark.parametrize(
    ("text", "method", "read"),
    [
        (
            "fastv:0.4+kvpress:SnapKVPress(window_size=8, share=1e+4)",
            "fastv:0.40+kvpress:SnapKVPress(window_size=8,share=10000.0)",
            (Step("fastv", "paper", "0.40"), Step("kvpress:SnapKVPress(window_size=8,share=10000.0)", "paper")),
        ),
        (
            "fastv+kvpress:AdaKVPress(press=SnapKVPress):64tok",
            "fastv+kvpress:AdaKVPress(press=SnapKVPress):64tok",
            (Step("fastv", "paper"), Step("kvpress:AdaKVPress(press=SnapKVPress)", "paper", "64tok")),
        ),
        (
            "wanda:2:4+kvpress:SnapKVPress@paper",
            "wanda:2:4+kvpress:SnapKVPress",
            (Step("wanda", "paper", "2:4"), Step("kvpress:SnapKVPress", "paper")),
        ),
    ],
)
def test_a_press_stands_in_compositions_and_reads_back(text: str, method: str, read: tuple[Step, ...]) -> None:
    assert asked(text) == (method, "paper")
    assert stored(method, "paper") == read
    one = Cell("m", method, "paper", "0.10", "t")
    assert Cell.from_json(one.to_json()) == one
    assert takes(method, Budget.parse("0.10"))
    alone = [Cell("m", step.method, step.preset, step.keep or "0.10", "t") for step in read]
    assert list(methods_alone(one)) == alone
    assert methods_alone(Cell("m", read[-1].method, "paper", "0.10", "t")) == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kvpress:SnapKVPress:0.40", "fixes a budget in a composition only"),
        ("kvpress:SnapKVPress+fastv", "compose in the order of the run"),
        ("snapkv+kvpress:SnapKVPress", "two methods work at the cache seam"),
        ("fastv+kvpress:SnapKVPress@effivlm", "unknown preset 'effivlm' of method 'kvpress:SnapKVPress'"),
        ("fastv+kvpress:SnapKVPress:9", "budget 9 is not a fraction that stays"),
    ],
)
def test_what_cannot_be_composed_says_why(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        asked(text)


@pytest.mark.parametrize(
    ("expression", "count"),
    [
        ("kvpress", 4),
        ("kvpress:SnapKVPress", 2),
        ("AdaKVPress and keep0.20", 1),
        ("SnapKVPress and not AdaKVPress and window_size", 2),
        ("kvpress and keep0.40", 2),
        ("fastv", 0),
    ],
)
def test_k_selects_cases_by_the_words_of_a_press(expression: str, count: int) -> None:
    methods = ("kvpress:SnapKVPress(window_size=8)", "kvpress:AdaKVPress(press=SnapKVPress)")
    plan = matrix.build(Asked(methods=methods, budgets=("0.20", "0.40")))
    chosen = Expression.compile(expression)
    ids = [f"test_quality[{name}]" for name in plan.by_id]
    assert all(plan.cell_of(name) in plan.cells for name in ids)
    assert sum(chosen.evaluate(lambda word, **_: word.lower() in name.lower()) for name in ids) == count  # noqa: B023


def test_text_is_cut_outside_of_parentheses_and_everywhere_where_they_do_not_close() -> None:
    assert apart("a,b(c,d(e,f)),g", ",") == ["a", "b(c,d(e,f))", "g"]
    assert apart("a(b,c", ",") == ["a(b", "c"]
    assert apart("a),b", ",") == ["a)", "b"]
    assert apart("", ",") == [""]


def test_a_case_of_a_press_is_collected_without_the_library_or_torch(library: Path) -> None:
    """The folder stands on the path of the inner process, with the facts of an installed version beside it."""
    facts = library / "kvpress-0.5.5.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: kvpress\nVersion: 0.5.5\n")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from effivlm.session.matrix import Asked, build;"
        " plan = build(Asked(methods=('kvpress:SnapKVPress(window_size=8)',), budgets=('0.2',)));"
        " print(*plan.by_id); print(*{'torch', 'transformers', 'kvpress'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(library)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names, heavy = done.stdout.split("\n")[:2]
    assert names == "micro_llava_onevision-kvpress:SnapKVPress(window_size=8)-keep0.20-docvqa_micro"
    assert heavy == ""
