"""Deliver one callback, once: claim the attempt, make the POST, write what came of it."""

import logging
from urllib.parse import quote

from aiserver.clock import Clock
from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S, MAX_DELAY_S, busy_wait_ms, callback_wait_s, delay_s
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, Messages, Refused, Slots
from aiserver.jobs.states import Callback, State
from aiserver.jobs.transitions import DELIVER, DELIVERED, GIVE_UP, POSTPONE, RETRY_LATER, Value
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
GONE = 410  # the receiver wants no more

log = logging.getLogger("aiserver.reply")


class Reply:
    def __init__(
        self,
        jobs: JobStore,
        messages: Messages,
        keys: KeyStore,
        replier: Replier,
        slots: Slots,
        clock: Clock,
        *,
        per_receiver: int,
        settled_days: int,
        lease_margin_s: int,
    ) -> None:
        self._jobs = jobs
        self._messages = messages
        self._keys = keys
        self._replier = replier
        self._slots = slots
        self._clock = clock
        self._per_receiver = per_receiver
        self._settled_days = settled_days
        self._lease_margin_ms = lease_margin_s * 1000

    def deliver(self, job_id: int, *, left_ms: int, due: int | None = None) -> Callback | None:
        """Make one attempt, if one is due; `left_ms` is what is left of this deliverer's own time.

        Returning means the message is done with; what the callback has become, where this attempt decided it.
        A receiver has at most `per_receiver` attempts at once, so that one that hangs leaves room for the others.
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
        name, until = f"receiver#{receiver}", now + left_ms + self._lease_margin_ms
        slot = self._slots.take(name, limit=self._per_receiver, now_ms=now, until_ms=until)
        if slot is None:
            self._postpone(job, now)
            return None
        try:
            return self._attempt(job, receiver, now, until)
        finally:
            self._give_back(name, slot, until)

    def _come_back(self, job: Job, now: int) -> None:
        """A message for when it is due; for what is further away than a message can wait, the sweeper sends one."""
        wait_ms = (job.cb_next_at or now) - now
        if wait_ms <= MAX_DELAY_S * 1000:
            self._messages.send_callback(job.id, due=job.cb_next_at, delay_s=delay_s(wait_ms))

    def _postpone(self, job: Job, now: int) -> None:
        next_at = now + busy_wait_ms(job.cb_waits, self._clock.fraction())
        params: dict[str, Value] = {"now": now, "cb_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        later = self._jobs.apply(POSTPONE, job.id, params)
        if not isinstance(later, Refused):
            self._come_back(later, now)

    def _give_back(self, name: str, slot: int, until: int) -> None:
        try:
            self._slots.give_back(name, slot, until_ms=until)
        except Exception:  # the delivery is done with, and the slot is free when its time is up
            log.exception("slot not given back", extra={"slots": name})

    def _attempt(self, job: Job, receiver: str, now: int, until: int) -> Callback | None:
        params: dict[str, Value] = {
            "now": now,
            "max_attempts": len(CALLBACK_SCHEDULE_S),
            "cb_token": self._clock.token(),
            "cb_lease_until": until,
        }
        claimed = self._jobs.apply(DELIVER, job.id, params)
        if isinstance(claimed, Refused):
            return None
        refused = False
        try:
            delivery = self._post(claimed, now)
        except CallbackRefused as why:
            refused, delivery = True, Delivery(None, f"CallbackRefused: {why.message}")
        told = {"job_id": job.id, "attempt": claimed.cb_attempt, "receiver": receiver, "status": delivery.status}
        log.info("callback attempted", extra=told | {"duration_ms": self._clock.now_ms() - now})
        if delivery.error is None:
            ttl = settled_ttl(self._clock.now_ms(), self._settled_days)
            done = self._jobs.apply(DELIVERED, job.id, _outcome(claimed, delivery) | {"ttl": ttl})
            return None if isinstance(done, Refused) else done.cb
        wait_s = callback_wait_s(claimed.cb_attempt, self._clock.fraction())
        if wait_s is None or refused or delivery.status == GONE:
            ttl = settled_ttl(self._clock.now_ms(), self._settled_days + DEAD_DAYS)
            done = self._jobs.apply(GIVE_UP, job.id, _outcome(claimed, delivery) | {"ttl": ttl})
            log.error("callback dead", extra=told)
            return None if isinstance(done, Refused) else done.cb
        return self._retry(claimed, delivery, wait_s)

    def _post(self, job: Job, now: int) -> Delivery:
        key = self._keys.key(job.owner)
        if key is None or job.reply_to is None:
            raise CallbackRefused("there is no key to sign with")
        body, more = self._body(job)
        message_id = f"msg_{job.id}_{job.cb_sequence}"  # one for all attempts, another for each redelivery
        headers = {**more, **about(job), **signature_headers(key.signing_secrets(now), message_id, now // 1000, body)}
        return self._replier.post(job.reply_to, body, headers, key.callback_hosts)

    def _body(self, job: Job) -> tuple[bytes, dict[str, str]]:
        """What is sent, and the headers that are only for it."""
        if job.state != State.COMPLETED:
            return documents.error_envelope(job), {}
        if (job.result_bytes or 0) <= MAX_BODY_BYTES and (result := self._jobs.result(job)) is not None:
            return result, {}
        return documents.status(job, None), {"x-result-url": documents.result_url(job)}

    def _retry(self, job: Job, delivery: Delivery, wait_s: float) -> Callback | None:
        now = self._clock.now_ms()
        asked_s = min(retry_after_s(delivery.retry_after, now) or 0, MAX_RETRY_AFTER_S)
        next_at = now + round(max(wait_s, asked_s) * 1000)
        params: dict[str, Value] = {"cb_next_at": next_at, "due_at": next_at + CALLBACK_DUE_MS}
        later = self._jobs.apply(RETRY_LATER, job.id, _outcome(job, delivery) | params)
        if isinstance(later, Refused):
            return None
        self._come_back(later, now)
        return later.cb


def about(job: Job) -> dict[str, str]:
    """The headers that say what a callback is about; a caller's own words are percent-encoded."""
    headers = {
        "content-type": "application/json",
        "x-job-id": str(job.id),
        "x-ref-id": quote(job.ref_id, safe=""),
        "x-job-state": str(job.state),
        "x-attempt": str(job.cb_attempt),
    }
    return headers | ({"x-tag": quote(job.tag, safe="")} if job.tag is not None else {})


def _outcome(job: Job, delivery: Delivery) -> dict[str, Value]:
    return {
        "cb_attempt": job.cb_attempt,
        "cb_token": job.cb_token,
        "cb_last_status": delivery.status,
        "cb_last_error": delivery.error,
    }
