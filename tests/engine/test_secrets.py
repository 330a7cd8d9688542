"""Secrets: where their values go, and where they never do."""

from __future__ import annotations

import os
from pathlib import Path

import dagger
import pytest

from tests.engine.engines import UUID, failure, on, sh, unique

pytestmark = pytest.mark.anyio


async def printed(client: dagger.Client, base: dagger.Container, value: str, script: str) -> str:
    """What a script that has a secret as $S prints."""
    secret = client.set_secret(unique("printed-"), value)
    return await base.with_secret_variable("S", secret).with_exec(sh(script)).stdout()


# -- what they are ----------------------------------------------------------------------------


async def test_a_secret_has_a_name_and_a_value(client: dagger.Client) -> None:
    secret = client.set_secret("name-of-it", "value-of-it")
    assert await secret.name() == "name-of-it"
    assert await secret.plaintext() == "value-of-it"
    assert await secret.uri() == ""


async def test_a_name_can_be_given_again(client: dagger.Client) -> None:
    first = dagger.SecretID(await client.set_secret("given-again", "first").id())
    second = dagger.SecretID(await client.set_secret("given-again", "second").id())
    # Dagger knows secrets by their names: the last value of a name is that of all of it.
    expected = on(dagger="second", embedded="first")
    assert await client.load_secret_from_id(first).plaintext() == expected
    assert await client.load_secret_from_id(second).plaintext() == "second"


async def test_empty_names_and_values(client: dagger.Client, base: dagger.Container) -> None:
    assert await client.set_secret("", "v").plaintext() == "v"
    assert await client.set_secret("empty", "").plaintext() == ""
    assert await printed(client, base, "", "echo [$S]") == "[]\n"


async def test_an_id_does_not_tell_the_value(client: dagger.Client) -> None:
    identifier = await client.set_secret("id-of-it", "hidden-value").id()
    assert "hidden" not in str(identifier)


async def test_secrets_by_address(client: dagger.Client, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("from file\n")
    for uri, value in (
        ("env://HOME", os.environ["HOME"]),
        (f"file://{file}", "from file\n"),
        ("cmd://echo from-cmd", "from-cmd\n"),
    ):
        secret = client.secret(uri)
        assert await secret.plaintext() == value
        assert (await secret.name(), await secret.uri()) == ("", uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("env://NOPE_NOT_SET", 'secret env var not found: "NOP..."'),
        ("file:///nope/x", 'failed to read secret file "/nope/x": open /nope/x: no such file'),
        ("cmd://exit 3", "exit status 3"),
        ("zzz://x", 'unsupported secret provider: "zzz"'),
        ("plain", "malformed id"),
        ("", "malformed id"),
    ],
)
async def test_secrets_that_are_not_there(
    client: dagger.Client, base: dagger.Container, uri: str, said: str
) -> None:
    assert said in str(await failure(client.secret(uri).plaintext()))
    used = base.with_secret_variable("S", client.secret(uri)).with_exec(["true"])
    assert said in str(await failure(used.sync()))


# -- as variables -----------------------------------------------------------------------------


async def test_a_secret_variable_is_not_a_variable_of_the_image(
    client: dagger.Client, base: dagger.Container
) -> None:
    one = base.with_secret_variable("S", client.set_secret("not-of-the-image", "value"))
    assert [await v.name() for v in await one.env_variables()] == ["PATH"]
    assert await one.env_variable("S") is None
    assert await one.with_exec(sh("echo ${#S}")).stdout() == "5\n"
    assert await one.without_secret_variable("S").with_exec(sh("echo ${#S}")).stdout() == "0\n"


async def test_a_secret_wins_over_a_variable_of_its_name(
    client: dagger.Client, base: dagger.Container
) -> None:
    secret = client.set_secret("wins", "secretvalue")
    script = sh("[ $V = plain ] && echo plain || echo secret")
    first = base.with_env_variable("V", "plain").with_secret_variable("V", secret)
    last = base.with_secret_variable("V", secret).with_env_variable("V", "plain")
    assert await first.with_exec(script).stdout() == "secret\n"
    assert await last.with_exec(script).stdout() == "secret\n"


# -- as files ---------------------------------------------------------------------------------


async def test_a_mounted_secret(client: dagger.Client, base: dagger.Container) -> None:
    secret = client.set_secret("mounted", "mounted-value")
    one = base.with_mounted_secret("/run/s", secret)
    ran = one.with_exec(sh("wc -c < /run/s; stat -c '%a %u:%g' /run/s; cat /run/s"))
    assert await ran.stdout() == "13\n400 0:0\n***"
    assert await ran.rootfs().exists("run") is False
    assert await one.exists("/run/s") is False
    assert "no such file" in str(await failure(one.file("/run/s").contents()))


async def test_owner_and_mode_of_a_mounted_secret(
    client: dagger.Client, base: dagger.Container
) -> None:
    secret = client.set_secret("owned", "owned-value")
    one = base.with_mounted_secret("/run/s", secret, owner="user", mode=0o440)
    ran = one.with_exec(sh("stat -c '%a %u:%g' /run/s"))
    assert await ran.stdout() == "440 1000:1000\n"
    # The user of the container does not own it unasked, so cannot read it.
    as_user = base.with_user("user").with_mounted_secret("/tmp/s", secret)
    ran = as_user.with_exec(sh("stat -c '%a %u:%g' /tmp/s; cat /tmp/s 2>/dev/null || echo no"))
    assert await ran.stdout() == "400 0:0\nno\n"


async def test_a_mounted_secret_cannot_be_written(
    client: dagger.Client, base: dagger.Container
) -> None:
    secret = client.set_secret("unwritable", "unwritable-value")
    one = base.with_mounted_secret("/run/s", secret, mode=0o600).with_exec(sh("echo x > /run/s"))
    error = await failure(one.sync())
    assert isinstance(error, dagger.ExecError)
    assert "Read-only file system" in error.stderr


# -- scrubbed from output ---------------------------------------------------------------------


async def test_all_outputs_are_scrubbed(client: dagger.Client, base: dagger.Container) -> None:
    secret = client.set_secret("scrubbed", "s3cr3t-value")
    one = base.with_secret_variable("S", secret)
    ran = one.with_exec(
        sh("echo out $S; echo err $S >&2"), redirect_stdout="/o", redirect_stderr="/e"
    )
    assert await ran.stdout() == await ran.file("/o").contents() == "out ***\n"
    assert await ran.stderr() == await ran.file("/e").contents() == "err ***\n"
    assert "s3cr3t" not in await ran.combined_output()
    assert await one.with_exec(sh("echo $S > /f")).file("/f").contents() == "s3cr3t-value\n"


@pytest.mark.parametrize(
    ("value", "script", "shown"),
    [
        ("middle", "echo aa${S}bb", "aa***bb\n"),
        ("twice!", "echo $S-$S", "***-***\n"),
        ("split-secret", "printf split-; sleep 0.3; printf secret; echo", "***\n"),
        ("line1\nline2\nline3", 'echo "$S"', "***\n"),
        ("line1\nline2\nline3", "echo x line2 y", "x line2 y\n"),
        ("ab", "echo cab", "c***\n"),
        ("x", "echo xyz", "***yz\n"),
        ("encoded", "printf %s $S | tr a-z A-Z", "ENCODED"),
    ],
)
async def test_scrubbing(
    client: dagger.Client, base: dagger.Container, value: str, script: str, shown: str
) -> None:
    assert await printed(client, base, value, script) == shown


async def test_a_long_line_of_a_secret_is_a_secret(
    client: dagger.Client, base: dagger.Container
) -> None:
    value = "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END KEY-----\n"
    shown = await printed(client, base, value, "echo x MIIEvQIBADANBgkqhkiG y")
    assert shown == on(dagger="x MIIEvQIBADANBgkqhkiG y\n", embedded="x *** y\n")


async def test_errors_are_scrubbed(client: dagger.Client, base: dagger.Container) -> None:
    secret = client.set_secret("scrubbed-error", "err-secret")
    one = base.with_secret_variable("S", secret)
    error = await failure(one.with_exec(sh("echo out $S; echo err $S >&2; exit 1")).sync())
    assert isinstance(error, dagger.ExecError)
    assert (error.stdout, error.stderr) == ("out ***", "err ***")


async def test_only_a_container_s_own_secrets_are_scrubbed(
    client: dagger.Client, base: dagger.Container
) -> None:
    secret = client.set_secret("own-only", "own-only-value")
    assert await secret.plaintext()
    assert await base.with_exec(["echo", "own-only-value"]).stdout() == "own-only-value\n"
    bound = base.with_secret_variable("S", secret).with_exec(["true"])
    assert await bound.with_exec(["echo", "own-only-value"]).stdout() == "***\n"
    freed = bound.without_secret_variable("S")
    assert await freed.with_exec(["echo", "own-only-value"]).stdout() == "own-only-value\n"


# -- in cache keys ----------------------------------------------------------------------------


async def test_a_new_value_of_a_secret_is_not_answered_from_the_cache(
    client: dagger.Client, base: dagger.Container
) -> None:
    name = unique("new-value-")

    async def ask(value: str) -> str:
        secret = client.set_secret(name, value)
        return await base.with_secret_variable("S", secret).with_exec(UUID).stdout()

    first = await ask("value-one")
    assert await ask("value-one") == first
    assert (await ask("value-two") == first) is on(dagger=True, embedded=False)


async def test_a_cache_key_says_when_a_new_value_is_the_same_thing(
    client: dagger.Client, base: dagger.Container, tmp_path: Path
) -> None:
    file, key = tmp_path / "token", unique("key-")

    async def ask(value: str, cache_key: str) -> str:
        file.write_text(value)
        secret = client.secret(f"file://{file}", cache_key=cache_key)
        return await base.with_secret_variable("S", secret).with_exec(UUID).stdout()

    first = await ask("value-one", key)
    assert await ask("value-two", key) == first
    assert await ask("value-two", unique("key-")) != first


async def test_another_name_is_another_secret(
    client: dagger.Client, base: dagger.Container
) -> None:
    async def ask(name: str) -> str:
        secret = client.set_secret(name, "same-value")
        return await base.with_secret_variable("S", secret).with_exec(UUID).stdout()

    assert await ask(unique("name-")) != await ask(unique("name-"))
