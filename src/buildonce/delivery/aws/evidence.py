"""Evidence crosses accounts: a release is in an account's registry with all that makes it believed.

    target = await open_aws_target(production, …, carry=carrier(config))

Image (index and platforms alike), signatures, attestations and release record are copied from where
the release was cut, and verified in the account's own registry with the keys that the environment's
policy names, before anything there refers to `registry@sha256:…`. What is there already, whole and
believed, is not copied again: so a rollback needs no registry but the account's.
"""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from buildonce.config import Config, EnvironmentConfig
from buildonce.delivery.aws.ecr import region_of
from buildonce.delivery.aws.session import AwsSession
from buildonce.delivery.aws.target import Carry
from buildonce.delivery.errors import DeliveryError
from buildonce.release import Release
from buildonce.release.credentials import Login, docker_login
from buildonce.release.transport import Logins


def carrier(config: Config) -> Carry:
    """What brings releases of this project into the registries of its environments.

    Args:
        config: says whose signatures count where.
    """

    async def carry(release: Release, place: EnvironmentConfig, aws: AwsSession) -> None:
        # Cryptography: whoever deploys to no account of ours needs none of it.
        from buildonce.release.copy import copy_release
        from buildonce.release.errors import EvidenceMissing, Refusal
        from buildonce.release.keys import own_trust
        from buildonce.release.policy_check import trust_of
        from buildonce.release.record import find_record, verify_record
        from buildonce.release.registry import Registry

        assert place.registry is not None, "whoever calls this has looked"
        _, policy = config.policy(place.name)
        trust = trust_of(policy, config) if policy is not None else own_trust(config)
        async with Registry(logins=logins(aws)) as registry:
            there = await find_record(
                place.registry, version=release.version, trust=trust, registry=registry
            )
            if there is not None and there.release.image.digest == release.image.digest:
                try:
                    await verify_record(there, trust=trust, registry=registry)
                    return
                except Refusal:
                    pass  # something was lost: copying brings it back, or says what is wrong
            source = release.image.repository
            record = await find_record(
                source, version=release.version, trust=trust, registry=registry
            )
            if record is None or record.release.image.digest != release.image.digest:
                has = "no" if record is None else "another"
                raise EvidenceMissing(
                    f"{release.version} cannot go to {place.name}: {source} has {has} record of it",
                    remedy=f"buildonce release show {release.version}",
                )
            if place.target == "lambda" and record.platforms:
                raise DeliveryError(
                    f"{release.version} is an index of {', '.join(sorted(record.platforms))}, and "
                    f"Lambda ({place.name}) takes images of one platform only",
                    remedy='[project] platforms = ["linux/amd64"], in a new release',
                )
            await copy_release(record, place.registry, trust=trust, registry=registry)

    return carry


def logins(aws: AwsSession) -> Logins:
    """Who we are to registries: to ECR by the session's own token, elsewhere as docker is."""

    async def login(host: str) -> Login | None:
        region = region_of(host)
        if region is None and not aws.simulated:
            return await docker_login(host)
        answer = await aws.call_in(region or aws.region, "ecr", "GetAuthorizationToken")
        found = answer["authorizationData"][0]
        # A simulation's registry has no name by which it is known, but its own word.
        if region is None and urlsplit(found["proxyEndpoint"]).netloc != host:
            return await docker_login(host)
        user, _, password = base64.b64decode(found["authorizationToken"]).decode().partition(":")
        return Login(user, password)

    return login
