"""The fixtures that cases use where they come installed; in a checkout the conftest.py above this folder brings them."""

from __future__ import annotations

if __name__.startswith("effivlm."):  # not above: pytest refuses the name in any conftest.py but the first
    pytest_plugins = [f"effivlm.bench.fixtures.{name}" for name in ("gpu", "models", "cells")]
