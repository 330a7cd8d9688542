"""What is made of gitleaks' report; and its rules, on secrets that are made here, run by run."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import string
import subprocess
import uuid
from pathlib import Path

import pytest

from buildonce.stages.secrets import RULES, Leak, findings_of

LETTERS = string.ascii_letters + string.digits


def leak(file: str, line: int = 1, commit: str = "", date: str = "") -> Leak:
    named = f"{commit}:{file}:github-pat:{line}" if commit else f"{file}:github-pat:{line}"
    return Leak(
        RuleID="github-pat", Description="a token", File=file, StartLine=line, Commit=commit,
        Date=date, Match="t = REDACTED", Fingerprint=named,
    )  # fmt: skip


def test_a_secret_in_files_and_history_is_told_once_and_an_older_one_for_itself() -> None:
    tree = [leak("/scan/tree/source/a.py", 3)]
    history = [
        leak("a.py", 3, "b" * 40, "2026-02-01T00:00:00Z"),
        leak("a.py", 3, "a" * 40, "2026-01-01T00:00:00Z"),
        leak("gone.py", 1, "c" * 40, "2026-01-05T00:00:00Z"),
    ]
    now, before, gone = findings_of(tree, history)
    assert (now.path, now.line, now.severity, now.cwe) == ("a.py", 3, "critical", ("CWE-798",))
    assert "in the files, since bbbbbbbb" in now.message
    assert "in the history: aaaaaaaa" in before.message
    assert "in the history: cccccccc" in gone.message
    # A waiver of one, by whatever name of its own, covers no other.
    assert len({now.fingerprint, before.fingerprint, gone.fingerprint}) == 3
    assert now.aliases == ("a.py:github-pat:3",)
    assert before.aliases == (f"{'a' * 40}:a.py:github-pat:3",)


def planted(source: random.Random) -> tuple[dict[str, str], dict[str, str]]:
    """Secrets by file, and what only looks like them; never in our own files as they are."""

    def some(length: int, alphabet: str = LETTERS) -> str:
        return "".join(source.choice(alphabet) for _ in range(length))

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    key = "\n".join(some(64) for _ in range(12))
    jwt = [part(b'{"alg":"HS256","typ":"JWT"}'), part(b'{"sub":"12345","iat":1516239022}')]
    address = "://{}:{}@{}.internal/x"
    secrets = {
        "aws_id.py": f'K = "AKIA{some(16, "ABCDEFGHJKLMNPQRSTUVWXYZ234567")}"',
        "github.py": f'T = "ghp_{some(36)}"',
        "gitlab.txt": f"glpat-{some(20)}",
        "slack.yaml": f"x: xoxb-{some(12, '123456789')}-{some(12, '123456789')}-{some(24)}",
        "stripe.js": f'const s = "sk_live_{some(24)}";',
        "key.txt": f"-----BEGIN RSA PRIVATE KEY-----\n{key}\n-----END RSA PRIVATE KEY-----",
        "jwt.txt": ".".join([*jwt, part(some(32).encode())]),
        "npm.txt": f"//registry.test/:_authToken=npm_{some(36)}",
        "sendgrid.py": f's = "SG.{some(22)}.{some(43)}"',
        "database.py": 'D = "postgres' + address.format("app", some(12), "db") + '"',
        "basic.sh": "curl https" + address.format("deploy", some(14), "files"),
        "named.py": f'api_key = "{some(40)}"',
        "random.py": f'a = "{some(40)}"',
        "random.env": f"FOO={some(40)}",
        "netrc": f"machine api.internal login bot password {some(10)}",
    }
    digest = hashlib.sha256(some(9).encode()).hexdigest()
    alike = {
        "Dockerfile": f"FROM python@sha256:{digest}",
        "digest.py": f'digest = "{digest}"',
        "aws.py": 'K = "AKIAIOSFODNN7EXAMPLE"',
        "changeme.py": 'password = "changeme"',
        "uuid.py": f'u = "{uuid.UUID(int=source.getrandbits(128))}"',
        "requirements.txt": f"anyio==4.4 --hash=sha256:{digest}",
        "url.py": 'u = "postgres://user:password@localhost/db"\nv = "https://${USER}:${KEY}@host/"',
        "env.py": 'password = os.environ["DB_PASSWORD"]\ntoken = get_token(name)',
        "alphabet.py": f'A = "{LETTERS}+/"',
        "ssh.py": f'K = "AAAAB3NzaC1yc2EAAAADAQABAAAB{some(60)}"',
        "path.py": 'p = "src/buildonce/Stages/test1/Foo2/bar3Baz/qux4Thing"',
        "integrity.html": f'<script integrity="sha384-{part(some(48).encode())}">',
        "image.css": f'url("data:image/png;base64,iVBORw0KGgo{some(90)}")',
        "stack.yaml": "password: ${DB_PASSWORD}\nsecret: !Ref Secret",
        "words.py": 'x = "application/vnd.oci.image.manifest.v1+json"',
    }
    return secrets, alike


@pytest.mark.e2e
def test_planted_secrets_are_found_and_look_alikes_are_not(tmp_path: Path) -> None:
    import anyio

    from buildonce.toolchain import ensure

    gitleaks = anyio.run(ensure, "gitleaks").path
    secrets, alike = planted(random.Random(20261121))  # noqa: S311
    for folder, files in (("bad", secrets), ("good", alike)):
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(f"{text}\n", "utf-8")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [gitleaks, "dir", tmp_path, "--config", RULES, "--redact=100", "--ignore-gitleaks-allow",
         "--no-banner", "--exit-code", "42", "--report-format", "json", "--report-path", report],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 42, done.stderr
    text = report.read_text("utf-8")
    hit = {Path(found["File"]).relative_to(tmp_path).as_posix() for found in json.loads(text)}
    missed = {f"bad/{name}" for name in secrets} - hit
    alarms = {f"good/{name}" for name in alike} & hit
    print(f"secrets: planted {len(secrets)}, missed {missed}, false alarms {alarms}")
    assert not missed and not alarms
    assert not [name for name, value in secrets.items() if value in text]
