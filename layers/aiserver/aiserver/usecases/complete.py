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
from aiserver.jobs.states import State
from aiserver.router import Question, Router
from aiserver.usecases.failover import Pass, ask
from aiserver.usecases.stream_response import Ended, relay
from aiserver.usecases.terminal import failure, settled_ttl
from aiserver.wire import sse
from aiserver.wire.render import render
from aiserver.wire.requests import CAN_BE_QUEUED, ModelRequest

LATE_MS = 500  # by so much may two clocks differ on one call's time
BEGIN_MS = 280_000  # API Gateway gives up on an answer that has not begun after 300 s of silence

log = logging.getLogger("aiserver.answer")


@dataclass(frozen=True)
class Answered:
    """The provider's answer, whole or event by event; who gave it after how many calls, and whether it is repeated."""

    status: int
    headers: dict[str, str]
    body: bytes | Generator[bytes]
    provider: str
    attempts: int
    replayed: bool = False


class Answer:
    def __init__(self, jobs: JobStore, router: Router, clock: Clock, *, settled_days: int) -> None:
        self._jobs = jobs
        self._router = router
        self._clock = clock
        self._settled_days = settled_days

    def now(self, request: ModelRequest, *, owner: str, base_url: str, deadline_ms: int) -> Answered:
        """Ask the best provider, and the next where that one is known to have done nothing.

        A RefId that was answered before gives the stored answer again. A stream has until `deadline_ms` to end; it, and
        any other answer, has BEGIN_MS to begin.
        Raises: NotFound (model), InvalidRequest (provider; what none has words for), Conflict (RefId), ProviderError.
        """
        started = self._clock.now_ms()
        if request.options.ref_id and (known := self._jobs.find(owner, request.options.ref_id, now_ms=started)):
            return self._again(known, request)
        until_ms = deadline_ms if request.stream else None
        question = Question(request.operation, request.body, owner, stream_until_ms=until_ms)
        named = self._router.candidates(request.model, request.options.provider, request.operation)
        candidates = self._router.able(named, question)
        begun_by = min(deadline_ms, started + BEGIN_MS)
        done = ask(self._router, question, candidates, clock=self._clock, deadline_ms=begun_by)
        if isinstance(done.error, ProviderTimeout) and done.error.upstream is None:
            is_late = self._clock.now_ms() >= begun_by - LATE_MS and request.operation in CAN_BE_QUEUED
            more = "; queue the request to wait for longer" if is_late else ""
            raise ProviderTimeout(done.error.message + more, may_be_billed=True)
        call = _Call(request, owner, base_url, started, done)
        if begun := done.begun:
            headers = {**begun.stream.headers, **sse.HEADERS}
            kept = partial(self._record, call)
            events = relay(done.provider, begun, self._clock, until_ms=deadline_ms, ended=kept)
            return Answered(200, headers, events, done.provider, done.attempts)
        if done.answer is None:
            raise done.error or AssertionError("a pass without an answer has an error")
        told = done.answer
        self._record(call, Ended(State.COMPLETED, None, told.usage), told.body)
        return Answered(told.status, told.headers, told.body, done.provider, done.attempts)

    def _again(self, job: Job, request: ModelRequest) -> Answered:
        if job.request_hash != request_hash(request.operation, request.body):
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        result = self._jobs.result(job) if job.state == State.COMPLETED else None
        if result is None:
            kept = f"names a job that is {job.state}" + (" and kept no answer" if job.state == State.COMPLETED else "")
            raise Conflict(f"RefId {job.ref_id} {kept}", param="refId")
        return Answered(200, {}, result, job.served_by or "", job.attempt, replayed=True)

    def _record(self, call: "_Call", end: Ended, result: bytes | None = None) -> None:
        """Keep it as a job that has ended, if it has a name. Whatever goes wrong here, the caller gets the answer."""
        options, done, error = call.request.options, call.done, end.error
        if not (options.ref_id or options.tag):
            return
        now = self._clock.now_ms()
        told: Any = failure(error) if error else {}
        job = Job(
            id=self._clock.job_id(),
            owner=call.owner,
            ref_id=options.ref_id or self._clock.token(),
            operation=call.request.operation,
            model=call.request.model,
            queue="",
            state=end.state,
            created_at=call.started,
            started_at=call.started,
            completed_at=now,
            deadline=now,
            request_at="",
            request_hash=request_hash(call.request.operation, call.request.body),
            base_url=call.base_url,
            tag=options.tag,
            provider=options.provider,
            attempt=done.attempts,
            calls=done.attempts,
            served_by=done.provider,
            usage=_usage(call.request.operation, end),
            ttl=settled_ttl(now, self._settled_days),
            **told,
        )
        try:
            self._jobs.create(job, call.request.body, now_ms=now, result=result)
        except Exception:
            log.exception("sync answer not recorded")


def _usage(operation: str, end: Ended) -> str | None:
    """What the provider told; of an answer that broke off, what was counted; of a whole one it is unknown."""
    if end.usage or end.state == State.COMPLETED:
        return end.usage
    name = "output_tokens" if operation == "responses" else "completion_tokens"
    return render({name: end.pieces, "estimated": True}).decode()


@dataclass(frozen=True)
class _Call:
    """What is kept of a call, once it has ended."""

    request: ModelRequest
    owner: str
    base_url: str
    started: int
    done: Pass
