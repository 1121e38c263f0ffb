"""The two profiles of a scorer: the rule that is meant, and what the paper's code does."""

from __future__ import annotations

from typing import Literal, get_args

Profile = Literal["fixed", "compat"]
FIXED: Profile = "fixed"


def compat(profile: Profile) -> bool:
    """Whether a scorer must do what EffiVLM-Bench's fork of lmms-eval (0.3.0) does, quirks included.

    A scorer whose two profiles agree asks all the same, so that a misspelt profile is refused everywhere.
    Raises ValueError for a profile that is none.
    """
    if profile not in get_args(Profile):
        raise ValueError(f"profile {profile!r} is not one of {', '.join(get_args(Profile))}")
    return profile == "compat"
