"""Checkpoints that must not be run are refused in one sentence; leftovers that real ones hold do not refuse them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import twins
from safetensors.torch import load_file, save_file

from effivlm.models._guards import foreign
from effivlm.models._sources import resolve
from effivlm.records import Settings
from effivlm.run.group import open_model

Edit = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {family: twins.build(family, tmp_path_factory.mktemp("guards") / family) for family in twins.FAMILIES}


def opened(folder: Path) -> Any:
    return open_model(resolve(f"mine={folder}"), Settings())


def edited(folder: Path, target: Path, file: str, edit: Edit) -> Path:
    shutil.copytree(folder, target)
    content = json.loads((target / file).read_text())
    edit(content)
    (target / file).write_text(json.dumps(content))
    return target


def text(**values: Any) -> Edit:
    return lambda config: config["text_config"].update(values)


def vision(**values: Any) -> Edit:
    return lambda config: config["vision_config"].update(values)


def top(**values: Any) -> Edit:
    return lambda config: config.update(values)


SLIDING = {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2, "layer_types": None}
ALTERNATE = {
    "layer_types": ["full_attention", "sliding_attention"] * 2,
    "sliding_window": 64,
    "use_sliding_window": True,
}
ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 2]}
WRONG: dict[str, tuple[str, Edit, str]] = {
    "sliding": ("llava_onevision", text(**SLIDING), r"2 of its layers have sliding_attention \(use_sliding_window\)"),
    "alternate": ("internvl2_5", text(**ALTERNATE), "2 of its layers have sliding_attention"),
    "sliding qwen": ("qwen2_vl", text(**SLIDING), "2 of its layers have sliding_attention"),
    "heads": ("internvl2_5", text(num_attention_heads=5), "5 attention heads cannot share 2 key-value heads"),
    "width": (
        "llava_onevision",
        text(hidden_size=66),
        "a width of 66 cannot be cut into 4 heads|sizes? mismatch|cannot be",
    ),
    "vocabulary": ("internvl2_5", top(image_token_id=9999), "image_token_id 9999 lies outside the vocabulary"),
    "token": (
        "internvl2_5",
        top(image_token_id=8),
        r"its processor has image_token_id \d+ where its configuration has 8",
    ),
    "sections": (
        "qwen2_vl",
        text(rope_parameters=ROPE),
        r"rotary sections \[2, 3, 2\] make 14 channels of a head of 16",
    ),
    "tower heads": (
        "internvl2_5",
        vision(num_attention_heads=3),
        "a vision tower of width 32 cannot be cut into 3 heads",
    ),
    "tower output": ("qwen2_vl", vision(hidden_size=32), "its vision tower gives 32 channels to a text model of 64"),
    "tokens a tile": ("internvl2_5", top(image_seq_length=9), "image_seq_length 9, but a tile makes 4 tokens"),
    "patch": ("qwen2_vl", vision(patch_size=16), "its processor has patch_size 8 where its configuration has 16"),
    "pinpoints": ("llava_onevision", top(image_grid_pinpoints=[[32, 32]]), "its processor has image_grid_pinpoints"),
    "type": ("llava_onevision", text(hidden_size="wide"), "cannot be read"),
    "layers": ("internvl2_5", text(num_hidden_layers=3, layer_types=None), "tensors of no part of it: "),
    "more layers": ("qwen2_vl", text(num_hidden_layers=5, layer_types=None), "tensors missing: "),
    "wider": ("llava_onevision", text(intermediate_size=100), "cannot be loaded|tensors of another shape"),
}


@pytest.mark.parametrize(("family", "edit", "message"), WRONG.values(), ids=WRONG)
def test_a_configuration_that_does_not_fit_is_one_sentence(
    folders: dict[str, Path], tmp_path: Path, family: str, edit: Edit, message: str
) -> None:
    folder = edited(folders[family], tmp_path / "edited", "config.json", edit)
    with pytest.raises(ValueError, match=message) as caught:
        opened(folder)
    said = str(caught.value)
    assert said.startswith("model 'mine': ")
    assert str(folder) in said
    assert "\n" not in said
    assert len(said) < 600


LEFTOVERS = {
    "llava_onevision": [
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "vision_tower.vision_model.embeddings.position_ids",
        "vision_tower.vision_model.head.probe",
        "vision_tower.vision_model.head.attention.in_proj_weight",
    ],
    "qwen2_vl": ["model.layers.1.self_attn.rotary_emb.inv_freq", "visual.rotary_pos_emb.inv_freq"],
    "internvl2_5": ["language_model.model.rotary_emb.inv_freq", "vision_tower.embeddings.position_ids"],
}


@pytest.mark.parametrize("family", twins.FAMILIES)
def test_leftovers_of_real_checkpoints_do_not_refuse_them_and_foreign_tensors_do(
    folders: dict[str, Path], tmp_path: Path, family: str
) -> None:
    folder = shutil.copytree(folders[family], tmp_path / "left")
    tensors = load_file(folder / "model.safetensors")
    left = {name: torch.ones(4) for name in LEFTOVERS[family]}
    save_file({**tensors, **left}, folder / "model.safetensors", {"format": "pt"})
    opened(folder).close()
    save_file({**tensors, "adapter.lora_A.weight": torch.ones(4)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"tensors of no part of it: 1 \(adapter\.lora_A\.weight\)"):
        opened(folder)


def test_a_head_of_its_own_is_foreign_unless_it_is_tied(folders: dict[str, Path]) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folders["qwen2_vl"])
    for tied, found in ((True, []), (False, ["lm_head.weight"])):
        config.tie_word_embeddings = tied
        assert foreign(["lm_head.weight", "x.rotary_emb.inv_freq"], config) == found
