"""Which samples a model is calibrated on, none of them ever a test sample, and what names the choice."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from effivlm.data.pictures import picture
from effivlm.data.rows import Row, open_rows
from effivlm.data.source import Source
from effivlm.models._sources import PACKAGE, ModelSource, checkpoints
from effivlm.records import Sample
from effivlm.tasks._folder import Folder

MICRO, ONEVISION, AUTO = "micro", "sharegpt4v", "auto"
SHAREGPT4V = Source(
    homes=("lmms-lab/LLaVA-OneVision-Data",),
    configs=("sharegpt4v(coco)",),
    split="train",
    columns={"id": "text", "image": "image?", "conversations": "any"},
    licence="Apache-2.0 (set); pictures of COCO, CC BY 4.0; answers of GPT-4V",
)


@dataclass(frozen=True, slots=True)
class Drawn:
    """Samples to calibrate on, with an answer each; `name` says which set, `fingerprint` which samples of it."""

    name: str
    samples: Sequence[Sample]

    @property
    def fingerprint(self) -> str:
        """Of every question, answer and picture."""
        whole = hashlib.sha256()
        for sample in self.samples:
            whole.update(
                repr((sample.id, sample.prompt, sample.places, sample.references[:1])).encode("utf-8", "surrogatepass")
            )
            for image in (*sample.images, *sample.video):
                whole.update(repr((image.size, image.mode)).encode() + image.tobytes())
        return whole.hexdigest()[:20]


def named(asked: str, source: ModelSource) -> str:
    """The set that "auto" stands for: the micro generators' for a model that ships with them, else the paper's.

    Raises:
        ValueError: there is no such set, and no such folder.
    """
    if asked == AUTO:
        packaged = {name for name, (place, _) in checkpoints().items() if place.startswith(PACKAGE)}
        return MICRO if source.name in packaged else ONEVISION
    if asked not in SETS and not Path(asked).is_dir():
        raise ValueError(f"calibration {asked!r} is not one of {', '.join((AUTO, *SETS))}, and no folder of questions")
    return asked


def identity(name: str) -> dict[str, str]:
    """What names the content of a user's own folder beside its place."""
    return {} if name in SETS else {"content": Folder("calibration", name).identity()}


def drawn(asked: str, source: ModelSource, count: int, seed: int, videos: bool, data: str = "") -> Drawn:
    """`count` samples of a calibration set, the same ones for a seed.

    `videos`: whether the model takes them; `data`: where published sets lie.

    Raises:
        ValueError: the set is empty, has fewer samples, lacks an answer, or none of its samples shows anything.
    """
    name = named(asked, source)
    found = SETS[name](count, seed, videos, data) if name in SETS else _folder(name, count, seed)
    if not found:
        raise ValueError(f"calibration set {name!r} is empty")
    if len(found) < count:
        raise ValueError(f"calibration set {name!r} has {len(found)} samples, fewer than the {count} asked for")
    if lacking := [sample.id for sample in found if not sample.references or not sample.references[0]]:
        raise ValueError(f"calibration set {name!r}: {lacking[0]!r} has no answer")
    if not any(sample.images or sample.video for sample in found):
        raise ValueError(f"calibration set {name!r} holds text alone: no visual token would reach the model")
    return Drawn(name, found)


def _micro(count: int, seed: int, videos: bool, data: str) -> list[Sample]:
    """Pictures of the training split, all kinds in turn, each with one question."""
    from effivlm_micro.data import SUFFIXES
    from effivlm_micro.heldout import MAKERS
    from effivlm_micro.heldout import named as maker

    samples: list[Sample] = []
    rng = Random(f"calibration/{seed}")
    kinds = list(MAKERS)
    while len(samples) < count:
        kind = kinds[len(samples) % len(kinds)]
        made = maker(MAKERS[kind])(rng, "train")
        one = rng.choice(made.asked)
        if made.kind == "clip" and not videos:
            kinds.remove(kind)
            continue
        images, video = ((), made.images) if made.kind == "clip" else (made.images, ())
        name = f"calibration-{seed}-{len(samples):05d}"
        samples.append(Sample(name, one.question + SUFFIXES[kind], (one.answer,), tuple(images), tuple(video)))
    return samples


def _sharegpt4v(count: int, seed: int, videos: bool, data: str) -> list[Sample]:
    """Pictures with a question and a long answer, of rows drawn by the seed."""
    rows = open_rows("calibration", SHAREGPT4V, data)
    total = len(rows.index(("id",)))
    places = sorted(Random(f"calibration/{seed}").sample(range(total), min(count, total)))
    rows.choose(places)
    return [_of_row(rows[place], rows.folder) for place in places]


def _of_row(row: Row, folder: Path | None) -> Sample:
    """The first question of a conversation and its answer; the marker of the image is no text of it."""
    turns: Sequence[Mapping[str, Any]] = row["conversations"]
    said = {str(turn["from"]): str(turn["value"]) for turn in reversed(list(turns))}
    if not {"human", "gpt"} <= said.keys():
        raise ValueError(f"calibration row {row['id']!r} holds no question with an answer")
    images = (picture(row["image"], folder),) if row.get("image") else ()
    return Sample(str(row["id"]), said["human"].replace("<image>", "").strip(), (said["gpt"],), images)


def _folder(name: str, count: int, seed: int) -> list[Sample]:
    """A user's own questions, with the first reference as the answer."""
    found = Folder("calibration", name).samples(count, seed)
    return [found[number] for number in range(len(found))][:count]


SETS: Mapping[str, Callable[[int, int, bool, str], list[Sample]]] = {MICRO: _micro, ONEVISION: _sharegpt4v}
