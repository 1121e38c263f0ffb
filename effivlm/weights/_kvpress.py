"""Loading kvpress without what it does at import: it puts a wrapper of its own around every attention function there is."""

from __future__ import annotations

import importlib
from functools import cache
from types import ModuleType

from effivlm.models._torchvision import ensure_torchvision
from effivlm.seams.stock import attention_as_it_was
from effivlm.weights.libraries import missing


@cache
def kvpress() -> ModuleType:
    """The library, with transformers' attention functions as they were before.

    Its wrapper masks keys of presses that drop other entries of every head while a model of theirs decodes. Here such
    entries leave the cache, so that nobody needs it.

    Raises:
        ValueError: it is not installed, or cannot be imported beside the other libraries here.
    """
    if why := missing("kvpress"):
        raise ValueError(why)
    ensure_torchvision()
    try:
        with attention_as_it_was():
            return importlib.import_module("kvpress")
    except Exception as error:
        raise ValueError(f"kvpress cannot be imported: {type(error).__name__}: {error}") from error
