"""A few real advisories that come along, so that a check is more than an error on the first day.

    database = sample_database()     # database.sample is True: finding nothing in it means little

The records are beside this file, one a line (NOTICE.md says whose they are). osv-scanner reads zip
files, so one is made of them in the cache.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zipfile
from pathlib import Path

from buildonce import places
from buildonce.advisories.database import ARCHIVE, LAYOUT, Database

_FOLDER = Path(__file__).parent


def sample_database() -> Database:
    """The sample, in the layout of a real database."""
    return Database.open(_folder(), source="sample", sample=True)


def _folder() -> Path:
    """The folder of the sample in the cache; made whole or not at all."""
    lists = sorted(_FOLDER.glob("*.jsonl"))
    content = b"".join(file.name.encode() + file.read_bytes() for file in lists)
    name = f"sample-{hashlib.sha256(content).hexdigest()[:16]}"
    folder = places.cache() / "advisories" / name
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".sample-") as temporary:
        made = Path(temporary) / name
        for file in lists:
            archive = made / LAYOUT / file.stem / ARCHIVE
            archive.parent.mkdir(parents=True)
            _pack(file, archive)
        try:
            made.replace(folder)
        except OSError:
            if not folder.is_dir():  # another process was faster, which is as good
                raise
    return folder


def _pack(records: Path, archive: Path) -> None:
    """A zip file of the records; the same records give the same bytes."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        for line in records.read_text("utf-8").splitlines():
            entry = zipfile.ZipInfo(f"{json.loads(line)['id']}.json")
            entry.compress_type = zipfile.ZIP_DEFLATED
            opened.writestr(entry, line)
