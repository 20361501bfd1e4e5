"""Redeliver a job's callback, or send a sample callback to test a receiver."""

import logging
from dataclasses import dataclass

from aiserver import log_events
from aiserver.api_keys import ApiKey, KeyStore
from aiserver.clock import Clock
from aiserver.errors import AiServerError, Conflict, TooManyRequests
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, JobStore, MessageSender
from aiserver.jobs.states import CallbackState, JobState
from aiserver.jobs.transitions import REDELIVER, REDELIVER_DELIVERED, AttributeValue
from aiserver.usecases.deliver_callback import job_headers
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from aiserver.usecases.terminal import CALLBACK_DUE_MS
from aiserver.webhooks.client import DeliveryResult, WebhookClient
from aiserver.webhooks.signature import signature_headers
from aiserver.wire.render import format_iso

LEASE_MS = 60_000  # of the concurrency lease, if its holder dies: twice the function's timeout
RETRY_AFTER_S = 5

log = logging.getLogger("aiserver.callbacks")


@dataclass(frozen=True)
class SampleResult:
    """A receiver's response to a sample callback; `message_id` is its `webhook-id`, `took_ms` its duration."""

    message_id: str
    delivery: DeliveryResult
    took_ms: int


class Redelivery:
    def __init__(self, jobs: JobStore, messages: MessageSender, clock: Clock) -> None:
        self._jobs = jobs
        self._messages = messages
        self._clock = clock

    def redeliver(self, job: Job) -> Job:
        """Restart the callback with a new `webhook-id`. Raises: Conflict, when it is not Dead or Delivered."""
        now = self._clock.now_ms()
        params: dict[str, AttributeValue] = {
            "owner": job.owner,
            "callback_next_at": now,
            "due_at": now + CALLBACK_DUE_MS,
        }
        transition = REDELIVER_DELIVERED if job.callback == CallbackState.DELIVERED else REDELIVER
        restarted = self._jobs.apply(transition, job.id, params)
        if isinstance(restarted, ConditionFailed):
            # A concurrent call, or this one with its confirmation lost, may have restarted it: send one more message.
            stored = restarted.job
            if (
                stored is None
                or stored.callback == CallbackState.NONE
                or stored.callback_sequence <= job.callback_sequence
            ):
                raise Conflict(_not_redeliverable_message(job))
            restarted = stored
        try:
            self._messages.send_callback(job.id, due=restarted.callback_next_at)
        except Exception:  # the state is written, and the sweeper sends the message
            log.exception(log_events.CALLBACK_MESSAGE_SEND_FAILED, extra={"job_id": job.id})
        return restarted


def _not_redeliverable_message(job: Job) -> str:
    message = f"Job {job.id}: the callback cannot be redelivered because its state is {job.callback}"
    if job.callback != CallbackState.PENDING:
        return message
    return f"{message}; the next attempt is at {format_iso(job.callback_next_at)}"


class SampleCallback:
    def __init__(self, keys: KeyStore, webhooks: WebhookClient, limiter: DeliveryLimiter, clock: Clock) -> None:
        self._keys = keys
        self._webhooks = webhooks
        self._limiter = limiter
        self._clock = clock

    def send(self, key: ApiKey, reply_to: str, sample: bytes) -> SampleResult:
        """POST a sample result to `reply_to`, signed with `key`'s secret; writes no job and does not retry.

        The request counts toward the key's concurrency limit for that receiver.
        Raises: CallbackRefused; TooManyRequests, when the receiver is at its concurrency limit.
        """
        now = self._clock.now_ms()
        receiver = self._webhooks.receiver(reply_to)
        with self._limiter.acquire(key.id, receiver, now_ms=now, expires_ms=now + LEASE_MS) as is_acquired:
            if not is_acquired:
                message = "The receiver is at its concurrency limit for callbacks; try again later"
                raise TooManyRequests(message, retry_after_s=RETRY_AFTER_S)
            return self._send(key, reply_to, sample, now)

    def _send(self, key: ApiKey, reply_to: str, sample: bytes, now: int) -> SampleResult:
        message_id = f"msg_test_{self._clock.token()}"
        secrets = self._keys.webhook_secrets(key.id)
        if secrets is None:
            raise AiServerError(f"Key {key.id} has no webhook secret")
        signature = signature_headers(secrets.active(now), message_id, now // 1000, sample)
        headers = job_headers(0, "test-callback", JobState.COMPLETED, attempt=1) | signature
        delivery = self._webhooks.post(reply_to, sample, headers, key.callback_hosts)
        return SampleResult(message_id, delivery, self._clock.now_ms() - now)
