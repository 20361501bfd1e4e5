"""Incidents of callbacks, one test each, over the fakes and over the embedded cloud."""

import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from aiserver.webhooks.client import DeliveryResult, WebhookClient
from tests.app import CALLBACK_LEASE_MS, PER_KEY, PER_RECEIVER, REPLY_MS, FakeWebhookClient, TestApp
from tests.crash.backends import OWNER
from tests.crash.scenarios import first_job_id
from tests.crash.simulation import Simulation
from tests.fakes import FakeClock, FakeLeases
from tests.moto_stack import WEBHOOK_SECRET

# The calls of the reply function for one callback; a process dies before or after one of them.
READ, LEASE, RESULT, CLAIM, POST, OUTCOME, RELEASE = range(1, 8)
DELIVERY_THREADS = 20
DAY_S = 86_400
PUBLIC, PRIVATE = "93.184.215.14", "10.0.0.1"


def job(simulation: Simulation) -> Job:
    return simulation.load_job(first_job_id(simulation))


def finish_job(simulation: Simulation) -> None:
    """Finish a job; the message about its callback is lost."""
    simulation.run_process(lambda: simulation.submit("r"))
    simulation.run_process(lambda: simulation.run_worker(first_job_id(simulation)))
    simulation.messages.clear()


def deliver(simulation: Simulation, **fault: Any) -> bool:
    return simulation.run_process(lambda: simulation.deliver(first_job_id(simulation)), **fault)


def sent_headers(simulation: Simulation) -> list[dict[str, str]]:
    """Return the headers of each POST; each signature matches its body and timestamp."""
    for _, body, headers in simulation.webhook_client.posts:
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = Webhook(WEBHOOK_SECRET).sign(headers["webhook-id"], moment, body.decode())
        assert headers["webhook-signature"] == expected
    return [headers for _, _, headers in simulation.webhook_client.posts]


def test_crash_after_2xx_posts_the_same_message_with_a_new_signature(
    simulation: Simulation,
) -> None:
    """The process dies before it writes Delivered."""
    finish_job(simulation)
    assert not deliver(simulation, at=POST, after=True)
    assert job(simulation).callback == CallbackState.DELIVERING
    simulation.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    simulation.settle()
    first, second = sent_headers(simulation)
    assert first["webhook-id"] == second["webhook-id"] == f"msg_{first_job_id(simulation)}_0"
    assert int(second["webhook-timestamp"]) > int(first["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]
    assert (first["x-attempt"], second["x-attempt"]) == ("1", "2")
    assert job(simulation).callback == CallbackState.DELIVERED


def test_crash_after_claim_leaves_the_delivery_to_another_process(simulation: Simulation) -> None:
    finish_job(simulation)
    assert not deliver(simulation, at=CLAIM, after=True)
    assert simulation.webhook_client.posts == []
    assert deliver(simulation)  # its message is received again: the lease of the dead process still holds
    assert simulation.webhook_client.posts == []
    simulation.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    simulation.settle()
    (headers,) = sent_headers(simulation)
    assert (headers["x-attempt"], job(simulation).callback) == ("2", CallbackState.DELIVERED)


@pytest.mark.parametrize("moment", range(READ, RELEASE + 1))
def test_concurrent_deliveries_send_one_post(moment: int, simulation: Simulation) -> None:
    finish_job(simulation)
    simulation.interrupt_at(moment, lambda: simulation.deliver(first_job_id(simulation)))
    deliver(simulation)
    simulation.settle()
    assert len(sent_headers(simulation)) == 1
    assert (job(simulation).callback, job(simulation).callback_attempt) == (CallbackState.DELIVERED, 1)


def test_leases_of_dead_deliveries_expire(simulation: Simulation) -> None:
    finish_job(simulation)
    expires_ms = simulation.clock.now + CALLBACK_LEASE_MS
    while (
        simulation.backend.leases.acquire(
            f"callbacks#{OWNER}", range(PER_KEY), now_ms=simulation.clock.now, expires_ms=expires_ms
        )
        is not None
    ):
        pass
    assert deliver(simulation)
    waiting = job(simulation)
    assert (waiting.callback, waiting.callback_attempt, simulation.webhook_client.posts) == (
        CallbackState.PENDING,
        0,
        [],
    )
    simulation.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    simulation.settle()
    assert (job(simulation).callback, job(simulation).callback_attempt, len(sent_headers(simulation))) == (
        CallbackState.DELIVERED,
        1,
        1,
    )


def test_failed_lease_release_does_not_change_the_callback(simulation: Simulation) -> None:
    finish_job(simulation)
    assert deliver(simulation, at=RELEASE, dies=False)
    assert job(simulation).callback == CallbackState.DELIVERED


class ReceiverDownUntil(FakeWebhookClient):
    """A receiver that refuses connections before `up_at`, in milliseconds, and returns 200 after it."""

    def __init__(self, clock: FakeClock, up_at: int) -> None:
        super().__init__()
        self._clock = clock
        self._up_at = up_at

    def post(self, *args: Any, **kwargs: Any) -> DeliveryResult:
        delivery = super().post(*args, **kwargs)
        return DeliveryResult(None, "refused") if self._clock.now < self._up_at else delivery


def test_receiver_down_for_a_day_gets_its_callback_after_recovery(simulation: Simulation) -> None:
    finish_job(simulation)
    start = simulation.clock.now
    simulation.webhook_client = ReceiverDownUntil(simulation.clock, start + DAY_S * 1000)
    deliver(simulation)
    while job(simulation).callback == CallbackState.PENDING:
        assert all(message.visible_at - simulation.clock.now <= 901_000 for message in simulation.messages)
        simulation.clock.now = min(
            [job(simulation).due_at or 0, *(message.visible_at for message in simulation.messages)]
        )
        simulation.run_process(simulation.sweep)
        while due := [i for i, message in enumerate(simulation.messages) if message.visible_at <= simulation.clock.now]:
            simulation.receive(due[0])
    headers = sent_headers(simulation)
    assert (job(simulation).callback, [int(sent["x-attempt"]) for sent in headers]) == (
        CallbackState.DELIVERED,
        list(range(1, 9)),
    )
    assert len({sent["webhook-id"] for sent in headers}) == 1
    assert DAY_S < (simulation.clock.now - start) / 1000 < 1.5 * DAY_S


def test_host_that_turns_private_is_not_connected_and_its_callback_is_dead() -> None:
    """The host resolved to a public address when the job was accepted."""
    resolutions = [[PUBLIC], [PUBLIC, PRIVATE]]
    connects: list[str] = []

    class Network:
        def connect_tcp(self, host: str, *_: Any, **__: Any) -> None:
            connects.append(host)

    webhook_client: Any = WebhookClient(resolver=lambda *_: resolutions.pop(0), network=Network())  # pyright: ignore
    app = TestApp(webhook_client=webhook_client)
    completed = app.run(app.accept(reply_to="https://r.example.com/hook"))
    dead = app.deliver(completed)
    assert (resolutions, connects) == ([], [])
    assert (dead.callback, dead.callback_attempt, dead.callback_last_status) == (CallbackState.DEAD, 1, None)
    assert (dead.callback_last_error or "").startswith("CallbackRefused: ")
    assert dead.state == JobState.COMPLETED


def _lease_indexes(receiver: str) -> set[int]:
    return set(DeliveryLimiter(FakeLeases(), per_key=100, per_receiver=PER_RECEIVER).lease_indexes(receiver))


# Receivers that share no concurrency lease with the dead one.
_HEALTHY_HOSTS = [
    host for host in (f"r{i}.io" for i in range(200)) if not _lease_indexes(host) & _lease_indexes("dead.io")
][:2]


class OneHangingReceiver:
    """Every receiver returns 200 at once, except the dead one, which blocks until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.hanging: list[str] = []
        self.timed_out = False
        self.reached: set[str] = set()

    def receiver(self, url: str) -> str:
        return url.split("/")[2]

    def check_url(self, url: str, hosts: Any = ()) -> None:
        pass

    def post(self, url: str, body: bytes, headers: dict[str, str], hosts: Any = ()) -> DeliveryResult:
        if "dead" in url:
            self.hanging.append(headers["x-job-id"])
            if not self.release.wait(60):
                self.timed_out = True
                self.release.set()
            return DeliveryResult(None, "ReadTimeout")
        self.reached.add(headers["x-job-id"])
        return DeliveryResult(200, None)


def test_dead_receiver_does_not_delay_callbacks_to_other_receivers() -> None:
    """A third of 1000 jobs has a receiver that blocks until all others have been reached."""
    receivers = OneHangingReceiver()
    app = TestApp(webhook_client=receivers, per_key=100)
    lock = threading.Lock()
    apply = app.jobs.apply

    def apply_locked(*args: Any) -> Any:  # the fake's dict is not thread-safe
        with lock:
            return apply(*args)

    app.jobs.apply = apply_locked
    jobs = [app.run(app.accept(reply_to=f"https://{host}/")) for host in ("dead.io", *_HEALTHY_HOSTS) * 334][:1000]
    healthy = {str(job.id) for job in jobs if "dead" not in (job.reply_to or "")}
    due: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for created in jobs:
        due.put(created.id)

    def deliver_until_done() -> None:
        while (job_id := due.get()) is not None:
            app.deliver_callback.deliver(job_id, remaining_ms=REPLY_MS)
            if receivers.reached == healthy:
                receivers.release.set()

    with ThreadPoolExecutor(DELIVERY_THREADS) as pool:
        for _ in range(DELIVERY_THREADS):
            pool.submit(deliver_until_done)
            due.put(None)
    assert not receivers.timed_out
    assert receivers.reached == healthy
    final_jobs = [app.reload(job) for job in jobs]
    assert sum(job.callback == CallbackState.DELIVERED for job in final_jobs) == len(healthy)
    waiting = [job for job in final_jobs if job.callback == CallbackState.PENDING and not job.callback_attempt]
    assert len(receivers.hanging) == 1000 - len(healthy) - len(waiting) <= PER_RECEIVER
    assert all(job.due_at and job.callback_next_at and job.callback_next_at > app.clock.now for job in waiting)
    assert {job_id for job_id, _ in app.messages.callbacks} >= {job.id for job in waiting}
