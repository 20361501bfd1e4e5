"""State of an earlier version is read, finished and delivered; an earlier version can read the state of this one.

Each state is recorded once, by `python -m tests.recorded_state`, and kept while the code changes.
"""

import json
import re
from typing import Any

import pytest

from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.aws.config import DynamoConfig
from aiserver.jobs.states import CallbackState, JobState
from aiserver.wire.forms import parse_form
from local import aws
from tests import recorded_state
from tests.crash.backends import OWNER
from tests.crash.simulation import Simulation

STATES = {path.name: json.loads(path.read_text()) for path in recorded_state.FILES}
LATEST = STATES[recorded_state.FILES[-1].name]
# The final job state and callback state of each recorded job.
FINAL_STATES = {
    "queued": (JobState.COMPLETED, CallbackState.DELIVERED),
    "queued for a GPU": (JobState.COMPLETED, CallbackState.DELIVERED),
    "queued, large": (JobState.COMPLETED, CallbackState.DELIVERED),
    "queued, without a ReplyTo": (JobState.COMPLETED, CallbackState.NONE),
    "waits": (JobState.COMPLETED, CallbackState.DELIVERED),
    "claimed": (JobState.COMPLETED, CallbackState.DELIVERED),
    "called": (JobState.FAILED, CallbackState.DELIVERED),
    "cancel requested": (JobState.CANCELLED, CallbackState.DELIVERED),
    "callback pending": (JobState.COMPLETED, CallbackState.DELIVERED),
    "callback pending, large": (JobState.COMPLETED, CallbackState.DELIVERED),
    "failed": (JobState.FAILED, CallbackState.DELIVERED),
    "callback waits": (JobState.COMPLETED, CallbackState.DELIVERED),
    "callback dead": (JobState.COMPLETED, CallbackState.DEAD),
    "callback leased": (JobState.COMPLETED, CallbackState.DELIVERED),
    "synchronous, called": (JobState.FAILED, CallbackState.NONE),
    "synchronous, completed": (JobState.COMPLETED, CallbackState.NONE),
    "synchronous, failed": (JobState.FAILED, CallbackState.NONE),
    "speech, queued": (JobState.COMPLETED, CallbackState.DELIVERED),
    "speech, callback pending": (JobState.COMPLETED, CallbackState.DELIVERED),
    "transcription, queued": (JobState.COMPLETED, CallbackState.DELIVERED),
    "transcription, callback pending": (JobState.COMPLETED, CallbackState.DELIVERED),
}


@pytest.fixture(params=STATES)
def state(request: pytest.FixtureRequest) -> dict[str, Any]:
    return STATES[request.param]


@pytest.fixture
def simulation(state: dict[str, Any], ministack: str) -> Simulation:
    return recorded_state.restore_state(state, ministack)


@pytest.mark.parametrize("with_messages", [True, False])
def test_recorded_jobs_are_finished_and_their_callbacks_delivered(
    simulation: Simulation, state: dict[str, Any], with_messages: bool
) -> None:
    if not with_messages:
        simulation.messages.clear()
    simulation.settle()
    final_states = {
        name: (simulation.load_job(job_id).state, simulation.load_job(job_id).callback)
        for name, job_id in state["jobs"].items()
    }
    assert final_states == {name: FINAL_STATES[name] for name in state["jobs"]}


def test_latest_state_contains_a_job_in_every_stage() -> None:
    assert LATEST["jobs"].keys() == FINAL_STATES.keys()


def test_recorded_bodies_are_read_completely(simulation: Simulation, state: dict[str, Any]) -> None:
    for name, is_large in (("callback pending", False), ("callback pending, large", True)):
        job = simulation.load_job(state["jobs"][name])
        request, result = simulation.backend.job_store.read_request(job), simulation.backend.job_store.read_result(job)
        assert json.loads(request or b"")["model"] == "m"
        assert (len(request or b"") > 32 * 1024) is (len(result or b"") > 32 * 1024) is is_large


def test_recorded_media_are_read_completely(ministack: str) -> None:
    simulation = recorded_state.restore_state(LATEST, ministack)
    speech = simulation.load_job(LATEST["jobs"]["speech, callback pending"])
    assert speech.has_file
    assert (speech.request_name, speech.client_state, speech.ignored) == ("QueueTextToSpeech", "s", "seed")
    assert simulation.backend.job_store.read_result(speech) == recorded_state.SPEECH.body
    transcription = simulation.load_job(LATEST["jobs"]["transcription, callback pending"])
    request = simulation.backend.job_store.read_request(transcription)
    assert [part.name for part in parse_form(request or b"", transcription.request_type or "")] == ["model", "file"]
    assert transcription.result_type == "text/plain; charset=utf-8"
    assert simulation.backend.job_store.read_result(transcription) == recorded_state.TRANSCRIPT.body


def test_recorded_ref_ids_find_their_jobs(simulation: Simulation, state: dict[str, Any]) -> None:
    for name, job_id in state["jobs"].items():
        job = simulation.backend.job_store.find_by_ref_id(OWNER, name, now_ms=simulation.clock.now)
        assert job
        assert job.id == job_id


@pytest.mark.usefixtures("simulation")
def test_recorded_configuration_is_read(state: dict[str, Any], ministack: str) -> None:
    config = DynamoConfig(recorded_state.CONFIG, aws.client("dynamodb", ministack))
    earlier = ApiKey("k-earlier", "earlier", "5e8848", 1)
    assert sorted(config.keys(), key=lambda key: key.id) == [earlier, recorded_state.KEY]
    assert config.webhook_secrets("k-full") == recorded_state.SECRETS
    assert config.webhook_secrets("k-earlier") == WebhookSecrets("whsec_b2xk")
    assert config.providers() == [recorded_state.PROVIDER]
    assert config.model_listings() == {"p": recorded_state.LISTING}
    assert config.artifact_secrets() == (recorded_state.ARTIFACT_SECRETS if state is LATEST else None)


def test_recorded_circuits_and_leases_are_read(simulation: Simulation) -> None:
    assert simulation.backend.circuits.read_all()["p"] == recorded_state.CIRCUIT
    names = ["provider#p", f"callbacks#{OWNER}#r.io"]
    assert simulation.backend.leases.count_active(names, now_ms=simulation.clock.now) == dict.fromkeys(names, 1)


def test_stored_format_equals_the_recorded_one(ministack: str) -> None:
    """Attributes, types and keys of all items, names of objects and bodies of messages: earlier versions read them."""
    assert _format(recorded_state.record(ministack)) == _format(LATEST)


def _format(state: dict[str, Any]) -> dict[str, object]:
    items = [item for table in state["tables"].values() for item in table]
    return {
        "items": sorted({_key(item["pk"]["S"]) + " " + _attributes(item) for item in items}),
        "objects": sorted({_key(name) for name in state["objects"]}),
        "messages": sorted(
            {f"{message['kind']} {sorted(json.loads(message['body']))}" for message in state["messages"]}
        ),
    }


def _attributes(item: dict[str, Any]) -> str:
    return ", ".join(f"{name}:{next(iter(value))}" for name, value in sorted(item.items()))


def _key(name: str) -> str:
    """The key of a partition or an object without ids and tokens."""
    return re.sub(r"(?<=-)[0-9a-f]{16,}|\d{6,}", "*", name)
