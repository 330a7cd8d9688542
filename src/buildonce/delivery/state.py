"""What a local environment remembers on disk: which container is in which slot, and its traffic.

It is written before each change takes place, so that whoever comes after a crash knows what may
exist. The file is replaced in one step: it is the old one or the new one, never half of it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from buildonce.delivery.errors import DeliveryError
from buildonce.delivery.lease import LeaseLost
from buildonce.delivery.proxy_configuration import SLOTS, Slot
from buildonce.release import Release

_FILE = "state.json"
_SCHEMA = 1


@dataclass(frozen=True)
class Instance:
    """A container that was, or is about to be, started. `env` is all that it is given."""

    container: str
    rollout: str
    port: int
    release: Release
    fingerprint: str
    env: Mapping[str, str]
    mounts: Mapping[str, str]
    started: datetime
    manifest: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "release": self.release.to_json(),
            "started": self.started.isoformat(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        return cls(
            **{
                **data,
                "release": Release.from_json(data["release"]),
                "started": datetime.fromisoformat(data["started"]).astimezone(UTC),
            }
        )


@dataclass(frozen=True)
class State:
    """Slots by name. `active` serves; `candidate` is the other one while a rollout goes on.

    `percent` is the candidate's share of the traffic.
    """

    slots: Mapping[str, Instance] = field(default_factory=dict)
    active: str | None = None
    candidate: str | None = None
    percent: int = 0

    @property
    def current(self) -> Instance | None:
        """What serves when no rollout goes on."""
        return self.slots[self.active] if self.active is not None else None

    @property
    def free(self) -> str:
        """A slot for the next candidate."""
        return next(name for name in SLOTS if name != self.active)

    def with_candidate(self, slot: str, instance: Instance) -> State:
        """The same with a candidate that gets no traffic."""
        return replace(self, slots={**self.slots, slot: instance}, candidate=slot, percent=0)

    def without(self, slot: str) -> State:
        """The same with that slot empty."""
        return replace(
            self,
            slots={name: instance for name, instance in self.slots.items() if name != slot},
            active=None if self.active == slot else self.active,
            candidate=None if self.candidate == slot else self.candidate,
            percent=0 if self.candidate == slot else self.percent,
        )

    @property
    def leftover(self) -> str | None:
        """A slot that is neither: a crash came before its container was removed."""
        known = (self.active, self.candidate)
        return next((name for name in self.slots if name not in known), None)

    def finished(self) -> State:
        """The same with the candidate as the active one; the previous becomes a leftover."""
        return replace(self, active=self.candidate, candidate=None, percent=0)

    def traffic(self, *, hide: str | None = None) -> dict[str, Slot]:
        """What the proxy is to do; the slot `hide` is kept from any request."""
        shares: dict[str, Slot] = {}
        for name in SLOTS:
            instance = self.slots.get(name)
            if instance is None or name == hide:
                shares[name] = Slot(None)
            elif name == self.active:
                shares[name] = Slot(instance.port, 100 - self.percent, standby=True)
            else:
                weight = self.percent if name == self.candidate else 0
                shares[name] = Slot(instance.port, weight)
        return shares


def read(folder: Path) -> State:
    """The state in an environment's folder; an empty one when there is none.

    Raises:
        DeliveryError: the file is not one of ours.
    """
    path = folder / _FILE
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        return State()
    except (OSError, ValueError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        if data["schema"] != _SCHEMA:
            raise ValueError(f"its schema is {data['schema']}, not {_SCHEMA}")
        slots = {name: Instance.from_json(slot) for name, slot in data["slots"].items()}
        return State(slots, data["active"], data["candidate"], data["percent"])
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, str(error)) from error


def write(folder: Path, state: State, *, fence: int = 0) -> None:
    """Replace the state durably (mode 0600: configuration may hold what is not everybody's).

    Args:
        fence: token of the writer's lease; 0 for none.

    Raises:
        LeaseLost: somebody with a later lease has written before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{_FILE}.lock").open("w") as guard:  # look and write are one
        fcntl.flock(guard, fcntl.LOCK_EX)
        seen = _fence(folder)
        if 0 < fence < seen:
            raise LeaseLost(
                f"environment {folder.name} is written to by a later rollout (lease {seen}, this "
                f"one has {fence}); nothing more is done there by this process",
                remedy=f"buildonce status; then buildonce resume {folder.name}",
            )
        _replace(folder, state, max(fence, seen))


def _fence(folder: Path) -> int:
    try:
        return int(json.loads((folder / _FILE).read_text()).get("fence", 0))
    except (OSError, ValueError, AttributeError, TypeError):
        return 0  # what cannot be read is told by `read`


def _replace(folder: Path, state: State, fence: int) -> None:
    data = {
        "schema": _SCHEMA,
        "fence": fence,
        "slots": {name: instance.to_json() for name, instance in state.slots.items()},
        "active": state.active,
        "candidate": state.candidate,
        "percent": state.percent,
    }
    scratch = folder / f"{_FILE}.new"
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(data, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    scratch.replace(folder / _FILE)


def _unreadable(path: Path, cause: str) -> DeliveryError:
    return DeliveryError(
        f"the environment's state {path} cannot be read: {cause}",
        remedy=f"buildonce environments down {path.parent.name}, then deploy to it again",
    )
