"""What every pair must leave, whatever its target: one release, agreed on by all who are asked."""

from __future__ import annotations

from buildonce.delivery.lease import Leases
from buildonce.delivery.target import Target
from buildonce.ledger import Ledger

NAME = "production"


async def disagreements(
    serving: str | None, *, target: Target, ledger: Ledger, leases: Leases
) -> list[str]:
    """What is not as it must be.

    Args:
        serving: digest that answers users now, by asking as they do.
    """
    wrong = []
    if await target.pending() is not None:
        wrong.append("a candidate is left")
    current = await target.current()
    if current is None or current.digest != serving or not current.healthy:
        wrong.append(f"the target says {current}")
    rollouts = await ledger.rollouts(NAME)
    if open_ones := [one.id for one in rollouts if one.result is None]:
        wrong.append(f"not ended in the ledger: {open_ones}")
    recorded = await ledger.current(NAME)
    if recorded is None or recorded.digest != serving:
        wrong.append(f"the ledger says {recorded and recorded.digest}")
    if rollouts[0].running_digest != serving:
        wrong.append(f"the newest rollout says {rollouts[0].running_digest}")
    if (holder := await leases.holder(NAME)) is not None:
        wrong.append(f"the lease stays: {holder}")
    return wrong
