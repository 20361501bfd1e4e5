"""Logs one event for each synchronous request: who called what, how long it took, and what it used. Never content."""

import json
import logging
from typing import Any

from aiserver import log_events
from aiserver.clock import Clock
from aiserver.errors import AiServerError
from aiserver.routing.failover import FailoverResult
from aiserver.usecases.stream_response import StreamOutcome
from aiserver.wire.requests import ModelRequest

log = logging.getLogger("aiserver.request_log")


class RequestLog:
    """The event `request_completed` of one request, which began at `started_ms` (Unix ms)."""

    def __init__(self, request: ModelRequest, owner: str, started_ms: int, clock: Clock, *, logs_tag: bool) -> None:
        self._clock = clock
        self._started_ms = started_ms
        self._fields: dict[str, Any] = {
            "key_id": owner,
            "tag": request.options.tag if logs_tag else None,
            "operation": request.operation.name,
            "model": request.model,
            "stream": request.stream or None,
        }

    def set_result(self, result: FailoverResult) -> None:
        """What became of the calls, and the time at which the response begins."""
        self._fields |= {
            "provider": result.provider or None,
            "served_model": result.upstream.model if result.upstream else None,
            "attempts": result.attempts,
            "first_byte_ms": self._elapsed_ms(),
        }

    def end(self, status: int, *, usage: str | None = None, error: str | None = None, **fields: Any) -> None:
        """Log the event; `usage` is the provider's as JSON, `error` a code, also of a stream that failed after 200."""
        values = self._fields | {
            "status": status,
            "duration_ms": self._elapsed_ms(),
            "usage": parse_usage(usage),
            "error": error,
            **fields,
        }
        log.info(log_events.REQUEST_COMPLETED, extra=without_none(values))

    def end_stream(self, outcome: StreamOutcome) -> None:
        error = outcome.error.error_code if outcome.error else None
        self.end(200, usage=outcome.usage, error=error, state=outcome.state)

    def end_with_error(self, error: Exception) -> None:
        """The request was answered with an error; any other exception is a 500."""
        known = error if isinstance(error, AiServerError) else AiServerError()
        self.end(known.status, error=known.error_code)

    def _elapsed_ms(self) -> int:
        return self._clock.now_ms() - self._started_ms


def parse_usage(usage: str | None) -> Any:
    """The usage as a JSON value, so that logs can be queried by its members."""
    try:
        return json.loads(usage) if usage else None
    except ValueError:
        return None


def without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
