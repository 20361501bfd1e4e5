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
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.jobs.backoff import resend_delay_ms, retry_delay_s, sqs_delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.transitions import (
    COMPLETE,
    COMPLETE_CANCELLED,
    DEFER,
    FAIL,
    FAIL_CANCELLED,
    AttributeValue,
    Transition,
)
from aiserver.usecases.failover import FailoverResult
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.terminal import failure_fields, terminal_fields

MAX_INVALID_RESPONSES = (
    8  # of a provider that answers, but badly; one that asks to wait is waited for until the deadline
)
MAX_WRITE_MS = 60_000  # how long an outcome whose store is away is written again and again
STORAGE_UNAVAILABLE = (
    "storage_unavailable"  # the waitReason of a job whose request could not be read, or its call not marked
)

log = logging.getLogger("aiserver.work")
Written = TypeVar("Written")


@dataclass(frozen=True)
class JobLease:
    """What one claim holds, and when its worker's own time is over."""

    job: Job
    fence: dict[str, AttributeValue]
    end_ms: int


class OutcomeRecorder:
    def __init__(
        self, jobs: JobStore, messages: MessageSender, clock: Clock, sleep: Callable[[float], None], settled_days: int
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._clock = clock
        self._sleep = sleep
        self._settled_days = settled_days

    def record_outcome(self, lease: JobLease, failover: FailoverResult) -> None:
        """As the pass over the providers came out."""
        if failover.response is not None:
            self._complete(lease, failover, failover.response)
            return
        error = failover.error or ProviderError("No provider answered")
        asks_to_wait = isinstance(error, ProviderUnavailable | ProviderRateLimited | ProviderTimeout)
        invalid_responses = lease.job.invalid_responses + (0 if asks_to_wait else 1)
        if failover.can_retry and invalid_responses < MAX_INVALID_RESPONSES:
            self._defer(
                lease,
                _wait_reason(lease.job, error),
                failover.retry_after_s,
                failover.unknown_outcomes,
                invalid_responses,
            )
        else:
            self.fail(lease, error, failover.unknown_outcomes)

    def defer_store_unavailable(self, lease: JobLease, unknown_outcomes: int = 0) -> None:
        """The store is away and no call is open: another worker may begin anew before this lease has run out."""
        self._defer(lease, STORAGE_UNAVAILABLE, None, unknown_outcomes, lease.job.invalid_responses)

    def _complete(self, lease: JobLease, failover: FailoverResult, response: ProviderResponse) -> None:
        job = lease.job
        told: dict[str, AttributeValue] = {
            "served_by": failover.provider,
            "usage": response.usage,
            "maybe_billed": job.maybe_billed + failover.unknown_outcomes,
        }
        params = lease.fence | terminal_fields(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days) | told
        if self._write_with_retry(lease, lambda: self._jobs.complete(COMPLETE, job, params, response.body)) is None:
            self._log(job, "completed")
        elif isinstance(self._apply(lease, COMPLETE_CANCELLED, params), ConditionFailed):
            self._log(job, "lost to another worker")
        else:
            self._log(job, "cancelled")

    def fail(self, lease: JobLease, error: AiServerError, unknown_outcomes: int = 0) -> None:
        """For good; `unknown` calls may have been billed in vain."""
        job = lease.job
        params = lease.fence | terminal_fields(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= failure_fields(error) | {"maybe_billed": job.maybe_billed + unknown_outcomes}
        if isinstance(self._apply(lease, FAIL, params), ConditionFailed):
            self.cancel(lease, unknown_outcomes)
            return
        self._log(job, "failed", error=error.error_code)

    def _defer(
        self, lease: JobLease, reason: str, retry_after_s: int | None, unknown_outcomes: int, invalid_responses: int
    ) -> None:
        job = lease.job
        now = self._clock.now_ms()
        delay_s = retry_delay_s(retry_after_s, job.attempt, self._clock.fraction())
        not_before = min(now + round(delay_s * 1000), job.deadline)
        params: dict[str, AttributeValue] = {
            "not_before": not_before,
            "wait_reason": reason,
            "due_at": not_before + resend_delay_ms(job.resends),  # a backlog is not reminded of more often by waiting
            "invalid_responses": invalid_responses,
            "maybe_billed": job.maybe_billed + unknown_outcomes,
        }
        if isinstance(self._apply(lease, DEFER, lease.fence | params), ConditionFailed):
            self.cancel(lease, unknown_outcomes)
            return
        notify_worker(self._messages, job, delay_s=sqs_delay_s(not_before - now))
        self._log(job, "waits", reason=reason)

    def cancel(self, lease: JobLease, unknown_outcomes: int = 0) -> None:
        """End it as cancelled, if it is still ours and that is why we were refused; else another has it."""
        params = lease.fence | terminal_fields(lease.job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= {"maybe_billed": lease.job.maybe_billed + unknown_outcomes}
        done = self._apply(lease, FAIL_CANCELLED, params)
        self._log(lease.job, "lost to another worker" if isinstance(done, ConditionFailed) else "cancelled")

    def _apply(
        self, lease: JobLease, transition: Transition, params: Mapping[str, AttributeValue]
    ) -> Job | ConditionFailed:
        return self._write_with_retry(lease, lambda: self._jobs.apply(transition, lease.job.id, params))

    def _write_with_retry(self, lease: JobLease, write: Callable[[], Written]) -> Written:
        """Write an outcome, while its store is away again and again: the answer may have been paid for.

        Writing it twice is harmless, since a write that was committed and never said so counts as made.
        """
        until = min(lease.end_ms, self._clock.now_ms() + MAX_WRITE_MS)
        pause_s = 1.0
        while True:
            try:
                return write()
            except Exception:
                if self._clock.now_ms() + pause_s * 1000 >= until:
                    raise
                log.exception("outcome not written yet", extra={"job_id": lease.job.id})
            self._sleep(pause_s)
            pause_s *= 2

    def _log(self, job: Job, what: str, **more: str) -> None:
        log.info(f"job {what}", extra={"job_id": job.id, "attempt": job.attempt, **more})


def _wait_reason(job: Job, error: ProviderError) -> str:
    if isinstance(error, ProviderBusy):
        return "provider_busy"
    if isinstance(error, ProviderRateLimited):
        return "provider_rate_limited"
    if job.queue == "gpu" and isinstance(error, ProviderUnavailable | ProviderTimeout):
        return "provider_cold_start"
    return error.code
