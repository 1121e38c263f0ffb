"""`python -m effivlm convert`: a native checkpoint of a repository in its authors' own format."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any


def add(command: Callable[..., Any]) -> None:
    parser = command(
        "convert",
        "make a native checkpoint of a repository in its authors' own format",
        run,
        "OpenGVLab/InternVL2_5-38B internvl2_5_38b",
    )
    parser.add_argument(
        "source", metavar="SRC", help="folder of a downloaded repository, or its hub id, which is fetched"
    )
    parser.add_argument("target", type=Path, metavar="DST", help="new folder, for --vlm-models NAME=DST")
    parser.add_argument("--tokenizer", default="", metavar="FROM", help="take the tokenizer of this folder or hub id")


def run(options: argparse.Namespace) -> int:
    from effivlm.models._convert import convert, folder_of

    if options.target.exists():
        raise ValueError(f"{options.target} exists already: name a new folder")
    tokenizer = folder_of(options.tokenizer) if options.tokenizer else None
    convert(folder_of(options.source), options.target, tokenizer)
    return 0
