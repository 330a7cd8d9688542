"""Environment files: lines of `NAME=value`, with the quoting and the `$NAME` of a shell.

    File.parse("A=1\\nB='$A' ${A}\\n").expanded({})       # {"A": "1", "B": "$A 1"}

A value without quotes, backslashes and `$NAME` is taken as it stands. In others, words are split
and quotes removed as a shell would; a command (`$(…)`) is refused, never run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from buildonce.engine.errors import QueryFailed

_EXPORT = re.compile(r"^export\s+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL = re.compile(r"[`\"'\\]|\$[A-Za-z_{(]")
_PARAMETER = re.compile(
    r"\{(?P<braced>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<rule>:?[-+?])(?P<word>[^{}]*))?\}"
    r"|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)"
)


@dataclass(frozen=True, slots=True)
class File:
    """Variables in the order in which they came.

    Attributes:
        hidden: variables that others may refer to and that are not part of it.
    """

    lines: tuple[tuple[str, str], ...] = ()
    hidden: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> File:
        """The variables of a file's content; the last of a name counts."""
        made = cls()
        for line in text.split("\n"):
            name, _, value = _EXPORT.sub("", line.strip()).partition("=")
            if name and not name.startswith("#"):
                made = made.put(name, value)
        return made

    def put(self, name: str, value: str) -> File:
        """With a variable, in its old place when there was one."""
        if any(known == name for known, _ in self.lines):
            lines = tuple((n, value if n == name else v) for n, v in self.lines)
        else:
            lines = (*self.lines, (name, value))
        return replace(self, lines=lines)

    def drop(self, name: str) -> File:
        """Without a variable."""
        return replace(self, lines=tuple(line for line in self.lines if line[0] != name))

    def namespace(self, prefix: str) -> File:
        """What begins with `prefix`, without it: `myApp`, `my_app` and `MY_APP_` are the same."""
        words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", prefix).replace("-", "_").strip("_ ")
        starts = {f"{words}_".lower(), f"{words.replace('_', '')}_".lower()}
        made = replace(self, lines=())
        for name, value in sorted(self.lines):
            start = next((s for s in starts if name.lower().startswith(s)), None)
            if start is None:
                made = replace(made, hidden=(*made.hidden, (name, value)))
            else:
                made = made.put(name[len(start) :], value)
        return made

    def text(self) -> str:
        """As the content of a file."""
        return "".join(f"{name}={value}\n" for name, value in self.lines)

    def value(self, name: str, outside: Mapping[str, str]) -> str | None:
        """A variable's value, what it refers to replaced; None where there is no such variable.

        Args:
            outside: where names that the file does not have are looked up.

        Raises:
            QueryFailed: it refers to what is not set, or to itself, or is no value of a shell.
        """
        if name not in dict(self.lines):
            return None
        return _Evaluation(dict(self.hidden) | dict(self.lines), outside).value(name)

    def expanded(self, outside: Mapping[str, str]) -> dict[str, str]:
        """Every variable as `value` gives it."""
        evaluation = _Evaluation(dict(self.hidden) | dict(self.lines), outside)
        return {name: evaluation.value(name) for name, _ in sorted(self.lines)}


class _Evaluation:
    def __init__(self, raw: Mapping[str, str], outside: Mapping[str, str]) -> None:
        self._raw = raw
        self._outside = outside
        self._known: dict[str, str] = {}
        self._under_way: list[str] = []

    def value(self, name: str) -> str:
        if name not in self._known:
            if name in self._under_way:
                chain = " -> ".join([*self._under_way, name])
                raise QueryFailed(f"circular dependency detected: {chain}")
            self._under_way.append(name)
            try:
                self._known[name] = self._evaluate(self._raw[name])
            except QueryFailed as error:
                raise QueryFailed(f"{name}: {error}") from None
            finally:
                self._under_way.pop()
        return self._known[name]

    def _evaluate(self, raw: str) -> str:
        if not _SHELL.search(raw):
            return raw
        return " ".join(_Words(raw, self._look_up).split())

    def _look_up(self, name: str) -> str:
        if name in self._raw:
            return self.value(name)
        return self._outside.get(name, "")


class _Words:
    """Splits a value into a shell's words."""

    def __init__(self, text: str, look_up: Callable[[str], str]) -> None:
        self._text = text
        self._look_up = look_up
        self._at = 0
        self._words: list[str] = []
        self._word: str | None = None

    def split(self) -> list[str]:
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            if char.isspace():
                self._end()
            elif char == "#" and self._word is None:
                break
            elif char in "'\"":
                self._quoted(char)
                continue
            elif char == "\\":
                self._at += 1
                self._add(text[self._at : self._at + 1])
            elif char == "`" or text.startswith("$(", self._at):
                raise QueryFailed("commands are not run in environment files")
            elif char == "$":
                for number, part in enumerate(re.split(r"[ \t\n]+", self._parameter())):
                    if number:
                        self._end()
                    if part:
                        self._add(part)
                continue
            else:
                self._add(char)
            self._at += 1
        self._end()
        return self._words

    def _add(self, text: str) -> None:
        self._word = (self._word or "") + text

    def _end(self) -> None:
        if self._word is not None:
            self._words.append(self._word)
            self._word = None

    def _quoted(self, quote: str) -> None:
        self._add("")
        self._at += 1
        text = self._text
        while self._at < len(text) and text[self._at] != quote:
            char = text[self._at]
            if quote == '"' and char == "$":
                self._add(self._parameter())
                continue
            if quote == '"' and char == "`":
                raise QueryFailed("commands are not run in environment files")
            if (
                quote == '"'
                and char == "\\"
                and text[self._at + 1 : self._at + 2] in tuple('$`"\\')
            ):
                self._at += 1
                char = text[self._at]
            self._add(char)
            self._at += 1
        if self._at >= len(text):
            raise QueryFailed(
                f"parse error: {text!r}: reached the end without closing quote {quote}"
            )
        self._at += 1

    def _parameter(self) -> str:
        """What `$NAME` or `${NAME…}`, which begins here, stands for."""
        found = _PARAMETER.match(self._text, self._at + 1)
        if found is None:
            if self._text.startswith(("$(", "${"), self._at):
                raise QueryFailed(f"parse error: {self._text!r}")
            self._at += 1
            return "$"
        self._at = found.end()
        name = found["braced"] or found["plain"]
        value, rule, word = self._look_up(name), found["rule"] or "", found["word"] or ""
        if rule.endswith("+"):
            return word if value else ""
        if value:
            return value
        if rule.endswith("-"):
            return word
        raise QueryFailed(f"{name}: {word or 'unbound variable'}")
