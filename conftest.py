"""This repository only: the fixtures that cases use. The plugin itself comes with the installation."""

from __future__ import annotations

import pytest

pytest_plugins = ["fixtures.gpu", "fixtures.models", "fixtures.cells"]


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.hasplugin("benchmark"):
        from fixtures.cells import WithoutBenchmark  # not above: pytest rewrites the asserts of what it imports itself

        config.pluginmanager.register(WithoutBenchmark(), "effivlm-without-benchmark")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" in metafunc.fixturenames and not metafunc.config.pluginmanager.hasplugin("effivlm-bench"):
        pytest.exit("the effivlm plugin is not installed in this environment: pip install -e .", returncode=4)
