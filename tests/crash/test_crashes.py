"""A process may die before or after any call to a dependency: each crash point, over fakes and over the cloud."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from aiserver.jobs.states import CallbackState, JobState
from tests.crash.backends import BackendFactory, EmbeddedCloudBackend, FakeBackend
from tests.crash.simulation import Simulation
from tests.examples import note_case, sample

STEPS = ("accept", "work", "finished", "reply", "sweep")
# Number of calls per step without faults: ports of the fakes or AWS APIs (one more S3 object for a large body).
CALLS = {
    "fakes": {"accept": 2, "work": 6, "finished": 2, "reply": 7, "sweep": 12},
    "cloud": {"accept": 2, "work": 6, "finished": 2, "reply": 7, "sweep": 12},
    "cloud, large bodies": {"accept": 3, "work": 7, "finished": 2, "reply": 7, "sweep": 12},
}


@dataclass(frozen=True)
class CrashPoint:
    """The call and the step at which a process dies."""

    step: str
    at: int
    after: bool


CRASH_POINTS = {
    kind: [CrashPoint(step, at, after) for step in STEPS for at in range(1, calls[step] + 1) for after in (False, True)]
    for kind, calls in CALLS.items()
}


def run_steps(
    simulation: Simulation, *, gpu: bool = False, large: bool = False, crash: CrashPoint | None = None
) -> dict[str, int]:
    """Run one job from submission to callback, with a crash in one step; return the number of calls of each step."""
    call_counts: dict[str, int] = {}

    def step(name: str, action: Callable[[], object]) -> None:
        def run_and_count() -> None:
            try:
                action()
            finally:
                call_counts[name] = simulation.fault_points.calls

        crashes = crash is not None and crash.step == name
        simulation.run_process(
            run_and_count, at=crash.at if crash and crashes else None, after=bool(crash and crash.after)
        )

    submit = partial(simulation.submit, "r", gpu=gpu, large=large)
    step("accept", submit)
    if not simulation.job_ids:  # the caller got no response and retries
        simulation.run_process(submit)
    (job_id,) = simulation.job_ids
    if crash and crash.step == "sweep":
        simulation.messages.clear()  # lost: the sweeper has work to do
        simulation.clock.advance(61)
        step("sweep", simulation.sweep)
    if simulation.messages:
        simulation.messages.pop(0)
        step("work", lambda: simulation.run_worker(job_id))
    step("finished", lambda: simulation.publish_stream_record(job_id))
    if callbacks := [message for message in simulation.messages if message.kind == "callback"]:
        simulation.messages.remove(callbacks[0])
        step("reply", lambda: simulation.deliver(job_id))
    simulation.settle()
    return call_counts


def check_job(simulation: Simulation, crash: CrashPoint) -> None:
    job = simulation.load_job(simulation.job_ids[0])
    if crash.step != "work":
        assert job.state == JobState.COMPLETED
        assert len(simulation.dispatcher.calls) == 1
    elif job.call_queue != "gpu" and job.state == JobState.FAILED:
        assert (job.error_code, job.maybe_billed) == ("ProviderTimeout", 1)
    else:
        assert job.state == JobState.COMPLETED
    assert job.callback == CallbackState.DELIVERED


def test_crash_points_cover_every_call(ministack: str) -> None:
    backends: dict[str, BackendFactory] = {
        "fakes": FakeBackend,
        "cloud": partial(EmbeddedCloudBackend, ministack),
        "cloud, large bodies": partial(EmbeddedCloudBackend, ministack),
    }
    for kind, backend in backends.items():
        large = "large" in kind
        call_counts = run_steps(Simulation(backend), large=large)
        call_counts["sweep"] = run_steps(Simulation(backend), large=large, crash=CrashPoint("sweep", 99, after=False))[
            "sweep"
        ]
        assert call_counts == CALLS[kind], kind
    assert sum(len(crash_points) for crash_points in CRASH_POINTS.values()) == 2 * (29 + 29 + 31)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("crash", CRASH_POINTS["fakes"])
def test_process_may_die_at_any_call(crash: CrashPoint, gpu: bool) -> None:
    simulation = Simulation()
    run_steps(simulation, gpu=gpu, crash=crash)
    check_job(simulation, crash)


@pytest.mark.parametrize(("step", "gpu", "large"), [*((step, False, True) for step in STEPS), ("work", True, False)])
def test_process_may_die_at_any_call_to_the_embedded_cloud(step: str, gpu: bool, large: bool, ministack: str) -> None:
    crash_points = [crash for crash in CRASH_POINTS["cloud, large bodies" if large else "cloud"] if crash.step == step]
    for crash in sample(crash_points, f"{step} {gpu}", share=3):
        with note_case(crash):
            simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
            run_steps(simulation, gpu=gpu, large=large, crash=crash)
            check_job(simulation, crash)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", range(1, 51))
def test_worker_may_die_at_any_call_of_a_batch_of_ten(at: int, after: bool) -> None:
    simulation = Simulation()
    for number in range(10):
        simulation.run_process(partial(simulation.submit, f"r{number}", gpu=number % 2 == 0))
    simulation.messages.clear()
    assert not simulation.run_process(lambda: simulation.run_worker(*simulation.job_ids), at=at, after=after)
    simulation.settle()
    assert {simulation.load_job(job_id).callback for job_id in simulation.job_ids} == {CallbackState.DELIVERED}
