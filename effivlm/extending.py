"""The public door: what authors of methods, models and tasks import, under names that stay.

A package of your own adds a method, a model family or a task by an entry point in its pyproject.toml; the name there is the
public name, and stands in case ids::

    [project.entry-points."effivlm.methods"]
    largest_keys = "my_package.largest_keys:LargestKeys"

    [project.entry-points."effivlm.tasks"]
    receipts = "my_package.receipts:Receipts"

    [project.entry-points."effivlm.models"]
    my_family = "my_package.my_family:MyFamily"

A method is a frozen dataclass over the base of its seam: `ImagePart`, `VisualPart`, `LayerPart` or `CachePart` (`ScoredCache`
where entries are ranked, `StagedPart` where tokens leave at several layers, `PerImage` where the tower's attention is looked
at, `PerClip` where tokens of videos are). A task is a `Task` that makes `Sample`s and scores answers; a published set with a
`Source` is a `Benchmark` (`Choice`: its answers are letters; `Video`, `VideoChoice`; `Judged`: a judge marks them), which brings
fetching, checks, seeded subsets and parts. A family is an `Adapter`.

What is imported from here is loaded at that moment and no sooner: a task needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from effivlm.compression.base import CachePart as CachePart
    from effivlm.compression.base import ImagePart as ImagePart
    from effivlm.compression.base import ImageView as ImageView
    from effivlm.compression.base import LayerPart as LayerPart
    from effivlm.compression.base import LayerView as LayerView
    from effivlm.compression.base import Method as Method
    from effivlm.compression.base import Part as Part
    from effivlm.compression.base import Selection as Selection
    from effivlm.compression.base import Stage as Stage
    from effivlm.compression.base import VisualPart as VisualPart
    from effivlm.compression.base import generator as generator
    from effivlm.compression.base import taken as taken
    from effivlm.compression.budget import apportion as apportion
    from effivlm.compression.choose import best as best
    from effivlm.compression.choose import best_of_each as best_of_each
    from effivlm.compression.frames import Clip as Clip
    from effivlm.compression.frames import PerClip as PerClip
    from effivlm.compression.layers import LayeredCache as LayeredCache
    from effivlm.compression.per_image import PerImage as PerImage
    from effivlm.compression.scored import ScoredCache as ScoredCache
    from effivlm.compression.stages import StagedPart as StagedPart
    from effivlm.data.source import Source as Source
    from effivlm.decoding.caches import KeptLayer as KeptLayer
    from effivlm.decoding.rolling import Rolling as Rolling
    from effivlm.metrics.anls import anls as anls
    from effivlm.metrics.anls import anls_pages as anls_pages
    from effivlm.metrics.choice import letter as letter
    from effivlm.metrics.choice import listed_options as listed_options
    from effivlm.metrics.circular import circular as circular
    from effivlm.metrics.contains import contains as contains
    from effivlm.metrics.exact import exact_match as exact_match
    from effivlm.metrics.lines import line_f1 as line_f1
    from effivlm.metrics.mme import yes_no as yes_no
    from effivlm.metrics.relaxed import relaxed_accuracy as relaxed_accuracy
    from effivlm.metrics.vqa_accuracy import vqa_accuracy as vqa_accuracy
    from effivlm.models._adapter import Adapter as Adapter
    from effivlm.models._adapter import Prompt as Prompt
    from effivlm.models._adapter import Visual as Visual
    from effivlm.models._adapter import grid as grid
    from effivlm.models._tower import brought as brought
    from effivlm.models._tower import capturing as capturing
    from effivlm.models._tower import feeding as feeding
    from effivlm.records import Answer as Answer
    from effivlm.records import Budget as Budget
    from effivlm.records import Reported as Reported
    from effivlm.records import Sample as Sample
    from effivlm.records import Unsupported as Unsupported
    from effivlm.seams.columns import column_sums as column_sums
    from effivlm.seams.columns import row_attention as row_attention
    from effivlm.seams.hooks import Tower as Tower
    from effivlm.tasks._base import Lazy as Lazy
    from effivlm.tasks._base import Task as Task
    from effivlm.tasks._base import by_group as by_group
    from effivlm.tasks._benchmark import Benchmark as Benchmark
    from effivlm.tasks._benchmark import Choice as Choice
    from effivlm.tasks._benchmark import by_part as by_part
    from effivlm.tasks._benchmark import listed as listed
    from effivlm.tasks._benchmark import numbered as numbered
    from effivlm.tasks._benchmark import together_all as together_all
    from effivlm.tasks._judged import Judged as Judged
    from effivlm.tasks._video import Video as Video
    from effivlm.tasks._video import VideoChoice as VideoChoice

_PLACES: Final = {
    "effivlm.compression.base": (
        *("CachePart", "ImagePart", "ImageView", "LayerPart", "LayerView", "Method", "Part", "Selection", "Stage"),
        *("VisualPart", "generator", "taken"),
    ),
    "effivlm.compression.budget": ("apportion",),
    "effivlm.compression.choose": ("best", "best_of_each"),
    "effivlm.compression.frames": ("Clip", "PerClip"),
    "effivlm.compression.layers": ("LayeredCache",),
    "effivlm.compression.per_image": ("PerImage",),
    "effivlm.compression.scored": ("ScoredCache",),
    "effivlm.compression.stages": ("StagedPart",),
    "effivlm.data.source": ("Source",),
    "effivlm.decoding.caches": ("KeptLayer",),
    "effivlm.decoding.rolling": ("Rolling",),
    "effivlm.metrics.anls": ("anls", "anls_pages"),
    "effivlm.metrics.choice": ("letter", "listed_options"),
    "effivlm.metrics.circular": ("circular",),
    "effivlm.metrics.contains": ("contains",),
    "effivlm.metrics.exact": ("exact_match",),
    "effivlm.metrics.lines": ("line_f1",),
    "effivlm.metrics.mme": ("yes_no",),
    "effivlm.metrics.relaxed": ("relaxed_accuracy",),
    "effivlm.metrics.vqa_accuracy": ("vqa_accuracy",),
    "effivlm.models._adapter": ("Adapter", "Prompt", "Visual", "grid"),
    "effivlm.models._tower": ("brought", "capturing", "feeding"),
    "effivlm.records": ("Answer", "Budget", "Reported", "Sample", "Unsupported"),
    "effivlm.seams.columns": ("column_sums", "row_attention"),
    "effivlm.seams.hooks": ("Tower",),
    "effivlm.tasks._base": ("Lazy", "Task", "by_group"),
    "effivlm.tasks._benchmark": ("Benchmark", "Choice", "by_part", "listed", "numbered", "together_all"),
    "effivlm.tasks._judged": ("Judged",),
    "effivlm.tasks._video": ("Video", "VideoChoice"),
}
_PLACE: Final = {name: place for place, names in _PLACES.items() for name in names}
__all__ = sorted(_PLACE)  # type checkers read the imports above


def __getattr__(name: str) -> Any:
    if name not in _PLACE:
        raise AttributeError(f"{__name__} has no {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(_PLACE[name]), name)


def __dir__() -> list[str]:
    return __all__
