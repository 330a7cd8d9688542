"""`buildonce prune`: what earlier runs have left is deleted, and said how much."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from buildonce.engine import pruning
from buildonce.engine.machine import engine_options
from tests.engine.private import BUILDONCE, PRELUDE, Private

pytestmark = pytest.mark.embedded_only
LARGE = (
    PRELUDE
    + """
async def main():
    await ask(sh("head -c 9000000 /dev/urandom > /large; echo done").stdout())
run(main)
"""
)


def test_sizes_are_read() -> None:
    assert pruning.size("10g") == 10 << 30
    assert pruning.size("500MB") == 500 << 20
    assert pruning.size("0") == 0
    for text in ("lots", "-1", "1.5g"):
        with pytest.raises(pruning.BadAmount, match=text):
            pruning.size(text)


@pytest.mark.anyio
@pytest.mark.e2e
async def test_what_earlier_runs_left_is_deleted(
    tmp_path: Path, rootfs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = Private(tmp_path / "cache", rootfs)
    assert private.ask(LARGE) == [{"answer": "done\n"}]

    command = [str(BUILDONCE), "prune", "--json", "--keep", "1g"]
    kept = subprocess.run(
        command, env=private.environment, capture_output=True, check=True, timeout=60
    )
    answer: dict[str, int] = json.loads(kept.stdout)
    assert answer["freed"] == 0
    assert answer["left"] > 5_000_000  # blocks on the disk, not all of them written yet

    monkeypatch.setattr(pruning, "_TELL_EVERY", 0.0)
    for name, value in private.environment.items():
        monkeypatch.setenv(name, value)
    told: list[pruning.Pruned] = []
    done = await pruning.prune(await engine_options(os.environ), on_progress=told.append)
    assert [one.records for one in told] == list(range(1, done.records + 1))
    assert told[-1].freed == done.freed > 5_000_000
    assert [one.left for one in told] == sorted((one.left for one in told), reverse=True)
    assert str(done).endswith("0 MiB are left")

    assert private.ask(LARGE) == [{"answer": "done\n"}]
    assert private.leftovers() == []
