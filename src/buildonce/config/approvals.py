"""`[approvers]` and `environments.X.approval`: who may let a release in, and how many it takes.

[approvers]
ann = "ssh-ed25519 AAAA…"             # as `ssh-keygen -t ed25519` writes it to the .pub file

[environments.production.approval]
quorum = 2
approvers = ["ann", "bob", "carol"]
self_approval = false
expires = "7d"
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Protocol

from pydantic import AfterValidator, BeforeValidator, Field

from buildonce.config.base import Duration, Table
from buildonce.config.mistakes import did_you_mean


class ApprovalConfig(Table):
    """What an approval takes.

    Attributes:
        quorum: how many different people.
        approvers: who counts, by their names under [approvers]; empty means all of them, or, where
            there are none, the users of this machine with their machine's key.
        self_approval: whether the one who cut the release, or who deploys it, counts.
        expires: how long an approval is good for.
    """

    quorum: Annotated[int, Field(ge=1, strict=True)] = 1
    approvers: tuple[str, ...] = ()
    self_approval: bool = True
    expires: Duration = timedelta(days=7)


def _short_form(value: object) -> object:
    """`approval = true` is an approval with all defaults, `false` is none."""
    if isinstance(value, bool):
        return {} if value else None
    return value


def _public_key(text: str) -> str:
    kind, _, rest = text.strip().partition(" ")
    if kind != "ssh-ed25519" or not rest.startswith("AAAA"):
        raise ValueError('an Ed25519 public key is wanted: "ssh-ed25519 AAAA…"')
    return text.strip()


Approval = Annotated[ApprovalConfig | None, BeforeValidator(_short_form)]
PublicKey = Annotated[str, AfterValidator(_public_key)]


class _HasApproval(Protocol):
    @property
    def approval(self) -> ApprovalConfig | None: ...


def check_approvers(approvers: Mapping[str, str], environments: Mapping[str, _HasApproval]) -> None:
    """Whether each quorum can be reached by people that are known.

    Raises:
        ValueError: it cannot; the message begins with the key.
    """
    for name, environment in environments.items():
        wanted = environment.approval
        if wanted is None:
            continue
        for who in wanted.approvers:
            if who not in approvers:
                raise ValueError(
                    f"environments.{name}.approval.approvers: [approvers] has no key of {who!r}"
                    f"{did_you_mean(who, approvers)}"
                )
        possible = len(set(wanted.approvers) or approvers)
        if approvers and wanted.quorum > possible:
            raise ValueError(
                f"environments.{name}.approval.quorum: {wanted.quorum} can never be reached by "
                f"{possible}"
            )
