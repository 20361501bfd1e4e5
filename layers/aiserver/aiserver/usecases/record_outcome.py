"""Record the outcome of one claim of a job: completed, failed, waiting or cancelled, if the lease is still valid."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from aiserver import log_events
from aiserver.clock import Clock, Deadline
from aiserver.errors import (
    AiServerError,
    ProviderBusy,
    ProviderError,
    ProviderRateLimited,
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
from aiserver.operations import find_operation
from aiserver.providers.response import ProviderResponse
from aiserver.routing.failover import FailoverResult
from aiserver.usecases.image_outputs import ImageOutputs
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.request_log import parse_usage, without_none
from aiserver.usecases.terminal import StoredResponse, failure_fields, result_fields, terminal_fields

# Retries after provider errors; a provider that is unavailable or rate limited is retried until the deadline.
MAX_INVALID_RESPONSES = 8
MAX_WRITE_S = 60  # how long the write of an outcome is retried while the store is unavailable
WRITE_MARGIN_MS = 5_000  # of the lease, to write the outcome after images have been stored
# The waitReason of a job whose request could not be read, or whose call could not be marked.
STORAGE_UNAVAILABLE = "storage_unavailable"

log = logging.getLogger("aiserver.record_outcome")
Written = TypeVar("Written")


@dataclass(frozen=True)
class JobLease:
    """A claimed job, the fence params of its transitions, and the end of the worker's time."""

    job: Job
    fence: dict[str, AttributeValue]
    end: Deadline


class OutcomeRecorder:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        images: ImageOutputs,
        clock: Clock,
        sleep: Callable[[float], None],
        settled_days: int,
        *,
        logs_tags: bool = False,
    ) -> None:
        """`logs_tags`: the tags of jobs are logged."""
        self._logs_tags = logs_tags
        self._jobs = jobs
        self._images = images
        self._messages = messages
        self._clock = clock
        self._sleep = sleep
        self._settled_days = settled_days

    def record_outcome(self, lease: JobLease, failover: FailoverResult) -> None:
        """Complete, defer or fail the job, according to the result of the failover."""
        if failover.response is not None:
            stored = self._store_response(lease, failover, failover.response)
            if stored.is_lost and stored.error:
                self.fail(lease, stored.error, failover.unknown_outcomes + 1)
            else:
                self._complete(lease, failover, stored)
            return
        error = failover.error or ProviderError("No provider returned a response")
        is_temporary = isinstance(error, ProviderUnavailable | ProviderRateLimited | ProviderTimeout)
        invalid_responses = lease.job.invalid_responses + (0 if is_temporary else 1)
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
        """Defer while the store is unavailable and no call is open: another worker can start before the lease ends."""
        self._defer(lease, STORAGE_UNAVAILABLE, None, unknown_outcomes, lease.job.invalid_responses)

    def _store_response(self, lease: JobLease, failover: FailoverResult, response: ProviderResponse) -> StoredResponse:
        """The response as it is stored with the job, after its images. Raises: errors of the artifact store."""
        job, upstream = lease.job, failover.upstream
        if not find_operation(job.operation).returns_images or upstream is None:
            return StoredResponse(response)
        store = partial(
            self._images.store,
            response,
            upstream,
            owner=job.owner,
            created_at=job.created_at,
            base_url=job.base_url,
            deadline=Deadline(lease.end.at_ms - WRITE_MARGIN_MS),
        )
        return self._write_with_retry(lease, store)

    def _complete(self, lease: JobLease, failover: FailoverResult, stored: StoredResponse) -> None:
        job, response = lease.job, stored.response
        params = lease.fence | terminal_fields(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= {
            "served_by": failover.provider,
            "calls": job.calls + failover.attempts,
            "usage": response.usage,
            "maybe_billed": job.maybe_billed + failover.unknown_outcomes,
            **result_fields(stored, job.ignored),
        }
        if self._write_with_retry(lease, lambda: self._jobs.complete(COMPLETE, job, params, response.body)) is None:
            self._log(
                log_events.JOB_COMPLETED,
                job,
                provider=failover.provider,
                served_model=failover.upstream.model if failover.upstream else None,
                calls=params["calls"],
                duration_ms=self._duration_ms(job),
                usage=parse_usage(response.usage),
            )
        elif isinstance(self._apply(lease, COMPLETE_CANCELLED, params), ConditionFailed):
            self._log(log_events.JOB_LEASE_LOST, job)
        else:
            self._log(log_events.JOB_CANCELLED, job)

    def fail(self, lease: JobLease, error: AiServerError, unknown_outcomes: int = 0) -> None:
        """Fail the job permanently; `unknown_outcomes` calls may be billed without a response."""
        job = lease.job
        params = lease.fence | terminal_fields(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= failure_fields(error) | {"maybe_billed": job.maybe_billed + unknown_outcomes}
        if isinstance(self._apply(lease, FAIL, params), ConditionFailed):
            self.cancel(lease, unknown_outcomes)
            return
        self._log(log_events.JOB_FAILED, job, error=error.error_code, duration_ms=self._duration_ms(job))

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
            "due_at": not_before + resend_delay_ms(job.resends),  # a wait does not make resends more frequent
            "invalid_responses": invalid_responses,
            "maybe_billed": job.maybe_billed + unknown_outcomes,
        }
        if isinstance(self._apply(lease, DEFER, lease.fence | params), ConditionFailed):
            self.cancel(lease, unknown_outcomes)
            return
        notify_worker(self._messages, job, delay_s=sqs_delay_s(not_before - now))
        self._log(log_events.JOB_WAITING, job, reason=reason)

    def cancel(self, lease: JobLease, unknown_outcomes: int = 0) -> None:
        """Cancel the job if the lease is still valid and a cancel was requested; else another worker has the job."""
        params = lease.fence | terminal_fields(lease.job, now_ms=self._clock.now_ms(), settled_days=self._settled_days)
        params |= {"maybe_billed": lease.job.maybe_billed + unknown_outcomes}
        is_lost = isinstance(self._apply(lease, FAIL_CANCELLED, params), ConditionFailed)
        self._log(log_events.JOB_LEASE_LOST if is_lost else log_events.JOB_CANCELLED, lease.job)

    def _apply(
        self, lease: JobLease, transition: Transition, params: Mapping[str, AttributeValue]
    ) -> Job | ConditionFailed:
        return self._write_with_retry(lease, lambda: self._jobs.apply(transition, lease.job.id, params))

    def _write_with_retry(self, lease: JobLease, write: Callable[[], Written]) -> Written:
        """Write an outcome, with retries while the store is unavailable, because the response may have been paid for.

        A repeated write is harmless: a committed write whose confirmation was lost counts as applied.
        """
        deadline = min(lease.end, Deadline.after(MAX_WRITE_S, self._clock))
        pause_s = 1.0
        while True:
            try:
                return write()
            except Exception:
                if pause_s >= deadline.remaining_s(self._clock):
                    raise
                log.exception(log_events.JOB_OUTCOME_WRITE_FAILED, extra={"job_id": lease.job.id})
            self._sleep(pause_s)
            pause_s *= 2

    def _duration_ms(self, job: Job) -> int | None:
        """The time since the attempt began."""
        return None if job.started_at is None else self._clock.now_ms() - job.started_at

    def _log(self, event: str, job: Job, **fields: Any) -> None:
        tag = job.tag if self._logs_tags else None
        common = {"job_id": job.id, "attempt": job.attempt, "key_id": job.owner, "tag": tag}
        common |= {"operation": job.operation, "model": job.model}
        log.info(event, extra=without_none(common | fields))


def _wait_reason(job: Job, error: AiServerError) -> str:
    if isinstance(error, ProviderBusy):
        return "provider_busy"
    if isinstance(error, ProviderRateLimited):
        return "provider_rate_limited"
    if job.queue == "gpu" and isinstance(error, ProviderUnavailable | ProviderTimeout):
        return "provider_cold_start"
    return error.code
