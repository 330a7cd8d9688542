"""Building an image, and pushing it: two steps, so that nothing is pushed that did not pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import dagger

# A fixed moment in place of now and of files' times: the same source gives the same digest.
EPOCH = 0


async def build_image(
    source: dagger.Directory,
    *,
    include: Sequence[str] = ("**",),
    dockerfile: str = "Dockerfile",
    build_args: Mapping[str, str] | None = None,
    target: str = "",
    platform: str | None = None,
) -> dagger.Container:
    """Build the image of a Dockerfile, and wait until it is built. Nothing is pushed.

    Args:
        source: the project.
        include: what of it the Dockerfile may see; a change elsewhere builds nothing.
        dockerfile: path of the Dockerfile in the source.
        build_args: values of its ARGs, such as the base image.
        target: which of its stages to build; "" is the last.
        platform: what it is built for ("linux/arm64"); None is what the engine runs on.

    Raises:
        dagger.ExecError: a command of the Dockerfile failed.
        dagger.QueryError: the Dockerfile is wrong, or its base image cannot be had.

    Example:
        image = await build_image(source, build_args={"PYTHON_IMAGE": "python:3.12-slim"})
        await image.with_exec(["app", "--version"]).stdout()
    """
    context = source.filter(include=[dockerfile, *include]).with_timestamps(EPOCH)
    arguments = {"SOURCE_DATE_EPOCH": str(EPOCH), **(build_args or {})}
    image = context.docker_build(
        dockerfile=dockerfile,
        build_args=[dagger.BuildArg(name, value) for name, value in arguments.items()],
        target=target,
        platform=None if platform is None else dagger.Platform(platform),
    )
    return await image.sync()


async def publish(image: dagger.Container, address: str) -> str:
    """Push an image and say what it is.

    Args:
        image: what to push.
        address: registry, name and tag: "registry.example/app:1.2".

    Returns:
        The address with its digest: "registry.example/app:1.2@sha256:…". Keep that; a tag may move.

    Raises:
        dagger.QueryError: the registry refused it.

    Example:
        reference = await publish(await build_image(source), "registry.example/app:1.2")
    """
    return await image.publish(address)
