"""What an earlier version stored is read, finished and delivered; what this one stores, an earlier one can read.

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
# How each recorded job ends.
ENDS = {
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
def world(ministack: str) -> Simulation:
    return recorded_state.restored(STATE, ministack)


@pytest.mark.parametrize("with_messages", [True, False])
def test_every_recorded_job_is_finished_and_its_callback_delivered(world: Simulation, with_messages: bool) -> None:
    if not with_messages:
        world.bag.clear()
    world.settle()
    ends = {name: (world.now_of(job_id).state, world.now_of(job_id).callback) for name, job_id in STATE["jobs"].items()}
    assert ends == ENDS


def test_recorded_bodies_are_read_whole(world: Simulation) -> None:
    for name, is_large in (("callback pending", False), ("callback pending, large", True)):
        job = world.now_of(STATE["jobs"][name])
        request, result = world.backend.seen.read_request(job), world.backend.seen.read_result(job)
        assert json.loads(request or b"")["model"] == "m"
        assert (len(request or b"") > 32 * 1024) is (len(result or b"") > 32 * 1024) is is_large


def test_recorded_ref_ids_lead_to_their_jobs(world: Simulation) -> None:
    for name, job_id in STATE["jobs"].items():
        found = world.backend.seen.find_by_ref_id(OWNER, name, now_ms=world.clock.now)
        assert found
        assert found.id == job_id


@pytest.mark.usefixtures("world")
def test_recorded_keys_providers_and_lists_of_models_are_read(ministack: str) -> None:
    config = DynamoConfig(recorded_state.CONFIG, aws.client("dynamodb", ministack))
    earlier = ApiKey("k-earlier", "earlier", "5e8848", 1)
    assert sorted(config.keys(), key=lambda key: key.id) == [earlier, recorded_state.KEY]
    assert config.webhook_secrets("k-full") == recorded_state.SECRETS
    assert config.webhook_secrets("k-earlier") == WebhookSecrets("whsec_b2xk")
    assert config.providers() == [recorded_state.PROVIDER]
    assert config.model_listings() == {"p": recorded_state.LISTING}


def test_recorded_circuits_and_leases_are_read(world: Simulation) -> None:
    assert world.backend.circuits.read_all()["p"] == recorded_state.CIRCUIT
    names = ["provider#p", f"callbacks#{OWNER}#r.io"]
    assert world.backend.slots.count_held(names, now_ms=world.clock.now) == dict.fromkeys(names, 1)


def test_the_stored_form_is_the_recorded_one(ministack: str) -> None:
    """Attributes, types and keys of all items, names of objects and bodies of messages: earlier versions read them."""
    assert _form(recorded_state.record(ministack)) == _form(STATE)


def _form(state: dict) -> dict[str, object]:
    items = [item for table in state["tables"].values() for item in table]
    return {
        "items": sorted({_key(item["pk"]["S"]) + " " + _attributes(item) for item in items}),
        "objects": sorted({_key(name) for name in state["objects"]}),
        "messages": sorted({f"{one['kind']} {sorted(json.loads(one['body']))}" for one in state["messages"]}),
    }


def _attributes(item: dict) -> str:
    return ", ".join(f"{name}:{next(iter(value))}" for name, value in sorted(item.items()))


def _key(name: str) -> str:
    """A partition's or an object's, without ids and tokens."""
    return re.sub(r"(?<=-)[0-9a-f]{16,}|\d{6,}", "*", name)
