"""Billed time of ten jobs of two seconds each: in one concurrent worker invocation, and in one invocation per job.

Runs real sandboxes of the worker with generated batches. The jobs' messages are not sent, so that no other worker runs
them. Writes the raw results and docs/benchmarks.md.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from aiserver.aws.bedrock import bedrock_transport
from aiserver.aws.config import DynamoConfig
from aiserver.aws.jobs import DynamoJobs
from aiserver.clock import SystemClock
from aiserver.jobs.states import JobState
from aiserver.providers.registry import AdapterRegistry
from aiserver.routing.selection import ProviderDirectory
from aiserver.usecases.enqueue import Caller, Enqueue
from aiserver.wire import requests
from benchmarks import page
from local import aws, ministack
from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider
from local.template import REPOSITORY

JOBS = 10
RESPONSE_S = 2.0
BATCH_RUNS = 3
MODELS = {"hosted": "llama3:8b", "gpu": "gpu-llama"}


class NoMessages:
    """A jobs.ports.MessageSender that sends nothing."""

    def send_job(self, queue: str, job_id: int, *, attempt: int, delay_s: int = 0) -> None: ...

    def send_callback(self, job_id: int, *, due: int | None, delay_s: int = 0) -> None: ...


def job_store(cloud: Cloud) -> DynamoJobs:
    """The cloud's job store."""
    dynamodb, s3 = (aws.client(service, cloud.endpoint_url) for service in ("dynamodb", "s3"))
    return DynamoJobs(cloud.outputs["JobsTable"], cloud.outputs["BodiesBucket"], dynamodb, s3, SystemClock().job_id)


def accept_jobs(cloud: Cloud, model: str, count: int) -> list[int]:
    """Accept jobs without queue messages and return their ids. The sweeper sends the messages after a minute."""
    clock = SystemClock()
    config = DynamoConfig(cloud.outputs["ConfigTable"], aws.client("dynamodb", cloud.endpoint_url))
    enqueue = Enqueue(
        job_store(cloud),
        NoMessages(),
        ProviderDirectory(config.providers, clock),
        AdapterRegistry(clock, bedrock_transport),
        clock,
        check_reply_to=lambda url, hosts: None,
        settled_days=1,
    )
    chat = requests.bind_openai_queue_chat(
        json.dumps({"model": model, "messages": [{"role": "user", "content": "How do LLMs work?"}]}),
        requests.Options(),
    )
    return [enqueue.accept(chat, Caller("batch", cloud.base_url)).id for _ in range(count)]


def worker_event(ids: list[int]) -> dict[str, Any]:
    """The SQS event with the messages of these jobs."""
    event: dict[str, Any] = json.loads((REPOSITORY / "events" / "worker.json").read_text(encoding="utf-8"))
    (record,) = event["Records"]
    return {"Records": [record | {"messageId": str(job_id), "body": json.dumps({"id": job_id})} for job_id in ids]}


def main() -> int:
    with ScriptedProvider(response_delay_s=RESPONSE_S) as upstream, Cloud(build_scripted_upstream(upstream)) as cloud:
        _invoke(cloud, [])  # starts the sandbox
        figures = {queue: _measure_queue(cloud, model) for queue, model in MODELS.items()}
    results = {"command": "make bench", "unit": "ms", "answer_s": RESPONSE_S, "jobs": JOBS, "figures": figures}
    page.save("batch", results)
    return 0


def _measure_queue(cloud: Cloud, model: str) -> Mapping[str, Any]:
    single = [_invoke(cloud, [job_id]) for job_id in accept_jobs(cloud, model, JOBS)]
    batches = [_invoke(cloud, accept_jobs(cloud, model, JOBS)) for _ in range(BATCH_RUNS)]
    return {
        "one by one": single,
        "side by side": batches,
        "one_by_one_ms": round(sum(single), 1),
        "side_by_side_ms": round(statistics.median(batches), 1),
        "ratio": round(sum(single) / statistics.median(batches), 2),
    }


def _invoke(cloud: Cloud, ids: list[int]) -> float:
    """Run the jobs in one worker invocation. Returns its duration in ms.

    Raises: CloudFailed, when a job is not completed.
    """
    event = json.dumps(worker_event(ids)).encode()
    started = time.perf_counter()
    response = json.loads(cloud.invoke("worker", event))
    duration_ms = (time.perf_counter() - started) * 1000
    jobs = job_store(cloud)
    if response["batchItemFailures"] or not all(
        (job := jobs.get(job_id)) and job.state == JobState.COMPLETED for job_id in ids
    ):
        raise ministack.CloudFailed("a job of the batch was not completed")
    return round(duration_ms, 1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as error:
        sys.exit(f"bench: {error}")
