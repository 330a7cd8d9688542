"""`[leases]`: where a team keeps the leases of its environments in accounts, one table for all.

[leases]
account = "tools"
region = "eu-west-1"
role = "buildonce-leases"             # assumed to take one

Without it leases are kept on the machine that deploys, which is enough while there is only one.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PrivateAttr

from buildonce.config.aws import AccountConfig, ExternalId, Region, RoleName
from buildonce.config.base import Table


class LeasesConfig(Table):
    """The DynamoDB table of leases, and the way to it.

    Attributes:
        account: a name of `[accounts]`; region: where the table is there.
        role: assumed for it: a name in the account, or an ARN.
        external_id: what the role's trust demands, where it does.
        table: its name, as its stack has it (the template `leases`).
    """

    account: str
    region: Region
    role: RoleName
    external_id: ExternalId | None = None
    table: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{3,255}$")] = "buildonce-leases"

    _account: AccountConfig | None = PrivateAttr(default=None)

    @property
    def name(self) -> str:
        """What messages call it."""
        return "[leases]"

    @property
    def account_config(self) -> AccountConfig:
        """The account, once the whole configuration was checked."""
        assert self._account is not None, "set where the whole configuration was checked"
        return self._account
