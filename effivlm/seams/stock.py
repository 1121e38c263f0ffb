"""Transformers' attention functions, kept from a library that puts its own in their place when it is imported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def attention_as_it_was() -> Iterator[None]:
    """Whatever happens inside, the functions that transformers routes attention through are the same on exit."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    before = dict(ALL_ATTENTION_FUNCTIONS)
    try:
        yield
    finally:
        for name, function in before.items():
            if ALL_ATTENTION_FUNCTIONS[name] is not function:
                del ALL_ATTENTION_FUNCTIONS[name]  # one laid above transformers' own
            if ALL_ATTENTION_FUNCTIONS[name] is not function:
                ALL_ATTENTION_FUNCTIONS[name] = function
