"""Generates the cost table of a million jobs in docs/operate.md: `python -m docs.cost`.

The AWS calls are recorded from the real handlers (tests/aws_call_recorder.py); prices are list prices.
`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiserver import http_api
from aiserver.aws.bodies import MAX_ITEM_BODY_BYTES
from docs.generate import write
from docs.metered import CapacityUsage, indexes_of, measure_capacity
from docs.units import READ_BYTES, STORED_BYTES, TRANSACTION, WRITE_BYTES, item_bytes
from local.scripted import ScriptedProvider
from tests import aws_call_recorder, stack
from tests.aws_call_recorder import Call, RecordingStack

PAGE = Path(__file__).parent / "operate.md"
SIZES_KB = (1, 20, 200)
BODY_ITEM_BYTES = 43  # its keys, time to live and attribute names; plus or minus a byte

# List prices of us-east-1 without free tier, in dollars per million, taken on 2026-11-25 from third-party reports of
# 2020 to 2026. AWS's price pages are linked for comparison.
WRITE_UNIT, READ_UNIT = 0.625, 0.125  # https://aws.amazon.com/dynamodb/pricing/on-demand/
PUT, GET = 5.00, 0.40  # https://aws.amazon.com/s3/pricing/
SQS = 0.40  # https://aws.amazon.com/sqs/pricing/
EVENT = 1.00  # https://aws.amazon.com/eventbridge/pricing/
REQUEST = 3.50  # https://aws.amazon.com/api-gateway/pricing/, REST
INVOCATION = 0.20  # https://aws.amazon.com/lambda/pricing/
# In dollars per GB and month: DynamoDB with its backup, S3.
TABLE_GB, OBJECT_GB = 0.25 + 0.20, 0.023
GB, MILLION, MONTH_DAYS = 10**9, 10**6, 30


@dataclass(frozen=True)
class JobRun:
    """The AWS calls and items of one job with bodies of `size` bytes, in warm containers, and of a status read."""

    size: int
    calls: list[Call]
    job: CapacityUsage
    read: CapacityUsage

    def count(self, purpose: str, *operations: str) -> int:
        return sum(call.purpose == purpose and (not operations or call.operation in operations) for call in self.calls)


@dataclass(frozen=True)
class BillingItem:
    """A row of the bill: the count per job and the price per million."""

    description: str
    price: float
    count: Callable[[JobRun], float]

    def dollars(self, run: JobRun) -> float:
        return self.price * self.count(run)

    def row(self, runs: list[JobRun]) -> str:
        cells = [f"{self.count(run):g} = ${self.dollars(run):.2f}" if self.count(run) else "0" for run in runs]
        return _row(self.description, f"${self.price:.3f}".removesuffix("0"), *cells)


# Lambda's poller receives and deletes up to ten messages per request; here, each job arrives alone.
POLLER_REQUESTS, FUNCTIONS = 2, 3
BILL = [
    BillingItem("DynamoDB write units", WRITE_UNIT, lambda run: run.job.writes),
    BillingItem("DynamoDB read units", READ_UNIT, lambda run: run.job.reads),
    BillingItem("S3 PUT", PUT, lambda run: run.count(aws_call_recorder.BODIES, "PUT object")),
    BillingItem("S3 GET", GET, lambda run: run.count(aws_call_recorder.BODIES, "GET object")),
    BillingItem(
        "SQS: send; receive and delete by Lambda", SQS, lambda run: run.count(aws_call_recorder.HINTS) + POLLER_REQUESTS
    ),
    BillingItem("EventBridge events", EVENT, lambda run: run.count(aws_call_recorder.EVENTS)),
    BillingItem("API Gateway: accept", REQUEST, lambda _: 1),
    BillingItem("Lambda requests: queue, worker, finished", INVOCATION, lambda _: FUNCTIONS),
]


def main(arguments: list[str]) -> int:
    http_api.logger.setLevel("ERROR")  # omit the handlers' log lines
    os.environ.pop("AWS_ENDPOINT_URL", None)  # a value exported for `make dev` would bypass moto
    with ScriptedProvider() as upstream, aws_call_recorder.recording_stack(upstream) as recording:
        calls = {size_kb * 1024: _record_calls(recording, size_kb * 1024) for size_kb in SIZES_KB}
    runs = [_job_run(size, *recorded) for size, recorded in calls.items()]
    return write(PAGE, "docs/cost.py", [table(runs), sentences(runs)], arguments)


def table(runs: list[JobRun]) -> str:
    """The cost of a million jobs of each body size."""
    state = [f"{run.count(aws_call_recorder.STATE)}" for run in runs]
    indexes = [f"{run.job.index_writes}" for run in runs]
    totals = [f"**${sum(item.dollars(run) for item in BILL):.2f}**" for run in runs]
    return "\n".join(
        [
            _row("size of request and result", "$ per million", *(f"{run.size // 1024} KB" for run in runs)),
            "|---|---|---|---|---|",
            _row("DynamoDB calls for job state", "", *state),
            BILL[0].row(runs),
            _row("… for the indexes " + " and ".join(index.name for index in indexes_of("JobsTable")), "", *indexes),
            *(item.row(runs) for item in BILL[1:]),
            _row("**total**", "", *totals),
            _row("additional: storage until expiry", "", *(f"${storage(run):.1f}" for run in runs)),
            _row("additional: a million status reads by id", "", *(f"${_status_read(run):.2f}" for run in runs)),
        ]
    )


def sentences(runs: list[JobRun]) -> str:
    """Conclusions from the same numbers."""
    limit = f"{MAX_ITEM_BODY_BYTES // 1024} KB"
    return (
        f"The job item has about {round(runs[0].job.largest_job_bytes, -2)} bytes. A body's item is "
        f"{BODY_ITEM_BYTES} bytes larger than the body, so 1,024 bytes are billed as 2 KB.\n"
        f"From a body size of {break_even() / 1024:.1f} KB, an S3 object is cheaper to write and read than an item: "
        f"a million bodies of {limit} "
        f"cost ${as_item(MAX_ITEM_BODY_BYTES):.2f} as items and ${PUT + GET:.2f} as objects.\n"
        "[Decision 7](decisions/0007-store-bodies-up-to-32-kb-in-dynamodb-and-larger-ones-in-s3.md) "
        f"explains the limit of {limit}."
    )


def as_item(body: int) -> float:
    """Cost in dollars of a million bodies of `body` bytes as items: a transactional write and a consistent read."""
    size = body + BODY_ITEM_BYTES
    return math.ceil(size / WRITE_BYTES) * TRANSACTION * WRITE_UNIT + math.ceil(size / READ_BYTES) * READ_UNIT


def break_even() -> int:
    """The smallest body size in bytes that costs more as an item than as an S3 object."""
    return next(body for body in range(MAX_ITEM_BODY_BYTES) if as_item(body) > PUT + GET)


def storage(run: JobRun) -> float:
    """Storage cost in dollars of a million jobs: items until their time to live, objects until they expire."""
    (job,) = (item for (_, kind), item in run.job.items.items() if kind == "JOB")
    accepted_s = int(job["created_at"]["N"]) // 1000
    dollar_days = 0.0
    for item in run.job.items.values():
        entries = [entry for index in indexes_of("JobsTable") if (entry := index.entry(item)) is not None]
        size = sum(item_bytes(record) + STORED_BYTES for record in [item, *entries])
        dollar_days += size * (int(item["ttl"]["N"]) - accepted_s) / 86_400 * TABLE_GB
    rules = stack.properties("BodiesBucket")["LifecycleConfiguration"]["Rules"]
    (rule,) = [rule for rule in rules if "Prefix" not in rule]  # of requests and results
    dollar_days += run.count(aws_call_recorder.BODIES, "PUT object") * run.size * rule["ExpirationInDays"] * OBJECT_GB
    return dollar_days / MONTH_DAYS / GB * MILLION


def _status_read(run: JobRun) -> float:
    objects = run.count(aws_call_recorder.BODIES, "PUT object") and GET
    return run.read.reads * READ_UNIT + objects + REQUEST + INVOCATION


def _record_calls(recording: RecordingStack, size: int) -> tuple[list[Call], list[Call]]:
    """The calls of a job in all handlers, each warmed up by another job, and the calls of a status read."""
    queue_event = aws_call_recorder.queue_event(aws_call_recorder.chat_request(size))
    recording.cold("queue", queue_event)
    first = recording.worker_event()
    accepted, queue_calls = recording.warm("queue", queue_event)
    second = recording.worker_event()
    for _ in (first, second):
        recording.upstream.respond_with(200, aws_call_recorder.completion_body(size))
    recording.cold("worker", first)
    _, worker_calls = recording.warm("worker", second)
    job_id = json.loads(accepted["body"])["id"]
    _, finished_calls = recording.cold("finished", recording.finished_event(job_id))
    _, status_calls = recording.cold("status", aws_call_recorder.status_event(jobId=str(job_id)))
    return queue_calls + worker_calls + finished_calls, status_calls


def _job_run(size: int, calls: list[Call], status_calls: list[Call]) -> JobRun:
    state_calls = [call for call in calls if call.purpose == aws_call_recorder.STATE]
    state_reads = [call for call in status_calls if call.purpose == aws_call_recorder.STATE]
    job = measure_capacity(state_calls)
    reads = measure_capacity(state_calls + state_reads).reads - job.reads
    return JobRun(size, calls, job, CapacityUsage(reads=reads))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
