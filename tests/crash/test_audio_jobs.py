"""A job for audio: its worker may die at any call, and a completed job always has its file or its transcript."""

from collections.abc import Callable
from functools import partial

import pytest

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from tests.crash.backends import EmbeddedCloudBackend
from tests.crash.simulation import Simulation
from tests.examples import note_case, sample
from tests.recorded_state import SPEECH, TRANSCRIPT

WORKER_CALLS = 8  # more than a worker makes for one job
POINTS = [(at, after) for at in range(1, WORKER_CALLS) for after in (False, True)]
KINDS = ("speech", "transcription")


def run_job(simulation: Simulation, kind: str, at: int, *, after: bool) -> Job:
    """Queue a job whose worker dies at its call number `at`, and let the system settle."""
    response = SPEECH if kind == "speech" else TRANSCRIPT
    submit: Callable[[str], None] = getattr(simulation, f"submit_{kind}")
    simulation.run_process(partial(submit, "r"))
    (job_id,) = simulation.job_ids
    simulation.dispatcher.outcomes = [response] * 4
    simulation.messages.pop(0)
    simulation.run_process(partial(simulation.run_worker, job_id), at=at, after=after)
    simulation.settle()
    return simulation.load_job(job_id)


def check_job(simulation: Simulation, job: Job, kind: str) -> None:
    response = SPEECH if kind == "speech" else TRANSCRIPT
    assert job.callback == CallbackState.DELIVERED
    if job.state == JobState.FAILED:
        assert (job.error_code, job.maybe_billed, job.result_location) == ("ProviderTimeout", 1, None)
        return
    assert (job.state, job.has_file) == (JobState.COMPLETED, kind == "speech")
    assert simulation.backend.job_store.read_result(job) == response.body


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("at", "after"), POINTS)
def test_worker_may_die_at_any_call_of_an_audio_job(at: int, after: bool, kind: str) -> None:
    simulation = Simulation()
    check_job(simulation, run_job(simulation, kind, at, after=after), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_worker_may_die_at_any_call_to_the_embedded_cloud(kind: str, ministack: str) -> None:
    for at, after in sample(POINTS, kind, share=3):
        with note_case((at, after)):
            simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
            check_job(simulation, run_job(simulation, kind, at, after=after), kind)
