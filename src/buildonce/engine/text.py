"""Bytes as text, as the API has it: what is no UTF-8 becomes U+FFFD, one for each byte."""

from __future__ import annotations

import codecs


def _each_byte(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("buildonce.each_byte", _each_byte)


def text(data: bytes) -> str:
    """`data` as text."""
    return data.decode(errors="buildonce.each_byte")
