"""Accept a request to be answered later, exactly once for a RefId; cancel one."""

import itertools
import math
import re
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from aiserver.clock import Clock
from aiserver.errors import Conflict, NotFound
from aiserver.jobs.job import Job, due_shard, request_hash
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import CANCEL, REQUEST_CANCEL
from aiserver.router import ProviderCall, Router
from aiserver.usecases.notify_worker import notify_worker
from aiserver.usecases.terminal import terminal_fields
from aiserver.wire.requests import ModelRequest
from aiserver.wire.validation import invalid_field

DEFAULT_DEADLINE_S = 86_400
MAX_DEADLINE_S = 14 * 86_400  # its bodies must outlive it: the bucket forgets after 90 days
CHECKS_AT_ONCE = 32  # of a batch's ReplyTo addresses
QUEUED_DUE_MS = 60_000  # a job nobody took by then is reminded of

_DATE_MS = re.compile(r"/Date\((\d+)(?:[+-]\d{4})?\)/")


@dataclass(frozen=True)
class Caller:
    """Who asks, the address they reached us at, and the only hosts their ReplyTo may name, where there are any."""

    owner: str
    base_url: str
    callback_hosts: Collection[str] = ()


class Enqueue:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        router: Router,
        clock: Clock,
        *,
        check_reply_to: Callable[[str, Collection[str]], None],
        settled_days: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._router = router
        self._clock = clock
        self._check_reply_to = check_reply_to
        self._settled_days = settled_days

    def accept(self, request: ModelRequest, caller: Caller) -> Job:
        """The job that will run this request: a new one, or the one its RefId already names.

        Once the job is written it cannot be lost: a message that cannot be sent now is sent by the sweeper.
        Raises: InvalidRequest, NotFound (model), Conflict (the RefId was used for another body).
        """
        job = self._prepare(request, caller)
        if job.reply_to is not None:
            self._check_reply_to(job.reply_to, caller.callback_hosts)
        return self._write(job, request.body)

    def accept_all(self, batch: list[ModelRequest], caller: Caller) -> list[Job]:
        """As `accept` for each, and none is written unless all could be; only a Conflict can come in the middle."""
        prepared = [self._prepare(request, caller) for request in batch]
        self._check_all({job.reply_to for job in prepared if job.reply_to is not None}, caller)
        return [self._write(job, request.body) for job, request in zip(prepared, batch, strict=True)]

    def _prepare(self, request: ModelRequest, caller: Caller) -> Job:
        now = self._clock.now_ms()
        options = request.options
        deadline = _deadline(options.deadline, now)
        named = self._router.candidates(request.model, options.provider, request.operation)
        best = self._router.filter_supported(named, ProviderCall(request.operation, request.body))[0]
        job_id = self._clock.job_id()
        return Job(
            id=job_id,
            owner=caller.owner,
            ref_id=options.ref_id or self._clock.token(),
            operation=request.operation,
            model=request.model,
            queue=best.provider.queue,
            state=JobState.QUEUED,
            created_at=now,
            deadline=deadline,
            request_location="",
            request_hash=request_hash(request.operation, request.body),
            base_url=caller.base_url,
            tag=options.tag,
            provider=options.provider,
            reply_to=options.reply_to,
            due_shard=due_shard(job_id),
            due_at=now + QUEUED_DUE_MS,
        )

    def _check_all(self, reply_tos: Collection[str], caller: Caller) -> None:
        """Each address once, and side by side: a slow resolver must not take a whole batch's time."""
        with ThreadPoolExecutor(CHECKS_AT_ONCE) as pool:
            for check in [pool.submit(self._check_reply_to, one, caller.callback_hosts) for one in reply_tos]:
                check.result()

    def _write(self, job: Job, body: bytes) -> Job:
        accepted = self._jobs.create(job, body, now_ms=job.created_at)
        if accepted.created:
            notify_worker(self._messages, accepted.job)
        elif accepted.job.request_hash != job.request_hash:
            raise Conflict(f"RefId {job.ref_id} was already used for another request", param="refId")
        return accepted.job

    def cancel(self, job: Job) -> Job:
        """Cancel at once what has not started, and ask for the rest; the job as it then stands.

        Raises: Conflict, for a job that ended otherwise.
        """
        now = self._clock.now_ms()
        params = {"owner": job.owner, **terminal_fields(job, now_ms=now, settled_days=self._settled_days)}
        done = self._jobs.apply(CANCEL, job.id, params)
        tries = itertools.cycle((REQUEST_CANCEL, CANCEL))  # a worker may take it, or let it go, in between
        while isinstance(done, ConditionFailed) and done.job and not done.job.has_ended:
            done = self._jobs.apply(next(tries), job.id, params)
        if not isinstance(done, ConditionFailed):
            return done
        if done.job is None:
            raise NotFound(f"Job {job.id} not found")
        if done.job.state != JobState.CANCELLED:
            raise Conflict(f"Job {job.id} is {done.job.state} and cannot be cancelled")
        return done.job


def _deadline(given: str | float | None, now_ms: int) -> int:
    """When a job must have ended: seconds from now, an ISO date, or `/Date(ms)/`. Raises: InvalidRequest."""
    if given is None:
        return now_ms + DEFAULT_DEADLINE_S * 1000
    try:
        deadline = _when(given, now_ms)
    except (ValueError, OverflowError) as error:
        raise invalid_field("InvalidType", "deadline", "'deadline' must be a date or a number of seconds") from error
    if not now_ms < deadline <= now_ms + MAX_DEADLINE_S * 1000:
        raise invalid_field(
            "InvalidRange", "deadline", f"'deadline' must be within {MAX_DEADLINE_S // 86_400} days from now"
        )
    return deadline


def _when(given: str | float, now_ms: int) -> int:
    if isinstance(given, str):
        if match := _DATE_MS.fullmatch(given):
            return int(match.group(1))
        if re.fullmatch(r"[0-9.]+", given) is None:
            date = datetime.fromisoformat(given)
            return round((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000)
    seconds = float(given)
    if not math.isfinite(seconds):
        raise ValueError("not a number of seconds")
    return now_ms + round(seconds * 1000)
