"""How many positions a model has."""

from __future__ import annotations

from typing import Any

import pytest

from effivlm.models._adapter import Adapter
from effivlm.run.lengths import Positions


@pytest.mark.parametrize(
    ("named", "rope", "last"),
    [
        (500, {}, 500),
        (500, {"factor": 4.0}, 2000),
        (2000, {"factor": 4.0, "original_max_position_embeddings": 500}, 2000),
        (500, None, 500),
        (0, {}, 0),
    ],
)
def test_scaled_positions_count(
    named: int, rope: dict[str, Any] | None, last: int, model: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = model.model.config.get_text_config()
    monkeypatch.setattr(config, "max_position_embeddings", named)
    monkeypatch.setattr(config, "rope_parameters", rope)
    assert Positions(model).last == last
