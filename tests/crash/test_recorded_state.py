"""State of an earlier version is read, finished and delivered; an earlier version can read the state of this one.

The state is recorded once, by `python -m tests.recorded_state`, and kept while the code changes.
"""

import json
import re

import pytest

from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.aws.config import DynamoConfig
from aiserver.jobs.states import CallbackState, JobState
from local import aws
from tests import recorded_state
from tests.crash.backends import OWNER
from tests.crash.simulation import Simulation

STATE = json.loads(recorded_state.FILE.read_text())
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
}


@pytest.fixture
def simulation(ministack: str) -> Simulation:
    return recorded_state.restore_state(STATE, ministack)


@pytest.mark.parametrize("with_messages", [True, False])
def test_recorded_jobs_are_finished_and_their_callbacks_delivered(simulation: Simulation, with_messages: bool) -> None:
    if not with_messages:
        simulation.messages.clear()
    simulation.settle()
    final_states = {
        name: (simulation.load_job(job_id).state, simulation.load_job(job_id).callback)
        for name, job_id in STATE["jobs"].items()
    }
    assert final_states == FINAL_STATES


def test_recorded_bodies_are_read_completely(simulation: Simulation) -> None:
    for name, is_large in (("callback pending", False), ("callback pending, large", True)):
        job = simulation.load_job(STATE["jobs"][name])
        request, result = simulation.backend.job_store.read_request(job), simulation.backend.job_store.read_result(job)
        assert json.loads(request or b"")["model"] == "m"
        assert (len(request or b"") > 32 * 1024) is (len(result or b"") > 32 * 1024) is is_large


def test_recorded_ref_ids_find_their_jobs(simulation: Simulation) -> None:
    for name, job_id in STATE["jobs"].items():
        job = simulation.backend.job_store.find_by_ref_id(OWNER, name, now_ms=simulation.clock.now)
        assert job
        assert job.id == job_id


@pytest.mark.usefixtures("simulation")
def test_recorded_keys_providers_and_model_listings_are_read(ministack: str) -> None:
    config = DynamoConfig(recorded_state.CONFIG, aws.client("dynamodb", ministack))
    earlier = ApiKey("k-earlier", "earlier", "5e8848", 1)
    assert sorted(config.keys(), key=lambda key: key.id) == [earlier, recorded_state.KEY]
    assert config.webhook_secrets("k-full") == recorded_state.SECRETS
    assert config.webhook_secrets("k-earlier") == WebhookSecrets("whsec_b2xk")
    assert config.providers() == [recorded_state.PROVIDER]
    assert config.model_listings() == {"p": recorded_state.LISTING}


def test_recorded_circuits_and_leases_are_read(simulation: Simulation) -> None:
    assert simulation.backend.circuits.read_all()["p"] == recorded_state.CIRCUIT
    names = ["provider#p", f"callbacks#{OWNER}#r.io"]
    assert simulation.backend.leases.count_active(names, now_ms=simulation.clock.now) == dict.fromkeys(names, 1)


def test_stored_format_equals_the_recorded_one(ministack: str) -> None:
    """Attributes, types and keys of all items, names of objects and bodies of messages: earlier versions read them."""
    assert _format(recorded_state.record(ministack)) == _format(STATE)


def _format(state: dict) -> dict[str, object]:
    items = [item for table in state["tables"].values() for item in table]
    return {
        "items": sorted({_key(item["pk"]["S"]) + " " + _attributes(item) for item in items}),
        "objects": sorted({_key(name) for name in state["objects"]}),
        "messages": sorted(
            {f"{message['kind']} {sorted(json.loads(message['body']))}" for message in state["messages"]}
        ),
    }


def _attributes(item: dict) -> str:
    return ", ".join(f"{name}:{next(iter(value))}" for name, value in sorted(item.items()))


def _key(name: str) -> str:
    """The key of a partition or an object without ids and tokens."""
    return re.sub(r"(?<=-)[0-9a-f]{16,}|\d{6,}", "*", name)
