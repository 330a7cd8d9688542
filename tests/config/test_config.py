from __future__ import annotations

import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from buildonce.config import Config, ConfigError, parse_duration
from buildonce.errors import ExitCode

GOOD = """\
[project]
name = "dashboard"
repository = "registry.test:5000/dashboard"

[images]
python = "registry.test/python:3"

[profiles.offline.images]
python = "registry.test:5000/base/python:bookworm"

[stages.commit]
budget = "5m"
warn = "4m"

[checks.unit_tests]
coverage_floor = 80

[environments.staging]
port = 8102
configuration = { GREETING = "hello" }

[environments.production]
port = 8103
after = "staging"
"""
FILE = Path("ci/pipeline.toml")


def parse(text: str, profile: str | None = None) -> Config:
    return Config.parse(text, path=FILE, profile=profile)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_reads_every_table() -> None:
    config = parse(GOOD)
    assert config.project.name == "dashboard"
    assert config.stages["commit"].budget == timedelta(minutes=5)
    assert config.checks["unit_tests"] == {"coverage_floor": 80}
    assert config.environment("staging").configuration == {"GREETING": "hello"}
    assert config.environment("production").name == "production"
    assert config.environment("production").url == "http://127.0.0.1:8103"
    assert config.image("python") == "registry.test/python:3"


def test_a_profile_is_laid_over_the_tables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pipeline.toml"
    file.write_text(GOOD)
    monkeypatch.delenv("BUILDONCE_PROFILE", raising=False)
    assert Config.load(file).image("python") == "registry.test/python:3"
    monkeypatch.setenv("BUILDONCE_PROFILE", "offline")
    assert Config.load(file).image("python") == "registry.test:5000/base/python:bookworm"
    assert Config.load(file).project.name == "dashboard"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("port = 8102", "prot = 8102",
         "ci/pipeline.toml:19: environments.staging.prot: unknown key; did you mean 'port'?"),
        ("port = 8102", "",
         "ci/pipeline.toml:18: environments.staging.port: this key is missing"),
        ("port = 8102", "port = 80222",
         "ci/pipeline.toml:19: environments.staging.port: "),
        ("port = 8102", "port = 8103",
         "ci/pipeline.toml:23: environments.production.port: 8103 is already the port of staging"),
        ('budget = "5m"', 'budget = "5 minutes"',
         'ci/pipeline.toml:12: stages.commit.budget: a duration such as "90s", "5m", "1h30m"'),
        ('warn = "4m"', 'warn = "6m"',
         "ci/pipeline.toml:11: stages.commit: `warn` must be shorter than `budget`"),
        ("[images]", "[imagse]",
         "ci/pipeline.toml:5: imagse: unknown key; did you mean 'images'?"),
        ('name = "dashboard"', 'name = "Dash Board"',
         "ci/pipeline.toml:2: project.name: does not have the form"),
        (":5000/dashboard", ":5000/dashboard:latest",
         "ci/pipeline.toml:3: project.repository: does not have the form"),
        ('after = "staging"', 'after = "stagin"',
         "ci/pipeline.toml:24: environments.production.after: there is no environment 'stagin'; "
         "did you mean 'staging'?"),
        ('after = "staging"', 'after = "production"',
         "ci/pipeline.toml:24: environments.production.after: goes round in a circle"),
        ("checks.unit_tests", 'checks."unit tests"',
         "ci/pipeline.toml:15: checks.unit tests: not the name of a Python function"),
        ('"hello"', "1",
         "ci/pipeline.toml:20: environments.staging.configuration.GREETING: "),
        ("[project]", "path = 1\n[project]",
         "ci/pipeline.toml:1: path: unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_names_file_line_key_cause(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(changed(old, new))
    assert message in raised.value.message
    assert raised.value.exit_code == ExitCode.USAGE
    assert raised.value.remedy


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as raised:
        parse(changed("port = 8102", "prot = 1").replace("8103", '"x"'))
    assert raised.value.message.count("ci/pipeline.toml:") == 3


def test_a_mistake_in_the_profile_points_into_the_profile() -> None:
    text = GOOD + '\n[profiles.slow.stages.commit]\nbudget = "long"\n'
    parse(text)
    with pytest.raises(ConfigError, match=r"ci/pipeline\.toml:27: stages\.commit\.budget"):
        parse(text, "slow")


def test_an_unknown_profile_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'offline'") as raised:
        parse(GOOD, "ofline")
    assert "offline" in (raised.value.remedy or "")


def test_several_profiles_are_laid_over_each_other_in_their_order() -> None:
    text = GOOD + (
        '\n[profiles.slow.stages.commit]\nbudget = "20m"\n'
        '[profiles.slower.stages.commit]\nbudget = "long"\n'
    )
    both = parse(text, "slow, offline")
    assert both.stages["commit"].budget == timedelta(minutes=20)
    assert both.images == parse(GOOD, "offline").images
    with pytest.raises(ConfigError, match=r"pipeline\.toml:29: stages\.commit\.budget"):
        parse(text, "slow,slower")
    with pytest.raises(ConfigError, match="no profile 'other'"):
        parse(text, "slow,other")


def test_a_profile_that_moves_an_environment_keeps_nothing_of_its_table() -> None:
    text = GOOD + (
        '\n[profiles.cloud.accounts.live]\nid = "222222222222"\n'
        '[profiles.cloud.environments.staging]\ntarget = "ecs"\naccount = "live"\n'
        'regions = ["eu-west-1", "us-east-1"]\nrole = "deploy"\n'
        'registry = "registry.test/{region}/shop"\n'
    )
    assert parse(text).environments["staging"].port
    moved = parse(text, "cloud").environments["staging"]
    assert (moved.target, moved.port) == ("ecs", None)
    assert [place.registry for place in moved.places] == [
        "registry.test/eu-west-1/shop",
        "registry.test/us-east-1/shop",
    ]
    single = text.replace('regions = ["eu-west-1", "us-east-1"]', 'region = "eu-west-1"')
    with pytest.raises(ConfigError, match="write it out"):
        parse(single, "cloud")


def test_what_is_not_toml_or_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"ci/pipeline\.toml:2: this is not TOML"):
        parse("[project]\nname = \n")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load("no/such/file.toml")


def test_missing_image_or_environment_says_what_to_add() -> None:
    with pytest.raises(ConfigError, match="did you mean 'python'") as raised:
        parse(GOOD).image("pyhton")
    assert "under [images]" in (raised.value.remedy or "")
    with pytest.raises(ConfigError, match="there are: staging, production") as raised:
        parse(GOOD).environment("qa")
    assert "under [environments.qa]" in (raised.value.remedy or "")


def test_the_digest_follows_values_and_not_spelling() -> None:
    same = parse(GOOD.replace('"5m"', '"300s"') + "\n# a comment\n")
    assert same.digest == parse(GOOD).digest
    assert parse(changed("8102", "8109")).digest != parse(GOOD).digest
    assert parse(GOOD, "offline").digest != parse(GOOD).digest


def test_the_ledger_is_beside_the_file_or_in_the_users_data(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("BUILDONCE_HOME", str(tmp_path))
    assert parse(GOOD).ledger_path == tmp_path / "dashboard" / "ledger.sqlite"
    configured = Config.parse(GOOD + '[ledger]\npath = "x.sqlite"', path=tmp_path / "p.toml")
    assert configured.ledger_path == tmp_path / "x.sqlite"


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_durations_add_their_parts(hours: int, minutes: int, seconds: int) -> None:
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
    text = "".join(f"{n}{unit}" for n, unit in parts if n)
    if text:
        assert parse_duration(text) == timedelta(hours=hours, minutes=minutes, seconds=seconds)


@pytest.mark.parametrize("text", ["", "5", "m", "-5m", "1m1h", "5 m", "0s", 5, None, "1.5m", True])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


_key = st.text("abcdefgh_-", min_size=1, max_size=6)
_value = st.sampled_from(
    ["1", '"x = [ # {"', "'[a]'", '"""\n[a.b]\nc = 1 \\"""\n"""', "'''\nq = 2\n'''",
     "[\n 1, # ]\n 2,\n]", "{ in = 1 }", "[]", '[\n "]", """\n[\n""",\n]']
)  # fmt: skip


@given(st.lists(st.tuples(st.booleans(), _key, _value), max_size=12))
def test_lines_are_found_whatever_stands_between(parts: list[tuple[bool, str, str]]) -> None:
    from buildonce.config.lines import Lines

    text = "# first\n"
    table: tuple[str, ...] = ()
    expected: dict[tuple[str, ...], int] = {}
    for header, key, value in parts:
        keys = ("t_" + key,) if header else (*table, key)
        if keys in expected:
            continue
        expected[keys] = text.count("\n") + 1
        if header:
            table = keys
            text += f"  [t_{key}]  # note\n"
        else:
            text += f"{key} = {value}\n"
    tomllib.loads(text)
    assert dict(Lines.scan(text).known) == expected
