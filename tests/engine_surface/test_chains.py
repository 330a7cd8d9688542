"""A query that is one chain is answered as graphql-core answers it, without it."""

from __future__ import annotations

from typing import Any

import pytest
from graphql import ExecutionResult, execute, parse

from buildonce.engine import chains
from buildonce.engine.schema import load

pytestmark = pytest.mark.anyio
SCHEMA = load()


class Thing(str):
    """An object of the API, of the type that its ID says."""

    @property
    def type(self) -> str:
        return "Directory" if "a directory" in self else "Container"


async def resolve(source: Any, name: str, args: dict[str, Any]) -> Any:
    if name == "stderr":
        raise ValueError("no output")
    if name == "exitCode":
        return 2**40
    if name == "entries":
        return ["a", "b"]
    if name in ("user", "exists"):
        return None
    return Thing(f"{source}.{name}({sorted(args.items())})")


@pytest.mark.parametrize(
    "query",
    [
        '{container{from(address:"a"){withExec(args:["x"],expect:ANY){stdout}}}}',
        '{a:container{b:from(address:"a"){c:stdout}}}',
        '{container{from(address:"a"){stderr}}}',
        '{container{from(address:"a"){exitCode}}}',
        "{container{user}}",
        '{container{exists(path:"a")}}',
        '{directory{entries(path:"x")}}',
        "query Q{version}",
        '{node(id:"x"){...on Container{from(address:"a"){stdout}}}}',
        '{node(id:"x"){...on Container{stderr}}}',
        '{node(id:"a directory"){...on Container{from(address:"a"){stdout}}}}',
    ],
)
async def test_as_graphql_core_answers(query: str) -> None:
    document = parse(query)
    steps = chains.plan(SCHEMA, document, None)
    assert steps is not None
    ours = await chains.answer(steps, "root", lambda s, step: resolve(s, step.name, step.args))
    answer = execute(
        SCHEMA,
        document,
        root_value="root",
        field_resolver=lambda s, info, **args: resolve(s, info.field_name, args),
        type_resolver=lambda value, info, kind: value.type,
    )
    theirs = answer if isinstance(answer, ExecutionResult) else await answer
    for mine, expected in zip(ours.errors or (), theirs.errors or (), strict=True):
        assert mine.path == expected.path
        assert mine.locations == expected.locations
    if not theirs.errors:
        assert ours.data == theirs.data


@pytest.mark.parametrize(
    "query",
    [
        "{container{nothing}}",
        "{container{from{stdout}}}",
        "{container{from(address:1){stdout}}}",
        '{container{from(address:"a",more:1){stdout}}}',
        "{container}",
        "{version{x}}",
        "{version container{user}}",
        "{version @skip(if:true)}",
        "query($a:String!){container{from(address:$a){stdout}}}",
        '{node(id:"x"){id}}',
        '{node(id:"x"){...on Container{user} ...on Directory{name}}}',
        '{node(id:"x"){...on Nothing{user}}}',
        '{node(id:"x"){...on Node{id}}}',
        '{node(id:"x"){...F}} fragment F on Container{user}',
        "{container{envVariables{name}}}",
        "{...F} fragment F on Query{version}",
        "{__typename}",
        "query A{version} query B{version}",
    ],
)
def test_whatever_is_not_that_simple_is_left_to_graphql_core(query: str) -> None:
    assert chains.plan(SCHEMA, parse(query), None) is None
