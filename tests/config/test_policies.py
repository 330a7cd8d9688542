"""Policies in pipeline.toml: what they mean, and what is said of a mistake."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from buildonce.config import Config, ConfigError
from buildonce.config.policies import DEFAULT_POLICY

TEXT = """\
[project]
name = "shop"
repository = "registry.test/shop"

[policies.production]
signature = { keys = ["keys/release.pub"] }
max_age = "30d"
tests = ["unit_tests"]
sbom = ["python", "image"]
vulnerabilities = { fail_on = "high", database_max_age = "7d" }
verified_in = { staging = "10m" }

[policies.production.provenance]
source = ["https://git.test/acme/*"]

[environments.development]
port = 1
policy = "none"

[environments.staging]
port = 2

[environments.production]
port = 3
policy = "production"
"""


def parse(text: str) -> Config:
    return Config.parse(text, path=Path("ci/pipeline.toml"))


def test_an_environment_has_the_policy_that_it_names() -> None:
    config = parse(TEXT)
    name, policy = config.policy("production")
    assert name == "production"
    assert policy is not None
    assert policy.max_age == timedelta(days=30)
    assert policy.verified_in == {"staging": timedelta(minutes=10)}
    assert policy.tests == ("unit_tests",)


def test_without_a_word_there_is_a_policy_and_none_must_be_said() -> None:
    config = parse(TEXT)
    assert config.policy("staging") == ("default", DEFAULT_POLICY)
    assert DEFAULT_POLICY.release_record
    assert DEFAULT_POLICY.tests == "all"
    assert config.policy("development") == ("none", None)


def test_the_default_can_be_defined() -> None:
    config = parse(f'{TEXT}\n[policies.default]\ntests = ["lint"]\n')
    policy = config.policy("staging")[1]
    assert policy is not None
    assert policy.tests == ("lint",)


def test_verified_in_is_short_for_no_waiting_time() -> None:
    for text in ('verified_in = "staging"', 'verified_in = { staging = "0s" }'):
        policy = parse(TEXT.replace('verified_in = { staging = "10m" }', text)).policies
        assert policy["production"].verified_in == {"staging": timedelta(0)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('fail_on = "high"', 'fail_on = "hihg"',
         ":10: policies.production.vulnerabilities.fail_on: Input should be 'info', 'low'"),
        ("fail_on =", "failon =",
         ":10: policies.production.vulnerabilities.failon: unknown key; did you mean 'fail_on'?"),
        ("max_age =", "maxage =", ":7: policies.production.maxage: unknown key; did you mean"),
        ("30d", "1 month", ":7: policies.production.max_age: a duration such as"),
        ('tests = ["unit_tests"]', 'tests = "unit_tests"',
         ':8: policies.production.tests: "all" or a list of names is wanted'),
        ('sbom = ["python", "image"]', 'sbom = ["npm"]', ":9: policies.production.sbom.0:"),
        ("{ staging =", "{ stagin =",
         ":11: policies.production.verified_in: there is no environment 'stagin'; did you mean"),
        ("release.pub", "release.key", ":6: policies.production.signature.keys: keys/release.key"),
        ('policy = "production"', 'policy = "prodution"',
         ":25: environments.production.policy: there is no policy 'prodution'; did you mean"),
        ("{ staging =", "{ production =",
         ":25: environments.production.policy: production wants a release to have run in"),
        ("[policies.production]", "[policies.none]\n[policies.production]",
         ":5: policies.none: the name 'none' means"),
        ('tests = ["unit_tests"]', "release_record = false",
         ':5: policies.production: tests = "all" needs the release record'),
        ('"https://git.test/acme/*"', '" "', ":14: policies.production.provenance.source.0:"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_at_its_line(old: str, new: str, message: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as raised:
        parse(TEXT.replace(old, new))
    assert f"ci/pipeline.toml{message}" in raised.value.message
