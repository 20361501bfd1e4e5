"""A process may die before or after any call to the outside: each such point in turn, over fakes and over the cloud."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from aiserver.jobs.states import CallbackState, JobState
from tests.crash.backends import EmbeddedCloudBackend, FakeBackend, OpenPlace
from tests.crash.simulation import Simulation
from tests.examples import naming, sample

STEPS = ("accept", "work", "finished", "reply", "sweep")
# What each step calls when all goes well: a port of the fakes, or an API of AWS (an S3 object more for a large body).
CALLS = {
    "fakes": {"accept": 2, "work": 6, "finished": 2, "reply": 7, "sweep": 12},
    "cloud": {"accept": 2, "work": 6, "finished": 2, "reply": 7, "sweep": 12},
    "cloud, large bodies": {"accept": 3, "work": 7, "finished": 2, "reply": 7, "sweep": 12},
}


@dataclass(frozen=True)
class Death:
    """At which call of which step a process dies."""

    step: str
    at: int
    after: bool


DEATHS = {
    kind: [Death(step, at, after) for step in STEPS for at in range(1, calls[step] + 1) for after in (False, True)]
    for kind, calls in CALLS.items()
}


def lead(world: Simulation, *, gpu: bool = False, large: bool = False, death: Death | None = None) -> dict[str, int]:
    """One job from its acceptance to its callback, one step dying; then peace. How many calls each step made."""
    counted: dict[str, int] = {}

    def step(name: str, deed: Callable[[], object]) -> None:
        def counting() -> None:
            try:
                deed()
            finally:
                counted[name] = world.crashes.calls

        dies = death is not None and death.step == name
        world.alive(counting, at=death.at if death and dies else None, after=bool(death and death.after))

    ask = partial(world.ask, "r", gpu=gpu, large=large)
    step("accept", ask)
    if not world.accepted:  # the caller heard nothing, and asks again
        world.alive(ask)
    (job_id,) = world.accepted
    if death and death.step == "sweep":
        world.bag.clear()  # lost: the sweeper has something to do
        world.clock.advance(61)
        step("sweep", world.sweep)
    if world.bag:
        world.bag.pop(0)
        step("work", lambda: world.work(job_id))
    step("finished", lambda: world.stream(job_id))
    if callbacks := [message for message in world.bag if message.kind == "callback"]:
        world.bag.remove(callbacks[0])
        step("reply", lambda: world.reply(job_id))
    world.settle()
    return counted


def check(world: Simulation, death: Death) -> None:
    job = world.now_of(world.accepted[0])
    if death.step != "work":
        assert job.state == JobState.COMPLETED
        assert len(world.protocol.calls) == 1
    elif job.call_queue != "gpu" and job.state == JobState.FAILED:
        assert (job.error_code, job.maybe_billed) == ("ProviderTimeout", 1)
    else:
        assert job.state == JobState.COMPLETED
    assert job.callback == CallbackState.DELIVERED


def test_the_crash_points_are_all_there(ministack: str) -> None:
    places: dict[str, OpenPlace] = {
        "fakes": FakeBackend,
        "cloud": partial(EmbeddedCloudBackend, ministack),
        "cloud, large bodies": partial(EmbeddedCloudBackend, ministack),
    }
    for kind, place in places.items():
        large = "large" in kind
        counted = lead(Simulation(place), large=large)
        counted["sweep"] = lead(Simulation(place), large=large, death=Death("sweep", 99, after=False))["sweep"]
        assert counted == CALLS[kind], kind
    assert sum(len(deaths) for deaths in DEATHS.values()) == 2 * (29 + 29 + 31)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("death", DEATHS["fakes"])
def test_a_process_may_die_at_any_call(death: Death, gpu: bool) -> None:
    world = Simulation()
    lead(world, gpu=gpu, death=death)
    check(world, death)


@pytest.mark.parametrize(("step", "gpu", "large"), [*((step, False, True) for step in STEPS), ("work", True, False)])
def test_a_process_may_die_at_any_call_to_the_embedded_cloud(step: str, gpu: bool, large: bool, ministack: str) -> None:
    deaths = [death for death in DEATHS["cloud, large bodies" if large else "cloud"] if death.step == step]
    for death in sample(deaths, f"{step} {gpu}", share=3):
        with naming(death):
            world = Simulation(partial(EmbeddedCloudBackend, ministack))
            lead(world, gpu=gpu, large=large, death=death)
            check(world, death)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 51))
def test_a_worker_may_die_at_any_call_of_a_batch_of_ten(at: int, after: bool) -> None:
    world = Simulation()
    for number in range(10):
        world.alive(partial(world.ask, f"r{number}", gpu=number % 2 == 0))
    world.bag.clear()
    assert not world.alive(lambda: world.work(*world.accepted), at=at, after=after)
    world.settle()
    assert {world.now_of(job_id).callback for job_id in world.accepted} == {CallbackState.DELIVERED}
