"""What can be wrong with a ledger, told apart so that a reader can say it.

try:
    ledger = Ledger.open(path, read_only=True)
except LedgerMissing:
    ...                       # nothing has run yet
except LedgerError as error:
    print(error.message, error.remedy)
"""

from __future__ import annotations

from buildonce.errors import BuildonceError


class LedgerError(BuildonceError):
    """The ledger cannot be read or written; the message names the file and the cause."""


class LedgerMissing(LedgerError):
    """There is no ledger file (yet)."""


class LedgerLocked(LedgerError):
    """Another process held the ledger longer than the busy timeout, or died in a write."""


class LedgerCorrupt(LedgerError):
    """The file is damaged, or it is not a ledger."""


class EventRefused(LedgerError):
    """An event whose kind, ids or data do not have the agreed form; nothing was written."""
