"""`make planted`: found, missed and false alarms of each check."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.planted.running import run
from tests.planted.table import as_table


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        outcome = run(Path(folder))
        try:
            rows = outcome.rows()
        except (OSError, KeyError, ValueError) as error:
            print(outcome.screen[-6000:], file=sys.stderr)
            print(f"error: the run left no whole reports: {error!r}", file=sys.stderr)
            return 70
    print(as_table(rows))
    for row in rows:
        for what, places in (("missed", row.missed), ("false alarm", row.alarms)):
            for where in places:
                print(f"{row.check}: {what}: {where!r}")
    return int(any(row.missed or row.alarms for row in rows))


if __name__ == "__main__":
    sys.exit(main())
