"""Budgets: how much stays, of tokens, entries, weights or the bits of weights, in the words of the field.

| form | kind | what stays |
|---|---|---|
| `0.10` | fraction | this fraction of a sample's visual tokens, or of a layer's prompt entries |
| `64tok` | tokens | 64 visual tokens of a sample, or 64 prompt entries of a layer on average; all, where there are no more |
| `sparsity0.50` | sparsity | all weights but this fraction, which becomes zero |
| `2:4` | n:m | 2 of every 4 neighbouring weights |
| `w4g128` | bits | 4 bits of a weight, each group of 128 with its scale and zero point; `w8`: one scale a channel |
| `fp8`, `int8` | bits | 8 bits of a weight, activations alike |
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

KINDS = ("fraction", "tokens", "sparsity", "n:m", "bits")
TOKEN_KINDS = ("fraction", "tokens")
"""Kinds that count what a prompt makes; the others are about weights."""
DENSE_BITS = 16
LONGEST = 60  # characters of a budget
FORMS = "64tok, sparsity0.50, 2:4, w4g128, fp8, int8"
_TOKENS = re.compile(r"0*([1-9][0-9]{0,8})tok")
_SPARSITY = re.compile(r"sparsity(.+)")
_PATTERN = re.compile(r"0*([1-9][0-9]?):0*([1-9][0-9]?)")
_BITS = re.compile(r"w([2-8])(?:g0*([1-9][0-9]{0,4}))?")
_EIGHT = ("fp8", "int8")

_NAMED = re.compile(r"-(?:keep|sparsity)[0-9]|-(?:[0-9]+:[0-9]+|w[2-8](?:g[0-9]+)?|fp8|int8)-")


def names_one(text: str) -> bool:
    """Whether a text may hold the id of a case: a budget stands in it as in one."""
    return _NAMED.search(text) is not None


@dataclass(frozen=True, slots=True)
class Budget:
    """What stays, exact; built with `Budget.parse("0.10")`: a float would lose tokens (int(1000 * (1 - 0.9)) is 99).

    `share` is the fraction that stays, 0 < share <= 1, None for a number of tokens; `word`: the label, if no fraction.
    """

    share: Fraction | None
    kind: str = "fraction"
    word: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r} of a budget is not one of {', '.join(KINDS)}")
        if self.share is not None and not 0 < self.share <= 1:
            raise ValueError(
                f"budget {float(self.share):g} is not a fraction that stays: it must lie in (0, 1], e.g. 0.10"
            )

    @classmethod
    def parse(cls, text: str | float | Fraction) -> Budget:
        """Read a decimal such as "0.10", or a form of another kind; ValueError names the text when it is neither."""
        if isinstance(text, Fraction):
            return cls(text)
        word = str(text).strip()
        if len(word) <= LONGEST:
            for read in (_tokens, _sparsity, _pattern, _bits):
                if found := read(word):
                    return found
        keep = _decimal(word)
        if keep is None:
            shown = repr(text) if len(word) <= LONGEST else f"{word[:LONGEST]}..."
            raise ValueError(
                f"budget {shown} is not a number: it must be a decimal in (0, 1], e.g. 0.10, or a form such as {FORMS}"
            )
        return cls(keep)

    @property
    def keep(self) -> Fraction:
        """The exact fraction that stays; of bits in theory: those of a group's scale and zero point too, of 16 a weight.

        Raises:
            ValueError: a number of tokens is no fraction, before it is known of how many.
        """
        if self.share is None:
            raise ValueError(f"budget {self.label} is no fraction: it depends on how many tokens there are")
        return self.share

    @property
    def whole(self) -> bool:
        """Whether everything stays, whatever there is."""
        return self.share == 1 and self.kind == "fraction"

    @property
    def numbers(self) -> tuple[int, ...]:
        """The whole numbers in the label: 64tok -> (64,), 2:4 -> (2, 4), w4g128 -> (4, 128), w8, fp8 and int8 -> (8,)."""
        return () if self.kind in ("fraction", "sparsity") else tuple(map(int, re.findall("[0-9]+", self.word)))

    def exact(self, total: int) -> Fraction:
        """How many of `total` should stay, before anything is rounded."""
        if self.share is None:
            return Fraction(min(total, self.numbers[0]))
        return self.share * total

    def of(self, total: int, at_least: int = 1) -> int:
        """How many of `total` stay: rounded half up, never under `at_least`, never over `total`."""
        if self.share is None:
            return min(total, max(at_least, self.numbers[0]))
        above, below = self.share.numerator, self.share.denominator  # whole numbers: methods ask this in every layer
        return min(total, max(at_least, (2 * above * total + below) // (2 * below)))

    @property
    def label(self) -> str:
        """As it is asked for; of a fraction two decimals, more only where two would lie (0.10, 0.015)."""
        return self.word or _shortest(self.keep)

    @property
    def named(self) -> str:
        """The form in case ids: a count of what stays goes under "keep"."""
        return f"keep{self.label}" if self.kind in TOKEN_KINDS else self.label

    @property
    def stored(self) -> float | str:
        """The form in JSON: a fraction as a number, any other kind as its label."""
        return float(self) if self.kind == "fraction" else self.label

    @property
    def form(self) -> str:
        """What a weight of fewer bits becomes: "fp8" and "int8" with activations alike, else "int"; "" where bits stay."""
        return "" if self.kind != "bits" else self.word if self.word in _EIGHT else "int"

    @property
    def rank(self) -> tuple[int, float]:
        """What sorts budgets: kinds apart, the largest of a kind last."""
        return KINDS.index(self.kind), float(self.numbers[0]) if self.share is None else float(self.share)

    def __float__(self) -> float:
        return float(self.keep)


def _decimal(word: str) -> Fraction | None:
    # A long exponent is refused unread: the exact fraction of 1e-99999999 would fill the memory.
    if len(word) > LONGEST or re.search(r"[eE][+-]?0*\d{3}", word):
        return None
    try:
        return Fraction(word)
    except (ValueError, ZeroDivisionError):
        return None


def _shortest(value: Fraction) -> str:
    number = float(value)
    return f"{number:.2f}" if Fraction(f"{number:.2f}") == value else f"{number:.12g}"


def _tokens(word: str) -> Budget | None:
    found = _TOKENS.fullmatch(word)
    return Budget(None, "tokens", f"{found[1]}tok") if found else None


def _sparsity(word: str) -> Budget | None:
    if not (found := _SPARSITY.fullmatch(word)):
        return None
    zeros = _decimal(found[1])
    if zeros is None or not 0 < zeros < 1:
        raise ValueError(f"budget {word!r}: {found[1]!r} is no fraction of zeros in (0, 1), e.g. sparsity0.50")
    return Budget(1 - zeros, "sparsity", f"sparsity{_shortest(zeros)}")


def _pattern(word: str) -> Budget | None:
    if not (found := _PATTERN.fullmatch(word)):
        return None
    stay, among = int(found[1]), int(found[2])
    if stay >= among:
        raise ValueError(f"budget {word!r}: fewer than {among} of every {among} weights must stay, e.g. 2:4")
    return Budget(Fraction(stay, among), "n:m", f"{stay}:{among}")


def _bits(word: str) -> Budget | None:
    if word in _EIGHT:
        return Budget(Fraction(8, DENSE_BITS), "bits", word)
    if not (found := _BITS.fullmatch(word)):
        return None
    width, group = int(found[1]), int(found[2] or 0)
    beside = Fraction(DENSE_BITS + width, group) if group else Fraction(0)  # a channel's scale is next to nothing
    if (share := (width + beside) / DENSE_BITS) > 1:
        raise ValueError(f"budget {word!r}: with the scales of such small groups it takes more than {DENSE_BITS} bits")
    return Budget(share, "bits", f"w{width}g{group}" if group else f"w{width}")
