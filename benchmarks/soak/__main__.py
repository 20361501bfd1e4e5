"""Soak test of the job queue with injected faults: writes the raw result and docs/soak.md, exits 1 on a violation.

Jobs run in the embedded cloud while processes are killed, messages are lost and duplicated, AWS fails or its responses
are lost, and the upstream fails. SEED and COUNT select another run, which is printed but not recorded.
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
from benchmarks.soak.invariants import FinishedJob, Invariant, check_invariants
from benchmarks.soak.page import render
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
DEFAULT_SEED, DEFAULT_COUNT = 1, 2000  # of the recorded run
PARAMETERS = {
    "WorkerTimeoutSeconds": "8",
    "WorkerVisibilitySeconds": "48",
    "LeaseMarginSeconds": "1",
    "HostedBatchSize": "5",
    "GpuBatchSize": "2",
}
GPU_SHARE, REPLY_TO_SHARE, REPEATED_SHARE = 0.15, 0.33, 0.1  # shares of the jobs
PACE_S = 0.08  # between two requests, so that jobs run while others are queued
CALLERS = 8
POLL_S = 1.0
MAX_S = 600  # then the invariants are checked, even when jobs are still open


class InvariantViolated(Exception):
    """An invariant does not hold."""


class Soak:
    """One run. `accepted` contains the job's number and the returned id for each request to the gateway."""

    def __init__(self, seed: int, count: int) -> None:
        self.audit_log = AuditLog()
        self.faults = Faults(seed, self.audit_log.number, self.audit_log.record_fault)
        self.upstream = Upstream(self.faults, self.audit_log)
        self.proxy = Proxy(self.faults, self.audit_log)
        self.count = count
        self.accepted: list[tuple[int, int]] = []

    def providers(self) -> Providers:
        url = f"{self.upstream.server.url}/v1"
        hosted = {"name": "hosted", "base_url": url, "models": {"hosted": ""}}
        gpu = {"name": "gpu", "base_url": url, "queue": "gpu", "models": {"gpu": ""}}
        return Providers(json.dumps({"providers": [hosted, gpu]}), {}, "")

    def run(self, cloud: Cloud) -> None:
        """Queue all jobs and wait until they have ended, and no message is left that could restart one."""
        deadline = time.monotonic() + MAX_S
        callbacks = sum(self._is_selected("replyTo", number, REPLY_TO_SHARE) for number in range(self.count))
        with receiver(self._receive(cloud)) as hook, ExtraWorkers(cloud) as extra_workers:
            self.proxy.second_worker = extra_workers.run_twice
            self._accept_all(cloud, hook)
            while time.monotonic() < deadline:
                if (self.audit_log.end_count, self.audit_log.delivery_count) == (
                    self.count,
                    callbacks,
                ) and not _messages(cloud)["Job"]:
                    return
                time.sleep(POLL_S)

    def _is_selected(self, feature: str, number: int, share: float) -> bool:
        return self.faults.rng(feature, number).random() < share

    def _receive(self, cloud: Cloud) -> Any:
        """The receiver's handler: records the callback with the job's state in the table, and rejects a few."""
        table = aws.client("dynamodb", cloud.endpoint_url)

        def on_callback(callback: Callback) -> int:
            job_id = int(callback.headers["x-job-id"])
            key = {"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": "JOB"}}
            stored = table.get_item(TableName=cloud.outputs["JobsTable"], Key=key, ConsistentRead=True)["Item"]
            status = 500 if self.faults.take(job_id, Point.POST) else 200
            arrival = Arrival(stored["state"]["S"], callback.headers["webhook-id"], callback.body, status)
            self.audit_log.record_arrival(job_id, arrival)
            return status

        return on_callback

    def _accept_all(self, cloud: Cloud, hook: Receiver) -> None:
        """Send all requests, some twice, like a caller without a response: both must receive the same id."""
        numbers = [
            number
            for number in range(self.count)
            for _ in range(2 if self._is_selected("repeated", number, REPEATED_SHARE) else 1)
        ]
        headers = {"authorization": f"Bearer {cloud.keys.api_key}"}
        start = time.monotonic()
        with httpx.Client(base_url=cloud.base_url, headers=headers, timeout=60, trust_env=False) as client:

            def accept(number: int) -> tuple[int, int]:
                time.sleep(max(0.0, start + number * PACE_S - time.monotonic()))
                response = client.post("/api/QueueOpenAiChatCompletion", json=self._request(number, hook.url))
                return number, response.raise_for_status().json()["id"]

            with ThreadPoolExecutor(CALLERS) as callers:
                self.accepted = list(callers.map(accept, numbers))

    def _request(self, number: int, url: str) -> Mapping[str, Any]:
        model = "gpu" if self._is_selected("gpu", number, GPU_SHARE) else "hosted"
        chat = {"model": model, "messages": [{"role": "user", "content": f"soak {number}"}]}
        reply_to = {"replyTo": url} if self._is_selected("replyTo", number, REPLY_TO_SHARE) else {}
        return {"refId": f"{REF}{number}", "request": chat, **reply_to}

    def check(self, jobs: list[FinishedJob], messages: int) -> list[Invariant]:
        """All invariants: of the table's jobs, of the ids returned to callers, of the queues."""
        ids = dict(self.accepted)
        different_ids = [job_id for number, job_id in self.accepted if ids[number] != job_id]
        unmatched = sorted({finished.job.id for finished in jobs} ^ set(ids.values()))
        return [
            Invariant("jobs in the table = jobs accepted", len(jobs), self.count, unmatched),
            Invariant("repeated requests that received another id = 0", len(different_ids), 0, different_ids),
            *check_invariants(jobs),
            Invariant("job messages left in the queues = 0", messages, 0, []),
        ]


def main() -> None:
    """Raises: InvariantViolated; CloudFailed, when the embedded cloud does not start."""
    seed, count = int(os.environ.get("SEED", DEFAULT_SEED)), int(os.environ.get("COUNT", DEFAULT_COUNT))
    soak = Soak(seed, count)
    started = time.monotonic()
    with (
        soak.upstream.server.serving(),
        soak.proxy.server.serving(),
        Cloud(soak.providers(), parameters=PARAMETERS, proxy_endpoint=soak.proxy.forward_to) as cloud,
    ):
        soak.run(cloud)
        jobs = [FinishedJob(job, soak.audit_log.histories[job.id], soak.audit_log.killed_pids) for job in _jobs(cloud)]
        messages = _messages(cloud)
        invariants = soak.check(jobs, messages["Job"])
        results: dict[str, Any] = {
            "command": "make soak",
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
            "seed": seed,
            "parameters": PARAMETERS,
            "took_s": round(time.monotonic() - started),
            "counts": _counts(soak, jobs) | _message_counts(messages),
            "faults": dict(sorted(soak.audit_log.fault_counts.items())),
            "equations": [asdict(invariant) for invariant in invariants],
        }
        print(render(results))
        if (seed, count) == (DEFAULT_SEED, DEFAULT_COUNT):
            RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
            PAGE.write_text(render(results), encoding="utf-8")
        if violations := [invariant for invariant in invariants if not invariant.holds]:
            raise InvariantViolated("\n".join(map(str, [*violations, f"logs: {cloud.log_dir}"])))


def _counts(soak: Soak, jobs: list[FinishedJob]) -> dict[str, int]:
    """Totals of the run; the names are keys in results/soak.json."""
    states = Counter(str(c.job.state) for c in jobs)
    calls = Counter(outcome for c in jobs for outcome in c.history.calls)
    return {
        "jobs": len(jobs),
        "of these on the gpu queue": sum(c.job.queue == "gpu" for c in jobs),
        "requests to queue them": len(soak.accepted),
        **dict(sorted(states.items())),
        "attempts": sum(c.job.attempt for c in jobs),
        "calls recorded": sum(c.job.calls for c in jobs),
        **{f"calls in the upstream's log: {outcome}": count for outcome, count in sorted(calls.items())},
        "maybeBilled": sum(c.job.maybe_billed for c in jobs),
        "processes killed": len(soak.audit_log.killed_pids),
        "calls that died with them": sum(c.interrupted_calls for c in jobs),
        "of these before the upstream saw them": sum(c.calls_not_sent for c in jobs),
        "attempts that died with them before a call": sum(len(c.open_attempts) - c.interrupted_calls for c in jobs),
        "callbacks received": sum(len(c.history.arrivals) for c in jobs),
        "jobs reminded of by the sweeper": sum(c.job.resends for c in jobs),
    }


def _message_counts(messages: Mapping[str, int]) -> dict[str, int]:
    return {
        "callback messages of killed deliverers, still hidden": messages["Callback"],
        "dead letters": messages["DeadLetter"],
    }


def _messages(cloud: Cloud) -> dict[str, int]:
    """Messages by kind of queue, visible and in flight."""
    sqs = aws.client("sqs", cloud.endpoint_url)
    counts = {"Job": 0, "Callback": 0, "DeadLetter": 0}
    for url in sqs.list_queues()["QueueUrls"]:
        kind = next((kind for kind in ("DeadLetter", "Callback") if kind in url), "Job")
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        counts[kind] += sum(
            int(count) for name, count in attributes.items() if name.startswith("ApproximateNumberOfMessages")
        )
    return counts


def _jobs(cloud: Cloud) -> list[Job]:
    pages = aws.client("dynamodb", cloud.endpoint_url).get_paginator("scan")
    only = {"FilterExpression": "sk = :job", "ExpressionAttributeValues": {":job": {"S": "JOB"}}}
    responses = pages.paginate(TableName=cloud.outputs["JobsTable"], **only)
    return [Job.from_item(unpack(item)) for response in responses for item in response["Items"]]


if __name__ == "__main__":
    install_handlers()
    try:
        main()
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_status)
    except (CloudFailed, InvariantViolated) as error:
        sys.exit(f"soak: {error}")
