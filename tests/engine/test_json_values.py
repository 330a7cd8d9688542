"""JSON values, and errors as objects."""

from __future__ import annotations

import dagger
import pytest

from tests.engine.engines import failure

pytestmark = pytest.mark.anyio

TEXT = '{"b": {"c": [1, "two", true, null, {"d": 3.5}]}, "a": "<&>", "n": 7}'


@pytest.fixture
def value(client: dagger.Client) -> dagger.JSONValue:
    return client.file("x.json", TEXT).as_json()


async def test_looked_into(value: dagger.JSONValue) -> None:
    assert await value.contents() == TEXT
    assert sorted(await value.fields()) == ["a", "b", "n"]
    assert await value.field(["n"]).as_integer() == 7
    assert await value.field(["a"]).as_string() == "<&>"
    assert await value.field(["a"]).contents() == '"\\u003c\\u0026\\u003e"'
    items = await value.field(["b", "c"]).as_array()
    assert [await item.contents() for item in items] == ["1", '"two"', "true", "null", '{"d":3.5}']
    assert await items[2].as_boolean()
    assert await items[4].contents(pretty=True) == '{\n  "d": 3.5\n}'
    assert await items[4].contents(pretty=True, indent=" ") == '{\n "d": 3.5\n}'


async def test_made(client: dagger.Client) -> None:
    json = client.json()
    assert await json.contents() == "null"
    assert await json.new_integer(-3).as_integer() == -3
    assert await json.new_string('a"b').contents() == '"a\\"b"'
    assert not await json.new_boolean(False).as_boolean()
    made = json.with_field(["x", "y"], json.new_integer(1)).with_field(
        ["x", "z"], json.new_string("s")
    )
    assert await made.contents() == '{"x":{"y":1,"z":"s"}}'
    replaced = made.with_field(["x", "y", "deep"], json.new_boolean(True))
    assert await replaced.contents() == '{"x":{"y":{"deep":true},"z":"s"}}'
    assert await json.with_contents(dagger.JSON("[1, 2]")).contents() == "[1, 2]"


async def test_what_it_is_not(value: dagger.JSONValue, client: dagger.Client) -> None:
    for question in (
        value.as_integer(),
        value.field(["a"]).as_boolean(),
        value.field(["n"]).as_string(),
        value.as_array(),
        value.field(["n"]).fields(),
        value.field(["n", "deeper"]).contents(),
        client.file("x", "{no json").as_json().contents(),
        client.json().with_contents(dagger.JSON("{no")).contents(),
    ):
        await failure(question)
    assert "no such field: 'none'" in str(await failure(value.field(["none"]).contents()))


async def test_errors_are_values_too(client: dagger.Client) -> None:
    error = client.error("broken").with_value("at", dagger.JSON('{"line": 3}'))
    assert await error.message() == "broken"
    [found] = await error.values()
    assert (await found.name(), await found.value()) == ("at", '{"line": 3}')
