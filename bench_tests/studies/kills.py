"""Random kills of a run's processes: `python bench_tests/studies/kills.py --kills 200`, on any machine.

A suite over the tests' toy world, whose samples take 50 ms, runs beside xdist or on a Ray cluster of two nodes of this machine. A
worker, the main process or a node is killed at a random moment, again and again; where the main process went, the run is gone on
with. In the end the outcomes must be those of a run that nothing disturbed, and no more samples may have been asked twice than
were in work. Prints a line a run, and fails where one of them does not hold. `--rows FILE` puts the lines behind those of runs
before, and writes a table of all of them beside it. With `--overhead` it times the same work on xdist and on Ray instead,
undisturbed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
KINDS = ("worker", "main", "node")
WORKERS = 2
PATIENCE_S = 1800.0
CONFTEST = (ROOT / "conftest.py").read_text(encoding="utf-8")
INI = f"[pytest]\npythonpath = {ROOT} {ROOT / 'tests'}\naddopts = -p no:cacheprovider -p no:hypothesispytest\n"
OPTIONS = ("--vlm-models=toy_a", "--vlm-device=cpu", "--vlm-budgets=0.10", "--vlm-tasks=docvqa_micro,count_micro")

TABLE = f"""\
`python bench_tests/studies/kills.py --rows reports/baselines/kills.jsonl` adds runs to these. A sample may be asked twice
only where it was in work: one a lost worker, {WORKERS} where the main process of {WORKERS} workers was lost; on a cluster
one more, which was on its way."""


@dataclass
class World:
    """A folder in which the toy's sessions run."""

    folder: Path
    limit: int
    sleep: float = 0.05
    cluster: Any = None
    nodes: list[Any] = field(default_factory=list)

    def build(self) -> None:
        (self.folder / "pytest.ini").write_text(INI, encoding="utf-8")
        (self.folder / "conftest.py").write_text(CONFTEST, encoding="utf-8")
        cases = self.folder / "bench_tests"
        cases.mkdir()
        (cases / "conftest.py").write_text("import toy_world\n\ntoy_world.install()\n", encoding="utf-8")
        (cases / "test_quality.py").write_text((ROOT / "bench_tests" / "test_quality.py").read_text(encoding="utf-8"))
        (self.folder / "toy.json").write_text(json.dumps({"sleep": self.sleep}))
        (self.folder / "toy_a").mkdir()
        (self.folder / "toy_a" / "config.json").write_text('{"model_type": "toy"}')
        (self.folder / "toy_a" / "model.safetensors").write_bytes(b"")

    def asked(self) -> list[str]:
        """Samples in the order in which they were asked, with the process that asked: "pid task number"."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "toy_log.txt").read_text(encoding="utf-8").splitlines()
            return [line.removeprefix("asked ") for line in lines if line.startswith("asked ")]
        return []

    def start(self, kind: str, run: str) -> subprocess.Popen[bytes]:
        """A session, or one that goes on with what stands of the run."""
        place = f"--vlm-{'resume' if (self.folder / run / 'outcomes.jsonl').exists() else 'run'}={run}"
        options = [*OPTIONS, f"--vlm-limit={self.limit}", place]
        on_ray = [str(ROOT / "tests" / "toy_ray.py"), f"ray://{self.cluster.address}" if self.cluster else "ray"]
        beside = ["-m", "pytest", "bench_tests", "-q", f"-n{WORKERS}", "--max-worker-restart=1000"]
        command = [sys.executable, *(on_ray if kind == "node" else beside), *options]
        with (self.folder / "said.txt").open("ab") as said:
            return subprocess.Popen(command, cwd=self.folder, stdout=said, stderr=said, start_new_session=True)

    def begin_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        os.chdir(self.folder)
        small = {"object_store_memory": 100_000_000}
        self.cluster = Cluster(
            head_node_args={"num_cpus": 0, "include_dashboard": False, **small}, initialize_head=True
        )
        self.nodes = [self.cluster.add_node(num_cpus=1, **small) for _ in range(WORKERS)]

    def kill(self, kind: str, main: subprocess.Popen[bytes], draw: random.Random) -> bool:
        """Kill something of that kind; False where nothing of it is there."""
        if kind == "main":
            with suppress(ProcessLookupError):
                os.killpg(main.pid, signal.SIGKILL)
            main.wait()
            return True
        if kind == "node":
            self.cluster.remove_node(self.nodes.pop(draw.randrange(len(self.nodes))), allow_graceful=False)
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=100_000_000))
            return True
        workers = sorted({int(line.split()[0]) for line in self.asked()[-20:]})
        alive = [pid for pid in workers if Path(f"/proc/{pid}").exists() and pid != main.pid]
        if not alive:
            return False
        with suppress(ProcessLookupError):
            os.kill(draw.choice(alive), signal.SIGKILL)
        return True

    def outcomes(self, run: str) -> list[str]:
        """The last outcome of each cell, as it was written."""
        found = {}
        for line in (self.folder / run / "outcomes.jsonl").read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record["kind"] == "outcome":
                found[json.dumps(record["cell"])] = line
        return [found[cell] for cell in sorted(found)]


def disturbed(world: World, kind: str, most: int, draw: random.Random) -> dict[str, Any]:
    """One run under up to `most` kills of a kind, until it is whole."""
    run, kills, deadline = f"{kind}-{draw.randrange(10**9)}", 0, time.monotonic() + PATIENCE_S
    with suppress(FileNotFoundError):
        (world.folder / "toy_log.txt").unlink()
    main = world.start(kind, run)
    while main.poll() is None or kills:
        if main.poll() is not None:  # killed, or done
            if _whole(world.folder / run):
                break
            main = world.start(kind, run)
        seen = len(world.asked())
        pause = draw.randrange(1, 20)
        while main.poll() is None and len(world.asked()) < seen + pause:
            time.sleep(0.01)
            assert time.monotonic() < deadline, f"the run does not end: {world.folder}"
        if main.poll() is None and kills < most:
            kills += world.kill(kind, main, draw)
    counts = Counter(line.partition(" ")[2] for line in world.asked())
    return {
        "kind": kind,
        "kills": kills,
        "samples": len(counts),
        "asked_twice": sum(counts.values()) - len(counts),
        "in_work": kills * (WORKERS if kind == "main" else 1) * (2 if kind == "node" else 1),
        "identical": world.outcomes(run) == world.outcomes("whole"),
    }


def _whole(folder: Path) -> bool:
    lines = (folder / "outcomes.jsonl").read_text(encoding="utf-8").splitlines() if folder.exists() else [""]
    return '"kind":"end"' in lines[-1] and '"status":"finished"' in lines[-1]


def study(
    kills: int, kinds: Sequence[str], seed: int, limit: int, each: int, told: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """Runs of all kinds in turn until there were so many kills; `told` hears of each as it ends."""
    draw, found, done = random.Random(seed), list[dict[str, Any]](), 0
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place), limit)
        world.build()
        assert world.start("whole", "whole").wait() == 0, (world.folder / "said.txt").read_text()
        if "node" in kinds:
            world.begin_cluster()
        while done < kills:
            row = disturbed(world, kinds[len(found) % len(kinds)], min(each, kills - done), draw)
            found.append(row)
            done += row["kills"]
            told(row)
        if world.cluster:
            world.cluster.shutdown()
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """All runs so far as a page in Markdown."""
    lines = [
        "# Random kills",
        "",
        *TABLE.splitlines(),
        "",
        "| killed | runs | kills | samples | asked twice | in work at a kill, at most | outcomes as undisturbed |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in (*KINDS, "all"):
        these = [row for row in rows if kind in (row["kind"], "all")]
        total = [sum(row[word] for row in these) for word in ("kills", "samples", "asked_twice", "in_work")]
        identical = sum(bool(row["identical"]) for row in these)
        lines.append(f"| {kind} | {len(these)} | {' | '.join(map(str, total))} | {identical} of {len(these)} |")
    return "\n".join(lines) + "\n"


def keep(rows: Path, row: Mapping[str, Any]) -> None:
    """Put a run behind those of before, and make the table anew."""
    with rows.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    every = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    rows.with_suffix(".md").write_text(table(every), encoding="utf-8")


def bad(row: Mapping[str, Any]) -> bool:
    return not row["identical"] or row["asked_twice"] > row["in_work"]


def overhead(rounds: int, limit: int) -> dict[str, float]:
    """Seconds from the first answer to the last of the same work on xdist and on Ray, medians, in turn."""
    seconds: dict[str, list[float]] = {"worker": [], "node": []}
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place), limit)
        world.build()
        world.begin_cluster()
        for number in range(rounds):
            for kind, spent in seconds.items():
                with suppress(FileNotFoundError):
                    (world.folder / "toy_log.txt").unlink()
                main, first = world.start(kind, f"{kind}{number}"), 0.0
                while main.poll() is None:
                    answered = len(world.asked())
                    if answered and not first:
                        first = time.monotonic()
                    if answered == 2 * limit:
                        spent.append(time.monotonic() - first)
                        break
                    time.sleep(0.005)
                assert main.wait() == 0, (world.folder / "said.txt").read_text()
        world.cluster.shutdown()
    found = {"xdist_s": statistics.median(seconds["worker"]), "ray_s": statistics.median(seconds["node"])}
    return {**found, "overhead": found["ray_s"] / found["xdist_s"] - 1}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=100, help="samples of each of two tasks")
    parser.add_argument("--each", type=int, default=8, help="kills of one run at most")
    parser.add_argument("--rows", type=Path, help="a .jsonl file that collects runs")
    parser.add_argument("--overhead", type=int, default=0, metavar="ROUNDS")
    options = parser.parse_args(arguments)
    rows_file = options.rows.absolute() if options.rows else None  # a cluster begins in a folder of its own
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    os.environ.update({"RAY_health_check_period_ms": "200", "RAY_raylet_start_wait_time_s": "120"})
    if options.overhead:
        print(json.dumps(overhead(options.overhead, options.limit)))
        return 0

    def told(row: dict[str, Any]) -> None:
        print(json.dumps(row), flush=True)
        if rows_file:
            keep(rows_file, row)

    rows = study(options.kills, options.kinds.split(","), options.seed, options.limit, options.each, told)
    wrong = list(filter(bad, rows))
    total = {word: sum(row[word] for row in rows) for word in ("kills", "asked_twice", "in_work")}
    print(json.dumps({"runs": len(rows), **total, "bad": wrong}))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
