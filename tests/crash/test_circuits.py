"""A worker may die at any call while a circuit opens, is probed and closes: no job is lost, no circuit stays open."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from aiserver.jobs.states import JobState
from aiserver.providers.circuit import CONFIRM_MS, FAILURE_THRESHOLD, OPEN_MS, PROBE_TIMEOUT_MS, Circuit
from tests.crash.backends import OWNER, EmbeddedCloudBackend
from tests.crash.simulation import Simulation, provider_error

# The calls that a cold worker makes in each step; the test of them says when there are more.
CALLS = {"opens": 8, "probe fails": 9, "probe succeeds": 8}
DOWN, WELL = "away", None


@dataclass(frozen=True)
class Death:
    """At which call of which step a worker dies."""

    step: str
    at: int
    after: bool


DEATHS = [
    Death(step, at, after) for step, calls in CALLS.items() for at in range(1, calls + 1) for after in (False, True)
]


@dataclass
class Step:
    """The calls that its worker made, by name, and whether the circuit is open after it."""

    calls: list[str] = field(default_factory=list[str])
    is_open: bool = False


def lead(world: Simulation, death: Death | None = None) -> dict[str, Step]:
    """A provider fails until its circuit opens, fails its probe and passes the next."""
    steps: dict[str, Step] = defaultdict(Step)

    def step(name: str, outcome: str | None) -> None:
        world.protocol.outcomes = [provider_error(outcome)] if outcome else []
        number = len(world.accepted)
        world.alive(lambda: world.ask(f"job-{number}"))

        def work() -> None:
            try:
                world.work(world.accepted[number])
            finally:
                steps[name].calls = world.crashes.names

        dies = death is not None and death.step == name
        world.alive(work, at=death.at if death and dies else None, after=bool(death and death.after))
        world.protocol.outcomes = []
        circuit = world.backend.circuits.read_all().get("hosted", Circuit())
        steps[name].is_open = circuit.retry_at(OWNER, "m") is not None
        world.crashes.begin()

    for _ in range(FAILURE_THRESHOLD - 1):
        step("fails", DOWN)
        world.clock.advance(CONFIRM_MS / 1000 / 2)
    step("opens", DOWN)
    world.clock.advance(OPEN_MS / 1000)
    step("probe fails", DOWN)
    world.clock.advance((OPEN_MS + PROBE_TIMEOUT_MS) / 1000)  # a probe that died is over by then
    step("probe succeeds", WELL)
    return steps


def check(world: Simulation) -> None:
    """All jobs have ended, and the provider answers the next one at once."""
    world.settle()
    world.clock.advance((OPEN_MS + PROBE_TIMEOUT_MS) / 1000)
    world.alive(lambda: world.ask("next"))
    world.alive(lambda: world.work(world.accepted[-1]))
    assert world.now_of(world.accepted[-1]).state == JobState.COMPLETED


def test_a_circuit_opens_is_probed_and_closes() -> None:
    world = Simulation()
    steps = lead(world)
    assert {name: len(steps[name].calls) for name in CALLS} == CALLS
    assert {name: step.is_open for name, step in steps.items()} == {
        "fails": False,
        "opens": True,
        "probe fails": True,
        "probe succeeds": False,
    }
    check(world)


@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_a_worker_may_die_at_any_call_while_a_circuit_changes(death: Death) -> None:
    world = Simulation()
    lead(world, death)
    check(world)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", CALLS)
def test_a_worker_may_die_at_the_write_of_a_circuit_on_the_embedded_cloud(
    step: str, after: bool, ministack: str
) -> None:
    place: Callable[..., EmbeddedCloudBackend] = partial(EmbeddedCloudBackend, ministack)
    calls = lead(Simulation(place))[step].calls
    write = len(calls) - calls[::-1].index("put_item")  # the last: counted from one
    world = Simulation(place)
    died = lead(world, Death(step, write, after))[step]
    assert died.calls == calls[:write]
    check(world)
