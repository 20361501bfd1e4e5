"""Write what came of one claim of a job: completed, failed, waiting or cancelled, if the claim still stands."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from aiserver.clock import Clock
from aiserver.errors import (
    AiServerError,
    ProviderBusy,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
    ProviderUnavailable,
    UpstreamAnswer,
)
from aiserver.jobs.backoff import delay_s, resend_ms, wait_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, Messages, Refused
from aiserver.jobs.transitions import (
    COMPLETE,
    COMPLETE_CANCELLED,
    FAIL,
    FAIL_CANCELLED,
    WAIT,
    Transition,
    Value,
)
from aiserver.usecases.failover import Pass
from aiserver.usecases.notify_worker import hint
from aiserver.usecases.terminal import end, failure

MAX_BAD_ANSWERS = 8  # of a provider that answers, but badly; one that asks to wait is waited for until the deadline
INSIST_MS = 60_000  # how long an outcome whose store is away is written again and again
STORE_AWAY = "storage_unavailable"  # the waitReason of a job whose request could not be read, or its call not marked

log = logging.getLogger("aiserver.work")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Lease:
    """What one claim holds, and when its worker's own time is over."""

    job: Job
    fence: dict[str, Value]
    end_ms: int


class Settle:
    def __init__(
        self, jobs: JobStore, messages: Messages, clock: Clock, sleep: Callable[[float], None], settled_days: int
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._clock = clock
        self._sleep = sleep
        self._settled_days = settled_days

    def by(self, held: Lease, done: Pass) -> None:
        """As the pass over the providers came out."""
        if done.answer is not None:
            self._complete(held, done, done.answer)
            return
        error = done.error or ProviderError("No provider answered")
        asks_to_wait = isinstance(error, ProviderUnavailable | ProviderRateLimited | ProviderTimeout)
        bad_answers = held.job.bad_answers + (0 if asks_to_wait else 1)
        if done.may_ask_again and bad_answers < MAX_BAD_ANSWERS:
            self._wait(held, _reason(held.job, error), done.retry_after_s, done.unknown, bad_answers)
        else:
            self.fail(held, error, done.unknown)

    def wait_for_store(self, held: Lease, unknown: int = 0) -> None:
        """The store is away and no call is open: another worker may begin anew before this lease has run out."""
        self._wait(held, STORE_AWAY, None, unknown, held.job.bad_answers)

    def _complete(self, held: Lease, done: Pass, answer: UpstreamAnswer) -> None:
        job = held.job
        told: dict[str, Value] = {
            "served_by": done.provider,
            "usage": answer.usage,
            "maybe_billed": job.maybe_billed + done.unknown,
        }
        params = held.fence | end(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days) | told
        if self._insist(held, lambda: self._jobs.complete(COMPLETE, job, params, answer.body)) is None:
            self._log(job, "completed")
        elif isinstance(self._made(held, COMPLETE_CANCELLED, params), Refused):
            self._log(job, "lost to another worker")
        else:
            self._log(job, "cancelled")

    def fail(self, held: Lease, error: AiServerError, unknown: int = 0) -> None:
        """For good; `unknown` calls may have been billed in vain."""
        job = held.job
        params = held.fence | end(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= failure(error) | {"maybe_billed": job.maybe_billed + unknown}
        if isinstance(self._made(held, FAIL, params), Refused):
            self.cancelled(held, unknown)
            return
        self._log(job, "failed", error=error.error_code)

    def _wait(self, held: Lease, reason: str, retry_after_s: int | None, unknown: int, bad_answers: int) -> None:
        job = held.job
        now = self._clock.now_ms()
        waits_s = wait_s(retry_after_s, job.attempt, self._clock.fraction())
        not_before = min(now + round(waits_s * 1000), job.deadline)
        params: dict[str, Value] = {
            "not_before": not_before,
            "wait_reason": reason,
            "due_at": not_before + resend_ms(job.resends),  # a backlog is not reminded of more often by waiting
            "bad_answers": bad_answers,
            "maybe_billed": job.maybe_billed + unknown,
        }
        if isinstance(self._made(held, WAIT, held.fence | params), Refused):
            self.cancelled(held, unknown)
            return
        hint(self._messages, job, delay_s=delay_s(not_before - now))
        self._log(job, "waits", reason=reason)

    def cancelled(self, held: Lease, unknown: int = 0) -> None:
        """End it as cancelled, if it is still ours and that is why we were refused; else another has it."""
        params = held.fence | end(held.job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= {"maybe_billed": held.job.maybe_billed + unknown}
        done = self._made(held, FAIL_CANCELLED, params)
        self._log(held.job, "lost to another worker" if isinstance(done, Refused) else "cancelled")

    def _made(self, held: Lease, transition: Transition, params: Mapping[str, Value]) -> Job | Refused:
        return self._insist(held, lambda: self._jobs.apply(transition, held.job.id, params))

    def _insist(self, held: Lease, write: Callable[[], Made]) -> Made:
        """Write an outcome, while its store is away again and again: the answer may have been paid for.

        Writing it twice is harmless, since a write that was committed and never said so counts as made.
        """
        until = min(held.end_ms, self._clock.now_ms() + INSIST_MS)
        pause_s = 1.0
        while True:
            try:
                return write()
            except Exception:
                if self._clock.now_ms() + pause_s * 1000 >= until:
                    raise
                log.exception("outcome not written yet", extra={"job_id": held.job.id})
            self._sleep(pause_s)
            pause_s *= 2

    def _log(self, job: Job, what: str, **more: str) -> None:
        log.info(f"job {what}", extra={"job_id": job.id, "attempt": job.attempt, **more})


def _reason(job: Job, error: ProviderError) -> str:
    if isinstance(error, ProviderBusy):
        return "provider_busy"
    if isinstance(error, ProviderRateLimited):
        return "provider_rate_limited"
    if job.queue == "gpu" and isinstance(error, ProviderUnavailable | ProviderTimeout):
        return "provider_cold_start"
    return error.code
