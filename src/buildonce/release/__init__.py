"""A release: the immutable record of one commit and the digest that was built from it.

image = Image("127.0.0.1:5080/dashboard", "sha256:…")
image.reference                       # "127.0.0.1:5080/dashboard@sha256:…"
release = Release("2026.11.21+g1a2b3c4", revision, image, created, configuration)
Release.from_json(release.to_json()) == release
"""

from buildonce.release.models import Image, Release
from buildonce.release.source import Revision, read_revision

__all__ = ["Image", "Release", "Revision", "read_revision"]
