"""Queue a request as a job, exactly once per RefId; cancel a job."""

import itertools
import math
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from aiserver.clock import Clock, Deadline
from aiserver.errors import Conflict, NotFound
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import CANCEL, QUEUE_FAILED, REQUEST_CANCEL, REQUEST_FIELDS, AttributeValue
from aiserver.providers.call import ProviderCall
from aiserver.providers.registry import AdapterRegistry
from aiserver.routing.selection import ProviderDirectory, first_supported
from aiserver.usecases.job_request import describe_request
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.terminal import terminal_fields
from aiserver.wire.http_dates import parse_iso_ms
from aiserver.wire.requests import ModelRequest
from aiserver.wire.validation import invalid_field

DEFAULT_DEADLINE_S = 86_400
MAX_DEADLINE_S = 14 * 86_400  # the bodies must outlive the deadline: the bucket deletes them after 90 days
MAX_PARALLEL_CHECKS = 32  # of a batch's ReplyTo URLs
QUEUED_DUE_MS = 60_000  # until the message of an unclaimed job is sent again

_DATE_MS = re.compile(r"/Date\((\d+)(?:[+-]\d{4})?\)/")


@dataclass(frozen=True)
class Caller:
    """The API key of a request, the base URL it used, and the hosts its ReplyTo may name (empty: any)."""

    owner: str
    base_url: str
    callback_hosts: Collection[str] = ()


class Enqueue:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        directory: ProviderDirectory,
        adapters: AdapterRegistry,
        clock: Clock,
        *,
        check_reply_to: Callable[[str, Collection[str]], None],
        settled_days: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._directory = directory
        self._adapters = adapters
        self._clock = clock
        self._check_reply_to = check_reply_to
        self._settled_days = settled_days

    def accept(self, request: ModelRequest, caller: Caller) -> Job:
        """The job for this request: a new one, or the existing job of its RefId.

        A written job cannot be lost: if its message cannot be sent now, the sweeper sends it.
        Raises: InvalidRequest; NotFound (model); Conflict, when the RefId was used for another body.
        """
        job = self._prepare(request, caller)
        if job.reply_to is not None:
            self._check_reply_to(job.reply_to, caller.callback_hosts)
        return self._write(job, request.body)

    def accept_all(self, batch: list[ModelRequest], caller: Caller) -> list[Job]:
        """Like `accept` for each request. All are validated before any is written; a Conflict can stop the writes."""
        jobs = [self._prepare(request, caller) for request in batch]
        self._check_all({job.reply_to for job in jobs if job.reply_to is not None}, caller)
        return [self._write(job, request.body) for job, request in zip(jobs, batch, strict=True)]

    def _prepare(self, request: ModelRequest, caller: Caller) -> Job:
        now, options = self._clock.now_ms(), request.options
        deadline = _deadline(options.deadline, now)
        call = ProviderCall(
            request.operation,
            request.body,
            Deadline(deadline),
            Deadline(deadline),
            content_type=request.content_type,
            is_aiserver=bool(request.name),
        )
        candidates = self._directory.candidates(request.model, options.provider, call.operation)
        best = first_supported(candidates, partial(self._adapters.check, call=call))
        return Job.accepted(
            self._clock.job_id(),
            describe_request(request, caller.owner, caller.base_url, self._clock),
            queue=best.provider.queue,
            created_at=now,
            deadline=deadline,
            due_at=now + QUEUED_DUE_MS,
        )

    def _check_all(self, reply_tos: Collection[str], caller: Caller) -> None:
        """Check each distinct URL, in parallel, so that slow DNS lookups do not add up."""
        with ThreadPoolExecutor(MAX_PARALLEL_CHECKS) as pool:
            for check in [pool.submit(self._check_reply_to, url, caller.callback_hosts) for url in reply_tos]:
                check.result()

    def _write(self, job: Job, body: bytes) -> Job:
        creation = self._jobs.create(job, body, now_ms=job.created_at)
        if creation.created:
            notify_worker(self._messages, creation.job)
        elif creation.job.request_hash != job.request_hash:
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        elif not creation.job.queue:
            return self._take_over(creation.job, job)
        return creation.job

    def _take_over(self, sync_job: Job, job: Job) -> Job:
        """The job of a synchronous request with the same RefId: completed, or now queued because it had no effect.

        Raises: Conflict, when that request runs, may have been billed, or has completed without the ReplyTo of `job`.
        """
        if sync_job.state == JobState.COMPLETED and job.reply_to is None:
            return sync_job
        queued: Job | ConditionFailed = ConditionFailed(sync_job)
        if sync_job.state == JobState.FAILED:
            names = ("queue", "deadline", "due_at", "reply_to", *REQUEST_FIELDS)
            params: dict[str, AttributeValue] = {name: getattr(job, name) for name in names}
            params |= {"now": job.created_at, "completed_at": sync_job.completed_at}
            queued = self._jobs.apply(QUEUE_FAILED, sync_job.id, params)
        if isinstance(queued, ConditionFailed):
            if queued.job and queued.job.queue:  # another request with the same RefId has queued it
                return queued.job
            raise Conflict(
                f"RefId {job.ref_id} belongs to a synchronous request that is {sync_job.state}", param="refId"
            )
        notify_worker(self._messages, queued)
        return queued

    def cancel(self, job: Job) -> Job:
        """Cancel a queued job, or request the cancel of a started one; returns the job after the write.

        Raises: NotFound; Conflict, for a job that already completed or failed.
        """
        now = self._clock.now_ms()
        params = {"owner": job.owner, **terminal_fields(job, now_ms=now, settled_days=self._settled_days)}
        outcome = self._jobs.apply(CANCEL, job.id, params)
        transitions = itertools.cycle((REQUEST_CANCEL, CANCEL))  # a worker may claim or defer the job meanwhile
        while isinstance(outcome, ConditionFailed) and outcome.job and not outcome.job.has_ended:
            outcome = self._jobs.apply(next(transitions), job.id, params)
        if not isinstance(outcome, ConditionFailed):
            return outcome
        if outcome.job is None:
            raise NotFound(f"Job {job.id} not found")
        if outcome.job.state != JobState.CANCELLED:
            raise Conflict(f"Job {job.id} is {outcome.job.state} and cannot be cancelled")
        return outcome.job


def _deadline(option: str | float | None, now_ms: int) -> int:
    """The deadline in Unix ms, from seconds from now, an ISO date, or `/Date(ms)/`. Raises: InvalidRequest."""
    if option is None:
        return now_ms + DEFAULT_DEADLINE_S * 1000
    try:
        deadline = _parse_deadline(option, now_ms)
    except (ValueError, OverflowError) as error:
        raise invalid_field("InvalidType", "deadline", "'deadline' must be a date or a number of seconds") from error
    if not now_ms < deadline <= now_ms + MAX_DEADLINE_S * 1000:
        raise invalid_field(
            "InvalidRange", "deadline", f"'deadline' must be within {MAX_DEADLINE_S // 86_400} days from now"
        )
    return deadline


def _parse_deadline(option: str | float, now_ms: int) -> int:
    if isinstance(option, str):
        if match := _DATE_MS.fullmatch(option):
            return int(match.group(1))
        if re.fullmatch(r"[0-9.]+", option) is None:
            return parse_iso_ms(option)
    seconds = float(option)
    if not math.isfinite(seconds):
        raise ValueError("not a number of seconds")
    return now_ms + round(seconds * 1000)
