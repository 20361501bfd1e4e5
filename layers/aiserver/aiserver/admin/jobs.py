"""Redrive a stack's failed jobs; list and redeliver its dead callbacks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiserver.admin.stack import Admin, AdminError
from aiserver.errors import Conflict
from aiserver.http_client.addresses import host_name
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed
from aiserver.jobs.states import CallbackState
from aiserver.jobs.transitions import REDRIVE
from aiserver.usecases import views
from aiserver.usecases.callbacks import Redelivery
from aiserver.usecases.enqueue import DEFAULT_DEADLINE_S, QUEUED_DUE_MS
from aiserver.usecases.notify_worker import notify_worker
from aiserver.wire.http_dates import parse_iso_ms
from aiserver.wire.render import format_iso

PAGE = 200


def redrive_job(admin: Admin, job_id: int) -> dict[str, Any]:
    """Queue a failed job again, with a new deadline and a new callback. Its attempt count is kept.

    When the queue message cannot be sent, the sweeper sends it.
    Raises: AdminError, when the job does not exist, was not queued or has not failed.
    """
    now = admin.clock.now_ms()
    stored = _get_job(admin, job_id)
    if not stored.queue:
        raise AdminError(f"job {job_id} was a synchronous request; only a queued job can be redriven")
    due_at, deadline = now + QUEUED_DUE_MS, now + DEFAULT_DEADLINE_S * 1000
    job = admin.jobs.apply(REDRIVE, job_id, {"now": now, "due_at": due_at, "deadline": deadline})
    if isinstance(job, ConditionFailed):
        raise AdminError(f"job {job_id} is {stored.state}; only a Failed job can be redriven")
    notify_worker(admin.messages, job)
    return {"id": job.id, "refId": job.ref_id, "state": job.state, "deadline": format_iso(job.deadline)}


@dataclass(frozen=True)
class DeadCallbackFilter:
    """Selects dead callbacks by API key, receiver host and end of the job. None matches all."""

    key_id: str | None = None
    host: str | None = None
    since: str | None = None  # an ISO date, in UTC unless it has an offset


def dead_callbacks(admin: Admin, criteria: DeadCallbackFilter) -> Iterator[Job]:
    """The jobs whose callback is dead, newest first for each key. Reads every job of these keys.

    Raises: AdminError, when the filter's key, host or date is not valid.
    """
    since, now, stored = _parse_date(criteria.since), admin.clock.now_ms(), admin.config.keys()
    owners = [key.id for key in stored if criteria.key_id in (None, key.id)]
    if criteria.key_id and not owners:
        raise AdminError(f"key {criteria.key_id} does not exist; see `keys list`")

    host = criteria.host and host_name(criteria.host)
    if criteria.host and host is None:
        raise AdminError(f"--host {criteria.host}: must be a host name without a port, for example hooks.example.com")

    def is_match(job: Job) -> bool:
        ended = job.completed_at or 0
        return (
            job.callback == CallbackState.DEAD
            and host in (None, _callback_host(job))
            and ended >= since
            and not job.is_past_ttl(now)
        )

    return (job for owner in owners for job in _all_jobs(admin, owner) if is_match(job))


def dead_callback_view(job: Job) -> dict[str, Any]:
    """A dead callback as printed by `callbacks list`. Only the URL's host: its path may be a secret."""
    identity = {"id": job.id, "keyId": job.owner, "refId": job.ref_id, "ended": format_iso(job.completed_at)}
    return identity | {"host": _callback_host(job)} | (views.callback_view(job) or {})


def redeliver_callback(admin: Admin, job_id: int) -> dict[str, Any]:
    """Send a dead or delivered callback again, as a new webhook message.

    Raises: AdminError, when the job does not exist or has no callback that can be sent again.
    """
    try:
        job = Redelivery(admin.jobs, admin.messages, admin.clock).redeliver(_get_job(admin, job_id))
    except Conflict as conflict:
        raise AdminError(conflict.message) from conflict
    return {"id": job.id, "refId": job.ref_id, "callback": views.callback_view(job)}


def _get_job(admin: Admin, job_id: int) -> Job:
    job = admin.jobs.get(job_id)
    if job is None or job.is_past_ttl(admin.clock.now_ms()):
        raise AdminError(f"job {job_id} does not exist or has expired")
    return job


def _callback_host(job: Job) -> str:
    """The host in its DNS form (IDNA), as in the log field `receiver`."""
    host = urlsplit(job.reply_to or "").hostname or ""
    return host_name(host) or host


def _all_jobs(admin: Admin, owner: str) -> Iterator[Job]:
    cursor: int | None = None
    while True:
        page = admin.jobs.list_page(owner, take=PAGE, cursor=cursor)
        yield from page.jobs
        if page.cursor is None:
            return
        cursor = page.cursor


def _parse_date(date: str | None) -> int:
    """Unix time in ms; 0 for None."""
    if date is None:
        return 0
    try:
        return parse_iso_ms(date)
    except ValueError as error:
        raise AdminError(
            f"--since {date}: must be an ISO date, for example 2026-11-25 or 2026-11-25T08:00:00Z"
        ) from error
