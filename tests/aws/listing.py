"""`python -m tests.aws.listing`: what runs in each account and region, by the services' own word.

It asks with boto3 alone, as an auditor who may only read, and knows of buildonce no more than where
the accounts are: DescribeServices and DescribeTaskDefinition, GetFunction, DescribeImages' digest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from buildonce.config import Config

AUDIT = "audit"
ACTIONS = (
    "ecs:DescribeClusters",
    "ecs:DescribeServices",
    "ecs:DescribeTaskDefinition",
    "lambda:GetFunction",
)


@dataclass(frozen=True)
class Row:
    """One thing that runs.

    Attributes:
        caller: whom the account calls the one who asked.
        image: "repository@sha256:…".
    """

    account: str
    region: str
    what: str
    image: str
    caller: str

    @property
    def digest(self) -> str:
        """Of the image."""
        return self.image.partition("@")[2]


def listing(config: Config) -> Iterator[Row]:
    """All that runs in the accounts of a configuration; what is scaled to nothing does not."""
    import boto3

    for environment in config.environments.values():
        for place in environment.places:
            if place.target == "local":
                continue
            account = place.account_config

            def client(service: str, key: dict[str, Any], at: str = place.region or "") -> Any:
                return boto3.client(
                    service,
                    region_name=at,
                    endpoint_url=account.endpoint,  # noqa: B023  (used within the iteration)
                    aws_access_key_id=key.get("AccessKeyId"),
                    aws_secret_access_key=key.get("SecretAccessKey"),
                    aws_session_token=key.get("SessionToken"),
                )

            entered = client("sts", {}).assume_role(
                RoleArn=f"arn:aws:iam::{account.id}:role/{config.project.name}-{AUDIT}",
                RoleSessionName="listing",
            )
            key = entered["Credentials"]
            caller = client("sts", key).get_caller_identity()["Arn"]
            name = f"{config.project.name}-{place.name}"
            if place.target == "lambda":
                found = client("lambda", key).get_function(
                    FunctionName=name, Qualifier=place.function.alias
                )
                number = found["Configuration"]["Version"]
                image = found["Code"]["ImageUri"]
                yield Row(account.id, place.region or "", f"{name}:{number}", image, caller)
                continue
            ecs = client("ecs", key)
            services = ecs.describe_services(
                cluster=name, services=[name, f"{name}-a", f"{name}-b"]
            )["services"]
            for service in services:
                if not service["desiredCount"]:
                    continue
                described = ecs.describe_task_definition(taskDefinition=service["taskDefinition"])
                image = described["taskDefinition"]["containerDefinitions"][0]["image"]
                what = f"{service['serviceName']} ({service['runningCount']} tasks)"
                yield Row(account.id, place.region or "", what, image, caller)


def main() -> int:
    """Print a table; 1 when not all run the same digest."""
    rows = list(listing(Config.load("ci/pipeline.toml")))
    for row in rows:
        print(f"{row.account}  {row.region:<10}  {row.what:<48}  {row.image}")
    digests = {row.digest for row in rows}
    print(f"{len(rows)} places, {len(digests)} digest{'s' * (len(digests) != 1)}")
    return 0 if len(digests) == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
