"""Two who act at once, in every situation: each deed is interrupted by another at each of its port calls."""

import itertools
from collections.abc import Callable
from contextlib import suppress

import pytest

from aiserver.errors import Conflict
from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S
from aiserver.jobs.states import Callback, State
from aiserver.jobs.transitions import CLAIM, DELIVER, MARK_CALL
from aiserver.replyto import Delivery
from aiserver.usecases.reply import LEASE_MS
from tests.unit.house import WORKER_MS
from tests.unit.world import World, trouble

MOMENTS = range(1, 7)  # more port calls than any of these deeds makes for one job


def the_job(world: World) -> int:
    return world.accepted[0]


def queued(world: World, *, gpu: bool = False) -> None:
    world.alive(lambda: world.ask("r", gpu=gpu, reply_to=True))
    world.bag.clear()


def overdue(world: World) -> None:
    queued(world)
    world.clock.advance(61)


def past_its_deadline(world: World) -> None:
    queued(world)
    world.clock.advance(86_401)


def abandoned(world: World, *, gpu: bool, called: bool, cancelled: bool = False) -> None:
    """Its worker died, before or during the call, perhaps after a cancel was asked; its lease is over."""
    queued(world, gpu=gpu)
    fence = {"attempt": 1, "lease_token": "dead"}
    now = world.clock.now
    world.jobs.apply(CLAIM, the_job(world), {"now": now, **fence, "lease_until": now + WORKER_MS})
    if called:
        queue = "gpu" if gpu else "hosted"
        world.jobs.apply(MARK_CALL, the_job(world), fence | {"now": now, "call_queue": queue})
        world.paid[the_job(world)] = 0 if gpu else 1
    if cancelled:
        world.alive(lambda: world.enqueue.cancel(world.now_of(the_job(world))))
    world.clock.advance(WORKER_MS / 1000 + 1)


def ended(world: World) -> None:
    queued(world)
    world.alive(lambda: world.work.run(the_job(world), end_ms=world.clock.now + WORKER_MS))
    world.bag.clear()
    world.clock.advance(61)


def half_delivered(world: World, *, attempts: int = 1) -> None:
    """Its deliverer died, on some attempt; its lease is over."""
    ended(world)
    for _ in range(attempts):
        item = world.jobs.items[the_job(world)]
        item["cb"], item["cb_next_at"] = Callback.PENDING, world.clock.now
        until = world.clock.now + LEASE_MS
        lease = {"now": world.clock.now, "max_attempts": 10, "cb_token": "dead", "cb_lease_until": until}
        world.jobs.apply(DELIVER, the_job(world), lease)
    world.clock.advance(LEASE_MS / 1000 + 1)


SITUATIONS: dict[str, Callable[[World], None]] = {
    "queued": queued,
    "queued for a gpu": lambda world: queued(world, gpu=True),
    "overdue": overdue,
    "past its deadline": past_its_deadline,
    "abandoned before the call": lambda world: abandoned(world, gpu=False, called=False),
    "abandoned during a hosted call": lambda world: abandoned(world, gpu=False, called=True),
    "abandoned during a gpu call": lambda world: abandoned(world, gpu=True, called=True),
    "abandoned and cancelled": lambda world: abandoned(world, gpu=False, called=False, cancelled=True),
    "ended": ended,
    "half delivered": half_delivered,
    "half delivered for the last time": lambda world: half_delivered(world, attempts=len(CALLBACK_SCHEDULE_S)),
}

DEEDS: dict[str, Callable[[World], object]] = {
    "work": lambda world: world.work.run(the_job(world), end_ms=world.clock.now + WORKER_MS),
    "sweep": lambda world: world.sweep.sweep(until_ms=world.clock.now + 55_000),
    "reply": lambda world: world.reply.deliver(the_job(world)),
    "cancel": lambda world: None if world.now_of(the_job(world)).has_ended else _cancel(world),
}


def _cancel(world: World) -> None:
    with suppress(Conflict):  # it ended while we asked: the caller hears a 409
        world.enqueue.cancel(world.now_of(the_job(world)))


@pytest.mark.parametrize("outcome", [None, "slow down", "silence", "broken"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_whoever_acts_at_once_nothing_is_lost_doubled_or_stuck(situation: str, outcome: str | None) -> None:
    for first, second, moment in itertools.product(DEEDS, DEEDS, MOMENTS):
        world = World()
        SITUATIONS[situation](world)
        if outcome:
            world.protocol.outcomes.append(trouble(outcome))
            world.replier.outcomes.append(Delivery(500, outcome))
        world.crashes.meanwhile = lambda world=world, second=second: DEEDS[second](world)
        world.crashes.meanwhile_at = moment
        world.alive(lambda world=world, first=first: DEEDS[first](world))
        world.crashes.meanwhile_at = None
        world.settle()
        world.check_settled()
        job = world.now_of(the_job(world))
        assert world.now_of(the_job(world)).state in (State.COMPLETED, State.FAILED, State.CANCELLED)
        assert job.cb_attempt <= len(CALLBACK_SCHEDULE_S), (first, second, moment)
        posts = len(world.replier.posts)
        assert posts <= len(CALLBACK_SCHEDULE_S), (first, second, moment)
