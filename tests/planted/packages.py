"""Packages with known vulnerabilities and licences that conflict, as an image would hold them.

Nothing is installed: a package is what its metadata says, to the scanners as well. All advisories
are of the sample that comes with buildonce.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SITE = "site-packages"
DPKG = "var/lib/dpkg/status"
OS_RELEASE = "etc/os-release"

# name, version, and by which advisories it is affected.
VULNERABLE: dict[tuple[str, str], Sequence[str]] = {
    ("Jinja2", "2.10"): ["CVE-2019-10906", "CVE-2020-28493"],
    ("PyYAML", "5.3"): ["CVE-2020-1747", "CVE-2020-14343"],
    ("requests", "2.19.0"): ["CVE-2018-18074", "CVE-2023-32681"],
    ("urllib3", "1.26.3"): [
        "CVE-2021-28363", "CVE-2021-33503", "CVE-2023-43804", "CVE-2023-45803",
    ],
    ("Werkzeug", "2.3.7"): ["CVE-2023-46136"],
    ("cryptography", "41.0.5"): ["CVE-2023-49083"],
    ("certifi", "2022.12.7"): ["CVE-2023-37920"],
    ("gunicorn", "19.4.5"): ["CVE-2018-1000164"],
    ("starlette", "0.26.1"): ["CVE-2023-29159"],
    ("aiohttp", "3.9.2rc1"): ["CVE-2024-23334"],  # a candidate comes before what it leads to
    ("idna", "3.6"): ["CVE-2024-3651"],
    ("OctoPrint", "1.9.3"): ["CVE-2024-23637"],
}  # fmt: skip

# In a version that is mended, or not yet broken; or only called like one.
HARMLESS: Sequence[tuple[str, str]] = (
    ("paramiko", "1.7.2"),
    ("SQLAlchemy", "0.7.0"),
    ("Pillow", "9.3.0"),
    ("Django", "1.7.11"),
    ("Flask", "1.0"),
    ("uvicorn", "0.11.7.post1"),
    ("setuptools", "65.5.1"),
    ("wheel", "0.38.1+local"),
    ("jinja2-time", "0.2.0"),
    ("pyyaml-include", "1.0"),
    ("requests-toolbelt", "0.9.1"),
    ("urllib3-future", "1.26.3"),
    ("aiohttp-cors", "0.7.0"),
    ("cryptography-vectors", "41.0.5"),
    ("certifi-win32", "1.6"),
    ("idna-ssl", "1.1.0"),
    ("python-gunicorn", "19.4.5"),
)

# Of Debian 12: binary package, source package, version, advisory.
SYSTEM_VULNERABLE: Sequence[tuple[str, str, str, str]] = (
    ("zlib1g", "zlib", "1:1.2.11.dfsg-4", "CVE-2022-37434"),
    ("libssl3", "openssl", "3.0.13-1~deb12u1", "CVE-2024-6119"),
    ("libexpat1", "expat", "2.5.0-1", "CVE-2024-45491"),
)
SYSTEM_HARMLESS: Sequence[tuple[str, str, str]] = (
    ("libcurl4", "curl", "7.88.1-10+deb12u4"),
    ("perl-base", "perl", "5.36.0-7+deb12u2"),
    ("libc6", "glibc", "2.36-9+deb12u9"),
    ("mount", "util-linux", "2.38.1-5+deb12u3"),
)


@dataclass(frozen=True)
class Licensed:
    """A package by its licence.

    Args:
        name: of the package.
        metadata: the lines of its metadata that say under which licence it is.
        acceptable: whether the default policy accepts it.
    """

    name: str
    metadata: str
    acceptable: bool = False


_CLASSIFIER = "Classifier: License :: OSI Approved :: "

LICENCES: Sequence[Licensed] = (
    Licensed("denied", "License-Expression: AGPL-3.0-only"),
    Licensed("denied-too", "License-Expression: MIT AND SSPL-1.0"),
    Licensed("denied-either-way", "License-Expression: AGPL-3.0-only OR SSPL-1.0"),
    Licensed("classified", f"{_CLASSIFIER}GNU Affero General Public License v3"),
    Licensed("contradicting", f"License: MIT\n{_CLASSIFIER}GNU Affero General Public License v3"),
    Licensed("lower-case", "License: agpl-3.0-or-later"),
    Licensed("business", "License-Expression: BUSL-1.1"),
    Licensed("silent", "Summary: says nothing of its licence"),
    Licensed("free-text", "License: MIT or so, ask Bob"),
    Licensed("proprietary", "Classifier: License :: Other/Proprietary License"),
    Licensed("in-no-list", "License-Expression: GPL-3.0-only"),
    Licensed("own", "License-Expression: LicenseRef-Shop"),
    Licensed("a-choice", "License-Expression: AGPL-3.0-only OR MIT", acceptable=True),
    Licensed(
        "choices", "License-Expression: (SSPL-1.0 OR Apache-2.0) AND BSD-3-Clause", acceptable=True
    ),
    Licensed("agpl-detector", "License-Expression: MIT", acceptable=True),
    Licensed("excepted", "License-Expression: Apache-2.0 WITH LLVM-exception", acceptable=True),
    Licensed("bsd", f"{_CLASSIFIER}BSD License", acceptable=True),
    Licensed("small", "License: mit", acceptable=True),
    Licensed("named", "License: Apache License 2.0", acceptable=True),
    Licensed("spelt", "License: MIT License", acceptable=True),
    Licensed("foundation", f"{_CLASSIFIER}Python Software Foundation License", acceptable=True),
    Licensed("twice", f"License: MIT\n{_CLASSIFIER}MIT License", acceptable=True),
    Licensed("mozilla", f"{_CLASSIFIER}Mozilla Public License 2.0 (MPL 2.0)", acceptable=True),
    Licensed("isc", "License: ISC", acceptable=True),
)


def python_packages() -> dict[str, str]:
    """The metadata files of all Python packages, by their paths in `site-packages`."""
    made = {}
    for name, version in (*VULNERABLE, *HARMLESS):
        made |= _metadata(name, version, "License-Expression: MIT")
    for package in LICENCES:
        made |= _metadata(package.name, "1.0", package.metadata)
    return made


def _metadata(name: str, version: str, more: str) -> dict[str, str]:
    folder = f"{name.replace('-', '_').lower()}-{version}.dist-info"
    text = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{more}\n"
    return {f"{folder}/METADATA": text, f"{folder}/INSTALLER": "pip\n", f"{folder}/RECORD": ""}


def system_files() -> dict[str, str]:
    """What makes a folder the root of a Debian 12 with the system's packages."""
    packages = [*(found[:3] for found in SYSTEM_VULNERABLE), *SYSTEM_HARMLESS]
    status = "\n".join(
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\n"
        f"Source: {source}\nVersion: {version}\nMaintainer: nobody\nDescription: planted\n"
        for name, source, version in packages
    )
    release = 'ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\nNAME="Debian GNU/Linux"\n'
    return {DPKG: status, OS_RELEASE: release}


def wanted_vulnerabilities() -> frozenset[str]:
    """ "CVE-2024-3651 idna", for each."""
    found = {f"{cve} {name.lower()}" for (name, _), cves in VULNERABLE.items() for cve in cves}
    return frozenset(found | {f"{cve} {source}" for _, source, _, cve in SYSTEM_VULNERABLE})


def wanted_licences() -> frozenset[str]:
    """Package URLs without versions, as the check names its findings."""
    return frozenset(f"pkg:pypi/{one.name}" for one in LICENCES if not one.acceptable)
