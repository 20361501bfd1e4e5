"""One call of a function: what goes in, and every way it can end.

* Exception
  x InvocationFailed         `type` and `message` as Lambda words them
    + EventTooLarge          refused before it reached the function
    + FunctionFailed         the handler raised, its process ended or never started, its answer is too large
    + FunctionTimedOut       killed at its time limit
  x NoAnswerYet              the caller's patience ended; the function runs on, as on Lambda
"""

from __future__ import annotations

import json
import uuid
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

# "6 MB each for request and response (synchronous)", and the event counts as serialised.
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_EVENT_BYTES = 6_291_456
MAX_ANSWER_BYTES = 6_291_456


class InvocationFailed(Exception):
    """The function gave no answer. `detail` is what Lambda's Invoke would return as payload."""

    def __init__(self, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.message = message
        self.detail = detail or {"errorType": kind, "errorMessage": message}


class EventTooLarge(InvocationFailed):
    """The serialised event is over Lambda's limit."""


class FunctionFailed(InvocationFailed):
    """The function ended without an answer."""


class FunctionTimedOut(InvocationFailed):
    """The function was killed at its time limit."""


class NoAnswerYet(Exception):
    """The caller waited as long as it would."""


@dataclass(frozen=True)
class Answer:
    """What the function returned, as its runtime serialised it."""

    body: bytes


@dataclass(frozen=True, eq=False)
class Invocation:
    """One call. `outcome` gets its Answer or an InvocationFailed, once."""

    event: bytes
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    trace_id: str = ""
    outcome: Future[Answer] = field(default_factory=lambda: Future[Answer]())

    def answered(self, answer: Answer) -> None:
        if not self.outcome.done():
            self.outcome.set_result(answer)

    def failed(self, failure: InvocationFailed) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(failure)


def reported(body: bytes, *, otherwise: str) -> FunctionFailed:
    """The error a runtime client posts: `{"errorType", "errorMessage", "stackTrace"}`."""
    try:
        detail: dict[str, Any] = json.loads(body)
        return FunctionFailed(str(detail["errorType"]), str(detail["errorMessage"]), detail)
    except (ValueError, KeyError, TypeError):
        return FunctionFailed(otherwise, body[:500].decode("utf-8", "replace"))
