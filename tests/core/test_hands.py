"""Samples asked by forked processes: the same outcomes, in the same order, whatever becomes of a process."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from forms import FORMS, sample
from PIL import Image
from toy_task import Toy, cells

from effivlm.models._adapter import Adapter
from effivlm.records import Outcome, Sample, Settings, dump
from effivlm.run import group
from effivlm.run.gave import Asked
from effivlm.run.group import run_group
from effivlm.run.hands import EACH, MOST, SMALL, hands, hands_for

pytestmark = pytest.mark.usefixtures("toy_task")

ASKED = cells(methods=["dense", "snapkv", "streaming_llm", "fastv", "visionzip"], keeps=("0.30",))


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes at once, whatever this one computes with."""
    monkeypatch.setattr(group, "hands_for", lambda model, samples: 2)


@pytest.mark.parametrize("share", [True, False])
def test_outcomes_notes_and_their_order_are_those_of_one_process(
    model: Adapter, share: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for count in (1, 2, 3):
        monkeypatch.setattr(group, "hands_for", lambda model, samples, count=count: count)
        told: list[object] = []
        made = run_group(
            ASKED,
            model,
            Settings(limit=9, share=share),
            lambda done, of: told.append((done, of)),  # noqa: B023
            lambda line: told.append(dump(line)),  # noqa: B023
            lambda number, asked: told.append((number, os.getpid())),  # noqa: B023
        )
        found.append((made, told))
    assert found[0] == found[1] == found[2]
    assert sum(isinstance(one, tuple) for one in found[0][1]) == 2 * len(FORMS)


def test_processes_answer_all_but_the_first_sample(
    model: Adapter, two: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = model.encode

    def encode(*given: object, **kwargs: object) -> object:
        (tmp_path / str(os.getpid())).touch()
        assert torch.get_num_threads() == 1
        return real(*given, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "encode", encode)
    run_group(ASKED[:1], model, Settings(limit=9))
    assert len({*os.listdir(tmp_path)}) == 3
    assert str(os.getpid()) in os.listdir(tmp_path)


def test_a_sample_whose_process_is_killed_is_asked_again_and_its_outcome_says_so(
    model: Adapter, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_group(ASKED, model, Settings(limit=9))
    ours, real = os.getpid(), model.prepare

    def prepare(asked: Sample) -> object:
        if os.getpid() != ours and asked.prompt == sample(FORMS[4], 4).prompt:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(asked)

    monkeypatch.setattr(model, "prepare", prepare)
    again = run_group(ASKED, model, Settings(limit=9))
    assert [one.answers for one in again] == [one.answers for one in whole]
    assert "its process ended with -9" in " ".join(again[0].remarks)
    assert not whole[0].remarks


def test_all_is_answered_here_when_no_process_is_left(
    model: Adapter, two: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_group(ASKED, model, Settings(limit=9))
    ours, real = os.getpid(), model.prepare
    monkeypatch.setattr(model, "prepare", lambda asked: real(asked) if os.getpid() == ours else os._exit(3))
    again = run_group(ASKED, model, Settings(limit=9))
    assert [one.answers for one in again] == [one.answers for one in whole]
    assert f"for {len(FORMS) - 1} of {len(FORMS)} samples" in " ".join(again[0].remarks)


def test_broken_and_repeated_samples_end_as_in_one_process(
    model: Adapter, toy_task: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[object] = [sample(FORMS[number % len(FORMS)], number) for number in range(9)]
    unsendable = replace(sample(FORMS[2], 7), facts={"judge": lambda: 0})
    samples[3], samples[5], samples[7] = "no sample", samples[2], unsendable
    monkeypatch.setattr(toy_task, "samples", lambda limit, seed: samples)
    found: list[Sequence[Outcome]] = []
    for count in (1, 2):
        monkeypatch.setattr(group, "hands_for", lambda model, samples, count=count: count)
        found.append(run_group(ASKED[:2], model, Settings(limit=9)))
    assert [one.answers for one in found[0]] == [one.answers for one in found[1]]
    assert [one.broken for one in found[0]] == [2, 2]


def test_an_interrupt_leaves_no_process(model: Adapter, two: None) -> None:
    def stop(number: int, asked: Asked) -> None:
        if number == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_group(ASKED[:1], model, Settings(limit=9), on_answers=stop)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_process_holds_no_lock_and_no_file_of_the_one_that_asks(tmp_path: Path) -> None:
    def ask(number: int, shown: Sample) -> Asked:
        return Asked(notes=[{"open": [path for path in map(_target, os.listdir("/proc/self/fd")) if path]}])

    with (tmp_path / "lock").open("w") as held, hands(ask, 2) as those:
        found = list(those.asked([0, 1], lambda number: sample(FORMS[0], number)))
        assert held.fileno() > 2
    paths = [path for one in found if isinstance(one, Asked) for path in one.notes[0]["open"]]
    assert len(found) == 2
    assert paths
    assert not any(path.endswith("lock") for path in paths)
    assert (
        sum("pipe" in path or "socket" in path for path in set(paths) - {_target("0"), _target("1"), _target("2")}) <= 2
    )


def test_pictures_come_over_whole(tmp_path: Path) -> None:
    turned = Image.new("RGB", (30, 20), "red")
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    shown = replace(sample(FORMS[0], 0), images=(Image.open(tmp_path / "turned.jpg"),))
    with hands(lambda number, one: Asked(notes=[{"size": one.images[0].size}]), 1) as those:
        (found,) = those.asked([0], lambda number: shown)
    assert isinstance(found, Asked)
    assert found.notes == [{"size": (20, 30)}]


def test_cores_divide_many_samples_of_a_small_model(model: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = partial(monkeypatch.setattr, torch, "get_num_threads")
    threads(lambda: 4)
    assert [hands_for(model, EACH * number) for number in (0, 1, 2, 4, 9)] == [1, 1, 2, 4, 4]
    threads(lambda: 1000)
    assert hands_for(model, 10**6) == MOST
    monkeypatch.setattr(model, "weight_bytes", lambda: SMALL + 1)
    assert hands_for(model, 10**6) == 1


def _target(number: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        return ""
