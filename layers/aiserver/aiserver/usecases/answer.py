"""Answer a request while its caller waits; one with a RefId is answered once, one with a Tag is recorded."""

import logging
from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import Conflict, InvalidRequest, ProviderTimeout
from aiserver.jobs.job import Job, request_hash
from aiserver.jobs.ports import JobStore
from aiserver.jobs.states import State
from aiserver.router import Question, Router
from aiserver.usecases.ask import ask
from aiserver.usecases.ends import settled_ttl
from aiserver.wire.requests import CAN_BE_QUEUED, ModelRequest

log = logging.getLogger("aiserver.answer")


@dataclass(frozen=True)
class Answered:
    """The provider's answer as it came, who gave it after how many calls, and whether it is told again."""

    status: int
    headers: dict[str, str]
    body: bytes
    usage: str | None
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

        A RefId that was answered before gives the stored answer again.
        Raises: NotFound (model), InvalidRequest (provider, stream), Conflict (RefId), ProviderError.
        """
        if request.stream:
            raise InvalidRequest("Streaming is not available yet: send stream: false", param="stream")
        started = self._clock.now_ms()
        if request.options.ref_id and (known := self._jobs.find(owner, request.options.ref_id, now_ms=started)):
            return self._again(known, request)
        candidates = self._router.candidates(request.model, request.options.provider, request.operation)
        question = Question(request.operation, request.body)
        done = ask(self._router, question, candidates, clock=self._clock, deadline_ms=deadline_ms)
        if isinstance(done.error, ProviderTimeout) and done.error.upstream is None:
            more = "; queue the request to wait for longer" if request.operation in CAN_BE_QUEUED else ""
            raise ProviderTimeout(done.error.message + more, may_be_billed=True)
        if done.answer is None:
            raise done.error or AssertionError("a pass without an answer has an error")
        told = done.answer
        answer = Answered(told.status, told.headers, told.body, told.usage, done.provider, done.attempts)
        if request.options.ref_id or request.options.tag:
            self._record(request, answer, owner=owner, base_url=base_url, started=started)
        return answer

    def _again(self, job: Job, request: ModelRequest) -> Answered:
        if job.request_hash != request_hash(request.operation, request.body):
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        result = self._jobs.result(job) if job.state == State.COMPLETED else None
        if result is None:
            raise Conflict(f"RefId {job.ref_id} names a job that is {job.state}", param="refId")
        return Answered(200, {}, result, job.usage, job.served_by or "", job.attempt, replayed=True)

    def _record(self, request: ModelRequest, answer: Answered, *, owner: str, base_url: str, started: int) -> None:
        """Keep it as a job that has ended. Whatever goes wrong here, the caller gets the answer that was paid for."""
        now = self._clock.now_ms()
        job = Job(
            id=self._clock.job_id(),
            owner=owner,
            ref_id=request.options.ref_id or self._clock.token(),
            operation=request.operation,
            model=request.model,
            queue="",
            state=State.COMPLETED,
            created_at=started,
            started_at=started,
            completed_at=now,
            deadline=now,
            request_at="",
            request_hash=request_hash(request.operation, request.body),
            base_url=base_url,
            tag=request.options.tag,
            provider=request.options.provider,
            attempt=answer.attempts,
            calls=answer.attempts,
            served_by=answer.provider,
            usage=answer.usage,
            ttl=settled_ttl(now, self._settled_days),
        )
        try:
            self._jobs.create(job, request.body, now_ms=now, result=answer.body)
        except Exception:
            log.exception("sync answer not recorded")
