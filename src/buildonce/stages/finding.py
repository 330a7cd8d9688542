"""What a check found wrong: a failure, and with a severity, a finding."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from buildonce.severity import Severity


@dataclass(frozen=True)
class Failure:
    """One thing that a check found wrong.

    Args:
        id: what it is called: a test ("tests/test_a.py::test_b"), a rule ("F401").
        message: what is wrong, one line.
        path: the file it is in, relative to the source.
        line: the line in it, from 1.
    """

    id: str
    message: str
    path: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.path and self.line else self.path
        # A test's id begins with its file: saying it twice helps nobody.
        named = where is None or self.id.startswith(str(self.path))
        return f"{self.id}: {self.message}" if named else f"{where}: {self.id}: {self.message}"


@dataclass(frozen=True)
class Finding(Failure):
    """A failure that has a severity, and that a waiver may name.

    Args:
        severity: how bad it is.
        cwe: weaknesses that it is an instance of: ("CWE-89",).
        fingerprint: the same for the same finding as long as its line does not change, wherever in
            its file that line moves to; see `fingerprint`.
        aliases: other names for `id` that a waiver may use (a CVE's GHSA).
        remedy: what to do about it.
    """

    severity: Severity = "medium"
    cwe: tuple[str, ...] = ()
    fingerprint: str = ""
    aliases: tuple[str, ...] = ()
    remedy: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that a waiver may call it by."""
        return tuple(name for name in (self.id, *self.aliases, self.fingerprint) if name)

    def __str__(self) -> str:
        weaknesses = f", {', '.join(self.cwe)}" if self.cwe else ""
        return f"{super().__str__()} [{self.severity}{weaknesses}]"


def fingerprint(path: str, rule: str, line: str, *, occurrence: int = 0) -> str:
    """16 hex digits that name a finding without its line number.

    Args:
        path: the file, relative to the source.
        rule: what was found.
        line: the text where it was found; blanks at its ends and runs of them do not count.
        occurrence: how many findings with the same three came before it.
    """
    parts = (path, rule, " ".join(line.split()), str(occurrence))
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:16]


class Fingerprints:
    """Fingerprints of the findings of one run: the second on an equal line gets its own."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def of(self, path: str, rule: str, line: str) -> str:
        """The fingerprint of the next finding of this rule, in this file, on such a line."""
        first = fingerprint(path, rule, line)
        occurrence = self._seen.get(first, 0)
        self._seen[first] = occurrence + 1
        return fingerprint(path, rule, line, occurrence=occurrence)
