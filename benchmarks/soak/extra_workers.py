"""Hands of a soak: the sweeper more often than by its schedule, and workers beside those that the queues feed."""

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from local.cloud import Cloud
from local.runtime_api import FunctionFailed
from local.template import REPOSITORY

SWEEP = REPOSITORY / "events" / "sweep.json"
SWEEP_S = 4.0  # the template's is a minute


class ExtraWorkers:
    """At work while its block lasts."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor(8)

    def __enter__(self) -> Self:
        self._threads.submit(self._sweep_at_times)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._threads.shutdown()

    def double(self, job_id: int) -> None:
        """Give a job to a worker at once, though the queue holds its message, too."""
        event = {"Records": [{"messageId": "doubled", "body": json.dumps({"id": job_id})}]}
        self._threads.submit(self._invoke, "worker", json.dumps(event).encode())

    def _sweep_at_times(self) -> None:
        while not self._over.wait(SWEEP_S):
            self._invoke("sweep", SWEEP.read_bytes())

    def _invoke(self, function: str, event: bytes) -> None:
        try:
            self._cloud.invoke(function, event)
        except FunctionFailed as failed:
            if failed.type != "Runtime.ExitError":  # the plan may kill it
                print(f"{function}: {failed}", file=sys.stderr)
