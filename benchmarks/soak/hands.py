"""More hands for the embedded cloud: it runs one process of a function at a time, AWS as many as there is work for.

Threads take messages from its queues and run the functions in Lambda's own client, beside the mappings of the embedded
cloud, as Lambda's pollers would; and the sweeper, every few seconds, beside its schedule.
"""

import json
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from local import aws
from local.cloud import Cloud
from local.runtime_api import FunctionFailed
from local.template import REPOSITORY

SWEEP = REPOSITORY / "events" / "sweep.json"
SWEEP_S = 4.0  # the template's is a minute
IDLE_S = 0.3
# A function, its queue, the parameter that says how many messages it takes at a time, else one; how many pollers.
MAPPINGS = (
    ("worker", "HostedQueueUrl", "HostedBatchSize", 2),
    ("worker", "GpuQueueUrl", "GpuBatchSize", 1),
    ("reply", "CallbackQueueUrl", "", 2),
)


class Hands:
    """At work while its block lasts."""

    def __init__(self, cloud: Cloud, parameters: Mapping[str, str]) -> None:
        self._cloud = cloud
        self._parameters = parameters
        self._sqs = aws.client("sqs", cloud.endpoint_url)
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(16)

    def __enter__(self) -> Self:
        self._threads.submit(self._every, SWEEP_S, self._sweep)
        for function, queue, parameter, pollers in MAPPINGS:
            size = int(self._parameters.get(parameter, 1))
            for _ in range(pollers):
                self._threads.submit(self._poll, function, self._cloud.outputs[queue], size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._threads.shutdown()

    def double(self, job_id: int) -> None:
        """Give a job to a worker at once, though the queue holds its message, too."""
        self._threads.submit(self._run, "worker", [{"MessageId": "doubled", "Body": json.dumps({"id": job_id})}])

    def _every(self, seconds: float, act: Callable[[], object]) -> None:
        while not self._over.wait(seconds):
            act()

    def _sweep(self) -> None:
        try:
            self._cloud.invoke("sweep", SWEEP.read_bytes())
        except FunctionFailed as failed:
            print(f"sweep: {failed}", file=sys.stderr)

    def _poll(self, function: str, url: str, size: int) -> None:
        while not self._over.is_set():
            messages = self._sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=size).get("Messages", [])
            if not messages:
                self._over.wait(IDLE_S)
            for message in self._run(function, messages):
                self._sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def _run(self, function: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run the function on the messages; those that are done with. The plan may kill it: then they come again."""
        if not messages:
            return []
        records = [{"messageId": message["MessageId"], "body": message["Body"]} for message in messages]
        try:
            answer = json.loads(self._cloud.invoke(function, json.dumps({"Records": records}).encode()))
        except FunctionFailed as failed:
            if failed.type != "Runtime.ExitError":
                print(f"{function}: {failed}", file=sys.stderr)
            return []
        failures = {failure["itemIdentifier"] for failure in answer["batchItemFailures"]}
        return [message for message in messages if message["MessageId"] not in failures]
