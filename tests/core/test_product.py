"""Products on disk: what is in them, that they are found again, that a kill leaves nothing half, and what is refused."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import twins
from PIL import Image
from safetensors import safe_open

from effivlm import __main__ as cli
from effivlm.compression.weights import Linear, WeightMethod
from effivlm.methods.awq import Awq
from effivlm.methods.gptq import Gptq
from effivlm.methods.magnitude import Magnitude
from effivlm.methods.rtn import Rtn
from effivlm.methods.sparsegpt import SparseGpt
from effivlm.methods.wanda import Wanda
from effivlm.models._adapter import Adapter
from effivlm.models._sources import ModelSource, resolve
from effivlm.records import Budget, Settings, Unsupported
from effivlm.run.group import open_model
from effivlm.weights.engines import solved
from effivlm.weights.product import PRODUCT, product

FEW: dict[str, Any] = {"samples": 2, "calibration": "micro"}


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> ModelSource:
    """A twin in float16, as small checkpoints are stored."""
    return resolve(f"twin={twins.build('qwen2_vl', tmp_path_factory.mktemp('half'), layers=3, dtype=torch.float16)}")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EFFIVLM_PRODUCTS", str(tmp_path / "products"))
    return tmp_path / "products"


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def told(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / PRODUCT).read_text())
    return found


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
    with pytest.raises(ValueError, match=r"made holds another product \(magnitude at 2:4 of twin\)"):
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


def folder_of(tmp_path: Path, rows: list[dict[str, Any]]) -> str:
    """A calibration set of one's own with one picture."""
    (tmp_path / "set").mkdir(exist_ok=True)
    Image.new("RGB", (56, 56), "red").save(tmp_path / "set" / "red.png")
    lines = [json.dumps({"metric": "exact_match", **row}) + "\n" for row in rows]
    (tmp_path / "set" / "questions.jsonl").write_text("".join(lines))
    return str(tmp_path / "set")


SEEN = {"image": "red.png", "question": "Which colour?", "answers": ["red"]}
UNSEEN = {"question": "Which day?", "answers": ["today"]}


@pytest.mark.parametrize(
    ("rows", "values", "said"),
    [
        ([], {"samples": 1}, "holds no question"),
        (
            [UNSEEN, {**UNSEEN, "question": "Which year?"}],
            {"samples": 2},
            "holds text alone: no visual token would reach",
        ),
        ([SEEN], {"samples": 2}, "has 1 samples, fewer than the 2 asked for"),
        ([{**SEEN, "answers": [""]}], {"samples": 1}, "has no answer"),
        ([SEEN, UNSEEN], {"samples": 2, "tokens": "visual"}, "has no visual tokens"),
    ],
)
def test_a_calibration_set_that_tells_nothing_is_refused(
    twin: ModelSource, tmp_path: Path, rows: list[dict[str, Any]], values: dict[str, Any], said: str
) -> None:
    method = Wanda(keep=Budget.parse("2:4"), calibration=folder_of(tmp_path, rows), **values)
    with pytest.raises(ValueError, match=said):
        product(twin, method, Settings(), to=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_set_of_ones_own_is_calibrated_on_and_named_by_its_content(twin: ModelSource, tmp_path: Path) -> None:
    method = Wanda(keep=Budget.parse("2:4"), samples=1, calibration=folder_of(tmp_path, [SEEN]))
    first = product(twin, method, Settings())
    folder_of(tmp_path, [{**SEEN, "question": "What colour?"}])
    assert product(twin, method, Settings()) != first
    assert told(first)["drawn"] == {**told(first)["drawn"], "set": str(tmp_path / "set"), "samples": 1}


def test_tower_and_projector_are_compressed_where_they_are_asked_for(twin: ModelSource) -> None:
    everything = Magnitude(keep=Budget.parse("2:4"), targets="tower+projector+language")
    folder = product(twin, everything, Settings())
    zeros = {
        name: float((value == 0).float().mean())
        for name, value in tensors(folder).items()
        if value.dim() == 2 and "embed" not in name and "lm_head" not in name
    }
    assert any(name.startswith("visual.merger") for name in zeros)
    assert set(zeros.values()) == {0.5}
    opened = open_model(resolve(f"half={folder}"), Settings())
    assert len(told(folder)["layers"]) == len(zeros)
    opened.close()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"calibration": "nowhere"}, "calibration 'nowhere' is not one of auto, micro, sharegpt4v, and no folder"),
        ({"tokens": "visual", "targets": "language+wing"}, "targets 'wing' is not one of language, tower, projector"),
    ],
)
def test_a_calibration_that_cannot_be_is_refused_by_name(twin: ModelSource, values: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        product(twin, Wanda(keep=Budget.parse("2:4"), **values), Settings())


def test_other_sources_are_refused(twin: ModelSource, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="random weights and no folder: there is no checkpoint to compress"):
        product(resolve("random:qwen2_vl_7b"), Magnitude(keep=Budget.parse("2:4")), Settings())
    with pytest.raises(ValueError, match="magnitude needs a budget such as sparsity"):
        product(twin, Magnitude(), Settings())


def test_the_command_makes_a_product_and_says_what_came_of_it(
    twin: ModelSource, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["compress", f"twin={twin.source}", "--method", "wanda@balanced", "--budget", "sparsity0.50"]
    asked += ["--samples", "2", "--seed", "3", "--calibration", "micro", "--to", str(tmp_path / "new")]
    assert cli.main(asked) == 0
    said = capsys.readouterr().out
    assert "3/3 model.language_model.layers.2" in said
    assert "sparsity0.50 asked, 0.5000 zeros and 16.000 bits a weight in 21 linear layers" in said
    about = told(tmp_path / "new")
    assert about["calibration"] == {"set": "micro", "samples": 2, "seed": 3, "tokens": "balanced"}
    assert about["drawn"]["samples"] == 2
    assert about["method"] == "wanda"


@pytest.mark.parametrize(
    ("method", "budget", "said"),
    [
        ("wandb", "2:4", "unknown method of checkpoints 'wandb'. Did you mean 'wanda'?"),
        ("snapkv", "0.10", "unknown method of checkpoints 'snapkv'"),
        ("wanda@odd", "2:4", "unknown preset 'odd' of method 'wanda'. Choose from: paper, balanced"),
        ("wanda", "0.10", "budget '0.10' is none of wanda: it takes budgets such as sparsity0.20"),
        ("wanda", "w4g128", "budget 'w4g128' is none of wanda"),
    ],
)
def test_the_command_refuses_by_name(
    twin: ModelSource, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, budget: str, said: str
) -> None:
    where = ["--to", str(tmp_path / "new")]
    assert cli.main(["compress", f"twin={twin.source}", "--method", method, "--budget", budget, *where]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_rule_counts_zeros_of_what_is_stored() -> None:
    one = Linear("layer", torch.full((2, 4), 1e-9), budget_goal("sparsity0.50"), 4, "float16")
    from effivlm.weights.formats import facts_of, tensors_of

    made = solved("llmcompressor", "magnitude", one)
    assert facts_of(made, tensors_of(made, "float16", Magnitude().packing))["zeros"] == 8
    assert facts_of(made, tensors_of(made, "float32", Magnitude().packing))["zeros"] == 4


def budget_goal(label: str) -> Any:
    return Magnitude(keep=Budget.parse(label)).goal
