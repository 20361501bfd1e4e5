"""A worker may die at any call while a circuit opens, is probed and closes: no job is lost, no circuit stays open."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from aiserver.circuit_breaker.circuit import CONFIRM_MS, FAILURE_THRESHOLD, OPEN_MS, PROBE_TIMEOUT_MS, Circuit
from aiserver.jobs.states import JobState
from tests.crash.backends import OWNER, EmbeddedCloudBackend
from tests.crash.simulation import Simulation, provider_error

# The number of calls of a cold worker in each step; a test compares them with the actual calls.
CALLS = {"opens": 8, "probe fails": 9, "probe succeeds": 8}
DOWN, HEALTHY = "unavailable", None


@dataclass(frozen=True)
class CrashPoint:
    """The call and the step at which a worker dies."""

    step: str
    at: int
    after: bool


CRASH_POINTS = [
    CrashPoint(step, at, after)
    for step, calls in CALLS.items()
    for at in range(1, calls + 1)
    for after in (False, True)
]


@dataclass
class Step:
    """The names of its worker's calls, and whether the circuit is open after it."""

    calls: list[str] = field(default_factory=list[str])
    is_open: bool = False


def run_steps(simulation: Simulation, crash: CrashPoint | None = None) -> dict[str, Step]:
    """Run a provider that fails until its circuit opens, then fails one probe and passes the next."""
    steps: dict[str, Step] = defaultdict(Step)

    def step(name: str, outcome: str | None) -> None:
        simulation.dispatcher.outcomes = [provider_error(outcome)] if outcome else []
        number = len(simulation.job_ids)
        simulation.run_process(lambda: simulation.submit(f"job-{number}"))

        def work() -> None:
            try:
                simulation.run_worker(simulation.job_ids[number])
            finally:
                steps[name].calls = simulation.fault_points.names

        crashes = crash is not None and crash.step == name
        simulation.run_process(work, at=crash.at if crash and crashes else None, after=bool(crash and crash.after))
        simulation.dispatcher.outcomes = []
        circuit = simulation.backend.circuits.read_all().get("hosted", Circuit())
        steps[name].is_open = circuit.retry_at(OWNER, "m") is not None
        simulation.fault_points.begin()

    for _ in range(FAILURE_THRESHOLD - 1):
        step("fails", DOWN)
        simulation.clock.advance(CONFIRM_MS / 1000 / 2)
    step("opens", DOWN)
    simulation.clock.advance(OPEN_MS / 1000)
    step("probe fails", DOWN)
    simulation.clock.advance((OPEN_MS + PROBE_TIMEOUT_MS) / 1000)  # the probe of a dead worker has timed out by then
    step("probe succeeds", HEALTHY)
    return steps


def check_all_jobs_completed(simulation: Simulation) -> None:
    """All jobs are in a terminal state, and the provider serves the next one at once."""
    simulation.settle()
    simulation.clock.advance((OPEN_MS + PROBE_TIMEOUT_MS) / 1000)
    simulation.run_process(lambda: simulation.submit("next"))
    simulation.run_process(lambda: simulation.run_worker(simulation.job_ids[-1]))
    assert simulation.load_job(simulation.job_ids[-1]).state == JobState.COMPLETED


def test_circuit_opens_is_probed_and_closes() -> None:
    simulation = Simulation()
    steps = run_steps(simulation)
    assert {name: len(steps[name].calls) for name in CALLS} == CALLS
    assert {name: step.is_open for name, step in steps.items()} == {
        "fails": False,
        "opens": True,
        "probe fails": True,
        "probe succeeds": False,
    }
    check_all_jobs_completed(simulation)


@pytest.mark.parametrize("crash", CRASH_POINTS, ids=str)
def test_worker_may_die_at_any_call_while_a_circuit_changes(crash: CrashPoint) -> None:
    simulation = Simulation()
    run_steps(simulation, crash)
    check_all_jobs_completed(simulation)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", CALLS)
def test_worker_may_die_at_a_circuit_write_in_the_embedded_cloud(step: str, after: bool, ministack: str) -> None:
    backend: Callable[..., EmbeddedCloudBackend] = partial(EmbeddedCloudBackend, ministack)
    calls = run_steps(Simulation(backend))[step].calls
    write = len(calls) - calls[::-1].index("put_item")  # number of the last one, counted from one
    simulation = Simulation(backend)
    crashed_step = run_steps(simulation, CrashPoint(step, write, after))[step]
    assert crashed_step.calls == calls[:write]
    check_all_jobs_completed(simulation)
