"""The container that Python tools run in."""

from __future__ import annotations

from pathlib import Path

import dagger
from dagger import dag

from buildonce.errors import BuildonceError

PROJECT = "/project"
_ENVIRONMENT = "/opt/environment"
_REQUIREMENTS = "/opt/requirements.txt"
_SCANNERS = Path(__file__).parent / "scanners"


def python_environment(python: dagger.Container, requirements: dagger.File) -> dagger.Container:
    """A container with a virtual environment of hash-pinned requirements on its PATH.

    The layer that installs them depends on the requirements file alone: a changed source file
    installs nothing again. Downloads are kept in a cache volume between changes of the file.

    Args:
        python: a container with Python, its `venv` module and `sh`.
        requirements: a requirements file with a `--hash` for every distribution.

    Example:
        tools = python_environment(
            dag.container().from_("python:3.12-slim"), source.file("requirements/dev.txt")
        )
    """
    return (
        python.with_exec(["python3", "-m", "venv", _ENVIRONMENT])
        .with_env_variable("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .with_env_variable("PIP_NO_INPUT", "1")
        .with_env_variable("PIP_CACHE_DIR", "/var/cache/pip")
        .with_mounted_cache("/var/cache/pip", dag.cache_volume("buildonce-pip"))
        # Copied and not mounted: BuildKit knows a copied file by its content alone.
        .with_file(_REQUIREMENTS, requirements)
        .with_exec(
            [
                *(f"{_ENVIRONMENT}/bin/pip", "install", "--quiet"),
                *("--require-hashes", "--requirement", _REQUIREMENTS),
            ]
        )
        .without_mount("/var/cache/pip")
        .with_env_variable("PATH", f"{_ENVIRONMENT}/bin:${{PATH}}", expand=True)
    )


def scanner_environment(name: str, python: dagger.Container) -> dagger.Container:
    """A container with a scanner that is written in Python, at the version this package pins.

    Each scanner has an environment of its own: their dependencies do not have to agree, and none of
    them sees the project's. The lists are `scanners/<name>.in`, locked by `make lock`.

    Args:
        name: of the list: "semgrep", "cyclonedx", "infrastructure", …
        python: a container with Python, its `venv` module and `sh`.

    Raises:
        BuildonceError: there is no such list.

    Example:
        semgrep = scanner_environment("semgrep", dag.container().from_("python:3.12-slim"))
        await semgrep.with_exec(["semgrep", "--version"]).stdout()
    """
    requirements = _SCANNERS / f"{name}.txt"
    if not requirements.is_file():
        known = ", ".join(sorted(file.stem for file in _SCANNERS.glob("*.txt")))
        raise BuildonceError(
            f"there is no scanner {name!r} (there are: {known})",
            remedy="correct the name; or install this scanner with python_environment and a "
            "requirements file of your own",
        )
    folder = dag.directory().with_new_file(requirements.name, requirements.read_text("utf-8"))
    return python_environment(python, folder.file(requirements.name))


def in_project(python: dagger.Container, source: dagger.Directory) -> dagger.Container:
    """The container with the source at its working directory, importable from it or from `src/`."""
    return (
        python.with_mounted_directory(PROJECT, source)
        .with_workdir(PROJECT)
        .with_env_variable("PYTHONPATH", f"{PROJECT}/src:{PROJECT}")
        .with_env_variable("PYTHONDONTWRITEBYTECODE", "1")
    )
