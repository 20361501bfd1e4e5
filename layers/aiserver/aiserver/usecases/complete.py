"""Serve a request synchronously. A RefId makes it idempotent; a RefId or Tag records it as a job."""

import logging
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial

from aiserver import log_events
from aiserver.clock import Clock, Deadline
from aiserver.errors import AiServerError, Conflict, ProviderTimeout
from aiserver.jobs.job import Job, request_hash
from aiserver.jobs.ports import JobStore
from aiserver.jobs.states import JobState
from aiserver.operations import Operation
from aiserver.providers.call import ProviderCall
from aiserver.providers.response import ProviderResponse
from aiserver.routing.failover import Failover, FailoverResult
from aiserver.routing.selection import ProviderDirectory
from aiserver.usecases.job_request import describe_request
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.usecases.terminal import failure_fields, settled_ttl, stored_type
from aiserver.wire import sse
from aiserver.wire.render import render
from aiserver.wire.requests import ModelRequest

CLOCK_SKEW_MS = 500  # tolerated between the clocks that measure one call
FIRST_BYTE_TIMEOUT_S = 280  # API Gateway drops a response whose first byte takes longer than 300 s

log = logging.getLogger("aiserver.complete")


@dataclass(frozen=True)
class CompletionResult:
    """The provider's response, complete or as a stream, with the provider and the number of calls.

    `is_replay` marks a stored response that is returned again.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Generator[bytes | None]
    provider: str
    attempts: int
    is_replay: bool = False


class Complete:
    def __init__(
        self, jobs: JobStore, directory: ProviderDirectory, failover: Failover, clock: Clock, *, settled_days: int
    ) -> None:
        self._jobs = jobs
        self._directory = directory
        self._failover = failover
        self._clock = clock
        self._settled_days = settled_days

    def run(self, request: ModelRequest, *, owner: str, base_url: str, deadline: Deadline) -> CompletionResult:
        """Call the best provider, and the next one if a call is known to have had no effect.

        A RefId that was served before returns the stored response. A stream must end by `deadline`; every response
        must start within FIRST_BYTE_TIMEOUT_S.
        Raises: NotFound (model), InvalidRequest (provider; unsupported field), Conflict (RefId), ProviderError.
        """
        started_ms = self._clock.now_ms()
        if stored_job := self._find_stored_job(request, owner, started_ms):
            return self._replay(stored_job, request)
        call = _create_call(request, owner, deadline, Deadline(started_ms + FIRST_BYTE_TIMEOUT_S * 1000))
        candidates = self._directory.candidates(request.model, request.options.provider, call.operation)
        result = self._failover.try_candidates(call, candidates)
        record = partial(self._record, _CompletedCall(request, owner, base_url, started_ms, result))
        if result.stream:
            headers = {**result.stream.stream.headers, **sse.HEADERS}
            events = stream_response(result.provider, result.stream, self._clock, deadline=deadline, on_end=record)
            return CompletionResult(200, headers, events, result.provider, result.attempts)
        if result.response is None:
            raise self._error_to_raise(result, call)
        response = result.response
        record(StreamOutcome(JobState.COMPLETED, None, response.usage), response)
        return CompletionResult(response.status, response.headers, response.body, result.provider, result.attempts)

    def _error_to_raise(self, result: FailoverResult, call: ProviderCall) -> AiServerError:
        """The error of the pass; a timeout caused by the deadline suggests to queue the request."""
        error = result.error
        assert error  # a failover without a response has one
        if not isinstance(error, ProviderTimeout) or error.upstream is not None:
            return error
        is_past_deadline = self._clock.now_ms() >= call.begin_deadline.at_ms - CLOCK_SKEW_MS
        can_queue = is_past_deadline and call.operation.can_queue
        hint = "; queue the request to wait for longer" if can_queue else ""
        return ProviderTimeout(error.message + hint, may_be_billed=True)

    def _find_stored_job(self, request: ModelRequest, owner: str, now_ms: int) -> Job | None:
        ref_id = request.options.ref_id
        return self._jobs.find_by_ref_id(owner, ref_id, now_ms=now_ms) if ref_id else None

    def _replay(self, job: Job, request: ModelRequest) -> CompletionResult:
        if job.request_hash != request_hash(request.operation.name, request.body):
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        result = self._jobs.read_result(job) if job.state == JobState.COMPLETED else None
        if result is None:
            reason = " and has no stored response" if job.state == JobState.COMPLETED else ""
            raise Conflict(f"RefId {job.ref_id} belongs to a job that is {job.state}{reason}", param="refId")
        headers = {"content-type": job.result_type} if job.result_type else {}
        return CompletionResult(200, headers, result, job.served_by or "", job.attempt, is_replay=True)

    def _record(self, call: "_CompletedCall", outcome: StreamOutcome, response: ProviderResponse | None = None) -> None:
        """Record a call with a RefId or Tag as an ended job. Never raises: the caller gets the response in any case."""
        options = call.request.options
        if not (options.ref_id or options.tag):
            return
        now = self._clock.now_ms()
        job = Job.recorded(
            self._clock.job_id(),
            describe_request(call.request, call.owner, call.base_url, self._clock),
            state=outcome.state,
            started_at=call.started_at,
            completed_at=now,
            calls=call.failover.attempts,
            served_by=call.failover.provider,
            usage=_usage_to_record(call.request.operation, outcome),
            result_type=stored_type(response.content_type) if response else None,
            ttl=settled_ttl(now, self._settled_days),
            error=failure_fields(outcome.error) if outcome.error else {},
        )
        try:
            self._jobs.create(job, call.request.body, now_ms=now, result=response.body if response else None)
        except Exception:
            log.exception(log_events.SYNC_RESPONSE_RECORD_FAILED)


def _create_call(request: ModelRequest, owner: str, deadline: Deadline, first_byte_deadline: Deadline) -> ProviderCall:
    begin_deadline = min(deadline, first_byte_deadline)
    return ProviderCall(
        request.operation,
        request.body,
        deadline if request.stream else begin_deadline,
        begin_deadline,
        owner,
        stream=request.stream,
    )


def _usage_to_record(operation: Operation, outcome: StreamOutcome) -> str | None:
    """The provider's usage, as JSON; for a stream that broke off, an estimate from the number of its content events."""
    if outcome.usage or outcome.state == JobState.COMPLETED:
        return outcome.usage
    return render({operation.usage_unit: outcome.content_events, "estimated": True}).decode()


@dataclass(frozen=True)
class _CompletedCall:
    """The facts of an ended call that are recorded as a job."""

    request: ModelRequest
    owner: str
    base_url: str
    started_at: int
    failover: FailoverResult
