"""The situations of one job and the actions on it, for the tests of races and crashes."""

from collections.abc import Callable
from typing import Any

from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S
from aiserver.jobs.transitions import CLAIM, CLAIM_DELIVERY, MARK_CALL
from aiserver.webhooks.client import DeliveryResult
from tests.app import CALLBACK_LEASE_MS, LEASE_MS, MARGIN_S
from tests.crash.backends import OWNER
from tests.crash.fault_points import check_invariant
from tests.crash.simulation import HTTP_MS, Simulation, provider_error


def first_job_id(simulation: Simulation) -> int:
    return simulation.job_ids[0]


def queue_job(simulation: Simulation, *, gpu: bool = False) -> None:
    simulation.run_process(lambda: simulation.submit("r", gpu=gpu))
    simulation.messages.clear()


def make_overdue(simulation: Simulation) -> None:
    queue_job(simulation)
    simulation.clock.advance(61)


def pass_deadline(simulation: Simulation) -> None:
    queue_job(simulation)
    simulation.clock.advance(86_401)


def abandon(simulation: Simulation, *, gpu: bool = False, called: bool, cancelled: bool = False) -> None:
    """Its worker died before or during the call, perhaps after a cancel request; its lease has expired."""
    queue_job(simulation, gpu=gpu)
    fence = {"attempt": 1, "lease_token": "dead"}
    now = simulation.clock.now
    simulation.backend.job_store.apply(
        CLAIM, first_job_id(simulation), {"now": now, **fence, "lease_until": now + LEASE_MS}
    )
    if called:
        mark = {"now": now, "call_queue": "gpu" if gpu else "hosted", "calls": 1, "maybe_billed": 0}
        simulation.backend.job_store.apply(MARK_CALL, first_job_id(simulation), fence | mark)
        simulation.billed_calls[first_job_id(simulation)] = 0 if gpu else 1
    if cancelled:
        simulation.run_process(lambda: simulation.cancel(first_job_id(simulation)))
    simulation.clock.advance(LEASE_MS / 1000 + 1)


def finish_job(simulation: Simulation) -> None:
    queue_job(simulation)
    simulation.run_process(lambda: simulation.run_worker(first_job_id(simulation)))
    simulation.messages.clear()
    simulation.clock.advance(61)


def occupy_delivery_lease(simulation: Simulation) -> None:
    """Another delivery holds the only concurrency lease until it expires."""
    finish_job(simulation)
    now = simulation.clock.now
    index = simulation.backend.leases.acquire(f"callbacks#{OWNER}", [0], now_ms=now, expires_ms=now + CALLBACK_LEASE_MS)
    check_invariant(index == 0, "the only lease was already held")


def start_delivery(simulation: Simulation, *, last: bool = False) -> None:
    """Its delivery died on the first or the last attempt; its lease has expired."""
    finish_job(simulation)
    for _ in range(len(CALLBACK_SCHEDULE_S) - 1 if last else 0):
        simulation.webhook_client.outcomes.append(DeliveryResult(500, "no"))
        simulation.run_process(lambda: simulation.deliver(first_job_id(simulation)))
        simulation.clock.now = simulation.load_job(first_job_id(simulation)).callback_next_at or 0
    simulation.messages.clear()
    done_at = simulation.load_job(first_job_id(simulation)).completed_at
    params = {"now": simulation.clock.now, "completed_at": done_at, "max_attempts": 10, "callback_token": "dead"}
    lease_until = simulation.clock.now + CALLBACK_LEASE_MS
    simulation.backend.job_store.apply(
        CLAIM_DELIVERY, first_job_id(simulation), params | {"callback_lease_until": lease_until}
    )
    simulation.clock.advance(CALLBACK_LEASE_MS / 1000 + 1)


def make_synchronous_request(simulation: Simulation, *, outcome: str | None = None, **fault: Any) -> None:
    """It has the RefId of `submit`; its process may have died, and then its lease has expired."""
    if outcome:
        simulation.dispatcher.outcomes.append(provider_error(outcome))
    if not simulation.run_process(lambda: simulation.chat("r"), **fault):
        simulation.clock.advance(HTTP_MS / 1000 + MARGIN_S + 1)
    simulation.job_ids.extend(job.id for job in simulation.backend.all_jobs())


SITUATIONS: dict[str, Callable[[Simulation], None]] = {
    "queued": queue_job,
    "queued for a gpu": lambda simulation: queue_job(simulation, gpu=True),
    "overdue": make_overdue,
    "past its deadline": pass_deadline,
    "abandoned before the call": lambda simulation: abandon(simulation, called=False),
    "abandoned during a hosted call": lambda simulation: abandon(simulation, called=True),
    "abandoned during a gpu call": lambda simulation: abandon(simulation, gpu=True, called=True),
    "abandoned and cancelled": lambda simulation: abandon(simulation, called=False, cancelled=True),
    "finished": finish_job,
    "finished, and no lease available": occupy_delivery_lease,
    "delivery started": start_delivery,
    "last delivery started": lambda simulation: start_delivery(simulation, last=True),
    "answered synchronously": make_synchronous_request,
    "failed synchronously without effect": lambda simulation: make_synchronous_request(
        simulation, outcome="unavailable"
    ),
    "abandoned during a synchronous call": lambda simulation: make_synchronous_request(simulation, at=4, after=True),
}

ACTIONS: dict[str, Callable[[Simulation], object]] = {
    "work": lambda simulation: simulation.run_worker(first_job_id(simulation)),
    "sweep": lambda simulation: simulation.sweep(),
    "reply": lambda simulation: simulation.deliver(first_job_id(simulation)),
    "cancel": lambda simulation: simulation.cancel(first_job_id(simulation)),
    "chat": lambda simulation: simulation.chat("r"),
}
MAX_CALLS = {"work": 8, "sweep": 12, "reply": 9, "cancel": 4, "chat": 6}  # more than the action makes for one job
