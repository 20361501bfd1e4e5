"""Deliver one callback, once: claim the attempt, make the POST, write what came of it."""

import logging
from urllib.parse import quote

from aiserver.clock import Clock
from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S, MAX_DELAY_S, callback_wait_s, delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, Messages, Refused
from aiserver.jobs.states import Callback, State
from aiserver.jobs.transitions import DELIVER, DELIVERED, GIVE_UP, RETRY_LATER, Value
from aiserver.keys import KeyStore
from aiserver.replyto.address import CallbackRefused
from aiserver.replyto.replier import Delivery, Replier
from aiserver.replyto.signature import signature_headers
from aiserver.usecases import documents
from aiserver.usecases.ends import CALLBACK_DUE_MS, settled_ttl
from aiserver.wire.dates import retry_after_s

MAX_BODY_BYTES = 256 * 1024  # a larger result is fetched by its receiver
MAX_RETRY_AFTER_S = 86_400
DEAD_DAYS = 30  # how much longer a job with a dead callback stays, so that it can be sent again

log = logging.getLogger("aiserver.reply")


class Reply:
    def __init__(
        self,
        jobs: JobStore,
        messages: Messages,
        keys: KeyStore,
        replier: Replier,
        clock: Clock,
        *,
        settled_days: int,
        lease_margin_s: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._keys = keys
        self._replier = replier
        self._clock = clock
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000

    def deliver(self, job_id: int, *, left_ms: int) -> None:
        """Make one attempt, if one is due; `left_ms` is what is left of this deliverer's own time.

        Returning means the message is done with.
        """
        now = self._clock.now_ms()
        params: dict[str, Value] = {
            "now": now,
            "max_attempts": len(CALLBACK_SCHEDULE_S),
            "cb_token": self._clock.token(),
            "cb_lease_until": now + left_ms + self._lease_margin_ms,
        }
        job = self._jobs.apply(DELIVER, job_id, params)
        if isinstance(job, Refused):
            self._not_now(job.job, now)
            return
        try:
            delivery = self._post(job, now)
        except CallbackRefused as refused:
            self._give_up(job, Delivery(None, f"CallbackRefused: {refused.message}"))
            return
        took_ms = self._clock.now_ms() - now
        log.info(
            "callback attempted",
            extra={"job_id": job.id, "attempt": job.cb_attempt, "status": delivery.status, "duration_ms": took_ms},
        )
        if delivery.error is None:
            ttl = settled_ttl(self._clock.now_ms(), self._settled_days)
            self._jobs.apply(DELIVERED, job.id, _outcome(job, delivery) | {"ttl": ttl})
        else:
            self._failed(job, delivery)

    def _not_now(self, job: Job | None, now: int) -> None:
        """Too early: its own message comes back when it is due, or the sweeper sends one."""
        if job and job.cb == Callback.PENDING and job.cb_next_at and 0 < job.cb_next_at - now <= MAX_DELAY_S * 1000:
            self._messages.send_callback(job.id, delay_s=delay_s(job.cb_next_at - now))

    def _post(self, job: Job, now: int) -> Delivery:
        key = self._keys.key(job.owner)
        if key is None or job.reply_to is None:
            raise CallbackRefused("there is no key to sign with")
        headers = {
            "content-type": "application/json",
            "x-job-id": str(job.id),
            "x-ref-id": quote(job.ref_id, safe=""),
            "x-job-state": str(job.state),
            "x-attempt": str(job.cb_attempt),
        }
        if job.tag is not None:
            headers["x-tag"] = quote(job.tag, safe="")
        if job.state != State.COMPLETED:
            body = documents.error_envelope(job)
        elif (job.result_bytes or 0) <= MAX_BODY_BYTES and (result := self._jobs.result(job)) is not None:
            body = result
        else:
            body = documents.status(job, None)
            headers["x-result-url"] = documents.result_url(job)
        message_id = f"msg_{job.id}_{job.cb_sequence}"
        headers |= signature_headers([key.webhook_secret], message_id, now // 1000, body)
        return self._replier.post(job.reply_to, body, headers)

    def _failed(self, job: Job, delivery: Delivery) -> None:
        wait_s = callback_wait_s(job.cb_attempt, self._clock.fraction())
        if wait_s is None or delivery.status == 410:  # 410 Gone: the receiver wants no more
            self._give_up(job, delivery)
            return
        now = self._clock.now_ms()
        wait_s = max(wait_s, min(retry_after_s(delivery.retry_after, now) or 0, MAX_RETRY_AFTER_S))
        next_at = now + round(wait_s * 1000)
        params: dict[str, Value] = {"cb_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        later = self._jobs.apply(RETRY_LATER, job.id, _outcome(job, delivery) | params)
        if not isinstance(later, Refused) and wait_s <= MAX_DELAY_S:
            self._messages.send_callback(job.id, delay_s=delay_s(next_at - now))

    def _give_up(self, job: Job, delivery: Delivery) -> None:
        ttl = settled_ttl(self._clock.now_ms(), self._settled_days + DEAD_DAYS)
        self._jobs.apply(GIVE_UP, job.id, _outcome(job, delivery) | {"ttl": ttl})
        log.error("callback dead", extra={"job_id": job.id, "attempt": job.cb_attempt, "status": delivery.status})


def _outcome(job: Job, delivery: Delivery) -> dict[str, Value]:
    return {
        "cb_attempt": job.cb_attempt,
        "cb_token": job.cb_token,
        "cb_last_status": delivery.status,
        "cb_last_error": delivery.error,
    }
