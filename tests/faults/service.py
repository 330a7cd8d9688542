"""The service of tests/delivery, which may fall ill while it runs.

Files in the folder ILL, called "KIND.DIGEST", say who has what: "unhealthy" (500 on /healthz),
"errors" (on /basket), "smoke" (on /smoke).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "delivery"))
from service import Handler, Server

_PATHS = {"/healthz": "unhealthy", "/basket": "errors", "/smoke": "smoke"}


class Patient(Handler):
    def do_GET(self) -> None:
        kind = _PATHS.get(self.path.partition("?")[0])
        name = f"{kind}.{os.environ['BUILDONCE_DIGEST'].removeprefix('sha256:')}"
        if kind is not None and Path(os.environ["ILL"], name).exists():
            self.answer({}, 500)
        else:
            super().do_GET()


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT"])), Patient).serve_forever()
