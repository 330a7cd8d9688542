"""The planted repository: files, and a history with secrets that are in no file any more.

Whoever wrote it does not want the gate to see: attributes that call text binary, comments and files
that tell scanners to look away, names that do not fit on a line, links that lead out of it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.planted.leaks import LETTERS, Maker

_IDENTITY = {
    "GIT_AUTHOR_NAME": "Planter",
    "GIT_AUTHOR_EMAIL": "planter@example.test",
    "GIT_COMMITTER_NAME": "Planter",
    "GIT_COMMITTER_EMAIL": "planter@example.test",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}

# What is meant to silence scanners; none of it may have a say.
SILENCERS: Mapping[str, str] = {
    ".gitattributes": "* -diff\n*.py binary\nvendors/** linguist-generated\n",
    ".gitleaks.toml": 'title = "nothing"\n[allowlist]\npaths = [".*"]\nregexes = [".*"]\n',
    "gitleaks.toml": '[allowlist]\npaths = [".*"]\n',
    ".semgrepignore": "*\n",
    "src/.semgrepignore": "*\n",
    ".cfnlintrc": 'ignore_checks: ["E", "W", "I"]\nignore_templates: ["**/*"]\n',
    "infrastructure/.cfnlintrc": 'ignore_checks: ["E", "W", "I"]\n',
    "osv-scanner.toml": "[[PackageOverrides]]\nignore = true\n",
    "setup.cfg": "[cfn-lint]\nignore_checks = E\n",
    # What Python would import from the working directory, in place of its own modules.
    **{f"{name}.py": 'raise SystemExit("{}")\n' for name in ("ast", "json", "pathlib", "token")},
}


class Repository:
    """A Git repository that grows commit by commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seconds = 1_700_000_000
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, standard_input: bytes | None = None) -> str:
        """Run git here; the same commands give the same commits."""
        self._seconds += 60
        moment = f"{self._seconds} +0000"
        outer = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.root,
            env={**outer, **_IDENTITY, "GIT_AUTHOR_DATE": moment, "GIT_COMMITTER_DATE": moment},
            input=standard_input,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode().strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode() if isinstance(text, str) else text)

    def commit(self, message: str, *options: str) -> str:
        """Commit all that is there; the commit's hash."""
        self.git("add", "--all", "--force")
        self.git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", message, *options)
        return self.git("rev-parse", "HEAD")


def plant_history(repository: Repository, maker: Maker) -> dict[str, str]:
    """Commits with secrets that are gone from the files; value by the path each was in."""
    values: dict[str, str] = {}

    def secret(path: str) -> dict[str, str]:
        values[path] = f"ghp_{maker.some(36)}"
        return {path: f'T = "{values[path]}"\n'}

    repository.write({"README.md": "A shop.\n", **SILENCERS})
    repository.commit("first")
    repository.write(secret("past/removed.py"))
    repository.commit("a token")
    (repository.root / "past/removed.py").unlink()
    repository.commit("no token")

    # Changed in place: the file is still there, and harmless now.
    repository.write(secret("past/changed.py"))
    repository.commit("settings")
    repository.write({"past/changed.py": 'T = os.environ["T"]\n'})
    repository.commit("settings from outside")

    # An evil merge: what it brings is on neither of its sides.
    repository.git("switch", "--quiet", "--create", "side")
    repository.write({"past/side.txt": "side\n"})
    repository.commit("side")
    repository.git("switch", "--quiet", "main")
    repository.write({"past/main.txt": "main\n"})
    repository.commit("main")
    repository.git("merge", "--quiet", "--no-ff", "--no-commit", "side")
    repository.write(secret("past/merged.py"))
    repository.commit("merge side")
    (repository.root / "past/merged.py").unlink()
    repository.commit("tidy")

    # On a branch that was never merged, at a tag that no branch has, and in a stash.
    repository.git("switch", "--quiet", "--create", "forgotten")
    repository.write(secret("past/branch.py"))
    repository.commit("an attempt")
    repository.git("switch", "--quiet", "--create", "tagged", "main")
    repository.write(secret("past/tagged.py"))
    repository.commit("a release")
    repository.git("tag", "--annotate", "v0.1", "-m", "v0.1")
    repository.git("switch", "--quiet", "main")
    repository.git("branch", "--quiet", "-D", "tagged")
    repository.write(secret("past/stashed.py"))
    repository.git("stash", "push", "--quiet", "--include-untracked")

    # Not in a file at all.
    values["message of a commit"] = f"ghp_{maker.some(36)}"
    repository.commit(f"try with {values['message of a commit']}")
    values["message of a tag"] = f"glpat-{maker.some(20)}"
    repository.git("tag", "--annotate", "v0.2", "-m", f"made with {values['message of a tag']}")

    # Renamed after the secret was taken out of it.
    repository.write(secret("past/before.py"))
    repository.commit("before")
    repository.write({"past/before.py": "T = None\n"})
    repository.commit("after")
    repository.git("mv", "past/before.py", "past/after.py")
    repository.commit("renamed")
    return values


def break_histories(folder: Path) -> None:
    """Repositories that cannot be read to their ends, each a bare one in a folder of its own."""
    for name in ("whole", "missing-file", "missing-commit", "damaged-file", "no-repository"):
        repository = Repository(folder / name)
        repository.write({"a.txt": "one\n"})
        repository.commit("one")
        repository.write({"a.txt": "two\n"})
        repository.commit("two")
        which = "HEAD~1" if name == "missing-commit" else "HEAD~1:a.txt"
        found = repository.git("rev-parse", which)
        git = folder / name / ".git"
        stored = git / "objects" / found[:2] / found[2:]
        if name.startswith("missing"):
            stored.unlink()
        elif name.startswith("damaged"):
            stored.chmod(0o644)
            stored.write_bytes(b"not zlib")
        elif name == "no-repository":
            (git / "HEAD").unlink()


def plant_oddities(root: Path, maker: Maker) -> dict[str, str]:
    """Files whose names or places are odd, each with a secret; value by name."""
    values: dict[str, str] = {}
    deep = "/".join(["deep"] * 60)
    for name in (
        "odd/-rf.py", "odd/with space.py", "odd/quo\"te's.py", "odd/new\nline.py",
        "odd/\x1b[31mred\x1b[0m.py", "odd/$(touch pwned).py", "odd/ünïcödé-ключ.py",
        "odd/%2e%2e.py", "odd/a;b|c&d.py", f"odd/{deep}/end.py", "odd/.hidden.py",
        "tests/fixtures/data.py", "vendor/lib/a.py",
        "build/out.min.js", "odd/no-extension",
    ):  # fmt: skip
        values[name] = f"ghp_{maker.some(36)}"
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'T = "{values[name]}"\n', "utf-8")
    # After many lines, and on a line that is longer than any screen.
    values["odd/large.txt"] = f"ghp_{maker.some(36)}"
    filler = "".join(f"line {number} of a log that nobody reads\n" for number in range(100_000))
    (root / "odd/large.txt").write_text(f"{filler}T = {values['odd/large.txt']}\n", "utf-8")
    values["odd/long.txt"] = f"ghp_{maker.some(36)}"
    long = "word " * 200_000
    (root / "odd/long.txt").write_text(f"{long} {values['odd/long.txt']} {long}\n", "utf-8")
    # In clear after bytes that are no UTF-8.
    values["odd/latin1.ini"] = f"ghp_{maker.some(36)}"
    (root / "odd/latin1.ini").write_bytes(
        b"owner = Bj\xf6rn\n" + f"t = {values['odd/latin1.ini']}\n".encode()
    )
    (root / "odd/outside").symlink_to("/etc/passwd")
    (root / "odd/above").symlink_to("../../../..")
    (root / "odd/loop").symlink_to(".")
    (root / "odd/nowhere").symlink_to("gone")
    assert not set("".join(values.values())) - set(LETTERS) - {"_"}
    return values
