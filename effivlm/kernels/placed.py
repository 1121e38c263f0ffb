"""Where a Triton kernel runs: on the current device, which need not be the one that its tensors lie on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from importlib.util import find_spec
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

Given = ParamSpec("Given")
Found = TypeVar("Found")


def placed(launch: Callable[Given, Found]) -> Callable[Given, Found]:
    """Run `launch` with the device of its first argument, a tensor or several, as the current one."""

    @wraps(launch)
    def on_its_device(*args: Given.args, **kwargs: Given.kwargs) -> Found:
        first = args[0]
        tensor = first if isinstance(first, Tensor) else first[0]  # type: ignore[index]
        with torch.cuda.device_of(tensor):  # nothing where it lies on the CPU, as in the interpreter
            return launch(*args, **kwargs)

    return on_its_device


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None
