"""How bad an advisory is: a score from its CVSS vectors, else the word that its source gives it.

score_of("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H")      # 9.8
"""

from __future__ import annotations

from typing import Literal

from cvss import CVSS2, CVSS3, CVSS4
from cvss.exceptions import CVSSError

from buildonce.severity import Severity

Rated = Severity | Literal["unknown"]

_MAX_VECTOR = 400

# Words that GitHub's and other databases use beside or instead of a vector.
_WORDS: dict[str, Severity] = {
    "none": "info",
    "negligible": "info",
    "unimportant": "info",
    "low": "low",
    "moderate": "medium",
    "medium": "medium",
    "important": "high",
    "high": "high",
    "critical": "critical",
}


def score_of(vector: str) -> float | None:
    """The base score of a CVSS vector of version 2, 3.0, 3.1 or 4.0; None when it is none."""
    if len(vector) > _MAX_VECTOR:
        return None
    try:
        if vector.startswith("CVSS:4"):
            return float(CVSS4(vector).base_score)
        if vector.startswith("CVSS:3"):
            return float(CVSS3(vector).base_score)
        return float(CVSS2(vector.removeprefix("(").removesuffix(")")).base_score)
    except (CVSSError, ValueError, KeyError, ArithmeticError):
        return None


def from_word(word: object) -> Severity | None:
    """What a source's own word means; None when it says nothing."""
    return _WORDS.get(word.strip().lower()) if isinstance(word, str) else None
