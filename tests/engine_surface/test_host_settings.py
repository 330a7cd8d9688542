"""Proxies and package indexes of the machine, as commands are told of them."""

from __future__ import annotations

from urllib.parse import quote

from buildonce.engine.host_settings import logins, loopback_ports, moved

VARIABLES = {
    "HTTPS_PROXY": "http://me:password@localhost:3128/",
    "http_proxy": "127.0.0.1:3128",
    "ALL_PROXY": "socks5h://[::1]:1080",
    "NO_PROXY": "localhost,127.0.0.1:9000",
    "PIP_INDEX_URL": "http://127.0.0.1:3141/team/pypi/+simple/",
    "PIP_EXTRA_INDEX_URL": "https://token-of-mine@index.example.org/simple https://b.example.org",
    "PIP_TRUSTED_HOST": "127.0.0.1",
    "GOPROXY": "http://10.127.0.0.1:80,https://not-localhost:443,direct",
}


def test_ports_of_this_machine() -> None:
    assert loopback_ports(VARIABLES) == [1080, 3128, 3141]
    assert loopback_ports({"HTTP_PROXY": "http://localhost:99999"}) == []


def test_what_is_moved_and_what_is_not() -> None:
    assert moved(VARIABLES, "10.208.0.9") == VARIABLES | {
        "HTTPS_PROXY": "http://me:password@10.208.0.9:3128/",
        "http_proxy": "10.208.0.9:3128",
        "ALL_PROXY": "socks5h://10.208.0.9:1080",
        "PIP_INDEX_URL": "http://10.208.0.9:3141/team/pypi/+simple/",
        "PIP_TRUSTED_HOST": "127.0.0.1 10.208.0.9",
        "NO_PROXY": "localhost,127.0.0.1:9000,10.208.0.9",
        "no_proxy": "10.208.0.9",
    }


def test_logins_are_what_must_not_be_seen() -> None:
    assert logins(VARIABLES.values()) == ["password", "token-of-mine"]
    written = quote("p@ssword")
    assert logins([f"https://me:{written}@example.org"]) == [written, "p@ssword"]
    assert logins(["https://me:no@example.org", "https://example.org/a:b@c"]) == []
