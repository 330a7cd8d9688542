"""Answers as the client gets them: data, or errors that a user can read.

    answers.body(ExecutionResult(data={"version": "0.21"}))     # b'{"data":{"version":"0.21"}}'

An error that nobody foresaw is written to the log in full; the client gets a sentence and the
reference to find it by, never a traceback.
"""

from __future__ import annotations

import json
import logging
import secrets
from typing import Any

from graphql import ExecutionResult, GraphQLError

from buildonce.engine.errors import QueryFailed
from buildonce.errors import BuildonceError

_log = logging.getLogger("buildonce.engine")


def response(result: ExecutionResult, log_file: str = "the engine's log") -> dict[str, Any]:
    """The response object of a query."""
    if result.errors:
        # No part of an answer is one, as in Dagger.
        return {"errors": [_formatted(error, log_file) for error in result.errors], "data": None}
    return {"data": result.data}


def failure(error: Exception, log_file: str = "the engine's log") -> dict[str, Any]:
    """The response object of a query that ended in an exception."""
    if not isinstance(error, GraphQLError):
        error = GraphQLError(str(error), original_error=error)
    return {"errors": [_formatted(error, log_file)], "data": None}


def body(answer: dict[str, Any]) -> bytes:
    """An answer as JSON; text that is no Unicode (broken file names) keeps its readable part."""
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":"), default=str)
    return text.encode("utf-8", "replace")


def _formatted(error: GraphQLError, log_file: str) -> dict[str, Any]:
    answer = dict(error.formatted)
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    match cause:
        case None:
            pass
        case QueryFailed():
            answer["message"] = str(cause)
            if cause.extensions:
                answer["extensions"] = dict(cause.extensions)
        case BuildonceError():
            answer["message"] = str(cause)
        case RecursionError():
            answer["message"] = "the query is nested too deep; await a part of the chain first"
            answer.pop("extensions", None)
        case _:
            reference = secrets.token_hex(4)
            _log.error("reference %s: %s", reference, answer.get("path"), exc_info=cause)
            answer["message"] = (
                f"internal error in the embedded engine ({type(cause).__name__}), "
                f"reference {reference}; see {log_file}"
            )
            answer.pop("extensions", None)
    return answer
