"""State of tables, bucket and queues with jobs in every stage: `python -m tests.recorded_state` records it.

It writes the last of FILES, which later versions must read, complete and deliver. When the stored format changes on
purpose, add a file and record it; the older ones stay.
"""

import base64
import itertools
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.artifacts import ArtifactSecrets
from aiserver.aws.bodies import ITEM
from aiserver.aws.config import DynamoConfig
from aiserver.aws.items import pack
from aiserver.circuit_breaker.circuit import PROVIDER_GATE, CallStats, Circuit, Gate
from aiserver.errors import ProviderError, ProviderRejected
from aiserver.jobs.transitions import CLAIM, CLAIM_DELIVERY, MARK_CALL
from aiserver.providers.provider import ModelListing, Provider
from aiserver.providers.response import ProviderResponse
from aiserver.webhooks.client import DeliveryResult
from local import aws
from local.ministack import running
from tests.app import CALLBACK_LEASE_MS, LEASE_MS
from tests.contract.conftest import table_properties
from tests.crash.backends import BUCKET, OWNER, EmbeddedCloudBackend
from tests.crash.simulation import Message, Simulation, provider_error

FOLDER = Path(__file__).parent / "vectors"
FILES = (FOLDER / "state.json", FOLDER / "state-audio.json")
FIRST_TOKEN = 10_000  # of a simulation that resumes a recorded state: no token is issued twice
CONFIG = "recorded-config"
KEY = ApiKey("k-full", "full", "5e8848", 1, 2, None, ("hooks.example.com", "*.example.org"))
SECRETS = WebhookSecrets("whsec_bmV3", "whsec_b2xk", 4)
EARLIER_KEY = {  # stored by version 0.1.0: the webhook secret is in the key's item
    "pk": "KEY",
    "sk": "k-earlier",
    "id": "k-earlier",
    "name": "earlier",
    "secret_hash": "5e8848",
    "created_at": 1,
    "webhook_secret": "whsec_b2xk",
}
PROVIDER = Provider.model_validate({"name": "p", "base_url": "http://127.0.0.1:1/v1", "models": {"m": "upstream-m"}})
LISTING = ModelListing(("m", "n"), 7)
ARTIFACT_SECRETS = ArtifactSecrets("6e6577", "6f6c64", 4)
SYNC_CALL = 4  # number of the provider's call in the first synchronous request, after RefId, job and circuits
SPEECH = ProviderResponse(200, {"content-type": "audio/mpeg"}, b"ID3 audio")
TRANSCRIPT = ProviderResponse(200, {"content-type": "text/plain; charset=utf-8"}, b"hi")
CIRCUIT = Circuit(
    {
        PROVIDER_GATE: Gate(CallStats({1_799_999_990: (1, 2)}, 5, 6, ((1_799_999_990_000, ""),))),
        ("", "m"): Gate(CallStats({}, 5, 6, ((7, ""),)), 1_800_000_020_000),
        (OWNER, "m"): Gate(CallStats({1_799_999_991: (0, 5)}, 0, 6, ((7, "hash"), (8, "")))),
    },
    "stamp",
)


def record(endpoint_url: str) -> dict[str, Any]:
    """Create jobs in every state, with their bodies and messages, in the embedded cloud at `endpoint_url`."""
    simulation = Simulation(partial(EmbeddedCloudBackend, endpoint_url))
    jobs = _jobs(simulation)
    now = simulation.clock.now
    simulation.backend.circuits.replace("p", Circuit(), CIRCUIT)
    simulation.backend.leases.acquire("provider#p", [0], now_ms=now, expires_ms=now + LEASE_MS)
    simulation.backend.leases.acquire(f"callbacks#{OWNER}#r.io", [3], now_ms=now, expires_ms=now + CALLBACK_LEASE_MS)
    dynamodb = aws.client("dynamodb", endpoint_url)
    _make_config_table(dynamodb)
    config = DynamoConfig(CONFIG, dynamodb)
    config.put_key(KEY, SECRETS)
    dynamodb.put_item(TableName=CONFIG, Item=pack(EARLIER_KEY))
    config.replace_provider("p", None, PROVIDER)
    config.put_model_listing("p", LISTING)
    config.replace_artifact_secrets(None, ARTIFACT_SECRETS)
    tables = {kind: _items(dynamodb, table) for kind, table in _tables(dynamodb).items()}
    return {
        "now": now,
        "jobs": jobs,
        "paid": {str(job_id): calls for job_id, calls in simulation.billed_calls.items()},
        "messages": [vars(message) for message in simulation.messages],
        "tables": tables,
        "objects": _objects(aws.client("s3", endpoint_url), tables["jobs"]),
    }


def restore_state(state: Mapping[str, Any], endpoint_url: str) -> Simulation:
    """Return a simulation that resumes a recorded state, in the embedded cloud at `endpoint_url`."""
    simulation = Simulation(partial(EmbeddedCloudBackend, endpoint_url))
    simulation.clock.now = state["now"]
    simulation.clock._sequence = itertools.count(FIRST_TOKEN)
    dynamodb, s3 = aws.client("dynamodb", endpoint_url), aws.client("s3", endpoint_url)
    _make_config_table(dynamodb)
    tables = _tables(dynamodb)
    for kind, items in state["tables"].items():
        for item in items:
            dynamodb.put_item(TableName=tables[kind], Item=_decode(item))
    for key, body in state["objects"].items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body.encode())
    simulation.messages = [Message(**message) for message in state["messages"]]
    simulation.job_ids = list(state["jobs"].values())
    simulation.billed_calls = {int(job_id): calls for job_id, calls in state["paid"].items()}
    return simulation


def _tables(dynamodb: Any) -> dict[str, str]:
    """Return the table names by kind; the simulation numbers its jobs table."""
    (jobs,) = (name for name in dynamodb.list_tables()["TableNames"] if name.startswith("crash-"))
    return {"jobs": jobs, "config": CONFIG}


def _make_config_table(dynamodb: Any) -> None:
    if CONFIG in dynamodb.list_tables()["TableNames"]:
        dynamodb.delete_table(TableName=CONFIG)
    dynamodb.create_table(**table_properties("ConfigTable") | {"TableName": CONFIG})


def _jobs(simulation: Simulation) -> dict[str, int]:
    """Create one job per name, in the state of that name."""
    jobs: dict[str, int] = {}

    def accept(name: str, **options: Any) -> int:
        return queue(name, partial(simulation.submit, **options))

    def queue(name: str, submit: Callable[[str], None]) -> int:
        simulation.run_process(lambda: submit(name))
        jobs[name] = simulation.job_ids[-1]
        return jobs[name]

    def chat(name: str, *outcomes: ProviderError, **fault: Any) -> None:
        simulation.dispatcher.outcomes = list(outcomes)
        simulation.run_process(lambda: simulation.chat(name), **fault)
        (jobs[name],) = (job.id for job in simulation.backend.all_jobs() if job.ref_id == name)

    def work(job_id: int, *outcomes: ProviderError | ProviderResponse) -> None:
        simulation.dispatcher.outcomes = list(outcomes)
        simulation.messages = [message for message in simulation.messages if message.job_id != job_id]
        simulation.run_process(lambda: simulation.run_worker(job_id))

    def claim(job_id: int, *, has_call: bool) -> None:
        now, fence = simulation.clock.now, {"attempt": 1, "lease_token": f"dead-{job_id}"}
        simulation.messages = [message for message in simulation.messages if message.job_id != job_id]
        simulation.backend.job_store.apply(CLAIM, job_id, {"now": now, **fence, "lease_until": now + LEASE_MS})
        if has_call:
            call = {"now": now, "call_queue": "hosted", "calls": 1, "maybe_billed": 0}
            simulation.backend.job_store.apply(MARK_CALL, job_id, fence | call)
            simulation.billed_calls[job_id] = 1

    accept("queued")
    accept("queued for a GPU", gpu=True)
    accept("queued, large", large=True)
    accept("queued, without a ReplyTo", reply_to=False)
    work(accept("waits"), provider_error("rate limited"))
    claim(accept("claimed"), has_call=False)
    claim(accept("called"), has_call=True)
    claim(accept("cancel requested"), has_call=False)
    simulation.run_process(lambda: simulation.cancel(jobs["cancel requested"]))
    work(accept("callback pending"))
    work(accept("callback pending, large", large=True))
    work(accept("failed"), ProviderRejected(upstream=ProviderResponse(400, {}, b'{"error":{"message":"no"}}')))
    for name, delivery in (
        ("callback waits", DeliveryResult(503, "status 503")),
        ("callback dead", DeliveryResult(410, "gone")),
    ):
        work(accept(name))
        simulation.webhook_client.outcomes = [delivery]
        simulation.run_process(lambda name=name: simulation.deliver(jobs[name]))
    work(accept("callback leased"))
    leased = simulation.load_job(jobs["callback leased"])
    simulation.messages = [message for message in simulation.messages if message.job_id != leased.id]
    lease = {
        "callback_token": "dead-deliverer",
        "callback_lease_until": simulation.clock.now + CALLBACK_LEASE_MS,
        "max_attempts": 10,
    }
    simulation.backend.job_store.apply(
        CLAIM_DELIVERY, leased.id, {"now": simulation.clock.now, "completed_at": leased.completed_at, **lease}
    )
    chat("synchronous, called", at=SYNC_CALL, after=True)
    chat("synchronous, completed")
    chat("synchronous, failed", provider_error("unavailable"))
    queue("speech, queued", simulation.submit_speech)
    work(queue("speech, callback pending", simulation.submit_speech), SPEECH)
    queue("transcription, queued", simulation.submit_transcription)
    work(queue("transcription, callback pending", simulation.submit_transcription), TRANSCRIPT)
    return jobs


def _items(dynamodb: Any, table: str) -> list[dict[str, Any]]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table)
    items = [_encode(item) for page in pages for item in page["Items"]]
    return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def _objects(s3: Any, items: list[dict[str, Any]]) -> dict[str, str]:
    """Return the S3 objects that the items refer to."""
    locations = {item[name]["S"] for item in items for name in ("request_at", "result_at") if name in item}
    keys = sorted(locations - {ITEM})
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in keys}


def _encode(item: Mapping[str, Any]) -> dict[str, Any]:
    """Encode bytes as base64 for JSON."""
    return {
        name: {"B": base64.b64encode(bytes(value["B"])).decode()} if "B" in value else value
        for name, value in item.items()
    }


def _decode(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"B": base64.b64decode(value["B"])} if "B" in value else value for name, value in item.items()}


if __name__ == "__main__":
    with TemporaryDirectory() as folder, running(Path(folder)) as endpoint_url:
        FILES[-1].write_text(json.dumps(record(endpoint_url), indent=1) + "\n")
