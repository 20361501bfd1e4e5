"""Run one queued job: claim it, ask its provider, and write what came of it, so that it happens once."""

import logging
from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import (
    AiServerError,
    InvalidRequest,
    NotFound,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    UpstreamAnswer,
)
from aiserver.jobs.backoff import delay_s, full_jitter_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, Messages, Refused
from aiserver.jobs.states import State
from aiserver.jobs.transitions import (
    CLAIM,
    COMPLETE,
    COMPLETE_CANCELLED,
    EXPIRE,
    FAIL,
    FAIL_CANCELLED,
    MARK_CALL,
    WAIT,
    Value,
)
from aiserver.router import Candidate, Router
from aiserver.usecases.ask import Pass, Question, ask
from aiserver.usecases.ends import end, expiry, failure

# Kept free of provider time at a worker's end, so that it always writes an outcome itself.
SETTLE_MS = 10_000
SETTLE_SHARE = 4  # of a short time limit, at most a fourth
WAIT_DUE_MS = 60_000
MAX_ERROR_ATTEMPTS = 8  # of a provider that answers, but badly; one that asks to wait is waited for until the deadline

log = logging.getLogger("aiserver.work")


class _NotOurs(Exception):
    """The job changed under us: it was cancelled, or another worker has it."""


@dataclass(frozen=True)
class Lease:
    """What one claim holds."""

    job: Job
    fence: dict[str, Value]


class Work:
    def __init__(
        self,
        jobs: JobStore,
        messages: Messages,
        router: Router,
        clock: Clock,
        *,
        settled_days: int,
        lease_margin_s: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._router = router
        self._clock = clock
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000

    def run(self, job_id: int, *, end_ms: int) -> None:
        """Bring the job one step on; `end_ms` is when this worker's own time is over.

        Returning means the message is done with, whatever became of the job; what raises is tried again.
        """
        now = self._clock.now_ms()
        token = self._clock.token()
        lease = {"now": now, "lease_token": token, "lease_until": end_ms + self._lease_margin_ms}
        claimed = self._jobs.apply(CLAIM, job_id, lease)
        if isinstance(claimed, Refused):
            self._not_now(claimed.job, now)
            return
        held = Lease(claimed, {"attempt": claimed.attempt, "lease_token": token})
        try:
            done = self._ask(held, end_ms)
        except _NotOurs:
            self._cancelled(held, 0)
        except (NotFound, InvalidRequest) as error:  # the model or the provider it names is no longer configured
            self._fail(held, error, 0)
        else:
            self._settle(held, done)

    def _not_now(self, job: Job | None, now: int) -> None:
        """The claim was refused: the job is done or taken, it is too early, or too late."""
        if job is None or job.state != State.QUEUED:
            return
        if job.deadline <= now:
            params = end(job, now_ms=now, settled_days=self._settled_days) | expiry(job)
            self._jobs.apply(EXPIRE, job.id, params)
        elif job.not_before > now:
            self._messages.send_job(job.queue, job.id, delay_s=delay_s(job.not_before - now))

    def _ask(self, held: Lease, end_ms: int) -> Pass:
        job = held.job
        request = self._jobs.request(job)

        def mark(candidate: Candidate) -> None:
            params = held.fence | {"now": self._clock.now_ms(), "call_queue": candidate.provider.queue}
            marked = self._jobs.apply(MARK_CALL, job.id, params)
            if isinstance(marked, Refused):
                raise _NotOurs

        return ask(
            self._router,
            Question(job.operation, request, idempotency_key=f"job-{job.id}-{job.epoch}"),
            self._candidates(job),
            clock=self._clock,
            deadline_ms=min(end_ms - _settle_ms(end_ms - self._clock.now_ms()), job.deadline),
            before_call=mark,
        )

    def _candidates(self, job: Job) -> list[Candidate]:
        """All but an own GPU for a job of the hosted queue: only the gpu queue's limit protects a GPU.

        Where that leaves nobody, the operator has moved the model to a GPU since, and the job goes along.
        """
        found = self._router.candidates(job.model, job.provider)
        return [candidate for candidate in found if candidate.provider.queue in (job.queue, "hosted")] or found

    def _settle(self, held: Lease, done: Pass) -> None:
        if done.answer is not None:
            self._complete(held, done, done.answer)
            return
        error = done.error or ProviderError("No provider answered")
        if done.may_ask_again and self._waits_for(held.job, error):
            self._wait(held, error, done.unknown)
        else:
            self._fail(held, error, done.unknown)

    def _waits_for(self, job: Job, error: ProviderError) -> bool:
        """One that asks to wait, or is not there, is waited for until the deadline; one that answers badly is not."""
        if isinstance(error, ProviderUnavailable | ProviderRateLimited | ProviderTimeout):
            return True
        return job.attempt < MAX_ERROR_ATTEMPTS

    def _complete(self, held: Lease, done: Pass, answer: UpstreamAnswer) -> None:
        job = held.job
        told: dict[str, Value] = {"served_by": done.provider, "usage": answer.usage}
        params = held.fence | end(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days) | told
        if self._jobs.complete(COMPLETE, job, params, answer.body) is None:
            self._log(job, "completed")
        elif isinstance(self._jobs.apply(COMPLETE_CANCELLED, job.id, params), Refused):
            self._log(job, "lost to another worker")
        else:
            self._log(job, "cancelled")

    def _fail(self, held: Lease, error: AiServerError, unknown: int) -> None:
        job = held.job
        params = held.fence | end(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= failure(error) | {"maybe_billed": job.maybe_billed + unknown}
        if isinstance(self._jobs.apply(FAIL, job.id, params), Refused):
            self._cancelled(held, unknown)
            return
        self._log(job, "failed", error=error.error_code)

    def _wait(self, held: Lease, error: ProviderError, unknown: int) -> None:
        job = held.job
        now = self._clock.now_ms()
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = full_jitter_s(job.attempt, self._clock.fraction())
        not_before = min(now + round(wait_s * 1000), job.deadline)
        params: dict[str, Value] = {
            "not_before": not_before,
            "wait_reason": _reason(job, error),
            "due_at": not_before + WAIT_DUE_MS,
            "maybe_billed": job.maybe_billed + unknown,
        }
        if isinstance(self._jobs.apply(WAIT, job.id, held.fence | params), Refused):
            self._cancelled(held, unknown)
            return
        self._messages.send_job(job.queue, job.id, delay_s=delay_s(not_before - now))
        self._log(job, "waits", reason=_reason(job, error))

    def _cancelled(self, held: Lease, unknown: int) -> None:
        """End it as cancelled, if it is still ours and that is why we were refused; else another has it."""
        params = held.fence | end(held.job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        done = self._jobs.apply(FAIL_CANCELLED, held.job.id, params | {"maybe_billed": held.job.maybe_billed + unknown})
        self._log(held.job, "lost to another worker" if isinstance(done, Refused) else "cancelled")

    def _log(self, job: Job, what: str, **more: str) -> None:
        log.info(f"job {what}", extra={"job_id": job.id, "attempt": job.attempt, **more})


def _settle_ms(left_ms: int) -> int:
    return min(SETTLE_MS, left_ms // SETTLE_SHARE)


def _reason(job: Job, error: ProviderError) -> str:
    if isinstance(error, ProviderRateLimited):
        return "provider_rate_limited"
    if job.queue == "gpu" and isinstance(error, ProviderUnavailable | ProviderTimeout):
        return "provider_cold_start"
    return error.code
