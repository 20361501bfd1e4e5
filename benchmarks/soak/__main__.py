"""Soaks the job queue in faults and balances the books: writes the raw result and docs/soak.md, exits 1 if one breaks.

Jobs go through the embedded cloud while processes are killed, messages are lost and doubled, AWS fails or its answers
are lost, and the upstream fails. SEED and COUNT choose another run, which is told but not recorded.
"""

import json
import os
import platform
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import httpx

from aiserver.aws.items import unpack
from aiserver.jobs.job import Job
from benchmarks.soak.audit_log import Arrival, AuditLog
from benchmarks.soak.extra_workers import ExtraWorkers
from benchmarks.soak.faults import REF, Faults, Point
from benchmarks.soak.invariants import FinishedJob, Invariant, invariants
from benchmarks.soak.page import page
from benchmarks.soak.servers import Proxy, Upstream
from local import aws
from local.choose_upstream import Upstream as Providers
from local.cloud import Cloud
from local.ministack import CloudFailed
from local.receiver import Callback, Receiver, receiver
from local.signals import Interrupted, install_handlers
from local.template import REPOSITORY

RESULTS = REPOSITORY / "benchmarks" / "results" / "soak.json"
PAGE = REPOSITORY / "docs" / "soak.md"
SEED, COUNT = 1, 2000  # of the recorded run
PARAMETERS = {
    "WorkerTimeoutSeconds": "8",
    "WorkerVisibilitySeconds": "48",
    "LeaseMarginSeconds": "1",
    "HostedBatchSize": "5",
    "GpuBatchSize": "2",
}
GPU, REPLY_TO, REPEATED = 0.15, 0.33, 0.1  # shares of the jobs
PACE_S = 0.08  # between two accepts, so that the queue is worked off as it fills
CALLERS = 8
LOOK_S = 1.0
LIMIT_S = 330  # then the books are closed as they stand


class Unbalanced(Exception):
    """An equation broke."""


class Soak:
    """One run. `accepted` holds a job's number and the id that came back, for each request sent to the door."""

    def __init__(self, seed: int, count: int) -> None:
        self.ledger = AuditLog()
        self.faults = Faults(seed, self.ledger.number, self.ledger.fires)
        self.upstream = Upstream(self.faults, self.ledger)
        self.proxy = Proxy(self.faults, self.ledger)
        self.count = count
        self.accepted: list[tuple[int, int]] = []

    def providers(self) -> Providers:
        url = f"{self.upstream.server.url}/v1"
        hosted = {"name": "hosted", "base_url": url, "models": {"hosted": ""}}
        gpu = {"name": "gpu", "base_url": url, "queue": "gpu", "models": {"gpu": ""}}
        return Providers(json.dumps({"providers": [hosted, gpu]}), {}, "")

    def run(self, cloud: Cloud) -> None:
        """Queue every job and wait until each is done with, and so is every message that could start one again."""
        over = time.monotonic() + LIMIT_S
        owed = sum(self._is_so("replyTo", number, REPLY_TO) for number in range(self.count))
        with receiver(self._receive(cloud)) as hook, ExtraWorkers(cloud) as hands:
            self.proxy.second_worker = hands.double
            self._accept_all(cloud, hook)
            while time.monotonic() < over:
                if (self.ledger.ended, self.ledger.delivered) == (self.count, owed) and not _messages(cloud)["Job"]:
                    return
                time.sleep(LOOK_S)

    def _is_so(self, what: str, number: int, share: float) -> bool:
        return self.faults.chance(what, number).random() < share

    def _receive(self, cloud: Cloud) -> Any:
        """What a ReplyTo does with a callback: look how its job stands in the table, and refuse a few."""
        table = aws.client("dynamodb", cloud.endpoint_url)

        def answer(callback: Callback) -> int:
            job_id = int(callback.headers["x-job-id"])
            key = {"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": "JOB"}}
            stored = table.get_item(TableName=cloud.outputs["JobsTable"], Key=key, ConsistentRead=True)["Item"]
            status = 500 if self.faults.take(job_id, Point.POST) else 200
            arrival = Arrival(stored["state"]["S"], callback.headers["webhook-id"], callback.body, status)
            self.ledger.arrived(job_id, arrival)
            return status

        return answer

    def _accept_all(self, cloud: Cloud, hook: Receiver) -> None:
        """Some twice at once, as by a caller who got no answer: both must get the same id."""
        numbers = [n for n in range(self.count) for _ in range(2 if self._is_so("repeated", n, REPEATED) else 1)]
        headers = {"authorization": f"Bearer {cloud.seeded.api_key}"}
        start = time.monotonic()
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as door:

            def accept(number: int) -> tuple[int, int]:
                time.sleep(max(0.0, start + number * PACE_S - time.monotonic()))
                answer = door.post("/api/QueueOpenAiChatCompletion", json=self._request(number, hook.url))
                return number, answer.raise_for_status().json()["id"]

            with ThreadPoolExecutor(CALLERS) as callers:
                self.accepted = list(callers.map(accept, numbers))

    def _request(self, number: int, url: str) -> Mapping[str, Any]:
        model = "gpu" if self._is_so("gpu", number, GPU) else "hosted"
        chat = {"model": model, "messages": [{"role": "user", "content": f"soak {number}"}]}
        reply_to = {"replyTo": url} if self._is_so("replyTo", number, REPLY_TO) else {}
        return {"refId": f"{REF}{number}", "request": chat, **reply_to}

    def balance(self, closed: list[FinishedJob], messages: int) -> list[Invariant]:
        """Every equation: of the table's jobs, of the ids that callers got, of the queues."""
        ids = dict(self.accepted)
        others = [job_id for number, job_id in self.accepted if ids[number] != job_id]
        strange = sorted({c.job.id for c in closed} ^ set(ids.values()))
        return [
            Invariant("jobs in the table = jobs accepted", len(closed), self.count, strange),
            Invariant("repeated accepts that got another id = 0", len(others), 0, others),
            *invariants(closed),
            Invariant("job messages left in the queues = 0", messages, 0, []),
        ]


def main() -> None:
    """Raises: Unbalanced, CloudFailed."""
    seed, count = int(os.environ.get("SEED", SEED)), int(os.environ.get("COUNT", COUNT))
    soak = Soak(seed, count)
    started = time.monotonic()
    with (
        soak.upstream.server.serving(),
        soak.proxy.server.serving(),
        Cloud(soak.providers(), parameters=PARAMETERS, between=soak.proxy.between) as cloud,
    ):
        soak.run(cloud)
        closed = [FinishedJob(job, soak.ledger.entries[job.id], soak.ledger.killed) for job in _jobs(cloud)]
        messages = _messages(cloud)
        balanced = soak.balance(closed, messages["Job"])
        told: dict[str, Any] = {
            "command": "make soak",
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "seed": seed,
            "parameters": PARAMETERS,
            "took_s": round(time.monotonic() - started),
            "counts": _counts(soak, closed) | _left(messages),
            "faults": dict(sorted(soak.ledger.fired.items())),
            "equations": [asdict(equation) for equation in balanced],
        }
        print(page(told))
        if (seed, count) == (SEED, COUNT):
            RESULTS.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            PAGE.write_text(page(told), encoding="utf-8")
        if broken := [equation for equation in balanced if not equation.holds]:
            raise Unbalanced("\n".join(map(str, [*broken, f"logs: {cloud.log_dir}"])))


def _counts(soak: Soak, closed: list[FinishedJob]) -> dict[str, int]:
    """How much there was of what."""
    states = Counter(str(c.job.state) for c in closed)
    calls = Counter(how for c in closed for how in c.book.asked)
    return {
        "jobs": len(closed),
        "of these on the gpu queue": sum(c.job.queue == "gpu" for c in closed),
        "requests to queue them": len(soak.accepted),
        **dict(sorted(states.items())),
        "attempts": sum(c.job.attempt for c in closed),
        "calls recorded": sum(c.job.calls for c in closed),
        **{f"calls in the upstream's log: {how}": n for how, n in sorted(calls.items())},
        "maybeBilled": sum(c.job.maybe_billed for c in closed),
        "processes killed": len(soak.ledger.killed),
        "calls that died with them": sum(c.killed_calls for c in closed),
        "of these before the upstream saw them": sum(c.never_asked for c in closed),
        "attempts that died with them before a call": sum(len(c.unfinished) - c.killed_calls for c in closed),
        "callbacks received": sum(len(c.book.arrivals) for c in closed),
        "jobs reminded of by the sweeper": sum(c.job.resends for c in closed),
    }


def _left(messages: Mapping[str, int]) -> dict[str, int]:
    return {
        "callback messages of killed deliverers, still hidden": messages["Callback"],
        "dead letters": messages["DeadLetter"],
    }


def _messages(cloud: Cloud) -> dict[str, int]:
    """How many messages each kind of queue holds, waiting or taken."""
    sqs = aws.client("sqs", cloud.endpoint_url)
    found = {"Job": 0, "Callback": 0, "DeadLetter": 0}
    for url in sqs.list_queues()["QueueUrls"]:
        kind = next((kind for kind in ("DeadLetter", "Callback") if kind in url), "Job")
        told = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        found[kind] += sum(int(n) for name, n in told.items() if name.startswith("ApproximateNumberOfMessages"))
    return found


def _jobs(cloud: Cloud) -> list[Job]:
    pages = aws.client("dynamodb", cloud.endpoint_url).get_paginator("scan")
    only = {"FilterExpression": "sk = :job", "ExpressionAttributeValues": {":job": {"S": "JOB"}}}
    found = pages.paginate(TableName=cloud.outputs["JobsTable"], **only)
    return [Job.from_item(unpack(item)) for part in found for item in part["Items"]]


if __name__ == "__main__":
    install_handlers()
    try:
        main()
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_status)
    except (CloudFailed, Unbalanced) as failed:
        sys.exit(f"soak: {failed}")
