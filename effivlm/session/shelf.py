"""Models: one open at a time, opened for its groups and gone before the next one opens; and the device they stand on."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effivlm.models._sources import ModelSource
from effivlm.records import Settings
from effivlm.session.groups import threads_per_worker


@dataclass
class Shelf:
    """Holds one open model. A model that failed to open fails again at once: loading 77 GB twice tells nothing new.

    `forget` drops what else holds on to the open model; it is called before that is closed.
    """

    sources: Mapping[str, ModelSource]
    settings: Settings
    forget: Callable[[], None]
    name: str = ""
    handle: Any = None
    failed: dict[str, Exception] = field(default_factory=dict)

    def open(self, name: str) -> Any:
        if name in self.failed:
            raise self.failed[name]
        if name != self.name:
            self.close()
            self.handle = self._load(name)
            self.name = name
        return self.handle

    def _load(self, name: str) -> Any:
        from effivlm.run.group import open_model

        try:
            return open_model(self.sources[name], self.settings)
        except Exception as error:
            self.failed[name] = error
            raise

    def close(self) -> None:
        """Free the model and what its device caches for it."""
        if self.handle is None:
            return
        self.forget()
        self.handle.close()
        self.name, self.handle = "", None
        gc.collect()
        if self.settings.device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()


def settle(device: str, workers: int) -> None:
    """Make `device` that of this process; a CPU is shared fairly with the other workers."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.set_device(device)
    elif workers > 1:
        import torch

        torch.set_num_threads(threads_per_worker(workers))


def seed_all(seed: int) -> None:
    """Set the seed in every generator."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)
