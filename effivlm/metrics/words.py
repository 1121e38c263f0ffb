"""Word recall: how many of the words that stand in a picture an answer gives. An own definition, without an official script."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from effivlm.metrics.normalise import ocr


def word_recall(prediction: str, references: Sequence[str]) -> float:
    """Share in [0, 1] of all words of the references that stand in the answer, each as often as it stands there.

    All references together are what is asked for, in any order; case and punctuation do not count (`normalise.ocr`). References
    without a word are all found. Raises ValueError without references.
    """
    if not references:
        raise ValueError("an answer is scored against at least one reference, got none")
    wanted = Counter(word for reference in references for word in ocr(reference).split())
    said = Counter(ocr(prediction).split())
    return (wanted & said).total() / wanted.total() if wanted else 1.0
