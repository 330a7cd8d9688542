"""What the image's digest rests on: pinned dependencies, bytecode by content, a bounded context."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import buildonce.dashboard
from buildonce.dashboard import bytecode

PACKAGE = Path(buildonce.dashboard.__file__).parent
ROOT = Path(__file__).parents[2]


def pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_every_dependency_is_pinned_by_hash_and_names_no_index() -> None:
    text = (PACKAGE / "requirements.txt").read_text()
    entries = re.split(r"\n(?=\S)", re.sub(r"(?m)^\s*#.*\n", "", text).strip())
    assert all(re.match(r"[\w.-]+==", entry) and "--hash=sha256:" in entry for entry in entries)
    assert not re.search(r"https?:|--(extra-)?index|--find-links|trusted-host", text)
    wanted = (PACKAGE / "requirements.in").read_text().split("\n")
    names = {line for line in wanted if line and not line.startswith("#")}
    assert names <= pins(text).keys()


def test_the_image_has_the_versions_the_tests_ran_with() -> None:
    image = pins((PACKAGE / "requirements.txt").read_text())
    base = pins((ROOT / "requirements" / "base.txt").read_text())
    assert image == {name: base[name] for name in image}


def test_bytecode_depends_on_the_source_alone(tmp_path: Path) -> None:
    trees = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        subprocess.run(
            [sys.executable, "-B", bytecode.__file__, str(folder), "json", "email.message"],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
            timeout=120,
        )
        trees.append({str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.pyc")})
    assert len(trees[0]) > 20
    assert trees[0] == trees[1]


def test_bytecode_that_is_there_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", None)
    source = tmp_path / "one.py"
    source.write_text("x = 1\n")
    bytecode.compile_into(str(tmp_path / "out"), [str(source)])
    (compiled,) = (tmp_path / "out").rglob("*.pyc")
    compiled.write_bytes(b"kept")
    bytecode.compile_into(str(tmp_path / "out"), [str(source)])
    assert compiled.read_bytes() == b"kept"


def test_the_dockerfile_fetches_no_frontend_and_runs_as_nobody_in_particular() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert not any(re.match(r"#\s*(syntax|escape|check)\s*=", line) for line in lines)
    assert [line for line in lines if line.startswith("USER ")] == ["USER 10001:10001"]
    stages = [line for line in lines if line.startswith("FROM ")]
    assert all(line.startswith("FROM ${PYTHON_IMAGE}") for line in stages)
    final = lines[lines.index(stages[-1]) :]
    assert [line for line in final if line.startswith(("RUN ", "COPY ", "ADD "))] == [
        "COPY --from=builder /image/ /"
    ]


def test_the_context_holds_what_the_dockerfile_copies_and_no_more() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    dockerfile = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"(?<=\s)src/\S+", dockerfile))
    assert "*" in ignored
    assert all(any(Path(path).is_relative_to(top) for top in allowed) for path in copied)
    assert all((ROOT / path).exists() for path in copied)
    assert allowed <= copied
