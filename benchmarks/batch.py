"""What ten jobs of two seconds are billed as when one worker invocation has them done side by side, and one by one.

Real sandboxes of the worker, invoked with batches made by hand: the job's messages are never sent, so that nobody
else has them done. Writes the raw results and docs/benchmarks.md.
"""

import json
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any

from aiserver.aws.config import DynamoConfig
from aiserver.aws.jobs import DynamoJobs
from aiserver.clock import SystemClock
from aiserver.jobs.states import JobState
from aiserver.router import Router
from aiserver.usecases.enqueue import Caller, Enqueue
from aiserver.wire import requests
from benchmarks import page
from local import aws, ministack
from local.choose_upstream import scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider
from local.template import REPOSITORY

JOBS = 10
ANSWER_S = 2.0
TIMES = 3
MODELS = {"hosted": "llama3:8b", "gpu": "gpu-llama"}


class Silent:
    """jobs.ports.Messages: sends none."""

    def send_job(self, queue: str, job_id: int, *, attempt: int, delay_s: int = 0) -> None: ...

    def send_callback(self, job_id: int, *, due: int | None, delay_s: int = 0) -> None: ...


def store(cloud: Cloud) -> DynamoJobs:
    """The cloud's jobs."""
    dynamodb, s3 = (aws.client(service, cloud.endpoint_url) for service in ("dynamodb", "s3"))
    return DynamoJobs(cloud.outputs["JobsTable"], cloud.outputs["BodiesBucket"], dynamodb, s3, SystemClock().job_id)


def unsent(cloud: Cloud, model: str, count: int) -> list[int]:
    """Accept jobs without telling a worker; for a minute, until the sweeper does."""
    clock = SystemClock()
    config = DynamoConfig(cloud.outputs["ConfigTable"], aws.client("dynamodb", cloud.endpoint_url))
    router = Router(config.providers, {}, None, clock)
    enqueue = Enqueue(store(cloud), Silent(), router, clock, check_reply_to=lambda url, hosts: None, settled_days=1)
    chat = requests.bind_openai_queue_chat(
        json.dumps({"model": model, "messages": [{"role": "user", "content": "How do LLMs work?"}]}),
        requests.Options(),
    )
    return [enqueue.accept(chat, Caller("batch", cloud.base_url)).id for _ in range(count)]


def batch(ids: list[int]) -> dict[str, Any]:
    """The event that has these jobs done."""
    event: dict[str, Any] = json.loads((REPOSITORY / "events" / "worker.json").read_text(encoding="utf-8"))
    (record,) = event["Records"]
    return {"Records": [record | {"messageId": str(one), "body": json.dumps({"id": one})} for one in ids]}


def main() -> int:
    with ScriptedProvider(takes_s=ANSWER_S) as upstream, Cloud(scripted_upstream(upstream)) as cloud:
        _billed_ms(cloud, [])  # starts the sandbox
        figures = {queue: _figures(cloud, model) for queue, model in MODELS.items()}
    told = {"command": "make bench", "unit": "ms", "answer_s": ANSWER_S, "jobs": JOBS, "figures": figures}
    page.keep("batch", told)
    return 0


def _figures(cloud: Cloud, model: str) -> Mapping[str, Any]:
    alone = [_billed_ms(cloud, [one]) for one in unsent(cloud, model, JOBS)]
    together = [_billed_ms(cloud, unsent(cloud, model, JOBS)) for _ in range(TIMES)]
    return {
        "one by one": alone,
        "side by side": together,
        "one_by_one_ms": round(sum(alone), 1),
        "side_by_side_ms": round(statistics.median(together), 1),
        "ratio": round(sum(alone) / statistics.median(together), 2),
    }


def _billed_ms(cloud: Cloud, ids: list[int]) -> float:
    """How long one invocation took."""
    event = json.dumps(batch(ids)).encode()
    started = time.perf_counter()
    answer = json.loads(cloud.invoke("worker", event))
    took_ms = (time.perf_counter() - started) * 1000
    jobs = store(cloud)
    if answer["batchItemFailures"] or not all(
        (job := jobs.get(one)) and job.state == JobState.COMPLETED for one in ids
    ):
        raise ministack.CloudFailed("a job of the batch was not completed")
    return round(took_ms, 1)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ministack.CloudFailed as failed:
        sys.exit(f"bench: {failed}")
