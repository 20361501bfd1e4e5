"""Record synchronous requests as jobs: one with a RefId before the call, one with a Tag after it."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiserver import log_events
from aiserver.clock import Clock, Deadline
from aiserver.errors import AiServerError, Conflict, ProviderError
from aiserver.jobs.job import Job, request_hash
from aiserver.jobs.ports import ConditionFailed, JobStore
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import (
    COMPLETE,
    COMPLETE_CANCELLED,
    DISCONNECT,
    FAIL_SYNC,
    REQUEST_FIELDS,
    RESTART,
    AttributeValue,
)
from aiserver.operations import ResponseKind, find_operation
from aiserver.routing.failover import FailoverResult
from aiserver.usecases.job_request import describe_request
from aiserver.usecases.stream_response import StreamOutcome
from aiserver.usecases.terminal import StoredResponse, failure_fields, result_fields, settled_ttl, terminal_fields
from aiserver.wire.render import render
from aiserver.wire.requests import ModelRequest

POLL_INTERVAL_S = 0.5  # how often a repeated request checks whether the first one has ended

log = logging.getLogger("aiserver.sync_records")


@dataclass(frozen=True)
class SyncRequest:
    """A synchronous request, its caller, when it began, and when its response must have begun and its call ended."""

    request: ModelRequest
    owner: str
    base_url: str
    started_ms: int
    begin_deadline: Deadline
    deadline: Deadline


class SyncRecords:
    def __init__(
        self, jobs: JobStore, clock: Clock, sleep: Callable[[float], None], *, settled_days: int, lease_margin_s: int
    ) -> None:
        self._jobs = jobs
        self._clock = clock
        self._sleep = sleep
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000

    def find(self, sync: SyncRequest) -> Job | None:
        """The ended job of the request's RefId: completed, or failed without effect; None when there is none.

        While the job runs, this waits for its end. Raises: Conflict, when the RefId cannot be used again.
        """
        ref_id = sync.request.options.ref_id
        job = self._jobs.find_by_ref_id(sync.owner, ref_id, now_ms=self._clock.now_ms()) if ref_id else None
        return self._await_end(sync, job) if job else None

    def begin(self, sync: SyncRequest, failed_job: Job | None = None) -> "SyncRecord | Job":
        """The record of a new call; or the completed job, if another call with the same RefId was faster.

        `failed_job` is one that `find` returned. Raises: Conflict; errors of the store.
        """
        if not sync.request.options.ref_id:
            return SyncRecord(self, sync, None)
        job: Job | None = failed_job
        while True:
            if job is None:
                creation = self._jobs.create(self._create_job(sync), sync.request.body, now_ms=sync.started_ms)
                if creation.created:
                    return SyncRecord(self, sync, creation.job)
                job = creation.job
            job = self._await_end(sync, job)
            if job.state == JobState.COMPLETED:
                return job
            outcome = self._jobs.apply(RESTART, job.id, self._restart_params(sync, job))
            if not isinstance(outcome, ConditionFailed):
                return SyncRecord(self, sync, outcome)
            job = outcome.job

    def _create_job(self, sync: SyncRequest) -> Job:
        return Job.started(
            self._clock.job_id(),
            describe_request(sync.request, sync.owner, sync.base_url, self._clock),
            started_at=sync.started_ms,
            deadline=sync.deadline.at_ms,
            lease_token=self._clock.token(),
            lease_until=sync.deadline.at_ms + self._lease_margin_ms,
        )

    def _restart_params(self, sync: SyncRequest, job: Job) -> dict[str, AttributeValue]:
        request = describe_request(sync.request, sync.owner, sync.base_url, self._clock)
        return {
            **{name: getattr(request, name) for name in REQUEST_FIELDS},
            "now": self._clock.now_ms(),
            "completed_at": job.completed_at,
            "deadline": sync.deadline.at_ms,
            "lease_token": self._clock.token(),
            "lease_until": sync.deadline.at_ms + self._lease_margin_ms,
        }

    def _await_end(self, sync: SyncRequest, job: Job) -> Job:
        """The job once it is Completed, or Failed without effect. Raises: Conflict."""
        if job.request_hash != request_hash(sync.request.hash_name, sync.request.body):
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        operation = sync.request.operation
        will_be_stored = not sync.request.stream or operation.returns_images or operation.response is ResponseKind.BYTES
        is_sync = not job.queue
        while is_sync and will_be_stored and not job.has_ended and not sync.begin_deadline.has_passed(self._clock):
            self._sleep(POLL_INTERVAL_S)
            job = self._jobs.get(job.id) or job
        if job.state == JobState.COMPLETED and job.result_location:
            return job
        if job.state == JobState.FAILED and is_sync and not job.maybe_billed:
            return job
        reason = " and has no stored response" if job.state == JobState.COMPLETED else ""
        reason = f": {job.error}" if job.error else reason
        raise Conflict(f"RefId {job.ref_id} belongs to a job that is {job.state}{reason}", param="refId")

    def write_end(
        self,
        sync: SyncRequest,
        job: Job | None,
        failover: FailoverResult,
        outcome: StreamOutcome,
        stored: StoredResponse | None,
    ) -> None:
        """Write the end of a call. Never raises: the caller gets the response in any case."""
        try:
            if job is not None:
                self._end_started(job, failover, outcome, stored)
            elif sync.request.options.tag:
                self._create_ended(sync, failover, outcome, stored)
        except Exception:
            log.exception(log_events.SYNC_RESPONSE_RECORD_FAILED, extra={"job_id": job.id if job else None})

    def _end_started(
        self, job: Job, failover: FailoverResult, outcome: StreamOutcome, stored: StoredResponse | None
    ) -> None:
        """End a started job. If the sweeper has ended it meanwhile, its end stands."""
        params: dict[str, AttributeValue] = {
            "attempt": job.attempt,
            "lease_token": job.lease_token,
            "served_by": failover.provider or None,
            "calls": failover.attempts,
            "usage": _usage_to_record(job.operation, outcome),
            "maybe_billed": _unknown_outcomes(failover, outcome),
            **terminal_fields(job, now_ms=self._clock.now_ms(), settled_days=self._settled_days),
        }
        if outcome.state == JobState.CANCELLED:
            self._jobs.apply(DISCONNECT, job.id, params)
        elif outcome.error is not None:
            self._jobs.apply(FAIL_SYNC, job.id, params | failure_fields(outcome.error))
        elif isinstance(self._complete(job, params, stored), ConditionFailed):  # a cancel was requested
            self._jobs.apply(COMPLETE_CANCELLED, job.id, params)

    def _complete(
        self, job: Job, params: dict[str, AttributeValue], stored: StoredResponse | None
    ) -> Job | ConditionFailed | None:
        params |= result_fields(stored, job.ignored)
        if stored is None:
            return self._jobs.apply(COMPLETE, job.id, params | {"result_location": None, "result_bytes": None})
        return self._jobs.complete(COMPLETE, job, params, stored.response.body)

    def _create_ended(
        self, sync: SyncRequest, failover: FailoverResult, outcome: StreamOutcome, stored: StoredResponse | None
    ) -> None:
        now, request = self._clock.now_ms(), describe_request(sync.request, sync.owner, sync.base_url, self._clock)
        result = result_fields(stored, request.ignored)
        job = Job.recorded(
            self._clock.job_id(),
            replace(request, ignored=result.pop("ignored")),
            state=outcome.state,
            started_at=sync.started_ms,
            completed_at=now,
            calls=failover.attempts,
            served_by=failover.provider,
            usage=_usage_to_record(sync.request.operation.name, outcome),
            maybe_billed=_unknown_outcomes(failover, outcome),
            ttl=settled_ttl(now, self._settled_days),
            result=result | (failure_fields(outcome.error) if outcome.error else {}),
        )
        body = stored.response.body if stored else None
        self._jobs.create(job, sync.request.body, now_ms=now, result=body)


@dataclass(frozen=True)
class SyncRecord:
    """The record of one synchronous call; `job` is the started job of its RefId."""

    records: SyncRecords
    sync: SyncRequest
    job: Job | None

    @property
    def created_at(self) -> int:
        """When the recorded job began, in Unix ms: a restarted one keeps its time."""
        return self.job.created_at if self.job else self.sync.started_ms

    @property
    def stores_result(self) -> bool:
        return self.job is not None or bool(self.sync.request.options.tag)

    def end(self, failover: FailoverResult, outcome: StreamOutcome, stored: StoredResponse | None = None) -> None:
        """Write the outcome, with the response if it is stored. Never raises."""
        self.records.write_end(self.sync, self.job, failover, outcome, stored)

    def abandon(self) -> None:
        """Write that the gateway failed during the call, whose outcome is unknown. Never raises."""
        error = AiServerError("The gateway failed during the call; it may have been billed")
        failover = FailoverResult(None, error, "", attempts=0, unknown_outcomes=1, can_retry=False)
        self.end(failover, StreamOutcome(JobState.FAILED, error))


def _unknown_outcomes(failover: FailoverResult, outcome: StreamOutcome) -> int:
    """How many calls may have been billed without a response. A fault of the gateway itself counts as one."""
    error = outcome.error
    is_unknown = error.may_be_billed if isinstance(error, ProviderError) else type(error) is AiServerError
    return max(failover.unknown_outcomes, int(is_unknown))


def _usage_to_record(operation_name: str, outcome: StreamOutcome) -> str | None:
    """The provider's usage, as JSON; for a stream that broke off, an estimate from the number of its content events."""
    operation = find_operation(operation_name)
    if outcome.usage or not outcome.content_events or outcome.state == JobState.COMPLETED or operation.is_media:
        return outcome.usage
    return render({operation.usage_unit: outcome.content_events, "estimated": True}).decode()
