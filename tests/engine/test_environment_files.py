"""Environment files, read and laid over a container."""

from __future__ import annotations

import dagger
import pytest

from tests.engine.engines import failure

pytestmark = pytest.mark.anyio

TEXT = """
A=1
export B=two words
C="$A and ${B}"
D='$A'
E=${NOT_SET:-default}
F=a\\ b   c
G="x\\"y" # said
H=plain # not said
I=
"""


@pytest.fixture
def file(client: dagger.Client) -> dagger.EnvFile:
    return client.file(".env", TEXT).as_env_file()


async def variables(file: dagger.EnvFile, **raw: bool) -> dict[str, str]:
    return {await v.name(): await v.value() for v in await file.variables(**raw)}


async def test_read(file: dagger.EnvFile) -> None:
    assert await variables(file) == {
        "A": "1",
        "B": "two words",
        "C": "1 and two words",
        "D": "$A",
        "E": "default",
        "F": "a b c",
        "G": 'x"y',
        "H": "plain # not said",
        "I": "",
    }
    raw = await variables(file, raw=True)
    assert (raw["C"], raw["D"], list(raw)) == ('"$A and ${B}"', "'$A'", sorted(raw))
    assert (await file.get("C"), await file.get("C", raw=True)) == ("1 and two words", raw["C"])
    assert (await file.get("none"), await file.exists("none")) == ("", False)
    assert await file.exists("I")


async def test_edited(client: dagger.Client, file: dagger.EnvFile) -> None:
    made = (
        client.env_file().with_variable("X", "1").with_variable("Y", "$X$X").with_variable("X", "2")
    )
    assert await variables(made) == {"X": "2", "Y": "22"}
    assert await made.as_file().contents() == "X=2\nY=$X$X\n"
    assert await made.as_file().name() == ".env"
    assert await variables(made.without_variable("Y")) == {"X": "2"}


async def test_a_part_of_it(client: dagger.Client) -> None:
    text = "ROOT=/srv\nMY_APP_PATH=${ROOT}/app\nmyApp_name=x\nOTHER=y\n"
    file = client.file(".env", text).as_env_file()
    for prefix in ("MY_APP", "my_app", "myApp", "my-app"):
        assert await variables(file.namespace(prefix)) == {"PATH": "/srv/app", "name": "x"}


async def test_what_is_no_value(client: dagger.Client) -> None:
    for text, told in (
        ("A=$NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE: unbound variable"),
        ("A=$B\nB=$A", ""),
        ('A="open', "A"),
        ("A=$(touch /tmp/never)", ""),
    ):
        file = client.file(".env", text).as_env_file()
        assert told in str(await failure(file.get("A")))


async def test_in_a_container(base: dagger.Container, file: dagger.EnvFile) -> None:
    made = base.with_env_variable("A", "before").with_env_file_variables(file)
    shown = await made.with_exec(["sh", "-c", "echo $A,$B,$C,$D"]).stdout()
    assert shown == "1,two words,1 and two words,$A\n"
    assert await made.env_variable("F") == "a b c"
