"""Additional invocations of a soak: the sweeper more often than scheduled, and workers besides the queues' workers."""

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
SWEEP_S = 4.0  # scheduled every minute in the template


class ExtraWorkers:
    """Invokes functions in background threads while its block runs."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._stop = threading.Event()
        self._threads = ThreadPoolExecutor(8)

    def __enter__(self) -> Self:
        self._threads.submit(self._sweep_periodically)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._threads.shutdown()

    def run_twice(self, job_id: int) -> None:
        """Run a job in a second worker immediately; its message stays in the queue."""
        event = {"Records": [{"messageId": "doubled", "body": json.dumps({"id": job_id})}]}
        self._threads.submit(self._invoke, "worker", json.dumps(event).encode())

    def _sweep_periodically(self) -> None:
        while not self._stop.wait(SWEEP_S):
            self._invoke("sweep", SWEEP.read_bytes())

    def _invoke(self, function: str, event: bytes) -> None:
        try:
            self._cloud.invoke(function, event)
        except FunctionFailed as error:
            if error.type != "Runtime.ExitError":  # it may be killed on purpose
                print(f"{function}: {error}", file=sys.stderr)
