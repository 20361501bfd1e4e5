"""Advance or end overdue jobs: lost messages, dead workers, passed deadlines, undelivered callbacks."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiserver import log_events
from aiserver.circuit_breaker.circuit import CircuitStore
from aiserver.clock import Clock
from aiserver.errors import ProviderTimeout
from aiserver.jobs.backoff import MAX_DELAY_S, RESEND_CAP_MS, callback_retry_delay_s, resend_delay_ms, sqs_delay_s
from aiserver.jobs.job import DUE_SHARDS, Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import (
    EXPIRE,
    RECOVER,
    RECOVER_CANCELLED,
    RECOVER_DELIVERY,
    RECOVER_DELIVERY_DEAD,
    RECOVER_FAILED,
    RESEND,
    RESEND_CALLBACK,
    AttributeValue,
)
from aiserver.usecases.deliver_callback import DEAD_CALLBACK_DAYS
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.terminal import CALLBACK_DUE_MS, expiry_fields, failure_fields, settled_ttl, terminal_fields

log = logging.getLogger("aiserver.sweep")


@dataclass(frozen=True)
class SweepResult:
    """Jobs processed, how long the oldest of them was overdue (ms), and callbacks that are now dead.

    `open_circuits` counts the providers whose circuit is open for every key, for all models or for one.
    """

    jobs: int
    oldest_due_ms: int
    dead_callbacks: int
    open_circuits: int = 0


class Sweep:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        circuits: CircuitStore,
        clock: Clock,
        *,
        settled_days: int,
        threads: int = DUE_SHARDS,
    ) -> None:
        self._jobs = jobs
        self._circuits = circuits
        self._messages = messages
        self._clock = clock
        self._settled_days = settled_days
        self._threads = threads

    def sweep(self, *, remaining_ms: int) -> SweepResult:
        """Process every overdue job until none is left or `remaining_ms` is over. Concurrent runs are safe.

        Shards are swept in parallel, longest overdue first, so that no shard waits for another's backlog.
        """
        now = self._clock.now_ms()
        with ThreadPoolExecutor(self._threads) as pool:
            sweeps = [
                pool.submit(self._sweep_shard, str(shard), now, now + remaining_ms) for shard in range(DUE_SHARDS)
            ]
            shards = [sweep.result() for sweep in sweeps]
        return SweepResult(
            sum(shard.jobs for shard in shards),
            max(shard.oldest_due_ms for shard in shards),
            sum(shard.dead_callbacks for shard in shards),
            self._count_open_circuits(),
        )

    def _count_open_circuits(self) -> int:
        try:
            circuits = self._circuits.read_all()
        except Exception:  # the sweep does not need the circuits
            log.exception(log_events.CIRCUIT_READ_FAILED)
            return 0
        names = [name for name, circuit in circuits.items() if circuit.is_open_for_all(self._clock.now_ms())]
        for name in names:
            log.warning(log_events.CIRCUIT_STILL_OPEN, extra={"provider": name})
        return len(names)

    def _sweep_shard(self, shard: str, now: int, deadline_ms: int) -> SweepResult:
        jobs = oldest_due_ms = dead_callbacks = 0
        for job_id, due_at in self._jobs.due_jobs(shard, now_ms=now):
            if self._clock.now_ms() >= deadline_ms:  # the next sweep starts within a minute
                break
            jobs += 1
            try:
                job = self._read_due(job_id)
                if job is None:
                    continue
                oldest_due_ms = max(oldest_due_ms, now - due_at)
                dead_callbacks += self._advance(job) == CallbackState.DEAD
            except Exception:  # the next sweep retries this job; the loop continues with the next one
                log.exception(log_events.JOB_SWEEP_FAILED, extra={"job_id": job_id})
        return SweepResult(jobs, oldest_due_ms, dead_callbacks)

    def _read_due(self, job_id: int) -> Job | None:
        """The job, if it is still due: the index is eventually consistent."""
        job = self._jobs.get(job_id)
        return job if job and job.due_at is not None and job.due_at <= self._clock.now_ms() else None

    def _advance(self, job: Job) -> CallbackState | None:
        """The new state of the job's callback, if this step changed it."""
        now = self._clock.now_ms()
        if job.has_ended:
            return self._advance_callback(job, now)
        if job.state == JobState.QUEUED:
            self._advance_queued(job, now)
        else:
            self._recover_started(job, now)
        return None

    def _advance_queued(self, job: Job, now: int) -> None:
        if job.deadline <= now:
            self._jobs.apply(
                EXPIRE, job.id, terminal_fields(job, now_ms=now, settled_days=self._settled_days) | expiry_fields(job)
            )
            return
        due_at = min(now + resend_delay_ms(job.resends), max(job.deadline, now + 1000))
        params = {"expected_due_at": job.due_at, "due_at": due_at}
        if not isinstance(self._jobs.apply(RESEND, job.id, params), ConditionFailed):
            notify_worker(self._messages, job)

    def _recover_started(self, job: Job, now: int) -> None:
        """End or retry a job whose worker died. A call that may have been billed is not repeated."""
        unknown_outcomes = 1 if job.call_started_at is not None else 0
        fence = {"now": now, "attempt": job.attempt, "maybe_billed": job.maybe_billed + unknown_outcomes}
        terminal = fence | terminal_fields(job, now_ms=now, settled_days=self._settled_days)
        if job.cancel_requested_at is not None:
            self._jobs.apply(RECOVER_CANCELLED, job.id, terminal)
        elif unknown_outcomes and job.call_queue != "gpu":
            error = ProviderTimeout("The worker died during the call; it may have been billed and is not repeated")
            self._jobs.apply(RECOVER_FAILED, job.id, terminal | failure_fields(error))
        else:
            retry = fence | {"not_before": now, "due_at": now + resend_delay_ms(0)}
            if not isinstance(self._jobs.apply(RECOVER, job.id, retry), ConditionFailed):
                notify_worker(self._messages, job)

    def _advance_callback(self, job: Job, now: int) -> CallbackState | None:
        if job.callback == CallbackState.PENDING:
            overdue_ms = now - (job.callback_next_at or now)
            due_at = now + min(max(overdue_ms, CALLBACK_DUE_MS), RESEND_CAP_MS)
            expected = {"expected_due_at": job.due_at, "due_at": due_at}
            if not isinstance(self._jobs.apply(RESEND_CALLBACK, job.id, expected), ConditionFailed):
                self._messages.send_callback(job.id, due=job.callback_next_at)
            return None
        params: dict[str, AttributeValue] = {
            "now": now,
            "callback_attempt": job.callback_attempt,
            "callback_token": job.callback_token,
            "callback_last_status": None,
            "callback_last_error": "the delivery function died; the callback may have been sent",
        }
        wait_s = callback_retry_delay_s(job.callback_attempt, self._clock.fraction())
        if wait_s is None:
            ttl = settled_ttl(now, self._settled_days + DEAD_CALLBACK_DAYS)
            dead_job = self._jobs.apply(RECOVER_DELIVERY_DEAD, job.id, params | {"ttl": ttl})
            if isinstance(dead_job, ConditionFailed):
                return None
            log.error(log_events.CALLBACK_DEAD, extra={"job_id": job.id, "attempt": job.callback_attempt})
            return dead_job.callback
        next_at = now + round(wait_s * 1000)
        params |= {"callback_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        recovered = self._jobs.apply(RECOVER_DELIVERY, job.id, params)
        if not isinstance(recovered, ConditionFailed) and wait_s <= MAX_DELAY_S:
            self._messages.send_callback(job.id, due=next_at, delay_s=sqs_delay_s(next_at - now))
        return None
