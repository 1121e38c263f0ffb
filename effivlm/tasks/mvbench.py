"""MVBench: multiple choice over short videos, in twenty kinds of motion and order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from effivlm.data.rows import CONFIG, Row
from effivlm.data.source import Source
from effivlm.metrics.mvbench import mvbench, mvbench_accuracy, mvbench_letter
from effivlm.records import Answer, Sample
from effivlm.tasks._benchmark import LETTERS, numbered
from effivlm.tasks._video import VideoChoice

FOLDERS = {
    "action_antonym": "ssv2_video",
    "action_count": "perception/videos",
    "action_localization": "sta/sta_video",
    "action_prediction": "star/Charades_v1_480",
    "action_sequence": "star/Charades_v1_480",
    "character_order": "perception/videos",
    "counterfactual_inference": "clevrer/video_validation",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "moving_attribute": "clevrer/video_validation",
    "moving_count": "clevrer/video_validation",
    "moving_direction": "clevrer/video_validation",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "scene_transition": "scene_qa/video",
    "state_change": "perception/videos",
    "unexpected_action": "FunQA_test/test",
}
"""Where the videos of each kind lie among the published files; the name alone is enough inside a zip file."""


class Mvbench(VideoChoice):
    """MVBench (arXiv 2311.17005) in 19 of its 20 kinds with 200 questions each; the score is the mean over kinds.

    `fine_grained_pose` is left out: its videos (NTU RGB+D) are given to applicants only, so the score compares with others over
    the same 19. Licence: MIT; videos under the terms of their sets. Official scorer: the letter, as in lmms-eval's `mvbench`
    (`metrics/mvbench.py`). Guessing scores 27.3.
    """

    source: ClassVar[Source] = Source(
        homes=("OpenGVLab/MVBench",),
        revision="video",
        configs=tuple(FOLDERS),
        split="train",
        rows=3800,
        columns={"video": "text", "question": "text", "candidates": "[text]", "answer": "text"},
        files=("video/*.zip",),
        licence="MIT; videos under the terms of their sets",
    )
    index: ClassVar[tuple[str, ...]] = ("video", "question")
    metric: ClassVar[str] = "accuracy_by_kind"
    answer_type: ClassVar[str] = "choice"
    profiles: ClassVar[tuple[str, ...]] = ("fixed", "compat")
    max_new_tokens: ClassVar[int] = 16
    chance: ClassVar[float] = 27.3
    average: ClassVar[str] = "parts"

    def name(self, row: Row, item: Any) -> str:
        return f"{row[CONFIG]}/{numbered(row, row['video'] + row['question'])}"

    def stratum(self, row: Row) -> str:
        return str(row[CONFIG])

    def videos(self, row: Row) -> Sequence[str]:
        folder = FOLDERS[row[CONFIG]]
        return [f"{start}{folder}/{row['video']}" for start in ("", "video/", "data0613/")] + [row["video"]]

    def options(self, row: Row) -> Sequence[str]:
        return list(row["candidates"])

    def prompt(self, row: Row, item: Any) -> str:
        options = "\n".join(f"({mark}) {text}" for mark, text in zip(LETTERS, row["candidates"], strict=False))
        return f"Question:{row['question']}\nOption:\n{options}\nOnly give the best option."

    def references(self, row: Row, item: Any) -> tuple[str, ...]:
        if row["answer"] not in row["candidates"]:
            raise ValueError(f"the answer {row['answer']!r} is none of the options")
        return (LETTERS[row["candidates"].index(row["answer"])],)

    def read(self, text: str, sample: Sample) -> str:
        return mvbench_letter(text, sample.facts["options"], self.profile)

    def score(self, text: str, sample: Sample) -> float:
        return mvbench(text, sample.references, sample.facts["options"], self.profile)

    def total(self, answers: Sequence[Answer]) -> float:
        """Mean over kinds of the accuracy in each; in `compat` empty answers are in none."""
        kinds = {one.part for one in answers}
        return sum(self._accuracy(kind, answers) for kind in kinds) / len(kinds)

    def reported(self, part: str) -> Sequence[str]:
        return (part,)

    def _accuracy(self, kind: str, answers: Sequence[Answer]) -> float:
        own = [(one.score, one.text.strip()) for one in answers if one.part == kind and one.score is not None]
        return mvbench_accuracy([score for score, _ in own], [text for _, text in own], self.profile)
