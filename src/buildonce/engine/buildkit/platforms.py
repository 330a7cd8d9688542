"""Platforms as text, `linux/arm64/v8`, and as BuildKit and OCI write them."""

from __future__ import annotations

from buildonce.engine.buildkit.proto import ops_pb2


def platform_message(platform: str) -> ops_pb2.Platform:
    """The wire's message."""
    system, architecture, variant = (*platform.split("/"), "", "")[:3]
    return ops_pb2.Platform(OS=system, Architecture=architecture, Variant=variant)


def platform_text(platform: ops_pb2.Platform) -> str:
    """The text of a message."""
    parts = (platform.OS, platform.Architecture, platform.Variant)
    return "/".join(part for part in parts if part)


def platform_document(platform: str) -> dict[str, str]:
    """As OCI's JSON has it."""
    message = platform_message(platform)
    document = {"os": message.OS, "architecture": message.Architecture}
    return {**document, "variant": message.Variant} if message.Variant else document
