"""Run one queued job: claim it, ask its provider, and write what came of it, so that it happens once."""

import itertools
import logging
from collections.abc import Callable

from aiserver.clock import Clock
from aiserver.errors import InvalidRequest, NotFound
from aiserver.jobs.backoff import sqs_delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import CLAIM, EXPIRE, MARK_CALL, AttributeValue
from aiserver.providers.memory_budget import MemoryBudget
from aiserver.router import Candidate, ProviderCall, Router
from aiserver.usecases.failover import FailoverResult, try_candidates
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.record_outcome import JobLease, OutcomeRecorder
from aiserver.usecases.terminal import expiry_fields, terminal_fields

# Kept free of provider time at a worker's end, so that it always writes an outcome itself.
OUTCOME_MARGIN_MS = 10_000
OUTCOME_MARGIN_SHARE = 4  # of a short time limit, at most a fourth

log = logging.getLogger("aiserver.work")


class _CallNotMade(Exception):
    """The pass ended before a call; `unknown` calls before it may have been billed in vain."""

    def __init__(self, unknown: int = 0) -> None:
        super().__init__()
        self.unknown_outcomes = unknown


class _JobTaken(_CallNotMade):
    """The job changed under us: it was cancelled, or another worker has it."""


class RunJob:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        router: Router,
        clock: Clock,
        *,
        sleep: Callable[[float], None],
        settled_days: int,
        lease_margin_s: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._router = router
        self._clock = clock
        self._recorder = OutcomeRecorder(jobs, messages, clock, sleep, settled_days)
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000
        self._memory = MemoryBudget()

    def run(self, job_id: int, *, remaining_ms: int, attempt: int | None = None) -> None:
        """Bring the job one step on; `left_ms` is what is left of this worker's own time, `attempt` the message's.

        Returning means the message is done with, whatever became of the job; what raises is tried again.
        """
        now = self._clock.now_ms()
        token, end_ms = self._clock.token(), now + remaining_ms
        lease = {"now": now, "lease_token": token, "lease_until": end_ms + self._lease_margin_ms}
        claimed = self._jobs.apply(CLAIM, job_id, lease)
        if isinstance(claimed, ConditionFailed):
            self._claim_failed(claimed.job, now, attempt)
            return
        with self._memory.share():
            self._run(JobLease(claimed, {"attempt": claimed.attempt, "lease_token": token}, end_ms))

    def _run(self, lease: JobLease) -> None:
        try:
            done = self._call_providers(lease)
        except _JobTaken as stopped:
            self._recorder.cancel(lease, stopped.unknown_outcomes)
        except _CallNotMade as stopped:
            log.exception("job not asked yet", extra={"job_id": lease.job.id})
            self._recorder.defer_store_unavailable(lease, stopped.unknown_outcomes)
        except (NotFound, InvalidRequest) as error:  # its model or provider is no longer configured, or no request kept
            self._recorder.fail(lease, error)
        else:
            self._recorder.record_outcome(lease, done)

    def _claim_failed(self, job: Job | None, now: int, attempt: int | None) -> None:
        """The claim was refused: the job is done or taken, it is too early, or too late.

        A message that is too early comes again for the rest of the wait, if it is this wait's own: one of an earlier
        wait has a younger one behind it, and would go round for as long as the job waits.
        """
        if job is None or job.state != JobState.QUEUED:
            return
        if job.deadline <= now:
            params = terminal_fields(job, now_ms=now, settled_days=self._settled_days) | expiry_fields(job)
            self._jobs.apply(EXPIRE, job.id, params)
        elif job.not_before > now and attempt in (None, job.attempt):
            notify_worker(self._messages, job, delay_s=sqs_delay_s(job.not_before - now))

    def _call_providers(self, lease: JobLease) -> FailoverResult:
        """Raises: _NotOurs; _NotAsked, where the store is away; NotFound or InvalidRequest, where nobody can answer."""
        job = lease.job
        try:
            request, named = self._jobs.read_request(job), self._candidates(job)
        except (NotFound, InvalidRequest):
            raise
        except Exception as error:
            raise _CallNotMade from error
        if request is None:
            raise NotFound("The job's request is no longer kept")
        question = ProviderCall(job.operation, request, job.owner, idempotency_key=f"job-{job.id}-{job.epoch}")
        candidates = self._router.filter_supported(named, question)
        calls = itertools.count(job.calls + 1)

        def mark(candidate: Candidate, unknown: int) -> None:
            params: dict[str, AttributeValue] = {"now": self._clock.now_ms(), "call_queue": candidate.provider.queue}
            params |= lease.fence | {"calls": next(calls), "maybe_billed": job.maybe_billed + unknown}
            try:
                marked = self._jobs.apply(MARK_CALL, job.id, params)
            except Exception as error:
                raise _CallNotMade(unknown) from error
            if isinstance(marked, ConditionFailed):
                raise _JobTaken(unknown)

        return try_candidates(
            self._router,
            question,
            candidates,
            clock=self._clock,
            deadline_ms=min(lease.end_ms - _outcome_margin_ms(lease.end_ms - self._clock.now_ms()), job.deadline),
            on_attempt=mark,
        )

    def _candidates(self, job: Job) -> list[Candidate]:
        """All but an own GPU for a job of the hosted queue: only the gpu queue's limit protects a GPU.

        Where that leaves nobody, the operator has moved the model to a GPU since, and the job goes along.
        """
        found = self._router.candidates(job.model, job.provider, job.operation)
        return [candidate for candidate in found if candidate.provider.queue in (job.queue, "hosted")] or found


def _outcome_margin_ms(remaining_ms: int) -> int:
    return min(OUTCOME_MARGIN_MS, remaining_ms // OUTCOME_MARGIN_SHARE)
