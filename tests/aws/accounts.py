"""Accounts as `buildonce env apply` and an administrator leave them: roles and stacks."""

from __future__ import annotations

from collections.abc import Iterable

from buildonce.config import EnvironmentConfig
from buildonce.config.aws import role_arn
from buildonce.delivery.aws.roles import documents
from buildonce.delivery.aws.stacks import template
from buildonce.delivery.aws.statements import allow, document

from .listing import ACTIONS, AUDIT
from .simulation import Simulation


def enter(
    simulation: Simulation,
    places: Iterable[EnvironmentConfig],
    *,
    project: str,
    source: str | None = None,
) -> None:
    """The roles of these places: the one that each names, and "PROJECT-stacks" beside it.

    A role is of an account, its places are of a region: it is allowed what all of them need. An
    auditor may look at everything.
    """
    for place in places:
        found = documents(place, project=project, source=source)
        account = place.account_config.id
        for name, kind in ((place.role or "", "deploy"), (f"{project}-stacks", "stacks")):
            arn = role_arn(name, account)
            known = simulation.roles.get(arn)
            before = known.policy["Statement"] if known is not None else []
            simulation.role(
                account,
                arn.partition(":role/")[2],
                policy={**found[kind], "Statement": [*before, *found[kind]["Statement"]]},
                external_id=place.external_id,
            )
        simulation.role(
            account, f"{project}-{AUDIT}", policy=document([allow("Look", ACTIONS, "*")])
        )


def furnish(simulation: Simulation, places: Iterable[EnvironmentConfig], *, project: str) -> None:
    """The stacks of these places, as `env apply` would make them."""
    for place in places:
        name = f"{project}-{place.name}"
        stacks = simulation.place(place.account_config.id, place.region or "").stacks
        common = {"Name": name}
        if place.target == "lambda":
            given = {**common, "Url": place.url or "https://shop.example"}
            stacks.make(f"{name}-service", template("service-lambda"), given)
            continue
        network = stacks.make(f"{name}-network", template("network"), common)
        cluster = stacks.make(
            f"{name}-cluster",
            template("cluster"),
            {**common, "Vpc": network["Vpc"], "PublicSubnets": network["PublicSubnets"]},
        )
        keys = ("Cluster", "Listener", "Balancer", "BalancerGroup", "Url")
        given = {**common, **{key: cluster[key] for key in keys}}
        given |= {"Vpc": network["Vpc"], "PrivateSubnets": network["PrivateSubnets"]}
        stacks.make(f"{name}-service", template("service-ecs"), given)
