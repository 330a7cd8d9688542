"""Names of in-toto predicate types: what kind of evidence an attestation is.

One image may have several attestations of one type: a test result of each check, an SBOM of the
image and one of its Python environment. `Attestation.name` tells them apart.
"""

from __future__ import annotations

from typing import Final

TEST_RESULT: Final = "https://in-toto.io/attestation/test-result/v0.1"
"""Lint, type check, unit tests, quality, infrastructure: passed or failed, and what was run."""

CYCLONEDX: Final = "https://cyclonedx.org/bom"
"""A software bill of materials: the CycloneDX document itself."""

SLSA_PROVENANCE: Final = "https://slsa.dev/provenance/v1"
"""Where the image comes from: source, base image, builder, parameters."""

VULNERABILITIES: Final = "https://in-toto.io/attestation/vulns/v0.1"
"""What a scan against an advisory database found, and the database's date."""

SARIF: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0"
"""Findings of a static analysis or of a search for secrets: the SARIF log itself."""

LICENCES: Final = "urn:buildonce:licences:v1"
"""The licence of each component, and what the project's rules say about it."""

RELEASE: Final = "urn:buildonce:release:v1"
"""The release record, where it is carried as an attestation."""

STATUS: Final = "urn:buildonce:release-status:v1"
"""What became known after the release: promotable, or withdrawn, and why."""
