"""The world's watch sees what it is there to see: a promise broken inside a handler fails the test."""

import pytest

from tests.crash.fault_points import InvariantViolated
from tests.crash.simulation import Simulation


def test_a_second_paid_call_is_seen() -> None:
    world = Simulation()
    world.alive(lambda: world.ask("r"))
    world.paid[world.accepted[0]] = 1
    with pytest.raises(InvariantViolated, match="I3"):
        world.settle()


def test_a_callback_before_the_end_is_seen() -> None:
    world = Simulation()
    world.alive(lambda: world.ask("r"))
    headers = {"webhook-id": f"msg_{world.accepted[0]}_0"}
    with pytest.raises(InvariantViolated, match="I6"):
        world.alive(lambda: world.post_callback("https://r.io/", b"{}", headers))


def test_an_end_that_is_written_twice_is_seen() -> None:
    world = Simulation()
    world.alive(lambda: world.ask("r", reply_to=False))
    world.alive(lambda: world.work(world.accepted[0]))
    item = world.backend.seen.items[world.accepted[0]]  # pyright: ignore
    item["completed_at"] += 1
    with pytest.raises(InvariantViolated, match="I1"):
        world.alive(lambda: None)
