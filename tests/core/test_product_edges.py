"""Products of checkpoints of mixed precisions, and folders of a compression that others put files in or that a kill left."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import twins
from products import FEW, tensors, told

from effivlm.methods.awq import Awq
from effivlm.methods.magnitude import Magnitude
from effivlm.methods.rtn import Rtn
from effivlm.methods.wanda import Wanda
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import Budget, Settings
from effivlm.weights import journal
from effivlm.weights.product import PRODUCT, product

pytestmark = pytest.mark.usefixtures("own_products")
HALF = Magnitude(keep=Budget.parse("sparsity0.50"))


def stopped(twin: ModelSource, to: Path, after: int = 1) -> Path:
    """What a compression leaves that was stopped after so many stages."""

    def stop(what: str, done: int, of: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        product(twin, HALF, Settings(), stop, to=to)
    return to.with_name(f"{to.name}.partial")


def rewritten(folder: Path, change: Any) -> ModelSource:
    """A checkpoint with its tensors changed by name."""
    (path,) = folder.glob("*.safetensors")
    safetensors.torch.save_file(
        {name: change(name, one) for name, one in tensors(folder).items()}, path, {"format": "pt"}
    )
    return resolve(f"changed={folder}")


@pytest.mark.parametrize(
    ("stored", "computed"), [(torch.float16, "bfloat16"), (torch.float32, "bfloat16"), (torch.float32, "float16")]
)
def test_weights_that_stay_are_the_sources_whatever_precision_computes(
    tmp_path: Path, stored: torch.dtype, computed: str
) -> None:
    source = resolve(f"twin={twins.build('qwen2_vl', tmp_path / 'twin', layers=1, dtype=stored)}")
    old = tensors(tmp_path / "twin")
    for kind in (Magnitude, Wanda):
        new = tensors(product(source, kind(keep=Budget.parse("2:4"), **FEW), Settings(dtype=computed)))
        assert all(torch.equal(new[name][new[name] != 0], old[name][new[name] != 0]) for name in old)
        assert sum(not torch.equal(new[name], old[name]) for name in old) == 7


@pytest.mark.parametrize("fine", ["language", "vision"])
def test_every_part_of_a_checkpoint_keeps_its_own_precision(tmp_path: Path, fine: str) -> None:
    def change(name: str, one: torch.Tensor) -> torch.Tensor:
        return one if (fine in name) and "norm" not in name else one.to(torch.bfloat16)

    source = rewritten(twins.build("llava_onevision", tmp_path / "twin", layers=2), change)
    old = tensors(tmp_path / "twin")
    assert len({one.dtype for one in old.values()}) == 2
    for method in (HALF, Awq(keep=Budget.parse("w4g16"), **FEW)):
        folder = product(source, method, Settings())
        new = tensors(folder)
        assert all(new[name].dtype == old[name].dtype for name in old if name in new), type(method)
        if method is not HALF:
            layers = [name for name in new if name.endswith("weight_scale")]
            assert len(layers) == 2 * 7
            assert {new[name].dtype for name in layers} == {torch.float32 if fine == "language" else torch.bfloat16}


def test_a_weight_that_is_no_number_is_named(tmp_path: Path) -> None:
    def change(name: str, one: torch.Tensor) -> torch.Tensor:
        if name.endswith("layers.0.mlp.up_proj.weight"):
            one[0, 0] = torch.nan
        return one

    source = rewritten(twins.build("qwen2_vl", tmp_path / "twin", layers=1), change)
    with pytest.raises(
        ValueError, match=r"layers\.0\.mlp\.up_proj\.weight holds NaN or infinity, as it is loaded from"
    ):
        product(source, HALF, Settings())


def test_files_of_others_beside_the_target_are_left_alone(twin: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "new.partial").mkdir()
    for name in ("letter.txt", "film.part"):
        (tmp_path / "new.partial" / name).write_text("dear")
    with pytest.raises(
        ValueError, match=r"new\.partial is needed, but holds film\.part and no plan\.json: move that away"
    ):
        product(twin, HALF, Settings(), to=tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new.partial").iterdir()) == ["film.part", "letter.txt"]


def test_stages_without_their_plan_are_nobodys(twin: ModelSource, tmp_path: Path) -> None:
    (stopped(twin, tmp_path / "new") / journal.PLAN).unlink()
    with pytest.raises(ValueError, match=r"holds .*layers\.0\.safetensors and no plan\.json"):
        product(twin, Magnitude(keep=Budget.parse("sparsity0.20")), Settings(), to=tmp_path / "new")


def test_a_damaged_stage_is_named_and_done_anew_once_it_is_removed(twin: ModelSource, tmp_path: Path) -> None:
    work = stopped(twin, tmp_path / "new")
    (stage,) = work.glob("*.safetensors")
    stage.write_bytes(stage.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"layers\.0\.safetensors is damaged .*: remove it, and run again"):
        product(twin, HALF, Settings(), to=tmp_path / "new")
    stage.unlink()
    assert told(product(twin, HALF, Settings(), to=tmp_path / "new"))["achieved"]["zeros"] == pytest.approx(
        0.5, abs=1e-4
    )


def test_what_a_kill_after_the_last_step_leaves_is_removed_by_the_next_run(
    twin: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = shutil.rmtree

    def killed(folder: Path, ignore_errors: bool = False) -> None:
        if folder.suffix == ".partial":
            raise KeyboardInterrupt
        honest(folder, ignore_errors)

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        product(twin, HALF, Settings(), to=tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new.partial").iterdir()) == [journal.PLAN]
    monkeypatch.undo()
    assert (product(twin, HALF, Settings(), to=tmp_path / "new") / PRODUCT).exists()
    assert not (tmp_path / "new.partial").exists()


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EDQUOT, r"the disk of .* is full: what is done stays there"),
        (errno.EFBIG, r"cannot be written .*File too large"),
    ],
)
def test_what_the_library_of_files_cannot_write_is_said_in_one_sentence(
    twin: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    def refusing(given: Any, path: Any, metadata: Any) -> None:
        raise safetensors.SafetensorError(
            f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"
        )

    monkeypatch.setattr(safetensors.torch, "save_file", refusing)
    with pytest.raises(OSError, match=said):
        product(twin, HALF, Settings(), to=tmp_path / "new")


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_a_target_without_a_name_is_refused(twin: ModelSource, name: str) -> None:
    with pytest.raises(ValueError, match="is no new folder: name one"):
        product(twin, HALF, Settings(), to=Path(name))


def test_a_product_on_a_disk_that_is_read_alone_is_found(
    twin: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = product(twin, HALF, Settings(), to=tmp_path / "new")

    def refusing(handle: object, how: int) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(journal.fcntl, "flock", refusing)
    assert product(twin, HALF, Settings(), to=made) == made
    with pytest.raises(OSError, match="Read-only file system"):
        product(twin, HALF, Settings(), to=tmp_path / "newer")


def test_a_compression_that_was_refused_leaves_nothing_for_the_next_to_trip_over(
    twin: ModelSource, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="inputs do not split into groups of 77"):
        product(twin, Rtn(keep=Budget.parse("w4g77")), Settings(), to=tmp_path / "new")
    assert not (tmp_path / "new.partial").exists()
    assert product(twin, Rtn(keep=Budget.parse("w4g32")), Settings(), to=tmp_path / "new").is_dir()
