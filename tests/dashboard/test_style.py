"""Text can be read: each pair of colours has the contrast that WCAG AA asks of small text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import buildonce.dashboard

CSS = (Path(buildonce.dashboard.__file__).parent / "static" / "style.css").read_text()
PAIRS = [
    *((tone, f"{tone}-bg") for tone in ("good", "bad", "warn", "live", "calm")),
    *((text, ground) for text in ("ink", "soft", "link") for ground in ("ground", "surface")),
    ("warn", "surface"),
]


def palette(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


LIGHT, DARK = CSS.split("@media (prefers-color-scheme: dark)")[:2]


@pytest.mark.parametrize("block", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), PAIRS)
def test_contrast(block: str, text: str, ground: str) -> None:
    colours = palette(block)
    low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_nothing_is_fetched_from_elsewhere() -> None:
    assert "url(" not in CSS
    assert "@import" not in CSS
