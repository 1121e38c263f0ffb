"""Groups of inputs that are wider than a layer: such a layer has one, and a checkpoint of several sizes loads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import twins

from effivlm.methods.rtn import Rtn
from effivlm.models._formats import Scheme
from effivlm.models._quantization import scheme_of
from effivlm.models._sources import resolve
from effivlm.records import Budget, Settings
from effivlm.run.group import open_model
from effivlm.weights.product import product


@pytest.mark.parametrize("family", twins.FAMILIES)
def test_a_checkpoint_with_groups_of_two_sizes_loads_with_the_weights_that_it_was_given(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFIVLM_PRODUCTS", str(tmp_path / "products"))
    source = resolve(f"twin={twins.build(family, tmp_path / 'twin', layers=1)}")
    whole = open_model(source, Settings())
    widest = max(part.in_features for part in whole.layers[0].modules() if isinstance(part, torch.nn.Linear))
    folder = product(source, Rtn(keep=Budget.parse(f"w4g{widest}")), Settings())
    groups = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()
    assert len({group["weights"]["group_size"] for group in groups}) == len(groups) > 1
    made = open_model(resolve(f"made={folder}"), Settings())
    for name, part in whole.layers.named_modules():
        if isinstance(part, torch.nn.Linear):
            rounded = made.layers.get_submodule(name).weight
            step = (part.weight.amax(1) - part.weight.amin(1)) / 15
            assert bool(((rounded - part.weight).abs() <= 1.01 * step[:, None] + 1e-6).all()), name
            assert not torch.equal(rounded, part.weight)


def test_a_layer_of_the_decoder_is_named_as_in_its_file_or_in_its_model_and_one_of_the_tower_is_not() -> None:
    own, rest = Scheme("packed", 4, 64), Scheme("packed", 4, 128)
    told = {("model.language_model.layers.1.mlp.down_proj", r"re:language_model\..*o_proj"): own, ("Linear",): rest}
    for front in ("model.", "model.language_model.", "language_model.model.", ""):
        assert scheme_of(f"{front}layers.1.mlp.down_proj", told) is own
        assert scheme_of(f"{front}layers.1.self_attn.o_proj", told) is own
        assert scheme_of(f"{front}layers.11.mlp.down_proj", told) is rest
    assert scheme_of("vision_tower.vision_model.encoder.layers.1.mlp.down_proj", told) is rest
