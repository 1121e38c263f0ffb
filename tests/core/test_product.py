"""Products on disk: what is in them, that they are found again, and that a kill or a full disk leaves nothing half."""

from __future__ import annotations

import errno
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import twins
from products import FEW, tensors, told

from effivlm.compression.weights import Linear, WeightMethod
from effivlm.methods.awq import Awq
from effivlm.methods.gptq import Gptq
from effivlm.methods.magnitude import Magnitude
from effivlm.methods.rtn import Rtn
from effivlm.methods.sparsegpt import SparseGpt
from effivlm.methods.wanda import Wanda
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import Budget, Settings
from effivlm.run.group import open_model
from effivlm.weights.engines import solved
from effivlm.weights.product import PRODUCT, product

pytestmark = pytest.mark.usefixtures("own_products")


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("family", twins.FAMILIES)
def test_a_pruned_checkpoint_is_the_sources_with_zeros_in_it_and_loads_as_one(family: str, tmp_path: Path) -> None:
    source = resolve(f"twin={twins.build(family, tmp_path / 'twin', layers=2)}")
    folder = product(source, SparseGpt(keep=Budget.parse("sparsity0.50"), **FEW), Settings())
    new, old = tensors(folder), tensors(Path(source.source))
    assert list(new) == list(old)
    changed = {name for name in new if not torch.equal(new[name], old[name])}
    assert len(changed) == 2 * 7
    assert all(".layers." in name and "vis" not in name and new[name].dtype == old[name].dtype for name in changed)
    zeros = sum(int((new[name] == 0).sum()) for name in changed)
    about = told(folder)
    assert about["achieved"]["zeros"] == zeros / sum(new[name].numel() for name in changed)
    assert about["achieved"]["zeros"] == pytest.approx(0.5, abs=1e-4)
    assert about["achieved"]["bits_per_weight"] == 32
    opened = open_model(resolve(f"half={folder}"), Settings())
    assert opened.source.family == family
    assert not (folder / "SHA256SUMS").exists()
    opened.close()


def test_a_rounded_checkpoint_loads_in_plain_transformers_as_the_weights_that_were_computed(twin: ModelSource) -> None:
    import transformers

    folder = product(twin, Rtn(keep=Budget.parse("w4g32")), Settings())
    dense, about = tensors(Path(twin.source)), told(folder)
    loaded, info = transformers.AutoModelForImageTextToText.from_pretrained(
        folder,
        dtype=torch.float16,
        quantization_config=transformers.CompressedTensorsConfig(dequantize=True),
        output_loading_info=True,
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    method = Rtn(keep=Budget.parse("w4g32"))
    assert len(about["layers"]) == 3 * 7
    for name in about["layers"]:
        key = name.replace("model.language_model.", "model.") + ".weight"
        one = Linear(name, dense[key].float(), method.goal, 0, "float16")
        assert torch.equal(loaded.get_submodule(name).weight, method.solve(one).weight.half()), name
    theory = 4 + 20 / 32
    assert about["achieved"]["bits_per_weight"] == pytest.approx(theory, rel=0.03)
    assert about["drawn"] == about["calibration"] == {}


@pytest.mark.parametrize(("method", "budget"), [("fp8", "fp8"), ("int8", "int8"), ("awq", "w4g32"), ("gptq", "w3")])
def test_every_format_loads_in_plain_transformers_close_to_dense(twin: ModelSource, method: str, budget: str) -> None:
    import transformers

    from effivlm import registry

    kind: Any = registry.load("methods", method)
    folder = product(twin, kind(keep=Budget.parse(budget), **FEW), Settings())
    loaded = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, quantization_config=transformers.CompressedTensorsConfig(dequantize=True)
    )
    stock = transformers.AutoModelForImageTextToText.from_pretrained(twin.source, dtype=torch.float32)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        pair = [one.float()(input_ids=ids).logits for one in (loaded, stock)]  # transformers leaves mixed precisions
    apart = float((pair[0] - pair[1]).norm() / pair[1].norm())
    assert 0 < apart < {"fp8": 0.15, "int8": 0.05, "awq": 0.4, "gptq": 0.7}[method]


def test_a_product_is_made_once_and_found_by_all_that_decides_it(
    twin: ModelSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Wanda(keep=Budget.parse("2:4"), **FEW)
    first = product(twin, method, Settings())
    others = [
        Wanda(keep=Budget.parse("2:4"), samples=1, calibration="micro"),
        Wanda(keep=Budget.parse("2:4"), seed=1, **FEW),
        Wanda(keep=Budget.parse("2:4"), tokens="balanced", **FEW),
        Wanda(keep=Budget.parse("sparsity0.20"), **FEW),
    ]
    made = [product(twin, other, Settings()) for other in others]
    assert len({first, *made}) == 5
    assert len({told(one)["drawn"]["fingerprint"] for one in (first, *made)}) == 3

    def loading(*args: object) -> None:
        raise AssertionError("the model was loaded again")

    monkeypatch.setattr(Adapter, "load", loading)
    assert product(twin, Wanda(keep=Budget.parse("2:4"), **FEW), Settings()) == first
    same = [Magnitude(keep=Budget.parse("2:4"), seed=seed) for seed in (0, 1)]
    with pytest.raises(AssertionError, match="loaded again"):
        product(twin, same[0], Settings())
    monkeypatch.undo()
    monkeypatch.setenv("EFFIVLM_PRODUCTS", str(first.parent))
    assert product(twin, same[0], Settings()) == product(twin, same[1], Settings())


@pytest.mark.parametrize(("kind", "budget"), [(Gptq, "w4g32"), (Awq, "w4g32")])
def test_a_kill_leaves_nothing_half_and_the_rest_is_done_to_the_same_bytes(
    twin: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any, budget: str
) -> None:
    method = kind(keep=Budget.parse(budget), **FEW)
    whole = product(twin, method, Settings(), to=tmp_path / "whole")
    solve, asked = kind.solve, list[str]()

    def counting(self: WeightMethod, one: Linear) -> Any:
        asked.append(one.name)
        if len(asked) == 7 + 3:
            raise KeyboardInterrupt
        return solve(self, one)

    monkeypatch.setattr(kind, "solve", counting)
    with pytest.raises(KeyboardInterrupt):
        product(twin, method, Settings(), to=tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    asked[:] = ["already"] * 20
    resumed = product(twin, method, Settings(), to=tmp_path / "parts")
    assert len(asked) == 20 + 2 * 7
    assert digest(resumed) == digest(whole)
    assert {**told(resumed), "seconds": 0} == {**told(whole), "seconds": 0}
    assert told(resumed)["seconds"] > 0
    assert not (tmp_path / "parts.partial").exists()


def test_what_was_begun_otherwise_is_not_gone_on_with(
    twin: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wanda, "solve", lambda self, one: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        product(twin, Wanda(keep=Budget.parse("2:4"), **FEW), Settings(), to=tmp_path / "new")
    other = resolve(f"other={twins.build('qwen2_vl', tmp_path / 'other', layers=2, seed=5)}")
    for source, budget, said in ((twin, "sparsity0.50", "budget"), (other, "2:4", "model")):
        with pytest.raises(ValueError, match=rf"new\.partial holds a compression that was begun otherwise \(.*{said}"):
            product(source, Wanda(keep=Budget.parse(budget), **FEW), Settings(), to=tmp_path / "new")


def test_a_folder_that_holds_something_else_is_left_alone(twin: ModelSource, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="mine exists already and is no product"):
        product(twin, Magnitude(keep=Budget.parse("2:4")), Settings(), to=tmp_path / "mine")
    made = product(twin, Magnitude(keep=Budget.parse("2:4")), Settings(), to=tmp_path / "made")
    assert product(twin, Magnitude(keep=Budget.parse("2:4")), Settings(), to=made) == made
    with pytest.raises(ValueError, match=r"made holds another product \(magnitude at 2:4 of twin; other budget\)"):
        product(twin, Magnitude(keep=Budget.parse("sparsity0.50")), Settings(), to=made)


def test_a_full_disk_is_said_in_one_sentence_and_what_is_done_stays(
    twin: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest, written = safetensors.torch.save_file, list[str]()

    def full(given: Any, path: Any, metadata: Any) -> None:
        if len(written) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(str(path))
        honest(given, path, metadata)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    method = Wanda(keep=Budget.parse("2:4"), **FEW)
    with pytest.raises(OSError, match=r"the disk of .*new\.partial is full: what is done stays there; make room"):
        product(twin, method, Settings(), to=tmp_path / "new")
    left = {path.name for path in (tmp_path / "new.partial").iterdir()}
    assert len([name for name in left if name.endswith(".safetensors")]) == 2
    assert not [name for name in left if name.endswith(".part")]
    monkeypatch.undo()
    assert (product(twin, method, Settings(), to=tmp_path / "new") / PRODUCT).exists()


def test_no_room_is_seen_before_anything_is_loaded(twin: ModelSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))  # type: ignore[attr-defined]
    with pytest.raises(OSError, match=r"has 0\.00 GB of room, and compressing needs up to"):
        product(twin, Magnitude(keep=Budget.parse("2:4")), Settings())


def test_a_rule_counts_zeros_of_what_is_stored() -> None:
    one = Linear("layer", torch.full((2, 4), 1e-9), budget_goal("sparsity0.50"), 4, "float16")
    from effivlm.weights.formats import facts_of, tensors_of

    made = solved("llmcompressor", "magnitude", one)
    assert facts_of(made, tensors_of(made, "float16", Magnitude().packing))["zeros"] == 8
    assert facts_of(made, tensors_of(made, "float32", Magnitude().packing))["zeros"] == 4


def budget_goal(label: str) -> Any:
    return Magnitude(keep=Budget.parse(label)).goal
