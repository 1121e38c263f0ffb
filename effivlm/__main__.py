"""`python -m effivlm`: reports of runs, one or several; a verdict on two of them; what there is; whether this machine runs;
native checkpoints of others."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from effivlm.commands import certify, compare, compress, convert, doctor, export, fetch, listing, report, rescore, run

COMMANDS = (report, compare, listing, doctor, convert, certify, compress, fetch, rescore, run, export)
"""In the order in which they are told."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns the exit code: 0 done, 1 failed or got worse, 2 not comparable or wrong usage (argparse raises SystemExit).
    """
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader (head, less) left; nothing is wrong
        return 0
    except (OSError, ValueError) as error:
        print(f"effivlm {options.command}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2 if options.command in ("certify", "compare") else 1  # 1 is their verdict
    return code


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m effivlm",
        description=__doc__,
        formatter_class=raw,
        epilog="example: python -m effivlm list methods",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, text: str, run: Callable[[argparse.Namespace], int], *examples: str) -> Any:
        shown = "\n".join(f"example: python -m effivlm {name} {example}" for example in examples)
        added = commands.add_parser(name, help=text, description=text, formatter_class=raw, epilog=shown)
        added.set_defaults(run=run)
        return added

    for module in COMMANDS:
        module.add(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
