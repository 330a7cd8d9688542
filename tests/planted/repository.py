"""Makes the planted repository, and what lies beside it; says what is to be found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from buildonce.stages.infrastructure import UNTESTED
from tests.planted import packages
from tests.planted.history import (
    Repository,
    break_histories,
    plant_history,
    plant_oddities,
)
from tests.planted.leaks import Maker, harmless, planted
from tests.planted.marked import Marked, read_marked

HERE = Path(__file__).parent
RULES = HERE.parent / "stages" / "rules"
SEED = 20261121

_TEST = """\
from pathlib import Path

def test_{name}():
    text = Path("infrastructure/{file}").read_text()
    assert {claim} in text
"""

# A line with something on it, that a scanner could stumble over.
_SAYS_SOMETHING = re.compile(r"\w\s*\(|\w+\s*[=:]\s*\S|^[A-Z]+ \S")


@dataclass(frozen=True)
class Planted:
    """What was made.

    Args:
        repository: the checkout.
        beside: what the pipeline needs beside it.
        wanted: what each check is to find, by its name; "examples" are those of the rules.
        alike: how many harmless look-alikes there are for each.
        values: secrets that must not be shown anywhere.
    """

    repository: Path
    beside: Path
    wanted: Mapping[str, frozenset[str]]
    alike: Mapping[str, int]
    values: tuple[str, ...]


def make(folder: Path, configuration: str) -> Planted:
    """Make it in a folder.

    Args:
        folder: empty, or not there yet.
        configuration: the text of `ci/pipeline.toml`.
    """
    maker = Maker(SEED)
    repository = Repository(folder / "repository")
    past = plant_history(repository, maker)
    code = read_marked(HERE / "code", below="src/")
    templates = read_marked(HERE / "infrastructure", below="infrastructure/")
    secrets, innocent = planted(maker), harmless(maker)
    repository.write({
        **code.files, **templates.files, **_tests_of(templates), **innocent,
        **{secret.path: secret.text for secret in secrets},
        "ci/pipeline.toml": configuration, ".gitignore": "out/\n__pycache__/\n",
    })  # fmt: skip
    odd = plant_oddities(repository.root, maker)
    # For scanners that go by what was committed: these ask them not to look at all.
    repository.write({".gitleaksignore": _ignored(secrets[0].path, [*odd, *past])})
    repository.commit("everything else")

    examples = read_marked(RULES)
    beside = folder / "beside"
    _write(beside / "examples", examples.files)
    _write(beside / "image/site-packages", packages.python_packages())
    _write(beside / "image/system", packages.system_files())
    break_histories(beside / "histories")
    paths = [*past, *odd, *(secret.path for secret in secrets)]
    return Planted(
        repository=repository.root,
        beside=beside,
        wanted={
            "secrets": frozenset(paths),
            "sast": code.wanted,
            "examples": frozenset(f"examples/{place}" for place in examples.wanted),
            "sca": packages.wanted_vulnerabilities(),
            "licences": packages.wanted_licences(),
            "infrastructure": templates.wanted
            | {f"infrastructure/untested.yaml {UNTESTED}", "test_repository"},
        },
        alike={
            "secrets": _lines(innocent),
            "sast": _lines(code.files) - _marked_lines(code),
            "examples": _lines(examples.files) - _marked_lines(examples),
            "sca": len(packages.HARMLESS) + len(packages.SYSTEM_HARMLESS),
            "licences": sum(one.acceptable for one in packages.LICENCES),
            "infrastructure": _lines(templates.files) - _marked_lines(templates),
        },
        values=(*past.values(), *odd.values(), *(secret.value for secret in secrets)),
    )


def _tests_of(templates: Marked) -> dict[str, str]:
    """A test for each template but one; that of another says that its stack is wrong."""
    made = {}
    for path in templates.files:
        file = path.removeprefix("infrastructure/")
        name = re.sub(r"\W", "_", file.rpartition(".")[0])
        claim = '"a vault"' if name == "repository" else '"Resources"'
        if name not in ("untested", "buildspec", "parameters"):
            text = _TEST.format(name=name, file=file, claim=claim)
            made[f"tests/infrastructure/test_{name}.py"] = text
    return made


def _ignored(path: str, others: list[str]) -> str:
    """A `.gitleaksignore` that names findings as gitleaks does."""
    names = [*others, path]
    return "".join(f"{name}:github-pat:1\n" for name in names if "\n" not in name)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _lines(files: Mapping[str, str]) -> int:
    return sum(
        bool(_SAYS_SOMETHING.search(line)) for text in files.values() for line in text.splitlines()
    )


def _marked_lines(marked: Marked) -> int:
    return len({wanted.rpartition(" ")[0] for wanted in marked.wanted})
