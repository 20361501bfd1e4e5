"""Deliver one callback, once: claim the attempt, make the POST, write what came of it."""

import logging
from collections.abc import Mapping
from urllib.parse import quote

from aiserver.api_keys import ApiKey, KeyStore, WebhookSecrets
from aiserver.clock import Clock
from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S, MAX_DELAY_S, busy_delay_ms, callback_retry_delay_s, sqs_delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import (
    CLAIM_DELIVERY,
    DEFER_DELIVERY,
    GIVE_UP,
    GIVE_UP_UNATTEMPTED,
    MARK_DELIVERED,
    SCHEDULE_RETRY,
    AttributeValue,
    Transition,
)
from aiserver.limits import MAX_CALLBACK_BYTES
from aiserver.usecases import views
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from aiserver.usecases.terminal import CALLBACK_DUE_MS, settled_ttl
from aiserver.webhooks.client import DeliveryResult, WebhookClient
from aiserver.webhooks.signature import signature_headers
from aiserver.webhooks.url_policy import CallbackRefused
from aiserver.wire.http_dates import retry_after_s

MAX_RETRY_AFTER_S = 86_400
DEAD_CALLBACK_DAYS = 30  # how much longer a job with a dead callback stays, so that it can be sent again
GONE = 410  # the receiver wants no more
MAX_BUSY_WAITS = 160  # about a day, most of them of ten minutes

log = logging.getLogger("aiserver.reply")


class DeliverCallback:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        keys: KeyStore,
        replier: WebhookClient,
        places: DeliveryLimiter,
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

    def deliver(self, job_id: int, *, remaining_ms: int, due: int | None = None) -> CallbackState | None:
        """Make one attempt, if one is due; `left_ms` is what is left of this deliverer's own time.

        Returning means the message is done with; what the callback has become, where this attempt decided it.
        `due` is the wait the message was sent for: one that is too early comes back only if no other was sent since.
        """
        job, now = self._jobs.get(job_id), self._clock.now_ms()
        if job is None or job.callback != CallbackState.PENDING or job.reply_to is None or job.callback_next_at is None:
            return None
        if job.callback_next_at > now:
            if due in (None, job.callback_next_at):
                self._schedule_message(job, now)
            return None
        receiver = self._replier.receiver(job.reply_to)
        until = now + remaining_ms + self._lease_margin_ms
        with self._places.acquire(job.owner, receiver, now_ms=now, expires_ms=until) as there_is_room:
            return self._attempt(job, receiver, now, until) if there_is_room else self._defer(job, now)

    def _schedule_message(self, job: Job, now: int) -> None:
        """A message for when it is due; for what is further away than a message can wait, the sweeper sends one."""
        wait_ms = (job.callback_next_at or now) - now
        if wait_ms <= MAX_DELAY_S * 1000:
            self._messages.send_callback(job.id, due=job.callback_next_at, delay_s=sqs_delay_s(wait_ms))

    def _defer(self, job: Job, now: int) -> CallbackState | None:
        seen: dict[str, AttributeValue] = {"now": now, "callback_attempt": job.callback_attempt}
        if job.callback_waits >= MAX_BUSY_WAITS:
            busy = {
                "callback_last_status": None,
                "callback_last_error": "for a day there was no place among its receiver's others",
            }
            return self._finish(GIVE_UP_UNATTEMPTED, job, seen | busy, self._settled_days + DEAD_CALLBACK_DAYS)
        next_at = now + busy_delay_ms(job.callback_waits, self._clock.fraction())
        return self._reschedule(
            DEFER_DELIVERY, job, seen | {"callback_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}, now
        )

    def _attempt(self, job: Job, receiver: str, now: int, expires_ms: int) -> CallbackState | None:
        # Read before the attempt counts: reading may fail.
        key, secrets = self._keys.key(job.owner), self._keys.webhook_secrets(job.owner)
        body, extra_headers = self._body(job)
        params: dict[str, AttributeValue] = {
            "now": now,
            "completed_at": job.completed_at,
            "max_attempts": len(CALLBACK_SCHEDULE_S),
            "callback_token": self._clock.token(),
            "callback_lease_until": expires_ms,
        }
        claimed = self._jobs.apply(CLAIM_DELIVERY, job.id, params)
        if isinstance(claimed, ConditionFailed):
            return None
        delivery = self._post(claimed, key, secrets, body, extra_headers, now)
        told = {"job_id": job.id, "attempt": claimed.callback_attempt, "receiver": receiver, "status": delivery.status}
        told |= {"error": delivery.error if delivery.status is None else None}  # else it has the receiver's words
        log.info("callback attempted", extra=told | {"duration_ms": self._clock.now_ms() - now})
        if delivery.error is None:
            return self._finish(MARK_DELIVERED, claimed, _delivery_fields(claimed, delivery), self._settled_days)
        wait_s = callback_retry_delay_s(claimed.callback_attempt, self._clock.fraction())
        if wait_s is None or delivery.refused or delivery.status == GONE:
            return self._finish(
                GIVE_UP, claimed, _delivery_fields(claimed, delivery), self._settled_days + DEAD_CALLBACK_DAYS
            )
        now = self._clock.now_ms()
        asked_s = min(retry_after_s(delivery.retry_after, now) or 0, MAX_RETRY_AFTER_S)
        next_at = now + round(max(wait_s, asked_s) * 1000)
        again: dict[str, AttributeValue] = {"callback_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        return self._reschedule(SCHEDULE_RETRY, claimed, _delivery_fields(claimed, delivery) | again, now)

    def _body(self, job: Job) -> tuple[bytes, dict[str, str]]:
        """What is sent, and the headers that are only for it."""
        if job.state != JobState.COMPLETED:
            return views.error_view(job), {}
        if (job.result_bytes or 0) <= MAX_CALLBACK_BYTES and (result := self._jobs.read_result(job)) is not None:
            return result, {}
        return views.status_view(job, None), {"x-result-url": views.result_url(job)}

    def _post(
        self,
        job: Job,
        key: ApiKey | None,
        secrets: WebhookSecrets | None,
        body: bytes,
        extra_headers: dict[str, str],
        now: int,
    ) -> DeliveryResult:
        message_id = f"msg_{job.id}_{job.callback_sequence}"  # one for all attempts, another for each redelivery
        try:
            if key is None:
                raise CallbackRefused("there is no key to sign with")
            if secrets is None:
                log.error("webhook secret missing", extra={"job_id": job.id, "key_id": key.id})
                raise CallbackRefused("there is no webhook secret to sign with")
            about = job_headers(job.id, job.ref_id, job.state, job.callback_attempt, job.tag)
            signature = signature_headers(secrets.active(now), message_id, now // 1000, body)
            return self._replier.post(job.reply_to or "", body, extra_headers | about | signature, key.callback_hosts)
        except CallbackRefused as refused:
            return DeliveryResult(None, f"CallbackRefused: {refused.message}", refused=True)

    def _reschedule(
        self, row: Transition, job: Job, params: Mapping[str, AttributeValue], now: int
    ) -> CallbackState | None:
        later = self._jobs.apply(row, job.id, params)
        if isinstance(later, ConditionFailed):
            return None
        self._schedule_message(later, now)
        return later.callback

    def _finish(
        self, row: Transition, job: Job, params: Mapping[str, AttributeValue], days: int
    ) -> CallbackState | None:
        done = self._jobs.apply(row, job.id, {**params, "ttl": settled_ttl(self._clock.now_ms(), days)})
        if isinstance(done, ConditionFailed):
            return None
        if done.callback == CallbackState.DEAD:
            log.error("callback dead", extra={"job_id": job.id, "attempt": done.callback_attempt})
        return done.callback


def job_headers(job_id: int, ref_id: str, state: JobState, attempt: int, tag: str | None = None) -> dict[str, str]:
    """What a callback says of its job beside the body; a caller's own words are percent-encoded."""
    headers = {
        "content-type": "application/json",
        "x-job-id": str(job_id),
        "x-ref-id": quote(ref_id, safe=""),
        "x-job-state": str(state),
        "x-attempt": str(attempt),
    }
    return headers | ({"x-tag": quote(tag, safe="")} if tag is not None else {})


def _delivery_fields(job: Job, delivery: DeliveryResult) -> dict[str, AttributeValue]:
    return {
        "callback_attempt": job.callback_attempt,
        "callback_token": job.callback_token,
        "callback_last_status": delivery.status,
        "callback_last_error": delivery.error,
    }
