"""Devices: one a worker, checked for company, and the CPU wherever there is none."""

from __future__ import annotations

import pytest
from toy_session import Toy

from effivlm.records import Settings
from effivlm.session.groups import on_device, threads_per_worker


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs, as torch sees them."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("gpus")
def test_workers_take_turns_over_the_gpus_in_bfloat16() -> None:
    given = [on_device(Settings(device="auto", dtype="auto"), worker) for worker in range(4)]
    assert [(one.device, one.dtype) for one in given] == [(f"cuda:{number}", "bfloat16") for number in (0, 1, 0, 1)]


@pytest.mark.usefixtures("gpus")
def test_a_numbered_gpu_is_kept_and_one_that_is_not_there_is_refused() -> None:
    assert on_device(Settings(device="cuda:1", dtype="float32"), worker=0).device == "cuda:1"
    with pytest.raises(ValueError, match="'cuda:2' was asked for, but there are 2 GPUs: cuda:0 to cuda:1"):
        on_device(Settings(device="cuda:2"))


def test_the_cpu_serves_where_torch_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = on_device(Settings(device="auto", dtype="auto"))
    assert (given.device, given.dtype) == ("cpu", "float32")


def test_an_engine_that_wants_a_gpu_is_refused_where_there_is_none_before_a_folder_is_made(toy: Toy) -> None:
    result = toy.run("-k", "quality", "--vlm-device=auto", "--vlm-engine=cuda_graph")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --vlm-engine: 'cuda_graph' was asked for, but torch sees no GPU here; choose*"]
    )
    assert not (toy.path / "out").exists()
    toy.wish(gpus=1)
    toy.run_apart("-k", "quality", "--vlm-device=auto", "--vlm-engine=cuda_graph").assert_outcomes(passed=5)


def test_cores_are_shared_among_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [threads_per_worker(workers) for workers in (1, 3, 8, 20)] == [8, 2, 1, 1]


def test_each_worker_uses_its_own_gpu(toy: Toy) -> None:
    toy.wish(gpus=2, gather=2)  # or the first one there may do it all
    result = toy.run_apart("-k", "quality", "--vlm-device=auto", "--vlm-tasks=docvqa_micro,count_micro", "-n2")
    result.assert_outcomes(passed=10)
    assert sorted(toy.log("open")) == ["toy_a cuda:0", "toy_a cuda:1"]
    assert len(toy.log("emptied")) == 2


def test_workers_on_a_cpu_divide_its_cores(toy: Toy) -> None:
    toy.run_apart("-k", "quality", "-n2")
    assert toy.log("threads")
    assert set(toy.log("threads")) == {str(threads_per_worker(2))}
