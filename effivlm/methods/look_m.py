"""LOOK-M: text first, and what is evicted is merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from effivlm.compression.layers import check_choice
from effivlm.methods.h2o import H2o

PRIORS = ("add_max", "minus_1e4", "none")


@dataclass(frozen=True, kw_only=True)
class LookM(H2o):
    """H2O's choice with text ranked before images; what is evicted is merged into what is kept (arXiv 2406.18139).

    The paper's prior adds a head's largest score to every text entry ("add_max"); `merge` is its "pivotal", "averaged" or
    "weighted" rule over all kept entries, or with `merge_scope` "same_modality" within text and within images.

    Differs from the paper:
    - the budget is exact: text beyond it goes too, where the released code keeps all text;
    - K is rounded half up, half recent and half important, where the released code rounds a share for each down (0.1 and 0.1);
    - a KV head has the mean of its query heads;
    - averaged and weighted merge every evicted entry; the released code leaves out those whose key is less alike than the mean,
      and in averaged takes the entries of others for those that are left;
    - nothing is merged while decoding, and nothing evicted unless `evict_decode`, which the paper does not mention;
    - preset effivlm (arXiv 2506.00479) takes 10000 off images instead, with a tenth of K recent, at least one; that it rounds K
      down is not reproduced.
    """

    of: ClassVar[str] = "prompt entries"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "effivlm": {"window": 1, "window_share": 0.1, "prior": "minus_1e4"},
    }

    window_share: float = 0.5
    evict_decode: bool = False
    merge: str = "pivotal"
    prior: str = "add_max"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("prior", self.prior, PRIORS)

    def weighed(self, scores: Tensor, visual: Tensor) -> Tensor:
        if self.prior == "none":
            return scores
        if self.prior == "add_max":
            return torch.where(visual, scores, scores + scores.amax(-1, keepdim=True))
        return torch.where(visual, scores - 1e4, scores)
