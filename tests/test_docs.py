"""What the documents tell people to type exists, and what they link to is there."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from buildonce import cli

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ids = [page.relative_to(ROOT).as_posix() for page in PAGES]


def code(text: str) -> Iterator[str]:
    """Lines of code blocks, and code in the middle of a sentence."""
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    for inline in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)):
        yield " ".join(inline.split())


def commands(lines: Iterator[str]) -> Iterator[str]:
    """What follows `buildonce` in each, as far as `#`, `|`, two spaces or a closing bracket."""
    for line in lines:
        for match in re.finditer(r"(?:^|[\s(])buildonce ([a-z][^#|;&)]*?)(?=$|  |[#|;&)])", line):
            yield match.group(1).strip()


@cache
def command(area: str) -> Any:
    return typer.main.get_command(cli.build([area]))


def problem(line: str) -> str | None:
    """What is wrong with a command line that is written somewhere; None: nothing."""
    words = shlex.split(line)
    found = command(words[0])
    while getattr(found, "commands", None) is not None:
        if not words:
            return None  # a group as such
        name = words.pop(0)
        if name.isupper():
            return None  # COMMAND: any of them
        if name not in found.commands:
            return f"buildonce {line}: there is no {name}"
        found = found.commands[name]
    known = {option for parameter in found.params for option in parameter.opts} | {"--help"}
    for word in words:
        if not word.startswith("-") and found.name == "run":
            break  # the rest is another program's
        name = word.partition("=")[0]
        if word.startswith("--") and len(word) > 2 and name not in known:
            return f"buildonce {line}: there is no {name}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_exist(page: Path) -> None:
    written = list(commands(code(page.read_text("utf-8"))))
    assert [wrong for line in written if (wrong := problem(line))] == []


def test_commands_are_found_where_they_stand() -> None:
    text = "a `buildonce status --json` b\n```\n$ buildonce deploy ENV  # x\nmake\n```\n"
    assert list(commands(code(text))) == ["deploy ENV", "status --json"]
    assert problem("deploy staging --nonsense") == (
        "buildonce deploy staging --nonsense: there is no --nonsense"
    )
    assert problem("release lst") == "buildonce release lst: there is no lst"
    assert problem("run --progress=plain python x.py --own") is None


@pytest.mark.parametrize("entry", cli.COMMANDS, ids=lambda entry: entry.name)
def test_examples_of_the_help_exist(entry: cli.Entry) -> None:
    found = command(entry.name).commands[entry.name]
    for one in (found, *getattr(found, "commands", {}).values()):
        text = f"{one.help or ''}\n{one.epilog or ''}"
        for line in commands(iter(text.splitlines())):
            assert problem(line.rstrip(".`,")) is None


def test_the_readme_lists_the_commands() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [entry.name for entry in cli.COMMANDS if entry.name not in text]
    assert missing == ["session"]  # programs start it, nobody types it


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_targets_of_make_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    written = re.findall(r"(?:^|\n)\$? ?make ([a-z-]+)", "\n".join(code(page.read_text("utf-8"))))
    assert [target for target in written if target not in targets] == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_shows_the_pipeline_as_it_is() -> None:
    main = textwrap.dedent((ROOT / "ci/main.py").read_text("utf-8").partition("async def main")[2])
    body = textwrap.dedent(main.partition("\n")[2].partition("\n\n\nif __name__")[0])
    shown = (ROOT / "README.md").read_text("utf-8").split("```python\n")[1].partition("```")[0]
    assert shown.strip() == body.strip()
