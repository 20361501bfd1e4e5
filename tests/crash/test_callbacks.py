"""What can befall a callback, incident by incident: each by its name, over the fakes and over the embedded cloud."""

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

# The calls a deliverer makes for one callback; a process dies before or after one of them.
READ, PLACE, RESULT, CLAIM, POST, OUTCOME, GIVE_BACK = range(1, 8)
DELIVERERS = 20
DAY_S = 86_400
PUBLIC, PRIVATE = "93.184.215.14", "10.0.0.1"


def job(world: Simulation) -> Job:
    return world.now_of(first_job_id(world))


def ended(world: Simulation) -> None:
    """A job that has ended; the message that its callback is due has come and gone."""
    world.alive(lambda: world.ask("r"))
    world.alive(lambda: world.work(first_job_id(world)))
    world.bag.clear()


def deliver(world: Simulation, **fate: Any) -> bool:
    return world.alive(lambda: world.reply(first_job_id(world)), **fate)


def sent(world: Simulation) -> list[dict[str, str]]:
    """The headers of each POST, each signed for what it said when it said it."""
    for _, body, headers in world.replier.posts:
        moment = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        expected = Webhook(WEBHOOK_SECRET).sign(headers["webhook-id"], moment, body.decode())
        assert headers["webhook-signature"] == expected
    return [headers for _, _, headers in world.replier.posts]


def test_a_crash_after_the_2xx_before_delivered_posts_the_same_message_again_signed_anew(world: Simulation) -> None:
    ended(world)
    assert not deliver(world, at=POST, after=True)
    assert job(world).callback == CallbackState.DELIVERING
    world.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    world.settle()
    first, second = sent(world)
    assert first["webhook-id"] == second["webhook-id"] == f"msg_{first_job_id(world)}_0"
    assert int(second["webhook-timestamp"]) > int(first["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]
    assert (first["x-attempt"], second["x-attempt"]) == ("1", "2")
    assert job(world).callback == CallbackState.DELIVERED


def test_a_crash_after_the_claim_sends_nothing_and_another_deliverer_does(world: Simulation) -> None:
    ended(world)
    assert not deliver(world, at=CLAIM, after=True)
    assert world.replier.posts == []
    assert deliver(world)  # its message comes again: it is another's
    assert world.replier.posts == []
    world.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    world.settle()
    (headers,) = sent(world)
    assert (headers["x-attempt"], job(world).callback) == ("2", CallbackState.DELIVERED)


@pytest.mark.parametrize("moment", range(READ, GIVE_BACK + 1))
def test_two_deliverers_at_once_are_one_post(moment: int, world: Simulation) -> None:
    ended(world)
    world.meanwhile(moment, lambda: world.reply(first_job_id(world)))
    deliver(world)
    world.settle()
    assert len(sent(world)) == 1
    assert (job(world).callback, job(world).callback_attempt) == (CallbackState.DELIVERED, 1)


def test_deliverers_that_died_hold_their_places_no_longer_than_their_leases(world: Simulation) -> None:
    ended(world)
    until = world.clock.now + CALLBACK_LEASE_MS
    while (
        world.backend.slots.acquire(f"callbacks#{OWNER}", range(PER_KEY), now_ms=world.clock.now, expires_ms=until)
        is not None
    ):
        pass
    assert deliver(world)
    waiting = job(world)
    assert (waiting.callback, waiting.callback_attempt, world.replier.posts) == (CallbackState.PENDING, 0, [])
    world.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)
    world.settle()
    assert (job(world).callback, job(world).callback_attempt, len(sent(world))) == (CallbackState.DELIVERED, 1, 1)


def test_a_place_that_cannot_be_given_back_changes_nothing(world: Simulation) -> None:
    ended(world)
    assert deliver(world, at=GIVE_BACK, dies=False)
    assert job(world).callback == CallbackState.DELIVERED


class DownUntil(FakeWebhookClient):
    """A receiver that answers nothing before a moment, and 200 after it."""

    def __init__(self, clock: FakeClock, until: int) -> None:
        super().__init__()
        self._clock = clock
        self._until = until

    def post(self, *given: Any, **more: Any) -> DeliveryResult:
        delivery = super().post(*given, **more)
        return DeliveryResult(None, "refused") if self._clock.now < self._until else delivery


def test_a_receiver_that_is_down_for_a_day_gets_its_callback_when_it_is_back(world: Simulation) -> None:
    ended(world)
    started = world.clock.now
    world.replier = DownUntil(world.clock, started + DAY_S * 1000)
    deliver(world)
    while job(world).callback == CallbackState.PENDING:
        assert all(message.visible_at - world.clock.now <= 901_000 for message in world.bag)
        world.clock.now = min([job(world).due_at or 0, *(message.visible_at for message in world.bag)])
        world.alive(world.sweep)
        while due := [i for i, message in enumerate(world.bag) if message.visible_at <= world.clock.now]:
            world.receive(due[0])
    headers = sent(world)
    assert (job(world).callback, [int(one["x-attempt"]) for one in headers]) == (
        CallbackState.DELIVERED,
        list(range(1, 9)),
    )
    assert len({one["webhook-id"] for one in headers}) == 1
    assert DAY_S < (world.clock.now - started) / 1000 < 1.5 * DAY_S


def test_a_name_that_turns_private_after_its_job_was_accepted_gets_no_packet_and_the_callback_is_dead() -> None:
    answers = [[PUBLIC], [PUBLIC, PRIVATE]]
    connects: list[str] = []

    class Network:
        def connect_tcp(self, host: str, *_: Any, **__: Any) -> None:
            connects.append(host)

    replier: Any = WebhookClient(resolver=lambda *_: answers.pop(0), network=Network())  # pyright: ignore
    house = TestApp(replier=replier)
    done = house.run(house.accept(reply_to="https://r.example.com/hook"))
    dead = house.deliver(done)
    assert (answers, connects) == ([], [])
    assert (dead.callback, dead.callback_attempt, dead.callback_last_status) == (CallbackState.DEAD, 1, None)
    assert (dead.callback_last_error or "").startswith("CallbackRefused: ")
    assert dead.state == JobState.COMPLETED


def _part(receiver: str) -> set[int]:
    return set(DeliveryLimiter(FakeLeases(), per_key=100, per_receiver=PER_RECEIVER).lease_indexes(receiver))


# Receivers that share no place with the dead one.
_APART = [host for host in (f"r{i}.io" for i in range(200)) if not _part(host) & _part("dead.io")][:2]


class OneHangs:
    """Any receiver answers 200 at once, but one holds whoever calls it until it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.hanging: list[str] = []
        self.held_up = False
        self.reached: set[str] = set()

    def receiver(self, url: str) -> str:
        return url.split("/")[2]

    def check(self, url: str, hosts: Any = ()) -> None:
        pass

    def post(self, url: str, body: bytes, headers: dict[str, str], hosts: Any = ()) -> DeliveryResult:
        if "dead" in url:
            self.hanging.append(headers["x-job-id"])
            if not self.release.wait(60):
                self.held_up = True
                self.release.set()
            return DeliveryResult(None, "ReadTimeout")
        self.reached.add(headers["x-job-id"])
        return DeliveryResult(200, None)


def test_a_thousand_jobs_with_one_dead_receiver_hold_up_nobody_else() -> None:
    """A third is for a receiver that hangs for as long as there are others to be reached."""
    receivers = OneHangs()
    house = TestApp(replier=receivers, per_key=100)
    lock = threading.Lock()
    apply = house.jobs.apply

    def one_at_a_time(*given: Any) -> Any:  # the fake's dict is no database
        with lock:
            return apply(*given)

    house.jobs.apply = one_at_a_time
    jobs = [house.run(house.accept(reply_to=f"https://{host}/")) for host in ("dead.io", *_APART) * 334][:1000]
    healthy = {str(one.id) for one in jobs if "dead" not in (one.reply_to or "")}
    due: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    for one in jobs:
        due.put(one.id)

    def deliverer() -> None:
        while (job_id := due.get()) is not None:
            house.reply.deliver(job_id, remaining_ms=REPLY_MS)
            if receivers.reached == healthy:
                receivers.release.set()

    with ThreadPoolExecutor(DELIVERERS) as pool:
        for _ in range(DELIVERERS):
            pool.submit(deliverer)
            due.put(None)
    assert not receivers.held_up
    assert receivers.reached == healthy
    states = [house.now(one) for one in jobs]
    assert sum(one.callback == CallbackState.DELIVERED for one in states) == len(healthy)
    waiting = [one for one in states if one.callback == CallbackState.PENDING and not one.callback_attempt]
    assert len(receivers.hanging) == 1000 - len(healthy) - len(waiting) <= PER_RECEIVER
    assert all(one.due_at and one.callback_next_at and one.callback_next_at > house.clock.now for one in waiting)
    assert {job_id for job_id, _ in house.messages.callbacks} >= {one.id for one in waiting}
