"""Environments in AWS accounts: who they belong to, where they are, and what they refer to.

    [accounts.production]
    id = "222222222222"

    [environments.production]
    target = "ecs"
    account = "production"
    regions = ["eu-west-1", "us-east-1"]
    role = "shop-production-deploy"            # assumed for each rollout; no key lives longer
    secrets = { DATABASE = "secretsmanager:shop/database-AbCdEf" }      # a reference, never a value

An environment with several regions is one table and as many places: `environment.places`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from buildonce.config.base import Duration, Table
from buildonce.loopback import is_loopback

_REGION = r"^[a-z]{2}(-[a-z]+)+-[0-9]$"
_ROLE = r"^(arn:[a-z-]+:iam::[0-9]{12}:role/)?[A-Za-z0-9+=,.@/_-]{1,512}$"
_NAME_OF_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_REFERENCE = re.compile(
    r"arn:[a-z-]+:(ssm:[a-z0-9-]+:[0-9]{12}:parameter/\S+"
    r"|secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:\S+)"
    r"|ssm:/[\w./-]+"
    r"|secretsmanager:[\w/+=.@-]+"
)
REGION = "{region}"
"""Stands for a place's region in the name of its registry."""

# "registry/name", no tag, no digest.
_REPOSITORY = r"^([A-Za-z0-9.-]|\{region\})+(:[0-9]+)?(/([a-z0-9]+([._-]+[a-z0-9]+)*|\{region\}))+$"


def _endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError('an address such as "https://…" is wanted')
    if parts.scheme == "http" and not is_loopback(url):
        raise ValueError("credentials go over plain http to loopback only: write https://")
    return url.rstrip("/")


def _reference(text: str) -> str:
    if not _REFERENCE.fullmatch(text):
        # The text itself is not shown: it may be the secret.
        raise ValueError(
            'not a reference: "ssm:/path", "secretsmanager:name" or the ARN of one is wanted, '
            "never the value"
        )
    return text


def _whole_minutes(value: timedelta) -> timedelta:
    if value % timedelta(minutes=1):
        raise ValueError("ECS counts in whole minutes")
    return value


Reference = Annotated[str, AfterValidator(_reference)]
Minutes = Annotated[Duration, AfterValidator(_whole_minutes)]
Region = Annotated[str, Field(pattern=_REGION)]
RoleName = Annotated[str, Field(pattern=_ROLE)]
ExternalId = Annotated[str, Field(pattern=r"^[A-Za-z0-9+=,.@:/_-]{2,1224}$")]
Variable = Annotated[str, Field(pattern=_NAME_OF_VARIABLE)]


class AccountConfig(Table):
    """`[accounts.NAME]`: an account that environments, tools or registries live in.

    Attributes:
        id: its twelve digits; the caller's identity is compared with them before the first write.
        endpoint: where its API answers, in place of AWS's own address. On loopback (a simulation)
            fixed keys are allowed; anywhere else they are refused.
    """

    id: Annotated[str, Field(pattern=r"^[0-9]{12}$")]
    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None


class CloudMetricConfig(Table):
    """A measurement that decides with the alarms, over the time since the new release had traffic.

    Attributes:
        above, below: it breaches beyond either.
        samples: with fewer samples it says nothing: inconclusive.
    """

    namespace: str
    name: str
    statistic: Literal["Average", "Sum", "Minimum", "Maximum", "SampleCount"] = "Average"
    dimensions: dict[str, str] = Field(default_factory=dict)
    above: float | None = None
    below: float | None = None
    samples: Annotated[int, Field(ge=1)] = 1


class ServiceConfig(Table):
    """`[environments.X.service]`: how a release runs on ECS, and who moves its traffic.

    Attributes:
        strategy: "weighted" is buildonce's own (two services behind a weighted rule, every shape of
            rollout); the others are ECS's: the rollout's steps are then ECS's too.
        step_percent, step_bake: of "linear"; "canary" takes the first step from them.
        bake: how long ECS itself goes on watching after this pipeline was content (whose own bake
            is of `rollout`).
        patience: how long ECS holds at a pause for this pipeline before it goes back by itself.
        tasks, cpu, memory: how many, and the size of each (CPU units, MiB).
    """

    strategy: Literal["weighted", "rolling", "blue-green", "linear", "canary"] = "weighted"
    step_percent: Annotated[float, Field(ge=1, le=50)] = 10.0
    step_bake: Minutes = timedelta(minutes=5)
    bake: Minutes | None = None
    patience: Minutes = timedelta(hours=1)
    tasks: Annotated[int, Field(ge=1)] = 2
    cpu: Literal[256, 512, 1024, 2048, 4096] = 256
    memory: Annotated[int, Field(ge=512)] = 512
    container_port: Annotated[int, Field(ge=1, le=65535)] = 8080


class FunctionConfig(Table):
    """`[environments.X.function]`: how a release runs on Lambda.

    Attributes:
        alias: the name that callers use; its weights are the traffic.
        memory, timeout: of the function (MiB; at most 15 minutes).
    """

    alias: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,127}$")] = "live"
    memory: Annotated[int, Field(ge=128, le=10240)] = 512
    timeout: Annotated[Duration, Field(le=timedelta(minutes=15))] = timedelta(seconds=30)


class Placement(Table):
    """The keys of an environment that is in an account; all are left out for a local one.

    Attributes:
        account: a name of `[accounts]`.
        region, regions: one of the two keys; several regions make several places.
        role: assumed for each rollout: a name in the account, or an ARN.
        external_id: what the role's trust demands, where it does.
        registry: repository that the image and its evidence are copied to before anything refers
            to them, `{region}` in it standing for the place's region (a function takes images of
            its own region only); None deploys from where the release was pushed.
        secrets: environment variables that come from SSM or Secrets Manager, by reference.
        parameters: of the environment's stacks.
        metrics: CloudWatch's measurements that decide, beside the alarms of the environment's stack
            and of its `rollout`.
        address: where users reach it; None asks the load balancer.
    """

    account: str | None = None
    region: Region | None = None
    regions: tuple[Region, ...] = ()
    role: RoleName | None = None
    external_id: ExternalId | None = None
    registry: Annotated[str, Field(pattern=_REPOSITORY)] | None = None
    secrets: dict[Variable, Reference] = Field(default_factory=dict)
    parameters: dict[str, str] = Field(default_factory=dict)
    metrics: tuple[CloudMetricConfig, ...] = ()
    address: Annotated[str, Field(pattern=r"^https?://[^\s/]+$")] | None = None
    service: ServiceConfig = ServiceConfig()
    function: FunctionConfig = FunctionConfig()


def role_arn(role: str, account: str, *, partition: str = "aws") -> str:
    """The ARN of a role that is named by its ARN already, or by its name in the account."""
    return role if role.startswith("arn:") else f"arn:{partition}:iam::{account}:role/{role}"


def mistakes(name: str, target: str, port: int | None, keys: Placement) -> str | None:
    """What is wrong with an environment as a whole: "environments.X.key: cause"; None if nothing.

    Args:
        name, target, port: of the environment.
        keys: its keys of this module.
    """
    where = f"environments.{name}"
    given = sorted(keys.model_fields_set & set(Placement.model_fields))
    if target == "local":
        return f"{where}.{given[0]}: a local environment has no such key" if given else None
    if port is not None:
        return f'{where}.port: only a local environment has one; `address = "https://…"` here'
    for key in ("account", "role"):
        if getattr(keys, key) is None:
            return f"{where}.{key}: this key is missing; target {target!r} needs it"
    if (keys.region is None) == (not keys.regions):
        return f"{where}.region: one of `region` and `regions` is wanted"
    if keys.region and REGION in (keys.registry or ""):
        return f"{where}.registry: {REGION} stands for one of several `regions`; write it out"
    if len(set(keys.regions)) != len(keys.regions):
        return f"{where}.regions: a region occurs twice"
    other = {"ecs": "function", "lambda": "service"}[target]
    if other in given:
        return f"{where}.{other}: target {target!r} has no such key"
    return None
