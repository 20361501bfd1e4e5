"""Where one job may stand, and what may be done about it: the ground of the races and of the deaths."""

from collections.abc import Callable

from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S
from aiserver.jobs.transitions import CLAIM, CLAIM_DELIVERY, MARK_CALL
from aiserver.webhooks.client import DeliveryResult
from tests.app import CALLBACK_LEASE_MS, LEASE_MS
from tests.crash.backends import OWNER
from tests.crash.fault_points import check_invariant
from tests.crash.simulation import Simulation


def first_job_id(world: Simulation) -> int:
    return world.accepted[0]


def queued(world: Simulation, *, gpu: bool = False) -> None:
    world.alive(lambda: world.ask("r", gpu=gpu))
    world.bag.clear()


def overdue(world: Simulation) -> None:
    queued(world)
    world.clock.advance(61)


def past_its_deadline(world: Simulation) -> None:
    queued(world)
    world.clock.advance(86_401)


def abandoned(world: Simulation, *, gpu: bool = False, called: bool, cancelled: bool = False) -> None:
    """Its worker died, before or during the call, perhaps after a cancel was asked; its lease is over."""
    queued(world, gpu=gpu)
    fence = {"attempt": 1, "lease_token": "dead"}
    now = world.clock.now
    world.backend.seen.apply(CLAIM, first_job_id(world), {"now": now, **fence, "lease_until": now + LEASE_MS})
    if called:
        marked = {"now": now, "call_queue": "gpu" if gpu else "hosted", "calls": 1, "maybe_billed": 0}
        world.backend.seen.apply(MARK_CALL, first_job_id(world), fence | marked)
        world.paid[first_job_id(world)] = 0 if gpu else 1
    if cancelled:
        world.alive(lambda: world.cancel(first_job_id(world)))
    world.clock.advance(LEASE_MS / 1000 + 1)


def ended(world: Simulation) -> None:
    queued(world)
    world.alive(lambda: world.work(first_job_id(world)))
    world.bag.clear()
    world.clock.advance(61)


def without_a_place(world: Simulation) -> None:
    """Another's delivery has the one place, and holds it until its lease is over."""
    ended(world)
    now = world.clock.now
    taken = world.backend.slots.acquire(f"callbacks#{OWNER}", [0], now_ms=now, expires_ms=now + CALLBACK_LEASE_MS)
    check_invariant(taken == 0, "the one place was taken")


def half_delivered(world: Simulation, *, last: bool = False) -> None:
    """Its deliverer died, on the first attempt or on the last; its lease is over."""
    ended(world)
    for _ in range(len(CALLBACK_SCHEDULE_S) - 1 if last else 0):
        world.replier.outcomes.append(DeliveryResult(500, "no"))
        world.alive(lambda: world.reply(first_job_id(world)))
        world.clock.now = world.now_of(first_job_id(world)).callback_next_at or 0
    world.bag.clear()
    done_at = world.now_of(first_job_id(world)).completed_at
    lease = {"now": world.clock.now, "completed_at": done_at, "max_attempts": 10, "callback_token": "dead"}
    until = world.clock.now + CALLBACK_LEASE_MS
    world.backend.seen.apply(CLAIM_DELIVERY, first_job_id(world), lease | {"callback_lease_until": until})
    world.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)


SITUATIONS: dict[str, Callable[[Simulation], None]] = {
    "queued": queued,
    "queued for a gpu": lambda world: queued(world, gpu=True),
    "overdue": overdue,
    "past its deadline": past_its_deadline,
    "abandoned before the call": lambda world: abandoned(world, called=False),
    "abandoned during a hosted call": lambda world: abandoned(world, called=True),
    "abandoned during a gpu call": lambda world: abandoned(world, gpu=True, called=True),
    "abandoned and cancelled": lambda world: abandoned(world, called=False, cancelled=True),
    "ended": ended,
    "ended, and no place": without_a_place,
    "half delivered": half_delivered,
    "half delivered for the last time": lambda world: half_delivered(world, last=True),
}

DEEDS: dict[str, Callable[[Simulation], object]] = {
    "work": lambda world: world.work(first_job_id(world)),
    "sweep": lambda world: world.sweep(),
    "reply": lambda world: world.reply(first_job_id(world)),
    "cancel": lambda world: world.cancel(first_job_id(world)),
}
MOST_CALLS = {"work": 8, "sweep": 12, "reply": 9, "cancel": 4}  # more than the deed makes for one job
