"""AWS as far as buildonce uses it, with state, a clock that the test holds, and faults.

    simulation = Simulation()
    simulation.role("222222222222", "shop-deploy", policy=document, trusted=[simulation.caller])
    session = simulation.connect()          # a botocore session whose clients end up here

ECS deployments, Lambda aliases, load balancers, alarms, CloudFormation and STS's refusals are here
because moto stands still there; DynamoDB, SSM and Secrets Manager are moto's own backends, and
images are in real registries. Every request and every answer passes botocore's service models (see
`wire`).
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import botocore.endpoint
import botocore.loaders
import botocore.retries.bucket
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ReadTimeoutError

from . import registries, wire
from .access import Role, Session, Used, action_of, allows, passed_roles, resources_of
from .clock import SimulatedClock
from .faults import Killed, Process
from .place import Place
from .wire import Answer, BadRequest, Call, Message, ServiceError

CALLER_ACCOUNT = "111111111111"
_MOTO = {"dynamodb", "ssm", "secretsmanager"}
_GROUPS = {
    "ecr": "ecr",
    "ecs": "ecs",
    "lambda": "functions",
    "elbv2": "balancer",
    "cloudwatch": "alarms",
    "cloudformation": "stacks",
}
_LOADER = botocore.loaders.create_loader()
_COMPONENTS: dict[str, Any] = {}


class Simulation:
    """All accounts."""

    def __init__(self, clock: SimulatedClock | None = None) -> None:
        self.clock = clock or SimulatedClock()
        self.places: dict[tuple[str, str], Place] = {}
        self.roles: dict[str, Role] = {}
        self.sessions: dict[str, Session] = {}
        self.used = Used()
        self.journal: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.registries: dict[str, str] = {}  # host:port by account
        self.door: Callable[[Place, str], str] | None = None
        self.trail: Callable[[str, Call], object] = lambda who, call: None  # told of each call
        self.happenings: list[tuple[Callable[[], bool], Callable[[], object]]] = []
        self.lies_about_identity: str | None = None  # an account
        self.throttle_every = 0
        self.throttled = 0
        self._lock = threading.RLock()
        self._serial = 0
        self.caller = f"arn:aws:sts::{CALLER_ACCOUNT}:assumed-role/ci/runner"
        self.caller_key = "ASIACALLER"
        self.sessions[self.caller_key] = Session(CALLER_ACCOUNT, self.caller, None)

    def place(self, account: str, region: str) -> Place:
        """An account in a region."""
        key = (account, region)
        if key not in self.places:
            self.places[key] = Place(self, account, region)
        return self.places[key]

    def role(
        self,
        account: str,
        name: str,
        *,
        policy: Mapping[str, Any],
        trusted: Sequence[str] = (),
        external_id: str | None = None,
    ) -> Role:
        """A role of an account; without `trusted`, the simulation's caller may assume it."""
        arn = f"arn:aws:iam::{account}:role/{name}"
        self.roles[arn] = Role(arn, policy, tuple(trusted) or (self.caller,), external_id)
        return self.roles[arn]

    def when(self, so: Callable[[], bool], happens: Callable[[], object]) -> None:
        """Once that is so, let something happen: looked at when a call comes."""
        self.happenings.append((so, happens))

    def _happen(self) -> None:
        due = [one for one in self.happenings if one[0]()]
        for one in due:
            self.happenings.remove(one)
            one[1]()

    def pull(self, account: str, image: str) -> str | None:
        """Why an account cannot pull an image; None when it can.

        What is of no account's registry comes from elsewhere in the world, where all is well.
        """
        owners = {host: owner for owner, host in self.registries.items()}
        owner = owners.get(image.partition("/")[0])
        if owner is None:
            return None
        if owner != account:
            return f"CannotPullContainerError: {image}: 403 Forbidden"
        return registries.refusal(self.registries[owner], owner, image)

    # Ways in.

    def connect(self, process: Process | None = None) -> botocore.session.Session:
        """A botocore session as the machine would have it, whose clients call this simulation."""
        session = botocore.session.Session()
        session.register_component("data_loader", _LOADER)
        session.set_credentials(self.caller_key, "secret", "token")
        actor = process or Process()

        def before_send(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
            headers = {
                key.lower(): value.decode() if isinstance(value, bytes) else str(value)
                for key, value in request.headers.items()
            }
            body = request.body or b""
            content = body.encode() if isinstance(body, str) else bytes(body)
            message = Message(request.method, request.url, headers, content)
            found = self.respond(message, actor)
            return AWSResponse(request.url, found.status, found.headers, _Raw(found.body))

        session.register("before-send", before_send)
        return session

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nothing else happens while the block runs."""
        with self._lock:
            yield

    def respond(self, message: Message, process: Process) -> Answer:
        """Answer a request of a process, as its fault and the simulation's state have it."""
        with self._lock:
            if process.dead:
                raise Killed
            call = wire.read(message)
            number = len(process.calls)
            fault = process.fault
            first = not self._retried(process, call)
            if first:
                process.calls.append(call.name)
            if fault is not None and first and fault.begins(number, call.name):
                if fault.kind == "kill before":
                    process.dead = True
                    raise Killed
                if fault.kind == "happening" and fault.happening is not None:
                    fault.happening()
            wrong = fault is not None and fault.hit and fault.again(call.name)
            if fault is not None and wrong:
                if fault.kind == "throttle":
                    return wire.answer(call, ServiceError("ThrottlingException", "Rate exceeded"))
                if fault.kind == "denied":
                    denied = ServiceError("AccessDeniedException", "not authorized", 400)
                    return wire.answer(call, denied)
                if fault.kind in ("timeout before", "stall"):
                    raise ReadTimeoutError(endpoint_url=message.url)
            if (
                self.throttle_every
                and (len(self.journal) + self.throttled) % self.throttle_every == 0
            ):
                self.throttled += 1
                return wire.answer(call, ServiceError("ThrottlingException", "Rate exceeded"))
            lie = fault is not None and fault.kind == "lie" and fault.at == number and first
            answer = self._answer(call, lie=lie)
            hit = fault is not None and fault.hit and fault.at == number and first
            if fault is not None and hit and fault.kind == "kill after":
                process.dead = True
                raise Killed
            if fault is not None and wrong and fault.kind == "timeout after":
                raise ReadTimeoutError(endpoint_url=message.url)
            return answer

    def _retried(self, process: Process, call: Call) -> bool:
        """Whether this is another attempt of the call before it: botocore says so in a header."""
        said = call.message.headers.get("amz-sdk-request", "")
        return "attempt=" in said and "attempt=1" not in said.replace(" ", "").split(";")

    def _answer(self, call: Call, *, lie: bool = False) -> Answer:
        self.journal.append(call)
        self.counts[call.name] += 1
        try:
            if call.service == "sts":
                return wire.answer(call, self._sts(call))
            session = self._session(call)
            self.trail(session.arn, call)
            self._authorise(call, session)
            place = self.place(session.account, call.region)
            place.ecs.advance()
            self._happen()
            if call.service in _MOTO:
                return self._moto(call, session.account)
            handler = getattr(getattr(place, _GROUPS[call.service]), call.operation)
            if lie and not call.operation.startswith(("Describe", "Get", "List")):
                return wire.answer(call, _empty_answer(call))
            return wire.answer(call, handler(call))
        except ServiceError as error:
            return wire.answer(call, error)

    def _session(self, call: Call) -> Session:
        found = self.sessions.get(call.access_key)
        if found is None:
            raise ServiceError("UnrecognizedClientException", "The security token is invalid", 403)
        if found.ends is not None and self.clock.now() >= found.ends:
            raise ServiceError("ExpiredTokenException", "The security token is expired", 403)
        return found

    def _authorise(self, call: Call, session: Session) -> None:
        context: dict[str, str] = {}
        if session.role is None:
            raise _denied(session.arn, action_of(call), "*")
        if call.service == "ecs" and "cluster" in call.parameters:
            cluster = str(call.parameters["cluster"]).rpartition("/")[2]
            context["ecs:cluster"] = (
                f"arn:aws:ecs:{call.region}:{session.account}:cluster/{cluster}"
            )
        for resource in resources_of(call, session.account):
            self._must_allow(session, action_of(call), resource, context)
        for role, service in passed_roles(call):
            self._must_allow(session, "iam:PassRole", role, {"iam:PassedToService": service})
        if call.operation == "RegisterTaskDefinition" and call.parameters.get("tags"):
            resource = resources_of(call, session.account)[0]
            self._must_allow(
                session, "ecs:TagResource", resource, {"ecs:CreateAction": "RegisterTaskDefinition"}
            )
        if call.name == "ecs.CreateService" and call.parameters.get("tags"):
            resource = resources_of(call, session.account)[0]
            self._must_allow(
                session, "ecs:TagResource", resource, {"ecs:CreateAction": "CreateService"}
            )
        if call.name == "lambda.CreateFunction" and call.parameters.get("Tags"):
            resource = resources_of(call, session.account)[0]
            self._must_allow(session, "lambda:TagResource", resource, {})

    def _must_allow(
        self, session: Session, action: str, resource: str, context: Mapping[str, str]
    ) -> None:
        assert session.role is not None
        if not allows(session.role.policy, action, resource, context):
            raise _denied(session.arn, action, resource)
        self.used.add(session.role.arn, action, resource)

    def _sts(self, call: Call) -> dict[str, Any]:
        session = self._session(call)
        if call.operation == "GetCallerIdentity":
            account = self.lies_about_identity or session.account
            return {"UserId": "AROA:x", "Account": account, "Arn": session.arn}
        if call.operation != "AssumeRole":
            raise ServiceError("InvalidAction", f"not simulated: {call.operation}")
        p = call.parameters
        role = self.roles.get(p["RoleArn"])
        trusted = role is not None and session.arn in role.trusted
        named = role is not None and role.external_id in (None, p.get("ExternalId"))
        if role is None or not trusted or not named:
            # STS does not tell a role that is missing from one that is closed.
            raise ServiceError(
                "AccessDenied",
                f"User: {session.arn} is not authorized to perform: sts:AssumeRole on resource: "
                f"{p['RoleArn']}",
                403,
            )
        self._serial += 1
        key = f"ASIA{hashlib.sha256(str(self._serial).encode()).hexdigest()[:16].upper()}"
        account = p["RoleArn"].split(":")[4]
        name = p["RoleArn"].rpartition("/")[2]
        arn = f"arn:aws:sts::{account}:assumed-role/{name}/{p['RoleSessionName']}"
        lasts = float(p.get("DurationSeconds", 3600))
        ends = self.clock.now() + timedelta(seconds=lasts)
        self.sessions[key] = Session(account, arn, role, ends)
        return {
            "Credentials": {
                "AccessKeyId": key,
                "SecretAccessKey": "secret",
                "SessionToken": "token",
                "Expiration": ends,
            },
            "AssumedRoleUser": {"AssumedRoleId": f"AROA:{name}", "Arn": arn},
        }

    def _moto(self, call: Call, account: str) -> Answer:
        from moto.core.botocore_stubber import BotocoreStubber

        message = call.message
        headers = {**message.headers, "x-moto-account-id": account}
        host = f"https://{call.service}.{call.region}.amazonaws.com"
        path = "/" + message.url.split("/", 3)[3] if message.url.count("/") > 2 else "/"
        request = AWSPreparedRequest(message.method, host + path, headers, message.body, False)
        found = BotocoreStubber().process_request(request)
        assert found is not None, f"moto does not know {call.name}"
        status, answered, body = found
        content = body.encode() if isinstance(body, str) else bytes(body)
        return Answer(int(status), {str(k): str(v) for k, v in answered.items()}, content)


class _Raw(io.BytesIO):
    """A body as urllib3 gives it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        while chunk := self.read(65536):
            yield chunk


class _NoTime:
    """`time` for botocore's retries: they wait by the test's clock."""

    def __init__(self, clock: SimulatedClock) -> None:
        self._clock = clock

    def sleep(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def time(self) -> float:
        return self._clock.monotonic()

    monotonic = perf_counter = time


class _NoWaiting:
    """`threading` for botocore's retries: whoever waits for a turn lets the test's time pass."""

    Lock = staticmethod(threading.Lock)

    def __init__(self, clock: SimulatedClock) -> None:
        class Condition(threading.Condition):
            def wait(self, timeout: float | None = None) -> bool:
                clock.advance(max(timeout or 0, 0.001))  # less than the clock can tell is nothing
                return True

        self.Condition = Condition


@contextmanager
def retries_wait_by(clock: SimulatedClock) -> Iterator[None]:
    """While the block runs, botocore's waits between attempts take no time of ours."""
    bucket = botocore.retries.bucket
    changes: list[tuple[Any, str, Any]] = [
        (botocore.endpoint, "time", _NoTime(clock)),
        (bucket, "time", _NoTime(clock)),
        (bucket, "threading", _NoWaiting(clock)),
    ]
    before = [getattr(module, name) for module, name, _ in changes]
    for module, name, other in changes:
        setattr(module, name, other)
    try:
        yield
    finally:
        for (module, name, _), one in zip(changes, before, strict=True):
            setattr(module, name, one)


def _denied(who: str, action: str, resource: str) -> ServiceError:
    return ServiceError(
        "AccessDeniedException",
        f"User: {who} is not authorized to perform: {action} on resource: {resource}",
        400,
    )


def _empty_answer(call: Call) -> dict[str, Any]:
    """ "Done!", and nothing was."""
    operation = wire.get_service_model(call.service).operation_model(call.operation)
    shape = operation.output_shape
    required = {} if shape is None else {name: {} for name in shape.required_members}
    return required


__all__ = ["BadRequest", "Process", "Simulation", "retries_wait_by"]
