"""What is laid over a container while its commands run: directories, files, caches, temporary
file systems, sockets. (Secrets: test_secrets.py.)"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import dagger
import pytest
from dagger import CacheSharingMode

from tests.engine.engines import UUID, failure, on, sh, unique

pytestmark = pytest.mark.anyio


@pytest.fixture
def tree(client: dagger.Client) -> dagger.Directory:
    made = client.directory().with_new_file("a.txt", "alpha\n")
    return made.with_new_file("sub/b.txt", "beta\n", permissions=0o600)


async def test_mounts_are_listed_in_order(
    client: dagger.Client, base: dagger.Container, tree: dagger.Directory
) -> None:
    one = (
        base.with_mounted_directory("/m/d", tree)
        .with_mounted_cache("/m/c", client.cache_volume("listed"))
        .with_mounted_temp("/m/t")
        .with_mounted_file("/m/f", tree.file("a.txt"))
        .with_mounted_secret("/m/s", client.set_secret("listed", "value"))
    )
    assert await one.mounts() == ["/m/d", "/m/c", "/m/t", "/m/f"]
    assert await one.without_mount("/m/c").mounts() == ["/m/d", "/m/t", "/m/f"]
    assert await one.without_mount("/nope").mounts() == await one.mounts()


async def test_paths_of_mounts(base: dagger.Container, tree: dagger.Directory) -> None:
    one = base.with_workdir("/w").with_env_variable("X", "xx")
    one = one.with_mounted_directory("rel", tree)
    one = one.with_mounted_directory("/q/$X", tree, expand=True)
    one = one.with_mounted_directory("/q/$X", tree)
    assert await one.mounts() == ["/w/rel", "/q/xx", "/q/$X"]
    assert await one.without_mount("rel").without_mount("/q/$X", expand=True).mounts() == ["/q/$X"]


async def test_a_mount_replaces_one_at_its_place(
    client: dagger.Client, base: dagger.Container
) -> None:
    one = base.with_mounted_directory("/m", client.directory().with_new_file("one", "1"))
    two = one.with_mounted_directory("/m", client.directory().with_new_file("two", "2"))
    assert await two.mounts() == ["/m"]
    assert await two.directory("/m").entries() == ["two"]
    assert await two.with_exec(["ls", "/m"]).stdout() == "two\n"


async def test_a_mount_hides_those_below_it(
    client: dagger.Client, base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_directory("/m/sub", client.directory().with_new_file("old", "old"))
    two = one.with_mounted_secret("/m/secret", client.set_secret("below", "value"))
    above = two.with_mounted_directory("/m", tree)
    assert await above.mounts() == ["/m"]
    assert await above.with_exec(["ls", "/m/sub"]).stdout() == "b.txt\n"
    assert await above.with_exec(sh("wc -c < /m/secret")).stdout() == "5\n"
    again = above.with_mounted_directory("/m/sub", client.directory().with_new_file("new", "new"))
    assert await again.mounts() == ["/m", "/m/sub"]
    assert await again.with_exec(["ls", "/m/sub"]).stdout() == "new\n"


async def test_a_file_that_is_removed_is_removed_below_its_mount_too(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_new_file("/place/f", "below").with_mounted_file("/place/f", tree.file("a.txt"))
    gone = one.without_file("/place/f")
    assert await gone.mounts() == []
    assert await gone.directory("/place").entries() == []


# -- directories ------------------------------------------------------------------------------


async def test_a_mounted_directory_is_the_container_s_own(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    ran = base.with_mounted_directory("/mnt", tree).with_exec(sh("echo new > /mnt/new"))
    assert await ran.with_exec(["ls", "/mnt"]).stdout() == "a.txt\nnew\nsub\n"
    assert await ran.directory("/mnt").entries() == ["a.txt", "new", "sub/"]
    assert await ran.file("/mnt/new").contents() == "new\n"
    assert await tree.entries() == ["a.txt", "sub/"]
    assert "mnt/" not in await ran.rootfs().entries()
    await failure(ran.without_mount("/mnt").with_exec(["ls", "/mnt"]).sync())


async def test_a_mount_is_no_part_of_the_root(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    mounted = base.with_mounted_directory("/mnt", tree)
    before = await base.rootfs().entries()
    assert await mounted.rootfs().entries() == await mounted.directory("/").entries() == before


async def test_a_mounted_directory_that_may_not_be_written(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_directory("/m", tree, read_only=True)
    assert await one.with_exec(["cat", "/m/a.txt"]).stdout() == "alpha\n"
    error = await failure(one.with_exec(["touch", "/m/x"]).sync())
    assert isinstance(error, dagger.ExecError)
    assert "Read-only file system" in error.stderr


async def test_files_can_be_added_to_a_mounted_directory(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_directory("/m", tree).with_new_file("/m/new", "1")
    assert await one.directory("/m").entries() == ["a.txt", "new", "sub/"]
    assert await one.without_mount("/m").rootfs().exists("m") is False
    assert await one.with_exec(["cat", "/m/new"]).stdout() == "1"


async def test_a_part_of_a_directory_is_mounted(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_directory("/m", tree.directory("sub"))
    assert await one.with_exec(["ls", "/m"]).stdout() == "b.txt\n"


@pytest.mark.parametrize(
    ("owner", "ids"),
    [
        ("user", "1000:1000"),  # the group is the user's number, not its group in passwd
        ("user:staff", "1000:1001"),
        ("user:other", "1000:1002"),
        ("7", "7:7"),
        ("7:8", "7:8"),
        (":staff", "0:1001"),
        ("", "0:0"),
    ],
)
async def test_owners_of_mounts(
    base: dagger.Container, tree: dagger.Directory, owner: str, ids: str
) -> None:
    one = base.with_mounted_directory("/m", tree, owner=owner)
    one = one.with_mounted_file("/f", tree.file("a.txt"), owner=owner)
    ran = one.with_exec(sh("stat -c '%u:%g %a' /m /m/a.txt /m/sub/b.txt /f"))
    modes = ("755", "644", "600", "644")
    assert await ran.stdout() == "".join(f"{ids} {mode}\n" for mode in modes)


@pytest.mark.parametrize(
    ("owner", "said"), [("nosuch", "no such user: nosuch"), ("user:no", "no such group: no")]
)
async def test_owners_that_are_not_there(
    base: dagger.Container, tree: dagger.Directory, owner: str, said: str
) -> None:
    one = base.with_mounted_directory("/m", tree, owner=owner).with_exec(["true"])
    assert said in str(await failure(one.sync()))


async def test_a_mounted_directory_with_an_owner_keeps_its_mode(
    client: dagger.Client, base: dagger.Container
) -> None:
    made = client.directory().with_new_directory("d", permissions=0o745)
    part = made.with_new_file("d/f", "f", permissions=0o645).directory("d")
    one = base.with_mounted_directory("/m", part, owner="7:8")
    one = one.with_mounted_cache("/c", client.cache_volume(unique()), source=part, owner="7:8")
    ran = one.with_exec(sh("stat -c '%u:%g %a' /m /m/f /c /c/f"))
    assert await ran.stdout() == "7:8 745\n7:8 645\n7:8 745\n7:8 645\n"


async def test_without_an_owner_everything_is_root_s_whoever_runs_commands(
    client: dagger.Client, base: dagger.Container, tree: dagger.Directory
) -> None:
    one = (
        base.with_user("user")
        .with_mounted_directory("/tmp/d", tree)
        .with_mounted_file("/tmp/f", tree.file("a.txt"))
        .with_mounted_cache("/tmp/c", client.cache_volume(unique("owner-")))
        .with_mounted_temp("/tmp/t")
    )
    ran = one.with_exec(sh("stat -c '%n %u:%g %a' /tmp/d /tmp/f /tmp/c /tmp/t"))
    assert await ran.stdout() == (
        "/tmp/d 0:0 755\n/tmp/f 0:0 644\n/tmp/c 0:0 755\n/tmp/t 0:0 1777\n"
    )


# -- files ------------------------------------------------------------------------------------


async def test_a_mounted_file_is_the_container_s_own(
    base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_file("/mf", tree.file("a.txt"))
    assert await one.file("/mf").contents() == "alpha\n"
    ran = one.with_exec(sh("echo more >> /mf"))
    assert await ran.with_exec(["cat", "/mf"]).stdout() == "alpha\nmore\n"
    assert await ran.file("/mf").contents() == "alpha\nmore\n"
    assert await tree.file("a.txt").contents() == "alpha\n"
    assert await ran.rootfs().exists("mf") is False


async def test_files_mounted_into_a_mounted_directory(
    client: dagger.Client, base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_directory("/m", tree).with_mounted_file(
        "/m/sub/b.txt", tree.file("a.txt")
    )
    assert await one.with_exec(["cat", "/m/sub/b.txt"]).stdout() == "alpha\n"
    ran = one.with_exec(["true"]).without_mount("/m/sub/b.txt")
    assert await ran.with_exec(["cat", "/m/sub/b.txt"]).stdout() == "beta\n"


# -- temporary file systems -------------------------------------------------------------------


async def test_a_temporary_mount_is_new_for_each_command(base: dagger.Container) -> None:
    one = base.with_mounted_temp("/t").with_exec(sh("touch /t/x; stat -c %a /t"))
    assert await one.stdout() == "1777\n"
    assert await one.with_exec(["ls", "/t"]).stdout() == ""


async def test_the_size_of_a_temporary_mount(base: dagger.Container) -> None:
    small = base.with_mounted_temp("/t", size=1 << 20)
    ran = small.with_exec(
        ["dd", "if=/dev/zero", "of=/t/x", "bs=1024", "count=2000"], expect=dagger.ReturnType.ANY
    )
    assert await ran.exit_code() == 1
    assert "No space left" in await ran.stderr()


# -- cache volumes ----------------------------------------------------------------------------


async def test_a_cache_volume_keeps_what_is_in_it(
    client: dagger.Client, base: dagger.Container
) -> None:
    one = base.with_mounted_cache("/c", client.cache_volume(unique("keeps-")))
    assert await one.with_exec(sh("stat -c '%a %u:%g' /c; echo 1 > /c/x")).stdout() == "755 0:0\n"
    assert await one.with_exec(["cat", "/c/x"]).stdout() == "1\n"


async def test_cache_volumes_are_told_apart_by_key(
    client: dagger.Client, base: dagger.Container
) -> None:
    one, other = client.cache_volume(unique("key-")), client.cache_volume(unique("key-"))
    assert await one.id() != await other.id()
    await base.with_mounted_cache("/c", one).with_exec(["touch", "/c/x"]).sync()
    assert await base.with_mounted_cache("/c", other).with_exec(["ls", "/c"]).stdout() == ""


async def test_a_cache_volume_with_an_owner(client: dagger.Client, base: dagger.Container) -> None:
    volume = client.cache_volume(unique("owner-"))
    owned = base.with_mounted_cache("/c", volume, owner="user").with_user("user")
    script = sh("stat -c '%a %u:%g' /c; touch /c/f")
    assert await owned.with_exec(script).stdout() == "755 1000:1000\n"
    assert await owned.with_exec(["ls", "/c"]).stdout() == "f\n"
    # Another owner is another volume.
    assert await base.with_mounted_cache("/c", volume).with_exec(["ls", "/c"]).stdout() == ""


async def test_a_cache_volume_with_a_source(
    client: dagger.Client, base: dagger.Container, tree: dagger.Directory
) -> None:
    volume = client.cache_volume(unique("source-"))
    filled = base.with_mounted_cache("/c", volume, source=tree)
    assert await filled.with_exec(sh("ls /c; touch /c/extra")).stdout() == "a.txt\nsub\n"
    assert await filled.with_exec(["ls", "/c"]).stdout() == "a.txt\nextra\nsub\n"
    assert await base.with_mounted_cache("/c", volume).with_exec(["ls", "/c"]).stdout() == ""
    part = base.with_mounted_cache("/c", volume, source=tree.directory("sub"))
    assert await part.with_exec(["ls", "/c"]).stdout() == "b.txt\n"


async def test_what_is_in_a_cache_volume_is_in_no_cache_key(
    client: dagger.Client, base: dagger.Container
) -> None:
    one = base.with_mounted_cache("/c", client.cache_volume(unique("no-key-")))
    script = sh("cat /c/x 2>/dev/null || echo empty")
    assert await one.with_exec(script).stdout() == "empty\n"
    await one.with_exec(sh("echo changed > /c/x")).sync()
    assert await one.with_exec(script).stdout() == "empty\n"
    assert await one.with_exec([*script, "again"]).stdout() == "changed\n"


async def test_what_is_in_a_cache_volume_is_in_no_image(
    client: dagger.Client, base: dagger.Container
) -> None:
    one = base.with_mounted_cache("/c/d", client.cache_volume(unique("image-")))
    assert await one.with_exec(["touch", "/c/d/x"]).rootfs().exists("c") is False


@pytest.mark.parametrize(
    ("sharing", "together"),
    [
        (CacheSharingMode.SHARED, True),
        (CacheSharingMode.LOCKED, False),
        # Dagger serialises; BuildKit's meaning of it is a volume for each at the time.
        (CacheSharingMode.PRIVATE, on(dagger=False, embedded=True)),
    ],
)
async def test_sharing_of_cache_volumes(
    client: dagger.Client, base: dagger.Container, sharing: CacheSharingMode, together: bool
) -> None:
    volume = client.cache_volume(unique("sharing-"))
    script = "cut -d' ' -f1 /proc/uptime; sleep 1; cut -d' ' -f1 /proc/uptime"

    async def ask(name: str) -> tuple[float, float]:
        one = base.with_mounted_cache("/c", volume, sharing=sharing)
        start, end = (await one.with_exec(sh(f"{script} # {name}")).stdout()).split()
        return float(start), float(end)

    (start, end), (other_start, other_end) = await asyncio.gather(ask("a"), ask("b"))
    assert (max(start, other_start) < min(end, other_end)) is together


@pytest.mark.parametrize("question", ["directory", "file"])
async def test_only_commands_see_into_caches_and_temporary_mounts(
    client: dagger.Client, base: dagger.Container, question: str
) -> None:
    one = base.with_mounted_cache("/c", client.cache_volume("seen")).with_mounted_temp("/t")

    async def ask(path: str) -> str:
        if question == "directory":
            return str(await failure(one.directory(path).entries()))
        return str(await failure(one.file(f"{path}/x").contents()))

    assert "cannot retrieve path from cache" in await ask("/c")
    assert "cannot retrieve path from cache" in await ask("/c/sub")
    assert "cannot retrieve path from tmpfs" in await ask("/t")


async def test_nothing_can_be_put_into_a_cache_from_outside(
    client: dagger.Client, base: dagger.Container, tree: dagger.Directory
) -> None:
    one = base.with_mounted_cache("/c", client.cache_volume("outside"))
    for changed in (one.with_new_file("/c/n", "1"), one.with_directory("/c", tree)):
        message = str(await failure(changed.with_exec(["ls", "/c"]).stdout()))
        assert "cannot retrieve path from cache" in message


# -- sockets ----------------------------------------------------------------------------------


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[Path]:
    """A socket of the host that says hello to whoever connects."""
    import socket
    import threading

    path = tmp_path / "hello.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            while True:
                try:
                    near, _ = server.accept()
                except OSError:
                    return
                with near:
                    near.sendall(b"hello from the host\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


async def test_a_socket_of_the_host(
    client: dagger.Client, base: dagger.Container, answering: Path
) -> None:
    socket = client.host().unix_socket(str(answering))
    one = base.with_unix_socket("/run/hello.sock", socket).with_env_variable("F", unique())
    ran = one.with_exec(sh("test -S /run/hello.sock && sleep 1 | shim connect /run/hello.sock"))
    assert await ran.stdout() == "hello from the host\n"
    gone = one.without_unix_socket("/run/hello.sock")
    assert await gone.with_exec(sh("test -e /run/hello.sock || echo gone")).stdout() == "gone\n"


async def test_the_owner_of_a_socket(
    client: dagger.Client, base: dagger.Container, answering: Path
) -> None:
    socket = client.host().unix_socket(str(answering))
    one = base.with_unix_socket("/run/s", socket, owner="user:staff")
    ran = one.with_exec(["stat", "-c", "%u:%g", "/run/s"])
    assert await ran.stdout() == "1000:1001\n"


# -- what is remembered -----------------------------------------------------------------------


async def test_a_mount_is_part_of_what_a_command_depends_on(
    client: dagger.Client, base: dagger.Container
) -> None:
    def ask(content: str) -> dagger.Container:
        made = client.directory().with_new_file("f", content)
        return base.with_mounted_directory("/m", made).with_exec(UUID)

    first, second = await ask("1").stdout(), await ask("2").stdout()
    assert first != second
    assert await ask("1").stdout() == first


async def test_many_execs_with_one_shared_cache_run_together(
    client: dagger.Client, base: dagger.Container
) -> None:
    one = base.with_mounted_cache("/c", client.cache_volume(unique("together-")))
    # None ends before all have begun.
    wait = 'for _ in $(seq 300); do [ "$(ls /c | wc -l)" = 4 ] && exit 0; sleep 0.1; done; exit 1'
    ran = (one.with_exec(sh(f"touch /c/{i}; {wait}")).sync() for i in range(4))
    await asyncio.gather(*ran)
    assert await one.with_exec(["ls", "/c"]).stdout() == "0\n1\n2\n3\n"
