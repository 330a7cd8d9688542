from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from buildonce.config import Config, ConfigError
from buildonce.pipeline.options import options_for
from buildonce.stages import Check, Waiver

TEXT = """\
[project]
name = "app"
repository = "registry.test/app"

[[waivers]]
check = "scan"
id = "py-weak-hash"
reason = "the old protocol wants it"
expires = 2027-01-31

[[waivers]]
check = "scan"
id = "py-temp"
path = "src/*"
reason = "a test helper, not shipped"
expires = "2027-02-01"
"""
PATH = Path("ci/pipeline.toml")


async def scan(source: str, *, waivers: tuple[Waiver, ...] = (), limit: int = 0) -> Check:
    return Check("scan", True, "")


def test_the_check_that_they_name_gets_them_with_their_places() -> None:
    config = Config.parse(TEXT, path=PATH)
    assert options_for(scan, config, {}) == {
        "waivers": (
            Waiver("scan", "py-weak-hash", "the old protocol wants it", date(2027, 1, 31),
                   where="ci/pipeline.toml:5"),
            Waiver("scan", "py-temp", "a test helper, not shipped", date(2027, 2, 1), "src/*",
                   "ci/pipeline.toml:11"),
        )
    }  # fmt: skip
    assert options_for(scan, config, {"waivers": ()}) == {}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("2027-01-31", '"soon"', "ci/pipeline.toml:9: waivers.0.expires: a day such as 2027-01-31"),
        ("2027-01-31", "2027-01-31T10:00:00Z", ":9: waivers.0.expires: a day such as"),
        ("2027-02-01", "2027-02-30", "ci/pipeline.toml:16: waivers.1.expires: a day such as"),
        ('"a test helper, not shipped"', '" "', ":15: waivers.1.reason: say in a few words why"),
        ("path =", "paht =", ":14: waivers.1.paht: unknown key; did you mean 'path'?"),
        ('reason = "the old protocol wants it"\n', "", ":5: waivers.0.reason: this key is missing"),
        ('check = "scan"\nid = "py-w', 'check = "a b"\nid = "py-w', ":6: waivers.0.check: not the"),
    ],
)
def test_a_mistake_names_its_line(old: str, new: str, told: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        Config.parse(TEXT.replace(old, new), path=PATH)
    assert told in str(caught.value)


def test_what_takes_no_waivers_or_has_them_in_the_wrong_table_is_told() -> None:
    async def scan() -> None: ...

    with pytest.raises(ConfigError, match=r"pipeline.toml:5: scan has no findings that can be"):
        options_for(scan, Config.parse(TEXT, path=PATH), {})
    wrong = TEXT.partition("[[waivers]]")[0] + "[checks.scan]\nwaivers = []\n"
    with pytest.raises(ConfigError, match=r"written as \[\[waivers\]\]"):
        options_for(globals()["scan"], Config.parse(wrong, path=PATH), {})
