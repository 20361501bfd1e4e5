"""Deliver one callback: claim the attempt, send the POST, record the outcome."""

import logging
from collections.abc import Mapping
from urllib.parse import quote

from aiserver import log_events
from aiserver.api_keys import ApiKey, KeyStore, WebhookSecrets
from aiserver.artifacts import ArtifactUrls
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
from aiserver.usecases.media_outputs import job_file_keys, job_files, sign_urls
from aiserver.usecases.terminal import CALLBACK_DUE_MS, settled_ttl
from aiserver.webhooks.client import DeliveryResult, WebhookClient
from aiserver.webhooks.signature import signature_headers
from aiserver.webhooks.url_policy import CallbackRefused
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.render import JSON_MEDIA_TYPE

MAX_RETRY_AFTER_S = 86_400
DEAD_CALLBACK_DAYS = 30  # added to the retention of a job with a dead callback, so that it can be redelivered
GONE = 410  # the receiver wants no further attempts
MAX_BUSY_WAITS = 160  # about a day; most waits are ten minutes

log = logging.getLogger("aiserver.deliver_callback")


class DeliverCallback:
    def __init__(
        self,
        jobs: JobStore,
        messages: MessageSender,
        keys: KeyStore,
        webhooks: WebhookClient,
        limiter: DeliveryLimiter,
        clock: Clock,
        *,
        settled_days: int,
        lease_margin_s: int,
        urls: ArtifactUrls | None = None,
    ) -> None:
        """`urls` creates the URLs of files."""
        self._urls = urls
        self._jobs = jobs
        self._messages = messages
        self._keys = keys
        self._webhooks = webhooks
        self._limiter = limiter
        self._clock = clock
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000

    def deliver(self, job_id: int, *, remaining_ms: int, due: int | None = None) -> CallbackState | None:
        """Make one attempt if one is due; returns the callback's new state, if this attempt changed it.

        `remaining_ms` is the time before this function's own timeout. On return the message can be deleted.
        `due` is the `callback_next_at` of the message: an early message is resent only if it is the newest one.
        """
        job, now = self._jobs.get(job_id), self._clock.now_ms()
        if job is None or job.callback != CallbackState.PENDING or job.reply_to is None or job.callback_next_at is None:
            return None
        if job.callback_next_at > now:
            if due in (None, job.callback_next_at):
                self._schedule_message(job, now)
            return None
        receiver = self._webhooks.receiver(job.reply_to)
        expires_ms = now + remaining_ms + self._lease_margin_ms
        with self._limiter.acquire(job.owner, receiver, now_ms=now, expires_ms=expires_ms) as is_acquired:
            return self._attempt(job, receiver, now, expires_ms) if is_acquired else self._defer(job, now)

    def _schedule_message(self, job: Job, now: int) -> None:
        """Send a message for the due time; for a wait beyond the longest SQS delay, the sweeper sends it."""
        wait_ms = (job.callback_next_at or now) - now
        if wait_ms <= MAX_DELAY_S * 1000:
            self._messages.send_callback(job.id, due=job.callback_next_at, delay_s=sqs_delay_s(wait_ms))

    def _defer(self, job: Job, now: int) -> CallbackState | None:
        params: dict[str, AttributeValue] = {"now": now, "callback_attempt": job.callback_attempt}
        if job.callback_waits >= MAX_BUSY_WAITS:
            params |= {
                "callback_last_status": None,
                "callback_last_error": "the receiver was at its concurrency limit for a day",
            }
            return self._finish(GIVE_UP_UNATTEMPTED, job, params, self._settled_days + DEAD_CALLBACK_DAYS)
        next_at = now + busy_delay_ms(job.callback_waits, self._clock.fraction())
        params |= {"callback_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        return self._reschedule(DEFER_DELIVERY, job, params, now)

    def _attempt(self, job: Job, receiver: str, now: int, expires_ms: int) -> CallbackState | None:
        # Read before the attempt is counted, because a read can fail.
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
        fields = {
            "job_id": job.id,
            "attempt": claimed.callback_attempt,
            "receiver": receiver,
            "status": delivery.status,
        }
        fields |= {"error": delivery.error if delivery.status is None else None}  # else it contains the receiver's text
        log.info(log_events.CALLBACK_ATTEMPTED, extra=fields | {"duration_ms": self._clock.now_ms() - now})
        if delivery.error is None:
            return self._finish(MARK_DELIVERED, claimed, _delivery_fields(claimed, delivery), self._settled_days)
        wait_s = callback_retry_delay_s(claimed.callback_attempt, self._clock.fraction())
        if wait_s is None or delivery.refused or delivery.status == GONE:
            return self._finish(
                GIVE_UP, claimed, _delivery_fields(claimed, delivery), self._settled_days + DEAD_CALLBACK_DAYS
            )
        now = self._clock.now_ms()
        requested_s = min(retry_after_s(delivery.retry_after, now) or 0, MAX_RETRY_AFTER_S)
        next_at = now + round(max(wait_s, requested_s) * 1000)
        schedule: dict[str, AttributeValue] = {"callback_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        return self._reschedule(SCHEDULE_RETRY, claimed, _delivery_fields(claimed, delivery) | schedule, now)

    def _body(self, job: Job) -> tuple[bytes, dict[str, str]]:
        """The request body, and the headers specific to it."""
        is_small = (job.result_bytes or 0) <= MAX_CALLBACK_BYTES
        files = job_files(job, self._urls)
        if job.request_name is not None and (is_small or files):
            result = self._jobs.read_result(job) if job.state == JobState.COMPLETED and not files else None
            return views.generation_callback(job, result, files), {}
        if job.state != JobState.COMPLETED:
            return views.error_view(job), {}
        if is_small and (result := self._jobs.read_result(job)) is not None:
            if self._urls:
                result = sign_urls(result, job.base_url, job_file_keys(job), self._urls)
            return result, {"content-type": job.result_type or JSON_MEDIA_TYPE}
        return views.status_view(job, None, files), {"x-result-url": views.result_url(job)}

    def _post(
        self,
        job: Job,
        key: ApiKey | None,
        secrets: WebhookSecrets | None,
        body: bytes,
        extra_headers: dict[str, str],
        now: int,
    ) -> DeliveryResult:
        message_id = f"msg_{job.id}_{job.callback_sequence}"  # the same for all attempts, new for each redelivery
        try:
            if key is None:
                raise CallbackRefused("the job's API key no longer exists, so the callback cannot be signed")
            if secrets is None:
                log.error(log_events.WEBHOOK_SECRET_MISSING, extra={"job_id": job.id, "key_id": key.id})
                raise CallbackRefused("the API key has no webhook secret, so the callback cannot be signed")
            headers = job_headers(job.id, job.ref_id, job.state, job.callback_attempt, job.tag) | extra_headers
            headers |= signature_headers(secrets.active(now), message_id, now // 1000, body)
            return self._webhooks.post(job.reply_to or "", body, headers, key.callback_hosts)
        except CallbackRefused as error:
            return DeliveryResult(None, f"CallbackRefused: {error.message}", refused=True)

    def _reschedule(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], now: int
    ) -> CallbackState | None:
        rescheduled = self._jobs.apply(transition, job.id, params)
        if isinstance(rescheduled, ConditionFailed):
            return None
        self._schedule_message(rescheduled, now)
        return rescheduled.callback

    def _finish(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], days: int
    ) -> CallbackState | None:
        finished = self._jobs.apply(transition, job.id, {**params, "ttl": settled_ttl(self._clock.now_ms(), days)})
        if isinstance(finished, ConditionFailed):
            return None
        if finished.callback == CallbackState.DEAD:
            log.error(log_events.CALLBACK_DEAD, extra={"job_id": job.id, "attempt": finished.callback_attempt})
        return finished.callback


def job_headers(job_id: int, ref_id: str, state: JobState, attempt: int, tag: str | None = None) -> dict[str, str]:
    """The headers of a callback that describe its job; the caller's RefId and tag are percent-encoded."""
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
