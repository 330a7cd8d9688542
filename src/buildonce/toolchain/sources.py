"""The package mirrors this machine is configured for, read from apt's own files.

>>> [source.line() for source in machine_sources("bookworm")]
['deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] <mirror> bookworm main', ...]
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


@dataclass(frozen=True)
class Source:
    """One archive: its address, a suite ("bookworm-updates") and components ("main")."""

    address: str
    suite: str
    components: tuple[str, ...] = ("main",)
    keyring: str = ""

    def line(self) -> str:
        """The source in apt's one-line format."""
        signed = f" [signed-by={self.keyring}]" if self.keyring else ""
        return f"deb{signed} {self.address} {self.suite} {' '.join(self.components)}"

    def without_password(self) -> Source:
        """The source as it may be kept in an image."""
        parts = urlsplit(self.address)
        host = parts.netloc.rpartition("@")[2]
        return replace(self, address=urlunsplit(parts._replace(netloc=host)))


def machine_sources(suite: str, *, root: Path = Path("/etc/apt")) -> list[Source]:
    """The machine's mirrors that carry `suite`, its updates and its security updates.

    Only `main`: it has everything that is wanted, and every mirror has it. Empty where the machine
    is configured for another distribution: mmdebstrap then takes its own default for the suite.
    """
    keyring = str(_DEBIAN_KEYRING) if _DEBIAN_KEYRING.is_file() else ""
    wanted = (suite, f"{suite}-updates", f"{suite}-security")
    found: dict[tuple[str, str], Source] = {}
    files = [root / "sources.list", *sorted((root / "sources.list.d").glob("*"))]
    for file in files:
        if not file.is_file():
            continue
        text = file.read_text("utf-8", "replace")
        match file.suffix:
            case ".list":
                entries = _one_line(text)
            case ".sources":
                entries = _stanzas(text)
            case _:
                continue
        for address, name, components in entries:
            # Third parties' archives also have a suite "bookworm"; a distribution has "main".
            if name in wanted and "main" in components:
                found.setdefault(
                    (address.rstrip("/"), name), Source(address, name, keyring=keyring)
                )
    sources = list(found.values())
    return sources if any(source.suite == suite for source in sources) else []


def _one_line(text: str) -> list[tuple[str, str, list[str]]]:
    entries: list[tuple[str, str, list[str]]] = []
    for line in text.splitlines():
        match = re.match(r"\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(?:#.*)?$", line)
        if match:
            entries.append((match[1], match[2], shlex.split(match[3])))
    return entries


def _stanzas(text: str) -> list[tuple[str, str, list[str]]]:
    entries: list[tuple[str, str, list[str]]] = []
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", uncommented):
        fields: dict[str, list[str]] = {}
        field = ""
        for line in stanza.splitlines():
            if line[:1].isspace():
                fields.setdefault(field, []).extend(line.split())
            elif ":" in line:
                field, _, value = line.partition(":")
                field = field.strip().lower()
                fields[field] = value.split()
        if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
            entries.extend(
                (address, suite, fields.get("components", []))
                for address in fields.get("uris", [])
                for suite in fields.get("suites", [])
            )
    return entries
