"""What a version leaves in tables, bucket and queues in the middle of its work: `python -m tests.recorded_state`.

It writes tests/vectors/state.json, which later versions must read, finish and deliver. Record it anew only when the
stored form changes on purpose, and keep the older file beside it.
"""

import base64
import itertools
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.aws.bodies import ITEM
from aiserver.aws.config import DynamoConfig
from aiserver.aws.items import pack
from aiserver.errors import ProviderError, ProviderRejected, ProviderResponse
from aiserver.jobs.transitions import CLAIM, CLAIM_DELIVERY, MARK_CALL
from aiserver.providers.circuit import PROVIDER_GATE, CallStats, Circuit, Gate
from aiserver.providers.provider import ModelListing, Provider
from aiserver.webhooks.client import DeliveryResult
from local import aws
from local.ministack import running
from tests.app import CALLBACK_LEASE_MS, LEASE_MS
from tests.contract.conftest import table_properties
from tests.crash.backends import BUCKET, OWNER, EmbeddedCloudBackend
from tests.crash.simulation import Message, Simulation, provider_error

FILE = Path(__file__).parent / "vectors" / "state.json"
FIRST_TOKEN = 10_000  # of a world that goes on with a recorded one: no token is given twice
CONFIG = "recorded-config"
KEY = ApiKey("k-full", "full", "5e8848", 1, 2, None, ("hooks.example.com", "*.example.org"))
SECRETS = WebhookSecrets("whsec_bmV3", "whsec_b2xk", 4)
EARLIER_KEY = {  # as version 0.1.0 stored one: its webhook secrets in its own item
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
CIRCUIT = Circuit(
    {
        PROVIDER_GATE: Gate(CallStats({1_799_999_990: (1, 2)}, 5, 6, ((1_799_999_990_000, ""),))),
        ("", "m"): Gate(CallStats({}, 5, 6, ((7, ""),)), 1_800_000_020_000),
        (OWNER, "m"): Gate(CallStats({1_799_999_991: (0, 5)}, 0, 6, ((7, "hash"), (8, "")))),
    },
    "stamp",
)


def record(endpoint_url: str) -> dict[str, Any]:
    """Jobs in every state, with what belongs to them, made in the embedded cloud at that address."""
    world = Simulation(partial(EmbeddedCloudBackend, endpoint_url))
    jobs = _jobs(world)
    now = world.clock.now
    world.backend.circuits.replace("p", Circuit(), CIRCUIT)
    world.backend.slots.acquire("provider#p", [0], now_ms=now, expires_ms=now + LEASE_MS)
    world.backend.slots.acquire(f"callbacks#{OWNER}#r.io", [3], now_ms=now, expires_ms=now + CALLBACK_LEASE_MS)
    dynamodb = aws.client("dynamodb", endpoint_url)
    _make_config_table(dynamodb)
    config = DynamoConfig(CONFIG, dynamodb)
    config.put_key(KEY, SECRETS)
    dynamodb.put_item(TableName=CONFIG, Item=pack(EARLIER_KEY))
    config.replace_provider("p", None, PROVIDER)
    config.put_model_listing("p", LISTING)
    tables = {kind: _items(dynamodb, table) for kind, table in _tables(dynamodb).items()}
    return {
        "now": now,
        "jobs": jobs,
        "paid": {str(job_id): calls for job_id, calls in world.paid.items()},
        "messages": [vars(message) for message in world.bag],
        "tables": tables,
        "objects": _objects(aws.client("s3", endpoint_url), tables["jobs"]),
    }


def restored(state: Mapping[str, Any], endpoint_url: str) -> Simulation:
    """A world that goes on with a recorded state, in the embedded cloud at that address."""
    world = Simulation(partial(EmbeddedCloudBackend, endpoint_url))
    world.clock.now = state["now"]
    world.clock._made = itertools.count(FIRST_TOKEN)
    dynamodb, s3 = aws.client("dynamodb", endpoint_url), aws.client("s3", endpoint_url)
    _make_config_table(dynamodb)
    tables = _tables(dynamodb)
    for kind, items in state["tables"].items():
        for item in items:
            dynamodb.put_item(TableName=tables[kind], Item=_decoded(item))
    for key, body in state["objects"].items():
        s3.put_object(Bucket=BUCKET, Key=key, Body=body.encode())
    world.bag = [Message(**message) for message in state["messages"]]
    world.accepted = list(state["jobs"].values())
    world.paid = {int(job_id): calls for job_id, calls in state["paid"].items()}
    return world


def _tables(dynamodb: Any) -> dict[str, str]:
    """The names of the tables: the world numbers its own."""
    (jobs,) = (name for name in dynamodb.list_tables()["TableNames"] if name.startswith("crash-"))
    return {"jobs": jobs, "config": CONFIG}


def _make_config_table(dynamodb: Any) -> None:
    if CONFIG in dynamodb.list_tables()["TableNames"]:
        dynamodb.delete_table(TableName=CONFIG)
    dynamodb.create_table(**table_properties("ConfigTable") | {"TableName": CONFIG})


def _jobs(world: Simulation) -> dict[str, int]:
    """A job for each name, in the state that it tells."""
    jobs: dict[str, int] = {}

    def accept(name: str, **more: Any) -> int:
        world.alive(lambda: world.ask(name, **more))
        jobs[name] = world.accepted[-1]
        return jobs[name]

    def work(job_id: int, *outcomes: ProviderError) -> None:
        world.protocol.outcomes = list(outcomes)
        world.bag = [message for message in world.bag if message.job_id != job_id]
        world.alive(lambda: world.work(job_id))

    def claim(job_id: int, *, called: bool) -> None:
        now, fence = world.clock.now, {"attempt": 1, "lease_token": f"dead-{job_id}"}
        world.bag = [message for message in world.bag if message.job_id != job_id]
        world.backend.seen.apply(CLAIM, job_id, {"now": now, **fence, "lease_until": now + LEASE_MS})
        if called:
            marked = {"now": now, "call_queue": "hosted", "calls": 1, "maybe_billed": 0}
            world.backend.seen.apply(MARK_CALL, job_id, fence | marked)
            world.paid[job_id] = 1

    accept("queued")
    accept("queued for a GPU", gpu=True)
    accept("queued, large", large=True)
    accept("queued, without a ReplyTo", reply_to=False)
    work(accept("waits"), provider_error("slow down"))
    claim(accept("claimed"), called=False)
    claim(accept("called"), called=True)
    claim(accept("cancel requested"), called=False)
    world.alive(lambda: world.cancel(jobs["cancel requested"]))
    work(accept("callback pending"))
    work(accept("callback pending, large", large=True))
    work(accept("failed"), ProviderRejected(upstream=ProviderResponse(400, {}, b'{"error":{"message":"no"}}')))
    for name, answer in (
        ("callback waits", DeliveryResult(503, "status 503")),
        ("callback dead", DeliveryResult(410, "gone")),
    ):
        work(accept(name))
        world.replier.outcomes = [answer]
        world.alive(lambda name=name: world.reply(jobs[name]))
    work(accept("callback leased"))
    leased = world.now_of(jobs["callback leased"])
    world.bag = [message for message in world.bag if message.job_id != leased.id]
    lease = {
        "callback_token": "dead-deliverer",
        "callback_lease_until": world.clock.now + CALLBACK_LEASE_MS,
        "max_attempts": 10,
    }
    world.backend.seen.apply(
        CLAIM_DELIVERY, leased.id, {"now": world.clock.now, "completed_at": leased.completed_at, **lease}
    )
    return jobs


def _items(dynamodb: Any, table: str) -> list[dict[str, Any]]:
    pages = dynamodb.get_paginator("scan").paginate(TableName=table)
    items = [_encoded(item) for page in pages for item in page["Items"]]
    return sorted(items, key=lambda item: (item["pk"]["S"], item["sk"]["S"]))


def _objects(s3: Any, items: list[dict[str, Any]]) -> dict[str, str]:
    """Those that the items refer to."""
    places = {item[name]["S"] for item in items for name in ("request_at", "result_at") if name in item}
    keys = sorted(places - {ITEM})
    return {key: s3.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode() for key in keys}


def _encoded(item: Mapping[str, Any]) -> dict[str, Any]:
    """Bytes as base64, which JSON can hold."""
    return {
        name: {"B": base64.b64encode(bytes(value["B"])).decode()} if "B" in value else value
        for name, value in item.items()
    }


def _decoded(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: {"B": base64.b64decode(value["B"])} if "B" in value else value for name, value in item.items()}


if __name__ == "__main__":
    with TemporaryDirectory() as folder, running(Path(folder)) as endpoint_url:
        FILE.write_text(json.dumps(record(endpoint_url), indent=1) + "\n")
