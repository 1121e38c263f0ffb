"""The study of a model over one GPU and over several: what of it runs without any."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
from toy_session import ROOT

from effivlm.models import _adapter
from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.group import open_model

TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4}


@pytest.fixture(scope="module")
def study() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "bench_tests" / "studies"))
        import apart

        yield apart
    sys.modules.pop("apart")


@pytest.fixture(scope="module")
def written(study: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart") / "checkpoint"
    smaller = {"text_config": {**TEXT, "num_key_value_heads": 2}, "vision_config": TOWER}
    study.write("internvl2_5_38b", folder, "cpu", "float32", **smaller)
    return folder


def test_the_checkpoint_is_the_shape_cut_to_its_layers(study: Any, written: Path) -> None:
    model = open_model(resolve(f"apart={written}"), Settings())
    (place,) = study.lying(model).items()
    assert place[0] == "cpu"
    assert place[1]["layers"] == 3
    assert place[1]["bytes"] == model.weight_bytes()
    assert place[1]["parts"] == sorted(
        {
            "lm_head.weight",
            "model.language_model.embed_tokens",
            "model.language_model.norm",
            "model.multi_modal_projector.layer_norm",
            "model.multi_modal_projector.linear_1",
            "model.multi_modal_projector.linear_2",
            "model.vision_tower.embeddings",
            "model.vision_tower.encoder",
        }
    )


def test_every_way_has_a_row_with_its_shares_of_equal_answers(
    study: Any, written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "WAYS", study.WAYS[::2])
    study.draw(tmp_path, 2, 3)
    asked = argparse.Namespace(
        shape="internvl2_5_38b", layers=3, samples=2, tiles=1, dtype="float32", methods="snapkv,fastv", keep="0.20"
    )
    reference, one = study.rows(str(written), str(tmp_path), asked)
    assert (reference["engine"], one["engine"]) == ("eager", "auto")
    for row in (reference, one):
        assert row["wrong"] == {}
        assert set(row["equal"].values()) == {1.0}
        assert [name.split("-")[1] for name in row["equal"]] == ["dense", "snapkv", "fastv"]
        assert row["s"] > 0


def test_a_way_apart_is_placed_by_the_rule_for_large_models(study: Any) -> None:
    stock = _adapter._placement
    with study.forced("apart"):
        assert _adapter._placement(None, "cuda:0", "bfloat16", "cuda:0") == "auto"  # type: ignore[arg-type]
    with study.forced("one"):
        assert _adapter._placement(None, "cuda:0", "bfloat16", "cuda:0") == "cuda:0"  # type: ignore[arg-type]
    assert _adapter._placement is stock
