"""Runs the planted repository's pipeline and reads what it left in `out/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.planted.marked import place
from tests.planted.repository import HERE, Planted, make
from tests.planted.table import Row

ROOT = HERE.parents[1]
REGISTRY = "127.0.0.1:5080"
BUILDONCE = str(Path(sys.executable).parent / "buildonce")

# Secrets are planted in these; that a rule of `sast` sees one of them too is no false alarm.
_SECRETS = ("addresses/", "harmless/", "keys/", "named/", "odd/", "vendors/")

# What is in no file: by the rule that is to find it.
_MESSAGES = {"github-pat": "message of a commit", "gitlab-pat": "message of a tag"}

WAIVERS = """
[[waivers]]
check = "secrets"
id = "generic-api-key"
path = "named/settings.py"
reason = "its day is over"
expires = 2020-01-31

[[waivers]]
check = "sast"
id = "python-guessable-temporary-file"
path = "src/another.py"
reason = "there is no such file"
expires = 2999-01-31

[[waivers]]
check = "sast"
id = "python-no-umask"
path = "src/service.py"
reason = "a container with one user"
expires = 2999-01-31
"""


@dataclass(frozen=True)
class Outcome:
    """A run.

    Args:
        planted: what was to be found.
        code: how it ended.
        screen: all that it wrote to the terminal.
        out: the folder with its reports.
    """

    planted: Planted
    code: int
    screen: str
    out: Path

    def report(self, check: str, name: str) -> str:
        """A report's text."""
        return (self.out / check / name).read_text("utf-8")

    def sarif(self, check: str) -> dict[str, Any]:
        """A check's SARIF log."""
        log: dict[str, Any] = json.loads(self.report(check, f"{check}.sarif"))
        return log

    @property
    def summary(self) -> dict[str, Any]:
        """The run's `summary.json`."""
        read: dict[str, Any] = json.loads((self.out / "summary.json").read_text("utf-8"))
        return read

    def rows(self) -> list[Row]:
        """Each check: what was planted and what it found."""
        got = {
            "secrets": self._secrets(),
            **self._code(),
            "sca": self._vulnerabilities(),
            "licences": frozenset(r["ruleId"] for r in self.results("licences")),
            "infrastructure": self._infrastructure(),
        }
        return [
            Row(check, wanted, got[check], self.planted.alike[check])
            for check, wanted in self.planted.wanted.items()
        ]

    def results(self, check: str) -> list[dict[str, Any]]:
        """The results of a check's SARIF log, waived ones too."""
        results: list[dict[str, Any]] = self.sarif(check)["runs"][0]["results"]
        return results

    def _secrets(self) -> frozenset[str]:
        # A password in the code is planted there as a flaw, and a secret as well.
        flaws = {
            where.partition(":")[0]
            for where in self.planted.wanted["sast"]
            if where.endswith("CWE-798")
        }
        return frozenset(path for r in self.results("secrets") if (path := _path(r)) not in flaws)

    def _code(self) -> dict[str, frozenset[str]]:
        flaws, examples = set(), set()
        for result in self.results("sast"):
            path, line = _path(result), _line(result)
            if path.startswith("examples/"):
                examples.add(place(path, line, result["ruleId"]))
            elif not path.startswith(_SECRETS):
                flaws |= {place(path, line, cwe) for cwe in result["properties"]["cwe"]}
        return {"sast": frozenset(flaws), "examples": frozenset(examples)}

    def _vulnerabilities(self) -> frozenset[str]:
        document = json.loads(self.report("sca", "vulnerabilities.json"))
        return frozenset(
            f"{found['id']} {found['annotations']['package']}"
            for found in document["scanner"]["result"]
        )

    def _infrastructure(self) -> frozenset[str]:
        checks = self.summary["stages"][0]["checks"]
        (check,) = (one for one in checks if one["check"] == "infrastructure")
        found = {
            place(_path(r), _line(r), r["ruleId"])
            for r in self.results("infrastructure")
            if r["level"] != "note"  # remarks, which fail nothing
        }
        tests = {f["id"].rpartition("::")[2] for f in check["failures"] if "::" in f["id"]}
        return frozenset(found | tests)


def run(
    folder: Path, *, registry: str = REGISTRY, more: Mapping[str, str] | None = None
) -> Outcome:
    """Make the repository in a folder and run its pipeline.

    Args:
        folder: empty, or not there yet.
        registry: where the images of tools are, when none can be pulled.
        more: of the environment.
    """
    planted = make(folder, _configuration(registry))
    variables = {**os.environ, "BUILDONCE_HOME": str(folder / "home"), **(more or {})}
    done = subprocess.run(
        [BUILDONCE, "run", "--progress=plain", sys.executable, str(HERE / "program.py"),
         str(planted.beside)],
        cwd=planted.repository, env=variables, capture_output=True, check=False,
    )  # fmt: skip
    screen = (done.stdout + done.stderr).decode("utf-8", "surrogateescape")
    return Outcome(planted, done.returncode, screen, planted.repository / "out")


def _configuration(registry: str) -> str:
    """This project's configuration of images and tools, with another registry, and waivers."""
    text = (ROOT / "ci/pipeline.toml").read_text("utf-8")
    tools = text[text.index("[images]") : text.index("[stages.commit]")]
    project = f'[project]\nname = "planted"\nrepository = "{registry}/planted"\n\n'
    return (project + tools + WAIVERS).replace(REGISTRY, registry)


def _path(result: Mapping[str, Any]) -> str:
    if "locations" not in result:
        return _MESSAGES[result["ruleId"]]
    location = result["locations"][0]["physicalLocation"]
    return unquote(location["artifactLocation"]["uri"])


def _line(result: Mapping[str, Any]) -> int | None:
    line: int | None = result["locations"][0]["physicalLocation"].get("region", {}).get("startLine")
    return line
