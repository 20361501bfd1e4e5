"""Answer a request while its caller waits; one with a RefId is answered once, one with a Tag is recorded."""

import logging
from collections.abc import Generator
from dataclasses import dataclass
from functools import partial
from typing import Any

from aiserver.clock import Clock
from aiserver.errors import Conflict, ProviderTimeout
from aiserver.jobs.job import Job, request_hash
from aiserver.jobs.ports import JobStore
from aiserver.jobs.states import JobState
from aiserver.router import ProviderCall, Router
from aiserver.usecases.failover import FailoverResult, try_candidates
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.usecases.terminal import failure_fields, settled_ttl
from aiserver.wire import sse
from aiserver.wire.render import render
from aiserver.wire.requests import QUEUEABLE_OPERATIONS, ModelRequest

CLOCK_SKEW_MS = 500  # by so much may two clocks differ on one call's time
FIRST_BYTE_TIMEOUT_MS = 280_000  # API Gateway gives up on an answer that has not begun after 300 s of silence

log = logging.getLogger("aiserver.answer")


@dataclass(frozen=True)
class CompletionResult:
    """The provider's answer, whole or event by event; who gave it after how many calls, and whether it is repeated."""

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
        """Ask the best provider, and the next where that one is known to have done nothing.

        A RefId that was answered before gives the stored answer again. A stream has until `deadline_ms` to end; it, and
        any other answer, has BEGIN_MS to begin.
        Raises: NotFound (model), InvalidRequest (provider; what none has words for), Conflict (RefId), ProviderError.
        """
        started = self._clock.now_ms()
        if request.options.ref_id and (
            known := self._jobs.find_by_ref_id(owner, request.options.ref_id, now_ms=started)
        ):
            return self._replay(known, request)
        until_ms = deadline_ms if request.stream else None
        question = ProviderCall(request.operation, request.body, owner, stream_deadline_ms=until_ms)
        named = self._router.candidates(request.model, request.options.provider, request.operation)
        candidates = self._router.filter_supported(named, question)
        begin_deadline_ms = min(deadline_ms, started + FIRST_BYTE_TIMEOUT_MS)
        done = try_candidates(self._router, question, candidates, clock=self._clock, deadline_ms=begin_deadline_ms)
        if isinstance(done.error, ProviderTimeout) and done.error.upstream is None:
            is_late = (
                self._clock.now_ms() >= begin_deadline_ms - CLOCK_SKEW_MS and request.operation in QUEUEABLE_OPERATIONS
            )
            more = "; queue the request to wait for longer" if is_late else ""
            raise ProviderTimeout(done.error.message + more, may_be_billed=True)
        call = _CompletedCall(request, owner, base_url, started, done)
        if begun := done.stream:
            headers = {**begun.stream.headers, **sse.HEADERS}
            kept = partial(self._record, call)
            events = stream_response(done.provider, begun, self._clock, deadline_ms=deadline_ms, on_end=kept)
            return CompletionResult(200, headers, events, done.provider, done.attempts)
        if done.response is None:
            raise done.error or AssertionError("a pass without an answer has an error")
        told = done.response
        self._record(call, StreamOutcome(JobState.COMPLETED, None, told.usage), told.body)
        return CompletionResult(told.status, told.headers, told.body, done.provider, done.attempts)

    def _replay(self, job: Job, request: ModelRequest) -> CompletionResult:
        if job.request_hash != request_hash(request.operation, request.body):
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        result = self._jobs.read_result(job) if job.state == JobState.COMPLETED else None
        if result is None:
            kept = f"names a job that is {job.state}" + (
                " and kept no answer" if job.state == JobState.COMPLETED else ""
            )
            raise Conflict(f"RefId {job.ref_id} {kept}", param="refId")
        return CompletionResult(200, {}, result, job.served_by or "", job.attempt, is_replay=True)

    def _record(self, call: "_CompletedCall", end: StreamOutcome, result: bytes | None = None) -> None:
        """Keep it as a job that has ended, if it has a name. Whatever goes wrong here, the caller gets the answer."""
        options, done, error = call.request.options, call.failover, end.error
        if not (options.ref_id or options.tag):
            return
        now = self._clock.now_ms()
        told: Any = failure_fields(error) if error else {}
        job = Job(
            id=self._clock.job_id(),
            owner=call.owner,
            ref_id=options.ref_id or self._clock.token(),
            operation=call.request.operation,
            model=call.request.model,
            queue="",
            state=end.state,
            created_at=call.started_at,
            started_at=call.started_at,
            completed_at=now,
            deadline=now,
            request_location="",
            request_hash=request_hash(call.request.operation, call.request.body),
            base_url=call.base_url,
            tag=options.tag,
            provider=options.provider,
            attempt=done.attempts,
            calls=done.attempts,
            served_by=done.provider,
            usage=_recorded_usage(call.request.operation, end),
            ttl=settled_ttl(now, self._settled_days),
            **told,
        )
        try:
            self._jobs.create(job, call.request.body, now_ms=now, result=result)
        except Exception:
            log.exception("sync answer not recorded")


def _recorded_usage(operation: str, end: StreamOutcome) -> str | None:
    """What the provider told; of an answer that broke off, what was counted; of a whole one it is unknown."""
    if end.usage or end.state == JobState.COMPLETED:
        return end.usage
    name = "output_tokens" if operation == "responses" else "completion_tokens"
    return render({name: end.content_events, "estimated": True}).decode()


@dataclass(frozen=True)
class _CompletedCall:
    """What is kept of a call, once it has ended."""

    request: ModelRequest
    owner: str
    base_url: str
    started_at: int
    failover: FailoverResult
