"""A suite on a Ray cluster of several nodes: one record, nodes that die, a driver that is stopped. Slow: `pytest -m cluster`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from toy_session import ROOT, Toy

ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
pytestmark = pytest.mark.cluster
QUIET = {"include_dashboard": False, "object_store_memory": 100_000_000}
TASKS = "--vlm-tasks=docvqa_micro,count_micro"


@pytest.fixture
def nodes(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster whose head runs nothing, with two nodes of one CPU each. Its processes stand in the toy's folder."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    monkeypatch.setenv("RAY_health_check_period_ms", "200")
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "120")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **QUIET})
    cluster.workers = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)]
    yield cluster
    with suppress(Exception):
        cluster.shutdown()


def start(toy: Toy, address: str, *arguments: str) -> subprocess.Popen[str]:
    given = ["--vlm-models=toy_a", "--vlm-device=cpu", "--vlm-budgets=0.10,0.40", *arguments]
    command = [sys.executable, str(ROOT / "tests" / "toy_ray.py"), address, *given]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=toy.path, start_new_session=True, **pipes)


def asked(toy: Toy) -> Counter[str]:
    """How often each sample was asked, by task and number."""
    return Counter(line.partition(" ")[2] for line in toy.log("asked"))


def wait_for(toy: Toy, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(toy.log("asked")) < count:
        assert time.monotonic() < deadline, "nothing is asked"
        time.sleep(0.02)


def measured(toy: Toy, run: str) -> list[Any]:
    records = [json.loads(line) for line in (toy.path / run / "outcomes.jsonl").read_text().splitlines()]
    return sorted((one for one in records if one["kind"] == "outcome"), key=lambda one: json.dumps(one["cell"]))


def test_two_nodes_share_a_task_and_a_lost_one_costs_the_answer_in_work_alone(toy: Toy, nodes: Any) -> None:
    toy.wish(sleep=0.2, gather=2)
    process = start(toy, f"ray://{nodes.address}", "--vlm-run=out", "--vlm-limit=40", TASKS)
    wait_for(toy, 12)
    nodes.remove_node(nodes.workers[0], allow_graceful=False)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    found = asked(toy)
    assert set(found) == {f"{task} {number}" for task in ("docvqa_micro", "count_micro") for number in range(40)}
    assert sum(found.values()) <= 82, "one answer in work, and one on its way"
    assert "a worker of the cluster was lost" in output
    toy.forget()
    toy.wish()
    assert toy.run("-k", "quality", TASKS, "--vlm-limit=40", run="alone").ret == 0
    assert measured(toy, "out") == measured(toy, "alone")
    assert sorted(path.name for path in (toy.path / "out").iterdir()) == [
        ".gitignore",
        "outcomes.jsonl",
        "report.html",
        "report.json",
    ]


def test_an_interrupt_leaves_a_report_and_a_run_that_goes_on_behind_its_answers(toy: Toy, nodes: Any) -> None:
    toy.wish(sleep=0.2)
    process = start(toy, f"ray://{nodes.address}", "--vlm-run=out", "--vlm-limit=40")
    wait_for(toy, 10)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 2, output
    assert (toy.path / "out" / "report.html").exists()
    assert toy.records()[-1]["reason"] == "interrupted from the keyboard"
    before = sum(asked(toy).values())
    ray.init(address=nodes.address, log_to_driver=False)
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    free = ray.available_resources().get("CPU")
    ray.shutdown()
    assert free == 2, "its workers are gone"
    toy.wish()
    again = start(toy, f"ray://{nodes.address}", "--vlm-resume=out", "--vlm-limit=40")
    output, _ = again.communicate(timeout=120)
    assert again.returncode == 0, output
    found = asked(toy)
    assert sorted(found) == sorted(f"docvqa_micro {number}" for number in range(40))
    assert sum(found.values()) <= 44, f"{before} were asked before, of which up to four were in work or on their way"
    assert toy.report()["run"]["status"] == "finished"


def test_a_broken_group_fails_alone_and_a_block_that_takes_its_workers_with_it_fails_its_group(
    toy: Toy, nodes: Any
) -> None:
    toy.wish(boom="docvqa_micro")
    process = start(toy, f"ray://{nodes.address}", "--vlm-run=out", "--vlm-limit=4", TASKS)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    found = {(one["cell"]["task"], one["status"]) for one in measured(toy, "out")}
    assert found == {("docvqa_micro", "failed"), ("count_micro", "ok")}
    (reason,) = {one["reason"] for one in toy.report()["failed"]}
    assert re.match(r"RuntimeError: the toy run broke \(at \S*toy_world.py:\d+ in __init__ ", reason), reason
    toy.wish(deadly="count_micro")
    process = start(toy, f"ray://{nodes.address}", "--vlm-run=dead", "--vlm-limit=4", TASKS)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    found = {(one["cell"]["task"], one["status"]) for one in measured(toy, "dead")}
    assert found == {("count_micro", "failed"), ("docvqa_micro", "ok")}
    assert {"3 workers were lost" in one["reason"] for one in toy.report("dead")["failed"]} == {True}


def test_a_model_of_several_gpus_gets_them_from_one_node(toy: Toy, nodes: Any) -> None:
    """No GPU is here: the nodes say that they have some, and the toy's models that they need two of them."""
    nodes.add_node(num_cpus=1, num_gpus=3, object_store_memory=100_000_000)
    toy.wish(gpus=3, memory=100)
    sizes = {"num_attention_heads": 1, "num_key_value_heads": 1, "hidden_size": 8, "num_hidden_layers": 1}
    for name, weights in (("toy_a", 50), ("toy_b", 150)):
        (toy.path / name / "config.json").write_text(json.dumps({"model_type": "toy", **sizes}))
        (toy.path / name / "model.safetensors").write_bytes(b"\0" * weights)
    arguments = ("--vlm-device=auto", "--vlm-models=toy_b", "--vlm-limit=4", "--vlm-run=out")
    process = start(toy, f"ray://{nodes.address}", *arguments)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert {line.split()[0]: int(line.split()[1]) for line in toy.log("cards")} == {"toy_a": 1, "toy_b": 2}
