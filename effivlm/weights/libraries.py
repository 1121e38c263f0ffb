"""The libraries that compress: which are here, in which version, and what makes a missing one. Loads none of them.

llm-compressor, autoawq and kvpress (presses of caches) lie in our own environment. sparseml needs transformers 4.40, which
lacks the families; it lies in an environment of its own, whose Python works as a second process (`_sparseml.py`).
"""

from __future__ import annotations

import os
from importlib.metadata import Distribution, PackageNotFoundError, version
from pathlib import Path

ENGINES = ("llmcompressor", "autoawq", "sparseml")
"""Those that compress weights."""
LIBRARIES = (*ENGINES, "kvpress")
SPARSEML_PYTHON = "EFFIVLM_SPARSEML_PYTHON"
"""The environment variable that names the Python of sparseml's environment, where it is not where `make env-sparseml` puts it."""
SPARSEML_HOME = ".venv-sparseml"
_MADE_BY = {
    "llmcompressor": 'pip install "effivlm[weights]"',
    "autoawq": "make env-autoawq",
    "sparseml": "make env-sparseml",
    "kvpress": "make env-kvpress",
}


def missing(engine: str) -> str:
    """Why a library cannot run here, with the command that makes it; "" where it can.

    Raises:
        ValueError: no library has this name.
    """
    if engine == "sparseml":
        try:
            python = sparseml_python()
        except ValueError as error:
            return str(error)
        return "" if installed(engine) else f"{python} has no sparseml: {_MADE_BY[engine]} makes one that has"
    return "" if installed(engine) else f"{engine} is not installed: {_MADE_BY[engine]} brings it"


def installed(engine: str) -> str:
    """The version of a library, for a record; "" where it is not here.

    Raises:
        ValueError: no library has this name; or it is sparseml and there is no environment of it.
    """
    if engine not in LIBRARIES:
        raise ValueError(f"engine {engine!r} is not one of {', '.join(LIBRARIES)}")
    if engine != "sparseml":
        try:
            return version(engine)
        except PackageNotFoundError:
            return ""
    packages = [str(path) for path in sparseml_python().parent.parent.glob("lib/python*/site-packages")]
    found = Distribution.discover(name=engine, path=packages)
    return next((one.version for one in found), "")


def demanded(engine: str) -> str:
    """The version of a library. ValueError where it is not here; says what brings it."""
    if why := missing(engine):
        raise ValueError(why)
    return installed(engine)


def sparseml_python() -> Path:
    """The Python of sparseml's environment: of the environment variable, of the working folder, or beside the package.

    Raises:
        ValueError: there is none; says what makes it.
    """
    if named := os.environ.get(SPARSEML_PYTHON, ""):
        if not os.access(named, os.X_OK):
            raise ValueError(
                f"{SPARSEML_PYTHON}={named} is no Python that can be run: {_MADE_BY['sparseml']} makes one"
            )
        return Path(named)
    for folder in (Path.cwd(), Path(__file__).resolve().parents[2]):
        python = folder / SPARSEML_HOME / "bin" / "python"
        if os.access(python, os.X_OK):
            return python
    raise ValueError(
        f"sparseml has no environment here: {_MADE_BY['sparseml']} makes {SPARSEML_HOME}, "
        f"or let {SPARSEML_PYTHON} name the Python of one"
    )
