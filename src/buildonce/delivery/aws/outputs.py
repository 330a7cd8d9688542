"""What the environment's stack says about itself: names and addresses of what releases use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from buildonce.delivery.aws.errors import AwsRefused, NotPrepared
from buildonce.delivery.aws.session import AwsSession

_READY = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")


def stack_name(project: str, environment: str, stack: str) -> str:
    """What a stack of the environment is called: "shop-production-service"."""
    return f"{project}-{environment}-{stack}"


@dataclass(frozen=True)
class Outputs:
    """A stack's outputs by key."""

    stack: str
    values: Mapping[str, str]
    remedy: str

    def __getitem__(self, key: str) -> str:
        try:
            return self.values[key]
        except KeyError:
            raise NotPrepared(
                f"the stack {self.stack} has no output {key}: its template is older than this "
                "buildonce",
                remedy=self.remedy,
            ) from None

    def listed(self, key: str) -> tuple[str, ...]:
        """An output that holds several values, separated by commas."""
        return tuple(part.strip() for part in self.values.get(key, "").split(",") if part.strip())


async def read_outputs(aws: AwsSession, stack: str, *, environment: str) -> Outputs:
    """The outputs of a stack that is fit to be deployed to.

    Raises:
        NotPrepared: there is no such stack, or its last change has not ended well.
    """
    remedy = f"buildonce env plan {environment}; buildonce env apply {environment}"
    try:
        answer = await aws.call("cloudformation", "DescribeStacks", StackName=stack)
    except AwsRefused as error:
        if error.code == "ValidationError" and "does not exist" in error.reason:
            raise NotPrepared(f"there is no stack {stack} in {aws.where}", remedy=remedy) from error
        raise
    found = answer["Stacks"][0]
    aws.must_be_here(found["StackId"], f"the stack {stack}")
    if found["StackStatus"] not in _READY:
        raise NotPrepared(
            f"the stack {stack} in {aws.where} is {found['StackStatus']}", remedy=remedy
        )
    values = {one["OutputKey"]: one["OutputValue"] for one in found.get("Outputs", [])}
    return Outputs(stack, values, remedy)
