"""What somebody does about callbacks: send one again, or try whether a receiver would take one."""

import logging
from dataclasses import dataclass

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

LEASE_MS = 60_000  # a place, should its holder die: twice the function's time limit
RETRY_AFTER_S = 5

log = logging.getLogger("aiserver.callbacks")


@dataclass(frozen=True)
class SampleResult:
    """What a receiver said to a sample callback of that `webhook-id`."""

    message_id: str
    delivery: DeliveryResult
    took_ms: int


class Redelivery:
    def __init__(self, jobs: JobStore, messages: MessageSender, clock: Clock) -> None:
        self._jobs = jobs
        self._messages = messages
        self._clock = clock

    def redeliver(self, job: Job) -> Job:
        """Start the callback over, as a new message of its own. Raises: Conflict, when there is none to repeat."""
        now = self._clock.now_ms()
        params: dict[str, AttributeValue] = {
            "owner": job.owner,
            "callback_next_at": now,
            "due_at": now + CALLBACK_DUE_MS,
        }
        again = REDELIVER_DELIVERED if job.callback == CallbackState.DELIVERED else REDELIVER
        done = self._jobs.apply(again, job.id, params)
        if isinstance(done, ConditionFailed):
            begun = done.job  # by another, or by us, and we were never told: a message more does no harm
            if (
                begun is None
                or begun.callback == CallbackState.NONE
                or begun.callback_sequence <= job.callback_sequence
            ):
                when = (
                    f"; it is tried next at {format_iso(job.callback_next_at)}"
                    if job.callback == CallbackState.PENDING
                    else ""
                )
                raise Conflict(f"Job {job.id} has no callback to send again: it is {job.callback}{when}")
            done = begun
        try:
            self._messages.send_callback(job.id, due=done.callback_next_at)
        except Exception:  # it is written, and the sweeper will send
            log.exception("callback message not sent; the sweeper will", extra={"job_id": job.id})
        return done


class SampleCallback:
    def __init__(self, keys: KeyStore, replier: WebhookClient, places: DeliveryLimiter, clock: Clock) -> None:
        self._keys = keys
        self._replier = replier
        self._places = places
        self._clock = clock

    def send(self, key: ApiKey, reply_to: str, sample: bytes) -> SampleResult:
        """POST a sample result there, signed as `key`'s callbacks are; no job is written, and nothing is tried again.

        It takes a place among the key's deliveries to that receiver.
        Raises: CallbackRefused, TooManyRequests (no place).
        """
        now = self._clock.now_ms()
        receiver = self._replier.receiver(reply_to)
        with self._places.acquire(key.id, receiver, now_ms=now, expires_ms=now + LEASE_MS) as there_is_room:
            if not there_is_room:
                raise TooManyRequests("Too many callbacks to this receiver are under way", retry_after_s=RETRY_AFTER_S)
            return self._send(key, reply_to, sample, now)

    def _send(self, key: ApiKey, reply_to: str, sample: bytes, now: int) -> SampleResult:
        message_id = f"msg_test_{self._clock.token()}"
        secrets = self._keys.webhook_secrets(key.id)
        if secrets is None:
            raise AiServerError(f"Key {key.id} has no webhook secret")
        signature = signature_headers(secrets.active(now), message_id, now // 1000, sample)
        headers = job_headers(0, "test-callback", JobState.COMPLETED, attempt=1) | signature
        delivery = self._replier.post(reply_to, sample, headers, key.callback_hosts)
        return SampleResult(message_id, delivery, self._clock.now_ms() - now)
