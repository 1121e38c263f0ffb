"""This repository only: the fixtures that cases use. The plugin itself comes with the installation."""

from __future__ import annotations

pytest_plugins = ["fixtures.gpu", "fixtures.models", "fixtures.cells"]
