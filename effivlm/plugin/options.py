"""The options of a session, and what was asked for by them. No pytest in here: the parser's group is handed in."""

from __future__ import annotations

from typing import Any

from effivlm.session import matrix
from effivlm.session.matrix import Asked
from effivlm.spelling import apart

LISTS = {
    "models": f"checkpoint, NAME=FOLDER_OR_HUB_ID, folder or hub id (default: {matrix.DEFAULT_MODEL})",
    "methods": "method, METHOD@PRESET, or several in a row such as fastv:0.40+snapkv; kvpress:PRESS, such as"
    " kvpress:SnapKVPress(window_size=16) (default: all but those of the checkpoint and of kvpress)",
    "budgets": "what stays, for the methods that take it: a fraction in (0, 1], 64tok, sparsity0.50, 2:4, w4g128, fp8"
    f" (default: {' '.join(matrix.DEFAULT_BUDGETS)}, or what a method of the checkpoint declares)",
    "tasks": f"task, suite such as paper, or NAME=DIR (default: {matrix.DEFAULT_TASK})",
}
WORDS = {
    "limit": ("N", "samples a cell (default: %(default)s)"),
    "seed": ("N", "seed of subsets and methods (default: 0)"),
    "device": ("DEVICE", "auto, cpu, cuda or cuda:N (default: %(default)s)"),
    "dtype": ("TYPE", f"{', '.join(matrix.DTYPES)} (default: %(default)s)"),
    "engine": ("ENGINE", f"{', '.join(matrix.ENGINES)} (default: %(default)s)"),
    "generation": (
        "WAY",
        "greedy search with the penalties and bans of the checkpoint's generation configuration, as generate does it:"
        " checkpoint; or without: greedy (default: %(default)s)",
    ),
    "kernels": (
        "WHICH",
        "what reads the weights of a compressed checkpoint on a GPU: auto, a kernel where there is one; none, they are"
        " dequantised as on a CPU (default: %(default)s)",
    ),
    "batch": ("N", "also time decoding of N copies at once (default: 1)"),
    "prompt": ("N", "time on a drawn page of about N prompt tokens"),
    "data": ("DIR", "folder of published sets, or stream (default: fetched, or hub)"),
    "system": ("TEXT", "text of a system turn (default: the template's)"),
    "pixels": ("N", "pixels a picture is scaled down to (Qwen2-VL; 0: the model's own)"),
    "tiles": ("N", "tiles a picture is cut into at most (the others; 0: the model's own)"),
    "processor": ("BACKEND", f"{', '.join(matrix.PROCESSORS)} (default: %(default)s)"),
    "scoring": (
        "PROFILE",
        "fixed: by the rule that a benchmark means; compat: as the paper's code does, quirks included, where a task knows it"
        " (default: %(default)s)",
    ),
    "judge": (
        "SPEC",
        "who marks open answers: openai:MODEL, or local: with a checkpoint, folder or hub id; none: rescore does",
    ),
    "second-judge": ("SPEC", "another judge, to know how far both agree"),
    "judge-repeats": (
        "N",
        "times that a judge is asked the same, to know its noise (1: unknown; default: %(default)s)",
    ),
    "shard": ("I/N", "the I-th of N runs of one suite: every N-th sample; report A B ... --out C makes one of them"),
}


def add(group: Any) -> None:
    """Add all options but the gate's to pytest's `group` of this plugin."""
    for name, text in LISTS.items():
        group.addoption(f"--vlm-{name}", action="append", default=[], metavar="A,B", help=f"{text}; repeatable")
    for name, (value, text) in WORDS.items():
        group.addoption(f"--vlm-{name}", default=getattr(Asked(), _field(name)), metavar=value, help=text)
    group.addoption("--vlm-run", default="", metavar="FOLDER", help="new folder of this run (default: reports/<time>)")
    group.addoption("--vlm-resume", default="", metavar="FOLDER", help="go on with a run: only what is missing")
    group.addoption(
        "--vlm-kl",
        action="store_true",
        help="how far next tokens are from dense's, of all methods: a pass a cell (default: of those of the checkpoint alone)",
    )
    group.addoption("--vlm-no-share", action="store_true", help="run every cell alone instead of a group at once")


def asked_of(option: Any) -> Asked:
    """What was typed. Raises ValueError where a list holds an empty name."""
    lists: dict[str, Any] = {name: _split(f"--vlm-{name}", getattr(option, f"vlm_{name}")) for name in LISTS}
    words: dict[str, Any] = {_field(name): getattr(option, f"vlm_{_field(name)}") for name in WORDS}
    return Asked(**lists, **words, share=not option.vlm_no_share, kl=option.vlm_kl)


def _field(name: str) -> str:
    return name.replace("-", "_")


def _split(option: str, values: list[str]) -> tuple[str, ...]:
    """Comma separated or repeated, alike. An empty word is refused: a mistake is no wish for the default."""
    words = [word.strip() for value in values for word in apart(value, ",")]
    if "" in words:
        raise ValueError(f"{option}: {','.join(values)!r} holds an empty name")
    return tuple(words)
