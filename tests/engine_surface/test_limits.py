"""Queries are bounded: few bytes cannot ask for much."""

from __future__ import annotations

import contextlib
import time

import pytest
from graphql import GraphQLError, GraphQLSyntaxError

from buildonce.engine import limits


@pytest.fixture(autouse=True)
def prepared() -> None:
    limits.prepare()


def chain(length: int) -> str:
    return "{container" + '{withWorkdir(path:"{{{")' * length + "{id}" + "}" * length + "}"


def test_a_chain_as_long_as_programs_write_them_is_parsed() -> None:
    document = limits.parse_bounded(chain(1_900))
    assert limits.count_fields(document) == 1_902


@pytest.mark.parametrize(
    "query",
    [
        chain(2_100),
        "{a(b:" + "[" * 50_000,
        "{" * 100_000,
        "{file(contents:" + "{a:" * 5_000 + "1" + "}" * 5_000 + ")}",
    ],
)
def test_deeper_ones_are_refused(query: str) -> None:
    with pytest.raises(limits.QueryRejected, match="levels deep"):
        limits.parse_bounded(query)


def test_brackets_within_texts_do_not_count() -> None:
    text = "{" * 5_000
    limits.parse_bounded(f'{{file(name: "a", contents: "{text}") {{id}}}}')
    limits.parse_bounded(f'{{file(name: "a", contents: """{text} \\""" " """) {{id}}}}')
    limits.parse_bounded(f"{{file # {text}\n {{id}}}}")


def test_fragments_that_double_are_refused_at_once() -> None:
    fragments = [f"fragment f{i} on Query {{ ...f{i + 1} ...f{i + 1} }}" for i in range(60)]
    query = "{...f0} " + " ".join(fragments) + " fragment f60 on Query { version }"
    begun = time.process_time()  # of this process: however busy the machine is
    with pytest.raises(limits.QueryRejected):
        limits.parse_bounded(query)
    assert time.process_time() - begun < 1


@pytest.mark.parametrize(
    "query",
    [
        "{...a} fragment a on Query {...a}",
        "{...a} fragment a on Query {...b} fragment b on Query {...a}",
        "{version} fragment a on Query {node{...a}}",
    ],
)
def test_fragments_that_contain_themselves_are_refused(query: str) -> None:
    with pytest.raises(limits.QueryRejected, match="contains itself"):
        limits.parse_bounded(query)


def test_wide_queries_are_refused() -> None:
    aliases = " ".join(f"a{i}: version" for i in range(limits.MAX_FIELDS + 1))
    with pytest.raises(limits.QueryRejected, match="fields"):
        limits.parse_bounded(f"{{{aliases}}}")
    same = "version " * (limits.MAX_EQUAL + 1)
    with pytest.raises(limits.QueryRejected, match="one name"):
        limits.parse_bounded(f"{{{same}}}")
    inline = "...{version} " * (limits.MAX_EQUAL + 1)
    with pytest.raises(limits.QueryRejected, match="one name"):
        limits.parse_bounded(f"{{{inline}}}")


def test_no_graphql_is_an_error_of_graphql() -> None:
    for query in ("", "{", "}", '"', '{a(b:"', "\x00", "{version}}"):
        with pytest.raises(GraphQLSyntaxError):
            limits.parse_bounded(query)


def test_the_schema_is_asked_for_alone() -> None:
    assert limits.asks_for_schema(limits.parse_bounded("{__schema{types{name}} __typename}"))
    assert not limits.asks_for_schema(limits.parse_bounded("{version}"))
    with pytest.raises(GraphQLError, match="own"):
        limits.asks_for_schema(limits.parse_bounded("{version __schema{types{name}}}"))


@pytest.mark.parametrize(
    "unit", ['"', '"\\', '"""', '"""\\"""', '"a', '\\"', '"""a\n', "#", "{a", "...a "]
)
def test_measuring_takes_time_in_proportion(unit: str) -> None:
    begun = time.process_time()  # of this process: however busy the machine is
    with contextlib.suppress(GraphQLError):
        limits.parse_bounded("{" + unit * 100_000)
    assert time.process_time() - begun < 5
