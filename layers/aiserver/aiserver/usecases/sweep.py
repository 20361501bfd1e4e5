"""Turn whatever is overdue into progress or an end: lost messages, dead workers, passed deadlines, owed callbacks."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import ProviderTimeout
from aiserver.jobs.backoff import MAX_DELAY_S, RESEND_CAP_MS, callback_retry_delay_s, resend_delay_ms, sqs_delay_s
from aiserver.jobs.job import SHARDS, Job
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
from aiserver.providers.circuit import CircuitStore
from aiserver.usecases.deliver_callback import DEAD_CALLBACK_DAYS
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.terminal import CALLBACK_DUE_MS, expiry_fields, failure_fields, settled_ttl, terminal_fields

log = logging.getLogger("aiserver.sweep")


@dataclass(frozen=True)
class SweepResult:
    """How many jobs were looked after, how long the oldest had been due, and how many callbacks are now dead.

    `open_circuits` are the providers that refuse the calls of every key, of all models or of one.
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
        threads: int = SHARDS,
    ) -> None:
        self._jobs = jobs
        self._circuits = circuits
        self._messages = messages
        self._clock = clock
        self._settled_days = settled_days
        self._threads = threads

    def sweep(self, *, remaining_ms: int) -> SweepResult:
        """Look after every overdue job, until there is none or time is up. Safe to run twice at once.

        The shards are swept side by side, each from the longest overdue: none waits for another's backlog.
        """
        now = self._clock.now_ms()
        with ThreadPoolExecutor(self._threads) as pool:
            sweeps = [pool.submit(self._sweep_shard, str(shard), now, now + remaining_ms) for shard in range(SHARDS)]
            swept = [sweep.result() for sweep in sweeps]
        return SweepResult(
            sum(one.jobs for one in swept),
            max(one.oldest_due_ms for one in swept),
            sum(one.dead_callbacks for one in swept),
            self._open_circuits(),
        )

    def _open_circuits(self) -> int:
        try:
            circuits = self._circuits.read_all()
        except Exception:  # jobs are swept without it
            log.exception("circuits not read")
            return 0
        names = [name for name, circuit in circuits.items() if circuit.is_open_for_all(self._clock.now_ms())]
        for name in names:
            log.warning("circuit open", extra={"provider": name})
        return len(names)

    def _sweep_shard(self, shard: str, now: int, deadline_ms: int) -> SweepResult:
        count = oldest = dead = 0
        for job_id, due_at in self._jobs.due_jobs(shard, now_ms=now):
            if self._clock.now_ms() >= deadline_ms:  # the next sweep is never more than a minute away
                break
            count += 1
            try:
                job = self._read_due(job_id)
                if job is None:
                    continue
                oldest = max(oldest, now - due_at)
                dead += self._advance(job) == CallbackState.DEAD
            except Exception:  # the others are looked after all the same, and this one by the next sweep
                log.exception("job not swept", extra={"job_id": job_id})
        return SweepResult(count, oldest, dead)

    def _read_due(self, job_id: int) -> Job | None:
        """The job, if it is due indeed: the index may be a moment behind."""
        job = self._jobs.get(job_id)
        return job if job and job.due_at is not None and job.due_at <= self._clock.now_ms() else None

    def _advance(self, job: Job) -> CallbackState | None:
        """What its callback has become, where that is what was looked after."""
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
        if not isinstance(self._jobs.apply(RESEND, job.id, {"seen": job.due_at, "due_at": due_at}), ConditionFailed):
            notify_worker(self._messages, job)

    def _recover_started(self, job: Job, now: int) -> None:
        """Its worker is dead. Whether a call had begun decides: nothing that may be billed is bought twice."""
        unknown = 1 if job.call_started_at is not None else 0
        fence = {"now": now, "attempt": job.attempt, "maybe_billed": job.maybe_billed + unknown}
        ended = fence | terminal_fields(job, now_ms=now, settled_days=self._settled_days)
        if job.cancel_requested_at is not None:
            self._jobs.apply(RECOVER_CANCELLED, job.id, ended)
        elif unknown and job.call_queue != "gpu":
            error = ProviderTimeout("The worker died during the call; it may have been billed and is not repeated")
            self._jobs.apply(RECOVER_FAILED, job.id, ended | failure_fields(error))
        else:
            again = fence | {"not_before": now, "due_at": now + resend_delay_ms(0)}
            if not isinstance(self._jobs.apply(RECOVER, job.id, again), ConditionFailed):
                notify_worker(self._messages, job)

    def _advance_callback(self, job: Job, now: int) -> CallbackState | None:
        if job.callback == CallbackState.PENDING:
            late_ms = now - (job.callback_next_at or now)
            due_at = now + min(max(late_ms, CALLBACK_DUE_MS), RESEND_CAP_MS)
            if not isinstance(
                self._jobs.apply(RESEND_CALLBACK, job.id, {"seen": job.due_at, "due_at": due_at}), ConditionFailed
            ):
                self._messages.send_callback(job.id, due=job.callback_next_at)
            return None
        lost: dict[str, AttributeValue] = {
            "now": now,
            "callback_attempt": job.callback_attempt,
            "callback_token": job.callback_token,
        }
        lost |= {"callback_last_status": None, "callback_last_error": "the deliverer died; it may have been sent"}
        wait_s = callback_retry_delay_s(job.callback_attempt, self._clock.fraction())
        if wait_s is None:
            ttl = settled_ttl(now, self._settled_days + DEAD_CALLBACK_DAYS)
            dead = self._jobs.apply(RECOVER_DELIVERY_DEAD, job.id, lost | {"ttl": ttl})
            if isinstance(dead, ConditionFailed):
                return None
            log.error("callback dead", extra={"job_id": job.id, "attempt": job.callback_attempt})
            return dead.callback
        next_at = now + round(wait_s * 1000)
        again = lost | {"callback_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        if not isinstance(self._jobs.apply(RECOVER_DELIVERY, job.id, again), ConditionFailed) and wait_s <= MAX_DELAY_S:
            self._messages.send_callback(job.id, due=next_at, delay_s=sqs_delay_s(next_at - now))
        return None
