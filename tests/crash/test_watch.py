"""The simulation detects invariant violations: one inside a handler fails the test."""

import pytest

from tests.crash.fault_points import InvariantViolated
from tests.crash.simulation import Simulation


def test_second_billed_call_is_detected() -> None:
    simulation = Simulation()
    simulation.run_process(lambda: simulation.submit("r"))
    simulation.billed_calls[simulation.job_ids[0]] = 1
    with pytest.raises(InvariantViolated, match="I3"):
        simulation.settle()


def test_callback_before_the_terminal_state_is_detected() -> None:
    simulation = Simulation()
    simulation.run_process(lambda: simulation.submit("r"))
    headers = {"webhook-id": f"msg_{simulation.job_ids[0]}_0"}
    with pytest.raises(InvariantViolated, match="I6"):
        simulation.run_process(lambda: simulation.post_callback("https://r.io/", b"{}", headers))


def test_second_terminal_state_is_detected() -> None:
    simulation = Simulation()
    simulation.run_process(lambda: simulation.submit("r", reply_to=False))
    simulation.run_process(lambda: simulation.run_worker(simulation.job_ids[0]))
    item = simulation.backend.job_store.items[simulation.job_ids[0]]  # pyright: ignore
    item["completed_at"] += 1
    with pytest.raises(InvariantViolated, match="I1"):
        simulation.run_process(lambda: None)
