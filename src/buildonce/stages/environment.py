"""The container that Python tools run in."""

from __future__ import annotations

from pathlib import Path

import dagger
from dagger import dag

from buildonce.errors import BuildonceError

PROJECT = "/project"
_ENVIRONMENT = "/opt/environment"
_REQUIREMENTS = "/opt/requirements.txt"
_INSTALLER = "/opt/installer"
_SCANNERS = Path(__file__).parent / "scanners"

# uv is told of a package index by other names than pip; whoever configured pip means both.
_INSTALL = f"""\
set -eu
if [ -n "${{PIP_INDEX_URL:-}}" ]; then
    export UV_DEFAULT_INDEX="${{UV_DEFAULT_INDEX:-$PIP_INDEX_URL}}"
fi
if [ -n "${{PIP_EXTRA_INDEX_URL:-}}" ]; then
    export UV_INDEX="${{UV_INDEX:-$PIP_EXTRA_INDEX_URL}}"
fi
# pip trusts whom the container trusts (Dagger adds a company's own roots there), uv if it is told.
for roots in /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem
do
    if [ -s "$roots" ]; then export UV_SYSTEM_CERTS=1; fi
done
uv="{_INSTALLER}/bin/uv --quiet --no-config --no-progress"
$uv venv --python python3 {_ENVIRONMENT}
# Byte code now, by all cores: else every check would compile what it imports, each time.
exec $uv pip install --python {_ENVIRONMENT} --require-hashes --compile-bytecode \
    --requirement {_REQUIREMENTS}
"""
_INSTALL_PATH = "/opt/install"


def python_environment(python: dagger.Container, requirements: dagger.File) -> dagger.Container:
    """A container with a virtual environment of hash-pinned requirements on its PATH.

    The layer that installs them depends on the requirements file alone: a changed source file
    installs nothing again. Downloads are kept in a cache volume between changes of the file. They
    are installed by uv, which takes a fraction of pip's time, at the version this package pins.

    Args:
        python: a container with Python, its `venv` module and `sh`.
        requirements: a requirements file with a `--hash` for every distribution.

    Example:
        tools = python_environment(
            dag.container().from_("python:3.12-slim"), source.file("requirements/dev.txt")
        )
    """
    return (
        _with_installer(python)
        .with_mounted_cache("/var/cache/uv", dag.cache_volume("buildonce-uv"))
        .with_env_variable("UV_CACHE_DIR", "/var/cache/uv")
        .with_env_variable("UV_LINK_MODE", "copy")
        # Copied and not mounted: BuildKit knows a copied file by its content alone.
        .with_file(_REQUIREMENTS, requirements)
        .with_new_file(_INSTALL_PATH, _INSTALL)
        .with_exec(["sh", _INSTALL_PATH])
        .without_mount("/var/cache/uv")
        .without_env_variable("UV_CACHE_DIR")
        .without_env_variable("UV_LINK_MODE")
        .with_env_variable("PATH", f"{_ENVIRONMENT}/bin:${{PATH}}", expand=True)
    )


def _with_installer(python: dagger.Container) -> dagger.Container:
    """The container with uv: one layer that all environments on this image share."""
    pip = f"{_INSTALLER}/bin/pip"
    return (
        python.with_exec(["python3", "-m", "venv", _INSTALLER])
        .with_new_file("/opt/installer.txt", (_SCANNERS / "uv.txt").read_text("utf-8"))
        .with_env_variable("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        .with_env_variable("PIP_NO_INPUT", "1")
        .with_exec(
            [
                *(pip, "install", "--quiet", "--no-cache-dir", "--no-compile"),
                *("--require-hashes", "--requirement", "/opt/installer.txt"),
            ]
        )
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
