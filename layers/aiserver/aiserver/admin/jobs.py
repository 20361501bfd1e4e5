"""One stack's failed jobs and dead callbacks, as its operator sees them and has them tried again."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from aiserver.admin.stack import Admin, AdminError
from aiserver.errors import Conflict
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed
from aiserver.jobs.states import CallbackState
from aiserver.jobs.transitions import REDRIVE
from aiserver.usecases import views
from aiserver.usecases.callbacks import Redelivery
from aiserver.usecases.enqueue import DEFAULT_DEADLINE_S, QUEUED_DUE_MS
from aiserver.usecases.notify_worker import notify_worker
from aiserver.webhooks.url_policy import host_name
from aiserver.wire.render import format_iso

PAGE = 200


def redrive_job(admin: Admin, job_id: int) -> dict[str, Any]:
    """Let a failed job try again, with a new deadline and a new callback. Raises: Problem, for one that cannot.

    Attempts are kept; a job whose message cannot be sent is sent by the sweeper.
    """
    now = admin.clock.now_ms()
    there = _get_job(admin, job_id)
    if not there.queue:
        raise AdminError(f"job {job_id} was answered while its caller waited; only a queued one can be redriven")
    due_at, deadline = now + QUEUED_DUE_MS, now + DEFAULT_DEADLINE_S * 1000
    job = admin.jobs.apply(REDRIVE, job_id, {"now": now, "due_at": due_at, "deadline": deadline})
    if isinstance(job, ConditionFailed):
        raise AdminError(f"job {job_id} is {there.state}; only a Failed one can be redriven")
    notify_worker(admin.messages, job)
    return {"id": job.id, "refId": job.ref_id, "state": job.state, "deadline": format_iso(job.deadline)}


@dataclass(frozen=True)
class DeadCallbackFilter:
    """Of all dead callbacks those of one key, of one receiver's host, of jobs that ended since then; None: of any."""

    key_id: str | None = None
    host: str | None = None
    since: str | None = None  # an ISO date, UTC unless it says otherwise


def dead_callbacks(admin: Admin, which: DeadCallbackFilter) -> Iterator[Job]:
    """The jobs whose callback is dead, newest first for each key. Reads every job of these keys. Raises: Problem."""
    since, now, stored = _parse_date(which.since), admin.clock.now_ms(), admin.config.keys()
    owners = [key.id for key in stored if which.key_id in (None, key.id)]
    if which.key_id and not owners:
        raise AdminError(f"There is no key {which.key_id}; `keys list` shows them")

    host = which.host and host_name(which.host)
    if which.host and host is None:
        raise AdminError(f"{which.host} is no host; write it without a port, as in hooks.example.com")

    def is_meant(job: Job) -> bool:
        ended = job.completed_at or 0
        return (
            job.callback == CallbackState.DEAD
            and host in (None, _callback_host(job))
            and ended >= since
            and not job.is_past_ttl(now)
        )

    return (job for owner in owners for job in _all_jobs(admin, owner) if is_meant(job))


def dead_callback_view(job: Job) -> dict[str, Any]:
    """A dead callback as `callbacks list` tells it; of its address the host alone, since a path may be a secret."""
    told = views.callback_view(job) or {}
    about = {"id": job.id, "keyId": job.owner, "refId": job.ref_id, "ended": format_iso(job.completed_at)}
    return about | {"host": _callback_host(job)} | told


def redeliver_callback(admin: Admin, job_id: int) -> dict[str, Any]:
    """Start a dead or delivered callback over, as a new message. Raises: Problem, for one that cannot."""
    try:
        job = Redelivery(admin.jobs, admin.messages, admin.clock).redeliver(_get_job(admin, job_id))
    except Conflict as conflict:
        raise AdminError(conflict.message) from conflict
    return {"id": job.id, "refId": job.ref_id, "callback": views.callback_view(job)}


def _get_job(admin: Admin, job_id: int) -> Job:
    job = admin.jobs.get(job_id)
    if job is None or job.is_past_ttl(admin.clock.now_ms()):
        raise AdminError(f"job {job_id} is unknown, or past its time to live")
    return job


def _callback_host(job: Job) -> str:
    """As DNS spells it, like the log's `receiver`."""
    host = urlsplit(job.reply_to or "").hostname or ""
    return host_name(host) or host


def _all_jobs(admin: Admin, owner: str) -> Iterator[Job]:
    cursor: int | None = None
    while True:
        page = admin.jobs.list_page(owner, tag=None, state=None, take=PAGE, cursor=cursor)
        yield from page.jobs
        if page.cursor is None:
            return
        cursor = page.cursor


def _parse_date(date: str | None) -> int:
    """Milliseconds since 1970; 0 for none."""
    if date is None:
        return 0
    try:
        moment = datetime.fromisoformat(date)
    except ValueError as error:
        raise AdminError(f"{date} is no date, as in 2026-11-25 or 2026-11-25T08:00:00Z") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
