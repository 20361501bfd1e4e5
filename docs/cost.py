"""Fills the part of docs/operate.md that says what a million jobs cost: `python -m docs.cost`.

The calls are recorded from the real handlers (tests/aws_call_recorder.py); prices are list prices.
`--check` writes nothing and exits 1 when the page is stale; `make check` runs it so.
"""

import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aiserver import http_api
from aiserver.aws.bodies import INLINE_BYTES
from docs.generate import write
from docs.metered import Metered, indexes_of, metered
from docs.units import READ_BYTES, STORED_BYTES, TRANSACTION, WRITE_BYTES, item_bytes
from local.scripted import ScriptedProvider
from tests import aws_call_recorder, stack
from tests.aws_call_recorder import Call, Observed

PAGE = Path(__file__).parent / "operate.md"
SIZES_KB = (1, 20, 200)
BODY_ITEM_BYTES = 43  # its keys, its time to live, and the attributes' names; a byte more or less

# List prices of us-east-1 without free tier, in dollars a million, taken on 2026-11-25 from others' reports of
# 2020 to 2026. AWS's own pages are linked, to compare.
WRITE_UNIT, READ_UNIT = 0.625, 0.125  # https://aws.amazon.com/dynamodb/pricing/on-demand/
PUT, GET = 5.00, 0.40  # https://aws.amazon.com/s3/pricing/
SQS = 0.40  # https://aws.amazon.com/sqs/pricing/
EVENT = 1.00  # https://aws.amazon.com/eventbridge/pricing/
REQUEST = 3.50  # https://aws.amazon.com/api-gateway/pricing/, REST
INVOCATION = 0.20  # https://aws.amazon.com/lambda/pricing/
# In dollars a GB and month: DynamoDB with its backup, S3.
TABLE_GB, OBJECT_GB = 0.25 + 0.20, 0.023
GB, MILLION, MONTH_DAYS = 10**9, 10**6, 30


@dataclass(frozen=True)
class Run:
    """What one job of a body size sent and left behind, in warm containers, and a status read of it."""

    size: int
    sent: list[Call]
    job: Metered
    read: Metered

    def count(self, purpose: str, *operations: str) -> int:
        return sum(c.purpose == purpose and (not operations or c.operation in operations) for c in self.sent)


@dataclass(frozen=True)
class Line:
    """A row of the bill: how many of something a job takes, at a price for a million of them."""

    what: str
    price: float
    count: Callable[[Run], float]

    def dollars(self, run: Run) -> float:
        return self.price * self.count(run)

    def row(self, runs: list[Run]) -> str:
        cells = [f"{self.count(run):g} = ${self.dollars(run):.2f}" if self.count(run) else "0" for run in runs]
        return _row(self.what, f"${self.price:.3f}".removesuffix("0"), *cells)


# Lambda's poller receives and deletes up to ten messages by one request each; these are jobs that come one by one.
POLLED, FUNCTIONS = 2, 3
BILL = [
    Line("DynamoDB write units", WRITE_UNIT, lambda run: run.job.writes),
    Line("DynamoDB read units", READ_UNIT, lambda run: run.job.reads),
    Line("S3 PUT", PUT, lambda run: run.count(aws_call_recorder.BODIES, "PUT object")),
    Line("S3 GET", GET, lambda run: run.count(aws_call_recorder.BODIES, "GET object")),
    Line("SQS: send; receive and delete by Lambda", SQS, lambda run: run.count(aws_call_recorder.HINTS) + POLLED),
    Line("EventBridge events", EVENT, lambda run: run.count(aws_call_recorder.EVENTS)),
    Line("API Gateway, accept", REQUEST, lambda _: 1),
    Line("Lambda requests: queue, worker, finished", INVOCATION, lambda _: FUNCTIONS),
]


def main(arguments: list[str]) -> int:
    http_api.logger.setLevel("ERROR")  # the handlers' own lines would be in the way
    os.environ.pop("AWS_ENDPOINT_URL", None)  # exported for `make dev`, it would lead past moto
    with ScriptedProvider() as upstream, aws_call_recorder.observed(upstream) as seen:
        sent = {size_kb * 1024: _sent(seen, size_kb * 1024) for size_kb in SIZES_KB}
    runs = [_run(size, *parts) for size, parts in sent.items()]
    return write(PAGE, "docs/cost.py", [table(runs), sentences(runs)], arguments)


def table(runs: list[Run]) -> str:
    """The bill of a million jobs of each size."""
    state = [f"{run.count(aws_call_recorder.STATE)}" for run in runs]
    indexes = [f"{run.job.index_writes}" for run in runs]
    together = [f"**${sum(line.dollars(run) for line in BILL):.2f}**" for run in runs]
    return "\n".join(
        [
            _row("a job with request and result of, each", "$ a million", *(f"{run.size // 1024} KB" for run in runs)),
            "|---|---|---|---|---|",
            _row("DynamoDB calls for job state", "", *state),
            BILL[0].row(runs),
            _row("… of which for the indexes " + " and ".join(i.name for i in indexes_of("JobsTable")), "", *indexes),
            *(line.row(runs) for line in BILL[1:]),
            _row("**together**", "", *together),
            _row("storage until all is forgotten, on top", "", *(f"${storage(run):.1f}" for run in runs)),
            _row("a million status reads by id, on top", "", *(f"${_status(run):.2f}" for run in runs)),
        ]
    )


def sentences(runs: list[Run]) -> str:
    """What follows from the same numbers."""
    limit = f"{INLINE_BYTES // 1024} KB"
    return (
        f"The job item of these has about {round(runs[0].job.largest_job_bytes, -2)} bytes. A body's item is "
        f"{BODY_ITEM_BYTES} bytes larger than the body, so 1,024 bytes are billed as 2 KB.\n"
        f"From a body of {break_even() / 1024:.1f} KB on, an object in S3 is cheaper to write and read than an item: a "
        f"million of {limit} cost ${as_item(INLINE_BYTES):.2f} as items and ${PUT + GET:.2f} as objects. Why the limit "
        f"is {limit} all the same: [decision 7](decisions/0007-bodies-up-to-32-kb-are-items.md)."
    )


def as_item(body: int) -> float:
    """A million bodies of that many bytes as items: written in a transaction, read once, consistently."""
    size = body + BODY_ITEM_BYTES
    return math.ceil(size / WRITE_BYTES) * TRANSACTION * WRITE_UNIT + math.ceil(size / READ_BYTES) * READ_UNIT


def break_even() -> int:
    """Bytes of the smallest body that costs more as an item than as an object."""
    return next(body for body in range(INLINE_BYTES) if as_item(body) > PUT + GET)


def storage(run: Run) -> float:
    """Of a million jobs: items until their time to live, objects until their bucket's rule removes them."""
    (job,) = (item for (_, kind), item in run.job.items.items() if kind == "JOB")
    accepted_s = int(job["created_at"]["N"]) // 1000
    stored = 0.0
    for item in run.job.items.values():
        entries = [entry for index in indexes_of("JobsTable") if (entry := index.entry(item)) is not None]
        size = sum(item_bytes(kept) + STORED_BYTES for kept in [item, *entries])
        stored += size * (int(item["ttl"]["N"]) - accepted_s) / 86_400 * TABLE_GB
    (rule,) = stack.properties("BodiesBucket")["LifecycleConfiguration"]["Rules"]
    stored += run.count(aws_call_recorder.BODIES, "PUT object") * run.size * rule["ExpirationInDays"] * OBJECT_GB
    return stored / MONTH_DAYS / GB * MILLION


def _status(run: Run) -> float:
    objects = run.count(aws_call_recorder.BODIES, "PUT object") and GET
    return run.read.reads * READ_UNIT + objects + REQUEST + INVOCATION


def _sent(seen: Observed, size: int) -> tuple[list[Call], list[Call]]:
    """By a job's way through the handlers, each warmed up by another job first; and by a status read of it."""
    posted, answer = aws_call_recorder.queued(aws_call_recorder.request_of(size)), aws_call_recorder.result_of(size)
    seen.cold("queue", posted)
    first = seen.message()
    accepted, sent = seen.warm("queue", posted)
    second = seen.message()
    for _ in (first, second):
        seen.upstream.answer_with(200, answer)
    seen.cold("worker", first)
    _, worked = seen.warm("worker", second)
    job_id = json.loads(accepted["body"])["id"]
    _, told = seen.cold("finished", seen.ending(job_id))
    _, read = seen.cold("status", aws_call_recorder.status_of(jobId=str(job_id)))
    return sent + worked + told, read


def _run(size: int, sent: list[Call], read: list[Call]) -> Run:
    state, looked = ([call for call in some if call.purpose == aws_call_recorder.STATE] for some in (sent, read))
    job = metered(state)
    return Run(size, sent, job, Metered(reads=metered(state + looked).reads - job.reads))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
