"""One stack's failed jobs and dead callbacks, as its operator sees them and has them tried again."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from aiserver.admin.stack import Admin, Problem
from aiserver.errors import Conflict
from aiserver.jobs.job import Job
from aiserver.jobs.ports import Refused
from aiserver.jobs.states import Callback
from aiserver.jobs.transitions import REDRIVE
from aiserver.usecases import views
from aiserver.usecases.callbacks import Redelivery
from aiserver.usecases.enqueue import DEFAULT_DEADLINE_S, QUEUED_DUE_MS
from aiserver.usecases.notify_worker import hint
from aiserver.webhooks.url_policy import host_name
from aiserver.wire.render import iso

PAGE = 200


def redrive(admin: Admin, job_id: int) -> dict[str, Any]:
    """Let a failed job try again, with a new deadline and a new callback. Raises: Problem, for one that cannot.

    Attempts are kept; a job whose message cannot be sent is sent by the sweeper.
    """
    now = admin.clock.now_ms()
    there = _job(admin, job_id)
    if not there.queue:
        raise Problem(f"job {job_id} was answered while its caller waited; only a queued one can be redriven")
    due_at, deadline = now + QUEUED_DUE_MS, now + DEFAULT_DEADLINE_S * 1000
    job = admin.jobs.apply(REDRIVE, job_id, {"now": now, "due_at": due_at, "deadline": deadline})
    if isinstance(job, Refused):
        raise Problem(f"job {job_id} is {there.state}; only a Failed one can be redriven")
    hint(admin.messages, job)
    return {"id": job.id, "refId": job.ref_id, "state": job.state, "deadline": iso(job.deadline)}


@dataclass(frozen=True)
class Which:
    """Of all dead callbacks those of one key, of one receiver's host, of jobs that ended since then; None: of any."""

    key_id: str | None = None
    host: str | None = None
    since: str | None = None  # an ISO date, UTC unless it says otherwise


def dead(admin: Admin, which: Which) -> Iterator[Job]:
    """The jobs whose callback is dead, newest first for each key. Reads every job of these keys. Raises: Problem."""
    since, now, stored = _moment(which.since), admin.clock.now_ms(), admin.config.keys()
    owners = [key.id for key in stored if which.key_id in (None, key.id)]
    if which.key_id and not owners:
        raise Problem(f"There is no key {which.key_id}; `keys list` shows them")

    host = which.host and host_name(which.host)
    if which.host and host is None:
        raise Problem(f"{which.host} is no host; write it without a port, as in hooks.example.com")

    def is_meant(job: Job) -> bool:
        ended = job.completed_at or 0
        return job.cb == Callback.DEAD and host in (None, _host(job)) and ended >= since and not job.is_gone(now)

    return (job for owner in owners for job in _all(admin, owner) if is_meant(job))


def shown(job: Job) -> dict[str, Any]:
    """A dead callback as `callbacks list` tells it; of its address the host alone, since a path may be a secret."""
    told = views.callback(job) or {}
    about = {"id": job.id, "keyId": job.owner, "refId": job.ref_id, "ended": iso(job.completed_at)}
    return about | {"host": _host(job)} | told


def redeliver(admin: Admin, job_id: int) -> dict[str, Any]:
    """Start a dead or delivered callback over, as a new message. Raises: Problem, for one that cannot."""
    try:
        job = Redelivery(admin.jobs, admin.messages, admin.clock).begin(_job(admin, job_id))
    except Conflict as conflict:
        raise Problem(conflict.message) from conflict
    return {"id": job.id, "refId": job.ref_id, "callback": views.callback(job)}


def _job(admin: Admin, job_id: int) -> Job:
    job = admin.jobs.get(job_id)
    if job is None or job.is_gone(admin.clock.now_ms()):
        raise Problem(f"job {job_id} is unknown, or past its time to live")
    return job


def _host(job: Job) -> str:
    """As DNS spells it, like the log's `receiver`."""
    host = urlsplit(job.reply_to or "").hostname or ""
    return host_name(host) or host


def _all(admin: Admin, owner: str) -> Iterator[Job]:
    cursor: int | None = None
    while True:
        page = admin.jobs.page(owner, tag=None, state=None, take=PAGE, cursor=cursor)
        yield from page.jobs
        if page.cursor is None:
            return
        cursor = page.cursor


def _moment(date: str | None) -> int:
    """Milliseconds since 1970; 0 for none."""
    if date is None:
        return 0
    try:
        moment = datetime.fromisoformat(date)
    except ValueError as error:
        raise Problem(f"{date} is no date, as in 2026-11-25 or 2026-11-25T08:00:00Z") from error
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
