"""The paper's claims, tested on runs of the micro suite: `python -m bench_tests.studies.observations judge RUN_OR_TALLY ...`.

`plug DIR` makes the study's own methods an installed package for PYTHONPATH; `gather OUT RUN ...` puts runs into one small file,
from which `judge` makes observations.md, observations.json and observations.html in reports/baselines.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

from bench_tests.studies.observations import costs, curves, gathering, page, pareto, webpage
from bench_tests.studies.observations.claims import CLAIMS
from bench_tests.studies.observations.effects import rows_of
from bench_tests.studies.observations.evidence import Evidence
from bench_tests.studies.observations.names import MODELS, SEVERAL, SINGLE, VIDEO
from bench_tests.studies.observations.plugging import plug
from effivlm.records import dump

BASELINES = Path(__file__).parents[3] / "reports" / "baselines"


def mass(options: argparse.Namespace) -> None:
    from bench_tests.studies.observations.mass import count

    found = count(options.models.split(","), options.tasks.split(","), options.limit, command())
    found.write(options.out)


def command() -> str:
    return shlex.join(["python", "-m", "bench_tests.studies.observations", *sys.argv[1:]])


def judge(options: argparse.Namespace) -> None:
    """Every claim's verdict, as a table, a JSON and a page."""
    evidence = Evidence(gathering.load(options.runs), [costs.read(path) for path in options.oe])
    runs = evidence.tally.runs
    found = {
        "schema": 1,
        "sources": [page.source(run) for run in runs],
        "commands": [*(str(run["command"]) for run in runs), command()],
        "unmeasured": evidence.tally.unmeasured,
        "claims": [row.to_json() for row in rows_of(CLAIMS, evidence)],
        "curves": curves.curves(evidence),
        "pareto": pareto.points(evidence),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    stored = json.dumps(json.loads(dump(found)), indent=1, ensure_ascii=False)
    (options.out / "observations.json").write_text(f"{stored}\n", encoding="utf-8")
    text = page.markdown(found)
    (options.out / "observations.md").write_text(text, encoding="utf-8")
    (options.out / "observations.html").write_text(webpage.page(found), encoding="utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(prog="observations", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("plug", help="make the study's methods an installed package")
    one.add_argument("folder", type=Path)
    one.set_defaults(run=lambda options: print(plug(options.folder)))
    one = commands.add_parser("gather", help="one small file of run folders")
    one.add_argument("out", type=Path)
    one.add_argument("runs", type=Path, nargs="+")
    one.set_defaults(run=lambda options: gathering.load(options.runs).write(options.out))
    one = commands.add_parser("judge", help="the verdicts")
    one.add_argument("runs", type=Path, nargs="+", help="run folders, or files that `gather` made")
    one.add_argument("--oe", type=Path, nargs="*", default=[], help="report.json of efficiency runs")
    one.add_argument("--out", type=Path, default=BASELINES)
    one.set_defaults(run=judge)
    one = commands.add_parser("mass", help="how much attention sinks hold, as a file beside those of gather")
    one.add_argument("out", type=Path)
    one.add_argument("--models", default=",".join(MODELS))
    one.add_argument("--tasks", default=",".join((*SINGLE, *SEVERAL, *VIDEO)))
    one.add_argument("--limit", type=int, default=12)
    one.set_defaults(run=mass)
    options = parser.parse_args()
    try:
        options.run(options)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
