"""The wire between a client and the simulation: HTTP messages to operations and back.

Both ways go by botocore's service models: a request is parsed by its operation's input shape and
then validated against it; an answer is validated against the output shape before it is serialised,
and the client's own parser reads it again. What does not fit the model does not pass.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.parsers import BaseCBORParser
from botocore.serialize import CBORSerializer
from botocore.validate import ParamValidator
from moto.core.model import OperationModel, ServiceModel
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model as _load
from werkzeug.datastructures import CombinedMultiDict, Headers, MultiDict

# The name in a signature's scope, where it differs from botocore's name of the service.
_SERVICES = {
    "elasticloadbalancing": "elbv2",
    "monitoring": "cloudwatch",
}
_SCOPE = re.compile(r"Credential=([^/]+)/\d{8}/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request")


@cache
def get_service_model(service: str) -> ServiceModel:
    """botocore's model of a service."""
    return _load(service)


class BadRequest(Exception):
    """The request does not fit the service's model."""


class BadAnswer(Exception):
    """The simulation answered what the service's model does not know: a bug in it."""


class ServiceError(Exception):
    """An error that a service answers with."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


@dataclass(frozen=True)
class Message:
    """An HTTP request, whichever way it came."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Call:
    """A request, understood."""

    service: str
    operation: str
    parameters: dict[str, Any]
    region: str
    access_key: str
    message: Message

    @property
    def name(self) -> str:
        return f"{self.service}.{self.operation}"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes


def read(message: Message) -> Call:
    """Understand a request, and validate it.

    Raises:
        BadRequest: it is not signed, or not of the service's model.
    """
    scope = _SCOPE.search(message.headers.get("authorization", ""))
    if scope is None:
        raise BadRequest(f"not signed: {message.method} {message.url}")
    key, region, signing = scope.groups()
    service = _SERVICES.get(signing, signing)
    model = get_service_model(service)
    operation, labels = _operation(model, message)
    if _is_cbor(message):
        parameters = _from_cbor(operation, message.body)
    else:
        parameters = _parsed(model, operation, message, labels)
    if operation.input_shape is not None:
        report = ParamValidator().validate(parameters, operation.input_shape)
        if report.has_errors():
            raise BadRequest(f"{service}.{operation.name}: {report.generate_report()}")
    return Call(service, operation.name, parameters, region, key, message)


def answer(call: Call, result: Mapping[str, Any] | ServiceError) -> Answer:
    """The answer as the service writes it.

    Raises:
        BadAnswer: it is not of the service's model.
    """
    operation = get_service_model(call.service).operation_model(call.operation)
    if isinstance(result, ServiceError):
        return _error(call, operation, result)
    shape = operation.output_shape
    if shape is not None:
        report = ParamValidator().validate(dict(result), shape)
        unknown = [str(path) for path in _unknown(dict(result), shape, call.name)]
        if report.has_errors() or unknown:
            raise BadAnswer(f"{call.name}: {report.generate_report()} {unknown}")
    elif result:
        raise BadAnswer(f"{call.name} answers nothing, but was given {sorted(result)}")
    if _is_cbor(call.message):
        return _cbor(200, _to_cbor(operation, dict(result)))
    serializer = get_serializer_class(call.service, _protocol(operation, call.message))(operation)
    found = serializer.serialize(dict(result))
    body = found["body"]
    return Answer(
        int(found["status_code"]),
        {str(key): str(value) for key, value in found["headers"].items()},
        body.encode() if isinstance(body, str) else body,
    )


def _unknown(value: Any, shape: Any, path: str) -> list[str]:
    """Keys that the shape does not have: botocore's validator lets them pass."""
    found: list[str] = []
    if shape.type_name == "structure" and isinstance(value, dict):
        for key, inner in value.items():
            if key not in shape.members:
                found.append(f"{path}.{key}")
            else:
                found += _unknown(inner, shape.members[key], f"{path}.{key}")
    elif shape.type_name == "list":
        for inner in value:
            found += _unknown(inner, shape.member, path)
    return found


def _operation(model: ServiceModel, message: Message) -> tuple[OperationModel, dict[str, str]]:
    path = urlsplit(message.url).path
    if match := re.search(r"/operation/(\w+)$", path):
        return model.operation_model(match.group(1)), {}
    if target := message.headers.get("x-amz-target"):
        return model.operation_model(target.rpartition(".")[2]), {}
    if model.protocol == "query":
        form = parse_qs(message.body.decode())
        return model.operation_model(form["Action"][0]), {}
    for method, pattern, name in _routes(model.service_name):
        found = pattern.fullmatch(path)
        if method == message.method and found is not None:
            labels = {key: unquote(value) for key, value in found.groupdict().items()}
            return model.operation_model(name), labels
    raise BadRequest(f"{model.service_name} has no operation at {message.method} {path}")


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    model = get_service_model(service)
    routes = []
    for name in model.operation_names:
        http = model.operation_model(name).http
        path = http["requestUri"].partition("?")[0]
        labels = len(re.findall(r"\{", path))
        pattern = re.sub(r"\{(\w+)\+\}", r"(?P<\1>.+)", path)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)
        routes.append((labels, http["method"], re.compile(pattern + "/?"), name))
    # What has fewer labels is more exact.
    return [(method, pattern, name) for _, method, pattern, name in sorted(routes, key=_labels)]


def _labels(route: tuple[int, str, re.Pattern[str], str]) -> int:
    return route[0]


def _parsed(
    model: ServiceModel, operation: OperationModel, message: Message, labels: dict[str, str]
) -> dict[str, Any]:
    parts = urlsplit(message.url)
    values: list[MultiDict[str, str]] = [MultiDict(parse_qs(parts.query, keep_blank_values=True))]
    if _protocol(operation, message) == "query":
        values.append(MultiDict(parse_qs(message.body.decode(), keep_blank_values=True)))
    parser = PROTOCOL_PARSERS[_protocol(operation, message)](operation)
    parsed: dict[str, Any] = parser.parse(
        {
            "method": message.method,
            "values": CombinedMultiDict(values),
            "headers": Headers(list(message.headers.items())),
            "body": message.body,
            "url_path": parts.path,
            "url_params": labels,
        }
    )
    return _without_none(parsed)


def _without_none(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_without_none(inner) for inner in value]
    return value


def _protocol(operation: OperationModel, message: Message) -> str:
    """What the client speaks: a service may understand several."""
    if "x-amz-json" in message.headers.get("content-type", ""):
        return "json"
    protocol = str(operation.service_model.protocol)
    return "query" if protocol.startswith("smithy") else protocol


def _error(call: Call, operation: OperationModel, error: ServiceError) -> Answer:
    if _is_cbor(call.message):
        pairs = (("__type", error.code), ("message", error.message))
        body = b"\xa2" + b"".join(_text(key) + _text(value) for key, value in pairs)
        return _cbor(error.status, body)
    if _protocol(operation, call.message) == "query":
        xml = (
            "<ErrorResponse><Error><Type>Sender</Type>"
            f"<Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
            "</Error><RequestId>simulated</RequestId></ErrorResponse>"
        )
        return Answer(error.status, {"Content-Type": "text/xml"}, xml.encode())
    text = json.dumps({"__type": error.code, "message": error.message, "Message": error.message})
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-ErrorType": error.code}
    return Answer(error.status, headers, text.encode())


def _is_cbor(message: Message) -> bool:
    return "cbor" in message.headers.get("content-type", "")


class _CborReader(BaseCBORParser):
    """botocore's reader of CBOR, without what belongs to answers."""


def _from_cbor(operation: OperationModel, body: bytes) -> dict[str, Any]:
    parser = _CborReader.__new__(_CborReader)
    data = parser.parse_data_item(io.BufferedReader(io.BytesIO(body))) if body else {}  # type: ignore[arg-type]
    return dict(data)


def _to_cbor(operation: OperationModel, result: dict[str, Any]) -> bytes:
    serializer = CBORSerializer()
    data = bytearray()
    if operation.output_shape is None:
        return bytes(data)
    serializer._serialize_data_item(data, result, operation.output_shape)
    return bytes(data)


def _text(value: str) -> bytes:
    encoded = value.encode()
    size = len(encoded)
    if size < 24:
        return bytes([0x60 + size]) + encoded
    if size < 256:
        return bytes([0x78, size]) + encoded
    return bytes([0x79]) + size.to_bytes(2, "big") + encoded


def _cbor(status: int, body: bytes) -> Answer:
    headers = {"Content-Type": "application/cbor", "smithy-protocol": "rpc-v2-cbor"}
    return Answer(status, headers, body)
