"""Serve a request synchronously. A RefId makes it idempotent; a RefId or Tag records it as a job."""

import logging
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiserver import log_events
from aiserver.clock import Clock
from aiserver.errors import Conflict, ProviderTimeout
from aiserver.jobs.job import Job, request_hash
from aiserver.jobs.ports import JobStore
from aiserver.jobs.states import JobState
from aiserver.routing.failover import FailoverResult, try_candidates
from aiserver.routing.router import ProviderCall, Router
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.usecases.terminal import failure_fields, settled_ttl
from aiserver.wire import sse
from aiserver.wire.render import render
from aiserver.wire.requests import QUEUEABLE_OPERATIONS, ModelRequest

CLOCK_SKEW_MS = 500  # tolerated between the clocks that measure one call
FIRST_BYTE_TIMEOUT_MS = 280_000  # API Gateway drops a response whose first byte takes longer than 300 s

log = logging.getLogger("aiserver.complete")


@dataclass(frozen=True)
class CompletionResult:
    """The provider's response, complete or as a stream, with the provider and the number of calls.

    `is_replay` marks a stored response that is returned again.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Generator[bytes]
    provider: str
    attempts: int
    is_replay: bool = False


class Complete:
    def __init__(self, jobs: JobStore, router: Router, clock: Clock, *, settled_days: int) -> None:
        self._jobs = jobs
        self._router = router
        self._clock = clock
        self._settled_days = settled_days

    def run(self, request: ModelRequest, *, owner: str, base_url: str, deadline_ms: int) -> CompletionResult:
        """Call the best provider, and the next one if a call is known to have had no effect.

        A RefId that was served before returns the stored response. A stream must end by `deadline_ms`; every response
        must start within FIRST_BYTE_TIMEOUT_MS.
        Raises: NotFound (model), InvalidRequest (provider; unsupported field), Conflict (RefId), ProviderError.
        """
        started_ms = self._clock.now_ms()
        if request.options.ref_id and (
            stored_job := self._jobs.find_by_ref_id(owner, request.options.ref_id, now_ms=started_ms)
        ):
            return self._replay(stored_job, request)
        stream_deadline_ms = deadline_ms if request.stream else None
        call = ProviderCall(request.operation, request.body, owner, stream_deadline_ms=stream_deadline_ms)
        serving = self._router.candidates(request.model, request.options.provider, request.operation)
        candidates = self._router.filter_supported(serving, call)
        begin_deadline_ms = min(deadline_ms, started_ms + FIRST_BYTE_TIMEOUT_MS)
        failover = try_candidates(self._router, call, candidates, clock=self._clock, deadline_ms=begin_deadline_ms)
        if isinstance(failover.error, ProviderTimeout) and failover.error.upstream is None:
            is_past_deadline = self._clock.now_ms() >= begin_deadline_ms - CLOCK_SKEW_MS
            can_queue = is_past_deadline and request.operation in QUEUEABLE_OPERATIONS
            hint = "; queue the request to wait for longer" if can_queue else ""
            raise ProviderTimeout(failover.error.message + hint, may_be_billed=True)
        completed = _CompletedCall(request, owner, base_url, started_ms, failover)
        if stream := failover.stream:
            headers = {**stream.stream.headers, **sse.HEADERS}
            record = partial(self._record, completed)
            events = stream_response(failover.provider, stream, self._clock, deadline_ms=deadline_ms, on_end=record)
            return CompletionResult(200, headers, events, failover.provider, failover.attempts)
        if failover.response is None:
            raise failover.error or AssertionError("a failover without a response has an error")
        response = failover.response
        self._record(completed, StreamOutcome(JobState.COMPLETED, None, response.usage), response.body)
        return CompletionResult(response.status, response.headers, response.body, failover.provider, failover.attempts)

    def _replay(self, job: Job, request: ModelRequest) -> CompletionResult:
        if job.request_hash != request_hash(request.operation, request.body):
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        result = self._jobs.read_result(job) if job.state == JobState.COMPLETED else None
        if result is None:
            reason = " and has no stored response" if job.state == JobState.COMPLETED else ""
            raise Conflict(f"RefId {job.ref_id} belongs to a job that is {job.state}{reason}", param="refId")
        return CompletionResult(200, {}, result, job.served_by or "", job.attempt, is_replay=True)

    def _record(self, call: "_CompletedCall", outcome: StreamOutcome, result: bytes | None = None) -> None:
        """Record a call with a RefId or Tag as an ended job. Never raises: the caller gets the response in any case."""
        options, failover = call.request.options, call.failover
        if not (options.ref_id or options.tag):
            return
        now = self._clock.now_ms()
        error_fields: Any = failure_fields(outcome.error) if outcome.error else {}
        job = Job(
            id=self._clock.job_id(),
            owner=call.owner,
            ref_id=options.ref_id or self._clock.token(),
            operation=call.request.operation,
            model=call.request.model,
            queue="",
            state=outcome.state,
            created_at=call.started_at,
            started_at=call.started_at,
            completed_at=now,
            deadline=now,
            request_location="",
            request_hash=request_hash(call.request.operation, call.request.body),
            base_url=call.base_url,
            tag=options.tag,
            provider=options.provider,
            attempt=failover.attempts,
            calls=failover.attempts,
            served_by=failover.provider,
            usage=_usage_to_record(call.request.operation, outcome),
            ttl=settled_ttl(now, self._settled_days),
            **error_fields,
        )
        try:
            self._jobs.create(job, call.request.body, now_ms=now, result=result)
        except Exception:
            log.exception(log_events.SYNC_RESPONSE_RECORD_FAILED)


def _usage_to_record(operation: str, outcome: StreamOutcome) -> str | None:
    """The provider's usage, as JSON; for a stream that broke off, an estimate from the number of its content events."""
    if outcome.usage or outcome.state == JobState.COMPLETED:
        return outcome.usage
    name = "output_tokens" if operation == "responses" else "completion_tokens"
    return render({name: outcome.content_events, "estimated": True}).decode()


@dataclass(frozen=True)
class _CompletedCall:
    """The facts of an ended call that are recorded as a job."""

    request: ModelRequest
    owner: str
    base_url: str
    started_at: int
    failover: FailoverResult
