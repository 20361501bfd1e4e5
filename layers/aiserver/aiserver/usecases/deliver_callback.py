"""Deliver one callback, once: claim the attempt, make the POST, write what came of it."""

import logging
from collections.abc import Mapping
from urllib.parse import quote

from aiserver.api_keys import ApiKey, KeyStore, WebhookSecrets
from aiserver.clock import Clock
from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S, MAX_DELAY_S, busy_wait_ms, callback_wait_s, delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, Messages, Refused
from aiserver.jobs.states import Callback, State
from aiserver.jobs.transitions import (
    DELIVER,
    DELIVERED,
    GIVE_UP,
    NEVER_TRIED,
    POSTPONE,
    RETRY_LATER,
    Transition,
    Value,
)
from aiserver.limits import MAX_CALLBACK_BYTES
from aiserver.usecases import views
from aiserver.usecases.delivery_limiter import Places
from aiserver.usecases.terminal import CALLBACK_DUE_MS, settled_ttl
from aiserver.webhooks.client import Delivery, Replier
from aiserver.webhooks.signature import signature_headers
from aiserver.webhooks.url_policy import CallbackRefused
from aiserver.wire.http_dates import retry_after_s

MAX_RETRY_AFTER_S = 86_400
DEAD_DAYS = 30  # how much longer a job with a dead callback stays, so that it can be sent again
GONE = 410  # the receiver wants no more
MAX_BUSY_WAITS = 160  # about a day, most of them of ten minutes

log = logging.getLogger("aiserver.reply")


class Reply:
    def __init__(
        self,
        jobs: JobStore,
        messages: Messages,
        keys: KeyStore,
        replier: Replier,
        places: Places,
        clock: Clock,
        *,
        settled_days: int,
        lease_margin_s: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._keys = keys
        self._replier = replier
        self._places = places
        self._clock = clock
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000

    def deliver(self, job_id: int, *, left_ms: int, due: int | None = None) -> Callback | None:
        """Make one attempt, if one is due; `left_ms` is what is left of this deliverer's own time.

        Returning means the message is done with; what the callback has become, where this attempt decided it.
        `due` is the wait the message was sent for: one that is too early comes back only if no other was sent since.
        """
        job, now = self._jobs.get(job_id), self._clock.now_ms()
        if job is None or job.cb != Callback.PENDING or job.reply_to is None or job.cb_next_at is None:
            return None
        if job.cb_next_at > now:
            if due in (None, job.cb_next_at):
                self._come_back(job, now)
            return None
        receiver = self._replier.receiver(job.reply_to)
        until = now + left_ms + self._lease_margin_ms
        with self._places.taken(job.owner, receiver, now_ms=now, until_ms=until) as there_is_room:
            return self._attempt(job, receiver, now, until) if there_is_room else self._postpone(job, now)

    def _come_back(self, job: Job, now: int) -> None:
        """A message for when it is due; for what is further away than a message can wait, the sweeper sends one."""
        wait_ms = (job.cb_next_at or now) - now
        if wait_ms <= MAX_DELAY_S * 1000:
            self._messages.send_callback(job.id, due=job.cb_next_at, delay_s=delay_s(wait_ms))

    def _postpone(self, job: Job, now: int) -> Callback | None:
        seen: dict[str, Value] = {"now": now, "cb_attempt": job.cb_attempt}
        if job.cb_waits >= MAX_BUSY_WAITS:
            busy = {"cb_last_status": None, "cb_last_error": "for a day there was no place among its receiver's others"}
            return self._settled(NEVER_TRIED, job, seen | busy, self._settled_days + DEAD_DAYS)
        next_at = now + busy_wait_ms(job.cb_waits, self._clock.fraction())
        return self._later(POSTPONE, job, seen | {"cb_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}, now)

    def _attempt(self, job: Job, receiver: str, now: int, until: int) -> Callback | None:
        # Read before the attempt counts: reading may fail.
        key, secrets = self._keys.key(job.owner), self._keys.webhook_secrets(job.owner)
        body, extra_headers = self._body(job)
        params: dict[str, Value] = {
            "now": now,
            "completed_at": job.completed_at,
            "max_attempts": len(CALLBACK_SCHEDULE_S),
            "cb_token": self._clock.token(),
            "cb_lease_until": until,
        }
        claimed = self._jobs.apply(DELIVER, job.id, params)
        if isinstance(claimed, Refused):
            return None
        delivery = self._post(claimed, key, secrets, body, extra_headers, now)
        told = {"job_id": job.id, "attempt": claimed.cb_attempt, "receiver": receiver, "status": delivery.status}
        told |= {"error": delivery.error if delivery.status is None else None}  # else it has the receiver's words
        log.info("callback attempted", extra=told | {"duration_ms": self._clock.now_ms() - now})
        if delivery.error is None:
            return self._settled(DELIVERED, claimed, _outcome(claimed, delivery), self._settled_days)
        wait_s = callback_wait_s(claimed.cb_attempt, self._clock.fraction())
        if wait_s is None or delivery.refused or delivery.status == GONE:
            return self._settled(GIVE_UP, claimed, _outcome(claimed, delivery), self._settled_days + DEAD_DAYS)
        now = self._clock.now_ms()
        asked_s = min(retry_after_s(delivery.retry_after, now) or 0, MAX_RETRY_AFTER_S)
        next_at = now + round(max(wait_s, asked_s) * 1000)
        again: dict[str, Value] = {"cb_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        return self._later(RETRY_LATER, claimed, _outcome(claimed, delivery) | again, now)

    def _body(self, job: Job) -> tuple[bytes, dict[str, str]]:
        """What is sent, and the headers that are only for it."""
        if job.state != State.COMPLETED:
            return views.error_envelope(job), {}
        if (job.result_bytes or 0) <= MAX_CALLBACK_BYTES and (result := self._jobs.result(job)) is not None:
            return result, {}
        return views.status(job, None), {"x-result-url": views.result_url(job)}

    def _post(
        self,
        job: Job,
        key: ApiKey | None,
        secrets: WebhookSecrets | None,
        body: bytes,
        extra_headers: dict[str, str],
        now: int,
    ) -> Delivery:
        message_id = f"msg_{job.id}_{job.cb_sequence}"  # one for all attempts, another for each redelivery
        try:
            if key is None:
                raise CallbackRefused("there is no key to sign with")
            if secrets is None:
                log.error("webhook secret missing", extra={"job_id": job.id, "key_id": key.id})
                raise CallbackRefused("there is no webhook secret to sign with")
            about = headers_about(job.id, job.ref_id, job.state, job.cb_attempt, job.tag)
            signature = signature_headers(secrets.signing(now), message_id, now // 1000, body)
            return self._replier.post(job.reply_to or "", body, extra_headers | about | signature, key.callback_hosts)
        except CallbackRefused as refused:
            return Delivery(None, f"CallbackRefused: {refused.message}", refused=True)

    def _later(self, row: Transition, job: Job, params: Mapping[str, Value], now: int) -> Callback | None:
        later = self._jobs.apply(row, job.id, params)
        if isinstance(later, Refused):
            return None
        self._come_back(later, now)
        return later.cb

    def _settled(self, row: Transition, job: Job, params: Mapping[str, Value], days: int) -> Callback | None:
        done = self._jobs.apply(row, job.id, {**params, "ttl": settled_ttl(self._clock.now_ms(), days)})
        if isinstance(done, Refused):
            return None
        if done.cb == Callback.DEAD:
            log.error("callback dead", extra={"job_id": job.id, "attempt": done.cb_attempt})
        return done.cb


def headers_about(job_id: int, ref_id: str, state: State, attempt: int, tag: str | None = None) -> dict[str, str]:
    """What a callback says of its job beside the body; a caller's own words are percent-encoded."""
    headers = {
        "content-type": "application/json",
        "x-job-id": str(job_id),
        "x-ref-id": quote(ref_id, safe=""),
        "x-job-state": str(state),
        "x-attempt": str(attempt),
    }
    return headers | ({"x-tag": quote(tag, safe="")} if tag is not None else {})


def _outcome(job: Job, delivery: Delivery) -> dict[str, Value]:
    return {
        "cb_attempt": job.cb_attempt,
        "cb_token": job.cb_token,
        "cb_last_status": delivery.status,
        "cb_last_error": delivery.error,
    }
