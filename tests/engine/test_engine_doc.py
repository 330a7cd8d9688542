"""docs/engine.md lists what the engine leaves out: all of it, and nothing else.

BUILDONCE_WRITE_DOCS=1 pytest tests/engine/test_engine_doc.py      # writes the list anew
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.engine.test_unserved import OBJECTS, served

pytestmark = pytest.mark.embedded_only
PAGE = Path(__file__).parents[2] / "docs/engine.md"
BEGIN, END = "<!-- left out: begin -->\n", "<!-- left out: end -->\n"


def left_out() -> str:
    """The list, a line a type: types that are left out as a whole come last."""
    partly, wholly = [], []
    for kind, shape in sorted(OBJECTS.items()):
        fields = [name for name in shape.fields if name != "id"]
        missing = [f"`{name}`" for name in fields if not served(kind, name)]
        if missing:
            lines = wholly if len(missing) == len(fields) else partly
            lines.append(f"- `{kind}`: {', '.join(missing)}\n")
    unreached = "The fields of these types, which nothing that is served leads to:"
    return f"\n{''.join(partly)}\n{unreached}\n\n{''.join(wholly)}\n"


def test_the_list_of_what_is_left_out_is_true() -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    listed, _, after = rest.partition(END)
    if os.environ.get("BUILDONCE_WRITE_DOCS"):
        PAGE.write_text(f"{before}{BEGIN}{left_out()}{END}{after}")
    else:
        assert listed == left_out(), "BUILDONCE_WRITE_DOCS=1 pytest tests/engine/test_engine_doc.py"
