from __future__ import annotations

import json
from pathlib import Path

import pytest

from buildonce import cli
from buildonce.errors import ExitCode
from buildonce.release.models import Record
from buildonce.release.signing import Signer


def test_releases_are_listed_shown_and_verified(
    released: Record,
    signer: Signer,
    stranger: Signer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    repository, version = released.release.image.repository, released.release.version
    config = tmp_path / "pipeline.toml"
    config.write_text(f'[project]\nname = "app"\nrepository = "{repository}"\n')
    assert signer.pair is not None
    assert stranger.pair is not None

    def run(*words: str, key: Path) -> tuple[int, str, str]:
        code = cli.run(["release", *words, "--config", str(config), "--key", str(key)])
        told = capsys.readouterr()
        return code, told.out, told.err

    ours, theirs = signer.pair.public, stranger.pair.public
    code, out, err = run("list", "--json", key=ours)
    assert code == ExitCode.PASSED, err
    assert [item["version"] for item in json.loads(out)] == [version]
    assert run("show", version, key=ours)[1].count(" sbom_") == 2
    code, out, _ = run("verify", "latest", "--json", key=ours)
    assert len(json.loads(out)["verified"]["attestations"]) == len(released.evidence)
    code, _, err = run("verify", version, key=theirs)
    assert code == ExitCode.POLICY_DENIED
    assert "not to be believed" in err
    code, _, err = run("show", "2000.01.01+g0000000", key=ours)
    assert code == ExitCode.USAGE
    assert "buildonce release list" in err
