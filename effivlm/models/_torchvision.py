"""Make `import torchvision` work beside a CPU build of torch.

The wheel on PyPI is built for CUDA; beside a CPU torch it dies on import because two operators are missing, and with it every
processor of transformers. Declaring their schemas is enough: nothing here calls them.
"""

from __future__ import annotations

from functools import cache

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


@cache
def ensure_torchvision() -> torch.library.Library | None:
    """Import torchvision, declaring the missing operators first where it cannot import by itself.

    Returns the library that holds the declarations (kept alive by the cache), or None where none was needed.

    Raises:
        ImportError: torchvision is not installed, or fails for another reason.
    """
    try:
        import torchvision

        return None
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise ImportError(f"torchvision cannot be imported beside torch {torch.__version__}: {error}") from error
    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS.values():
        library.define(schema)
    import torchvision  # noqa: F401

    return library
