"""A session as its clients see it over HTTP: objects by ID, several clients, errors."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagger
import httpx
import pytest

from tests.engine.engines import failure, on, unique

pytestmark = pytest.mark.anyio


@dataclass
class Session:
    """A session that is asked in GraphQL."""

    url: str
    http: httpx.AsyncClient

    async def post(self, query: str, **more: Any) -> dict[str, Any]:
        response = await self.http.post(self.url, json={"query": query, **more}, timeout=120)
        answer: dict[str, Any] = response.json()
        return answer

    async def ask(self, query: str, **more: Any) -> dict[str, Any]:
        """The data of an answer without errors."""
        answer = await self.post(query, **more)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    async def error(self, query: str, **more: Any) -> dict[str, Any]:
        """The only error of an answer, which has no data."""
        answer = await self.post(query, **more)
        assert answer.get("data") is None
        [error] = answer["errors"]
        return dict(error)


@pytest.fixture(scope="module")
def started(engine_environment: None) -> Iterator[tuple[str, str]]:
    """The address and the token of a session."""
    command = [os.environ["_EXPERIMENTAL_DAGGER_CLI_BIN"], "session"]
    with subprocess.Popen(
        [*command, "--label", "dagger.io/sdk.name:python"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdin and process.stdout
        parameters = json.loads(process.stdout.readline())
        yield f"http://127.0.0.1:{parameters['port']}/query", parameters["session_token"]
        process.stdin.close()
        assert process.wait(60) == 0


@pytest.fixture
async def session(started: tuple[str, str]) -> AsyncIterator[Session]:
    url, token = started
    async with httpx.AsyncClient(auth=(token, ""), trust_env=False) as http:
        yield Session(url, http)


# -- questions --------------------------------------------------------------------------------


async def test_several_things_are_asked_at_once(session: Session) -> None:
    query = "{a: version b: directory {x: entries y: entries} defaultPlatform __typename}"
    data = await session.ask(query)
    assert data["a"].startswith("v0.")
    assert data["b"] == {"x": [], "y": []}
    assert data["__typename"] == "Query"


async def test_variables_fragments_and_names_of_operations(session: Session) -> None:
    query = """
        query One($path: String!) {directory {withNewFile(path: $path, contents: "x") {...what}}}
        query Other {defaultPlatform}
        fragment what on Directory {entries}
    """
    data = await session.ask(query, operationName="One", variables={"path": "f"})
    assert data == {"directory": {"withNewFile": {"entries": ["f"]}}}


async def test_what_is_not_there_is_null(session: Session) -> None:
    query = '{container {envVariable(name: "x") label(name: "y")}}'
    assert await session.ask(query) == {"container": {"envVariable": None, "label": None}}


async def test_one_error_leaves_no_answer(session: Session) -> None:
    error = await session.error('{version directory {a: entries b: file(path: "x") {contents}}}')
    assert "no such file or directory" in error["message"]
    assert error["path"][:2] == ["directory", "b"]


async def test_the_error_of_a_command(session: Session, rootfs: Path) -> None:
    directory = f'host {{directory(path: "{rootfs}") {{id}}}}'
    root = (await session.ask(f"{{{directory}}}"))["host"]["directory"]["id"]
    args = '["/bin/sh", "-c", "echo o; echo e >&2; exit 3"]'
    error = await session.error(
        f'{{container {{withRootfs(directory: "{root}") {{withExec(args: {args}) {{stdout}}}}}}}}'
    )
    assert error["path"] == ["container", "withRootfs", "withExec", "stdout"]
    assert error["message"].startswith("exit code: 3")
    assert error["extensions"] == {
        "_type": "EXEC_ERROR",
        "cmd": ["/bin/sh", "-c", "echo o; echo e >&2; exit 3"],
        "exitCode": 3,
        "stdout": "o",
        "stderr": "e",
    }


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{version", "expected name"),
        ("{nope}", 'cannot query field "nope" on type "query"'),
        ("{container {nope}}", 'cannot query field "nope" on type "container"'),
        ('{container {from(address: "x", zz: 1) {id}}}', 'unknown argument "zz"'),
        ("{container {from {id}}}", 'of type "string!" is required'),
        ("{version {x}}", "version" if on(dagger=False, embedded=True) else "string"),
        ("mutation {version}", "mutation"),
        ("subscription {version}", "subscription"),
        ('{container {withExposedPort(port: "x") {id}}}', "int"),
        ('{container {withExec(args: ["x"], expect: NOPE) {id}}}', "nope"),
        ("", ""),
    ],
)
async def test_questions_that_make_no_sense(session: Session, query: str, said: str) -> None:
    answer = await session.post(query)
    assert answer.get("data") is None
    assert said in answer["errors"][0]["message"].replace("'", '"').lower()
    assert await session.ask("{version}")  # and the session goes on


async def test_a_token_is_needed(started: tuple[str, str]) -> None:
    url, _ = started
    async with httpx.AsyncClient(trust_env=False) as http:
        for auth in (None, ("wrong", "")):
            response = await http.post(url, json={"query": "{version}"}, auth=auth)
            assert response.status_code == 401


# -- objects by ID ----------------------------------------------------------------------------

ONE_FILE = 'directory {withNewFile(path: "f", contents: "x") {id}}'


async def test_equal_recipes_have_equal_ids(session: Session) -> None:
    other = 'directory {withNewFile(path: "f", contents: "y") {id}}'
    data = await session.ask(f"{{a: {ONE_FILE} b: {ONE_FILE} c: {other}}}")
    a, b, c = (data[name]["withNewFile"]["id"] for name in "abc")
    assert a == b != c


async def test_sync_answers_the_id(session: Session) -> None:
    data = await session.ask('{container {withWorkdir(path: "/x") {id sync}}}')
    one = data["container"]["withWorkdir"]
    assert one["id"] == one["sync"]


async def test_an_object_is_found_by_its_id(session: Session) -> None:
    found = (await session.ask(f"{{{ONE_FILE}}}"))["directory"]["withNewFile"]["id"]
    node = f'node(id: "{found}")'
    assert (await session.ask(f"{{{node} {{__typename id ... on Directory {{entries}}}}}}")) == {
        "node": {"__typename": "Directory", "id": found, "entries": ["f"]}
    }
    assert await session.ask(f"{{{node} {{... on Container {{workdir}}}}}}") == {"node": {}}
    load = f'loadDirectoryFromID(id: "{found}")'
    assert (await session.ask(f"{{{load} {{entries}}}}"))["loadDirectoryFromID"]["entries"] == ["f"]


MAKERS = {
    "Container": 'container {withWorkdir(path: "/x") {id}}',
    "Directory": ONE_FILE,
    "File": 'file(name: "n", contents: "c") {id}',
    "Secret": 'setSecret(name: "a", plaintext: "b") {id}',
    "CacheVolume": 'cacheVolume(key: "k") {id}',
    "Host": "host {id}",
    "Service": 'container {withDefaultArgs(args: ["x"]) {asService {id}}}',
    "EnvVariable": 'container {withEnvVariable(name: "A", value: "1") {envVariables {id}}}',
    "Label": 'container {withLabel(name: "A", value: "1") {labels {id}}}',
    "Port": "container {withExposedPort(port: 80) {exposedPorts {id}}}",
}


def identifier(answer: Any) -> str:
    """The only ID in an answer."""
    while not isinstance(answer, str):
        [answer] = answer.values() if isinstance(answer, dict) else answer
    return answer


@pytest.mark.parametrize("kind", MAKERS)
async def test_every_kind_of_object_has_an_id(session: Session, kind: str) -> None:
    found = identifier(await session.ask(f"{{{MAKERS[kind]}}}"))
    data = await session.ask(f'{{node(id: "{found}") {{__typename id}}}}')
    assert data["node"] == {"__typename": kind, "id": found}


async def test_the_id_of_another_kind_of_object(session: Session) -> None:
    directory = identifier(await session.ask(f"{{{MAKERS['Directory']}}}"))
    container = identifier(await session.ask(f"{{{MAKERS['Container']}}}"))
    error = await session.error(f'{{loadContainerFromID(id: "{directory}") {{workdir}}}}')
    assert "Container" in error["message"] and "Directory" in error["message"]
    query = f'{{directory {{withDirectory(path: "/", source: "{container}") {{entries}}}}}}'
    error = await session.error(query)
    assert "Container" in error["message"] and "Directory" in error["message"]


@pytest.mark.parametrize("text", ["garbage", "", "AAAA", "Container:0000", "…"])
async def test_ids_that_are_none(session: Session, text: str) -> None:
    for query in (
        f'{{node(id: "{text}") {{id}}}}',
        f'{{loadContainerFromID(id: "{text}") {{id}}}}',
        f'{{directory {{withDirectory(path: "/", source: "{text}") {{entries}}}}}}',
    ):
        error = await session.error(query)
        assert on(dagger="", embedded="id") in error["message"].lower()
        assert "Traceback" not in error["message"]
        assert "internal error" not in error["message"]


# -- several clients --------------------------------------------------------------------------


async def test_clients_of_a_session_share_its_objects(
    session: Session, started: tuple[str, str]
) -> None:
    name = unique("shared-")
    query = f'{{setSecret(name: "{name}", plaintext: "value") {{id}}}}'
    secret = identifier(await session.ask(query))
    url, token = started

    async def ask(_: int) -> Any:
        async with httpx.AsyncClient(auth=(token, ""), trust_env=False) as http:
            query = f'{{loadSecretFromID(id: "{secret}") {{name plaintext}}}}'
            return (await Session(url, http).ask(query))["loadSecretFromID"]

    answers = await asyncio.gather(*map(ask, range(8)))
    assert answers == [{"name": name, "plaintext": "value"}] * 8


async def test_sessions_at_the_same_time(
    client: dagger.Client, base: dagger.Container, rootfs: Path
) -> None:
    async def ask(number: int) -> str:
        async with dagger.Connection(dagger.Config()) as own:
            root = own.host().directory(str(rootfs))
            container = own.container().with_rootfs(root).with_env_variable("PATH", "/bin")
            return await container.with_exec(["echo", str(number)]).stdout()

    own = base.with_exec(["echo", "first"]).stdout()
    assert await asyncio.gather(own, ask(1), ask(2)) == ["first\n", "1\n", "2\n"]


# -- what is done when ------------------------------------------------------------------------


@pytest.fixture
def marked(client: dagger.Client, base: dagger.Container) -> dagger.Container:
    """A container whose command leaves a mark in a cache volume when it runs."""
    volume = client.cache_volume(unique("marks-"))
    return base.with_mounted_cache("/marks", volume)


async def has_run(marked: dagger.Container) -> bool:
    return await marked.with_exec(["ls", "/marks"]).stdout() == "ran\n"


async def test_nothing_runs_before_it_is_asked_for(marked: dagger.Container) -> None:
    pending = marked.with_exec(["touch", "/marks/ran"])
    await pending.id()
    await pending.rootfs().id()
    await pending.directory("/etc").id()
    await pending.file("/etc/passwd").id()
    await pending.with_env_variable("A", "1").with_new_file("/z", "1").id()
    await pending.with_exec(["true"]).id()
    assert not await has_run(marked)


async def test_sync_runs(marked: dagger.Container) -> None:
    await marked.with_exec(["touch", "/marks/ran"]).sync()
    assert await has_run(marked)


async def test_what_is_known_without_running_is_told_at_once(marked: dagger.Container) -> None:
    pending = marked.with_exec(["touch", "/marks/ran"])
    assert await pending.env_variable("PATH") == "/bin"
    assert await pending.with_workdir("/q").workdir() == "/q"
    assert await has_run(marked) is on(dagger=True, embedded=False)


async def test_the_settings_after_a_command_that_fails(base: dagger.Container) -> None:
    failing = base.with_exec(["false"]).with_workdir("/w")
    await failing.id()
    if on(dagger=True, embedded=False):
        assert isinstance(await failure(failing.workdir()), dagger.ExecError)
    else:
        assert await failing.workdir() == "/w"
    await failure(failing.sync())
