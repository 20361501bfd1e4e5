"""Run one queued job: claim it, call its provider and record the outcome, with a fence against duplicate workers."""

import itertools
import logging
from collections.abc import Callable

from aiserver import log_events
from aiserver.clock import Clock, Deadline
from aiserver.errors import InvalidRequest, NotFound
from aiserver.jobs.backoff import sqs_delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import CLAIM, EXPIRE, MARK_CALL, AttributeValue
from aiserver.operations import Operation, find_operation
from aiserver.providers.call import ProviderCall
from aiserver.providers.memory_budget import MemoryBudget
from aiserver.routing.failover import CallPermission, Failover, RequestPermission
from aiserver.routing.selection import Candidate, ProviderDirectory
from aiserver.usecases.image_outputs import ImageOutputs
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.record_outcome import JobLease, OutcomeRecorder
from aiserver.usecases.terminal import STORE_MARGIN_MS, expiry_fields, terminal_fields
from aiserver.wire.render import JSON_MEDIA_TYPE

# Time reserved at the end of a worker's timeout, so that the worker can always record the outcome itself.
OUTCOME_MARGIN_MS = 10_000
OUTCOME_MARGIN_SHARE = 4  # at most a quarter of a short timeout

log = logging.getLogger("aiserver.run_job")


class RunJob:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        directory: ProviderDirectory,
        failover: Failover,
        images: ImageOutputs,
        clock: Clock,
        *,
        sleep: Callable[[float], None],
        settled_days: int,
        lease_margin_s: int,
        logs_tags: bool = False,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._directory = directory
        self._failover = failover
        self._clock = clock
        self._recorder = OutcomeRecorder(jobs, messages, images, clock, sleep, settled_days, logs_tags=logs_tags)
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000
        self._memory = MemoryBudget()

    def run(self, job_id: int, *, remaining_ms: int, attempt: int | None = None) -> None:
        """Run the job until it ends or waits.

        `remaining_ms` is the time before this worker's own timeout, `attempt` that of the message. On return the
        message can be deleted, whatever the outcome; after an exception it is retried.
        """
        now = self._clock.now_ms()
        token, end = self._clock.token(), Deadline(now + remaining_ms)
        params = {"now": now, "lease_token": token, "lease_until": end.at_ms + self._lease_margin_ms}
        claimed = self._jobs.apply(CLAIM, job_id, params)
        if isinstance(claimed, ConditionFailed):
            self._on_claim_failed(claimed.job, now, attempt)
            return
        with self._memory.share():
            self._run(JobLease(claimed, {"attempt": claimed.attempt, "lease_token": token}, end))

    def _run(self, lease: JobLease) -> None:
        try:
            call, candidates = self._prepare(lease)
        except (NotFound, InvalidRequest) as error:  # model or provider no longer configured, or request not stored
            self._recorder.fail(lease, error)
            return
        except Exception:
            log.exception(log_events.JOB_DEFERRED, extra={"job_id": lease.job.id})
            self._recorder.defer_store_unavailable(lease)
            return
        result = self._failover.try_candidates(call, candidates, self._permission(lease))
        match result.permission:
            case CallPermission.LEASE_LOST:
                self._recorder.cancel(lease, result.unknown_outcomes)
            case CallPermission.STORE_UNAVAILABLE:
                self._recorder.defer_store_unavailable(lease, result.unknown_outcomes)
            case CallPermission.GRANTED:
                self._recorder.record_outcome(lease, result)

    def _on_claim_failed(self, job: Job | None, now: int, attempt: int | None) -> None:
        """The claim failed: the job has ended or is claimed, the message is too early, or the deadline has passed.

        An early message is sent again with the remaining delay if it belongs to the current wait. A message of an
        earlier wait is dropped: a newer one exists, and it would circulate for as long as the job waits.
        """
        if job is None or job.state != JobState.QUEUED:
            return
        if job.deadline <= now:
            params = terminal_fields(job, now_ms=now, settled_days=self._settled_days) | expiry_fields(job)
            self._jobs.apply(EXPIRE, job.id, params)
        elif job.not_before > now and attempt in (None, job.attempt):
            notify_worker(self._messages, job, delay_s=sqs_delay_s(job.not_before - now))

    def _prepare(self, lease: JobLease) -> tuple[ProviderCall, list[Candidate]]:
        """The job's call and its candidates.

        Raises: NotFound (request not stored; operation, model), InvalidRequest (provider); errors of the store.
        """
        job, operation = lease.job, find_operation(lease.job.operation)
        request = self._jobs.read_request(job)
        if request is None:
            raise NotFound("The job's request is no longer stored")
        deadline = min(_call_deadline(lease.end, operation, self._clock), Deadline(job.deadline))
        call = ProviderCall(
            operation,
            request,
            deadline,
            deadline,
            job.owner,
            idempotency_key=f"job-{job.id}-{job.epoch}",
            content_type=job.request_type or JSON_MEDIA_TYPE,
            is_aiserver=job.request_name is not None,
        )
        return call, self._candidates(job, operation)

    def _permission(self, lease: JobLease) -> RequestPermission:
        """A function that marks each call in the store, and permits it if the lease is still valid."""
        job, calls = lease.job, itertools.count(lease.job.calls + 1)

        def mark_call(candidate: Candidate, unknown_outcomes: int) -> CallPermission:
            params: dict[str, AttributeValue] = {"now": self._clock.now_ms(), "call_queue": candidate.provider.queue}
            params |= lease.fence | {"calls": next(calls), "maybe_billed": job.maybe_billed + unknown_outcomes}
            try:
                marked = self._jobs.apply(MARK_CALL, job.id, params)
            except Exception:
                log.exception(log_events.JOB_DEFERRED, extra={"job_id": job.id})
                return CallPermission.STORE_UNAVAILABLE
            return CallPermission.LEASE_LOST if isinstance(marked, ConditionFailed) else CallPermission.GRANTED

        return mark_call

    def _candidates(self, job: Job, operation: Operation) -> list[Candidate]:
        """The candidates; for a job of the hosted queue without GPUs, which only the gpu queue's limit protects.

        If none remains, the operator has moved the model to a GPU since, and the job uses the GPU.
        """
        candidates = self._directory.candidates(job.model, job.provider, operation)
        allowed = [candidate for candidate in candidates if candidate.provider.queue in (job.queue, "hosted")]
        return allowed or candidates


def _call_deadline(end: Deadline, operation: Operation, clock: Clock) -> Deadline:
    """When calls must have ended, so that the worker can store images and record the outcome before `end`."""
    remaining_ms = end.at_ms - clock.now_ms()
    margin_ms = OUTCOME_MARGIN_MS + (STORE_MARGIN_MS if operation.returns_images else 0)
    return Deadline(end.at_ms - min(margin_ms, remaining_ms // OUTCOME_MARGIN_SHARE))
