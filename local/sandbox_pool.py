"""The sandboxes of a function: as many as it has calls at once, used again, and no more than there is room for."""

import contextlib
import os
import sys
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local import aws
from local.runtime_api import MAX_PAYLOAD_BYTES, BufferedResponse, DeployedFunction, FunctionFailed, Sandbox, Sink
from local.template import REGION, REPOSITORY

MAX_SANDBOXES = 16  # of one function; a call more waits for one to be free
BYTECODE = REPOSITORY / ".local" / "bytecode"  # shared by all runs, so that it is compiled once


class SandboxPool:
    """The sandboxes of one function: a free one is used again, and another is started while all are busy."""

    def __init__(self, function: DeployedFunction, endpoint_url: str, log_dir: Path, layers: list[Path]) -> None:
        self.function = function
        self._endpoint_url = endpoint_url
        self._log = log_dir / f"{function.name}.log"
        self._layers = layers
        self._free: list[Sandbox] = []
        self._all: set[Sandbox] = set()
        self._places = threading.Semaphore(MAX_SANDBOXES)
        self._closed = False
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start a sandbox ahead of the first call. Raises: FunctionFailed, when it cannot initialise."""
        sandbox = self._take()
        sandbox.wait_until_ready()
        self._give_back(sandbox)

    def invoke(self, event: bytes, *, request_id: str | None = None, sink: Sink | None = None) -> bytes:
        """Run the function once; its answer as JSON, or nothing where it went to the sink. Raises: FunctionFailed.

        Without a sink a streamed answer is collected.
        """
        collected = BufferedResponse()
        if len(event) > MAX_PAYLOAD_BYTES:
            raise FunctionFailed("RequestTooLargeException", f"the event has {len(event)} bytes")
        with self._places:
            sandbox = self._take()
            try:
                answer = sandbox.invoke(request_id or str(uuid.uuid4()), event, sink or collected)
                return collected.whole() if answer is None else answer
            except FunctionFailed as failed:
                self._tell(failed)
                raise
            finally:
                self._give_back(sandbox)

    @property
    def size(self) -> int:
        """Processes that run."""
        with self._lock:
            return sum(sandbox.is_alive for sandbox in self._all)

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        with self._lock:
            return [sandbox.pid for sandbox in self._all if sandbox.is_alive]

    @property
    def max_memory_used_mb(self) -> int:
        """The most that any process that runs has held since it began, as Lambda's REPORT line tells it (Linux)."""
        with self._lock:
            return max((sandbox.memory_kb("VmHWM") // 1024 for sandbox in self._all if sandbox.is_alive), default=0)

    @property
    def memory_kb(self) -> list[int]:
        """What each process that runs holds now (Linux)."""
        with self._lock:
            return [sandbox.memory_kb("VmRSS") for sandbox in self._all if sandbox.is_alive]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            sandboxes, self._all, self._free = self._all, set(), []
        if sandboxes:
            with ThreadPoolExecutor(len(sandboxes)) as threads:  # each takes as long as STOP_POLL_S
                list(threads.map(Sandbox.close, sandboxes))

    def _take(self) -> Sandbox:
        with self._lock:
            while self._free:
                if (sandbox := self._free.pop()).is_alive:
                    return sandbox
                self._all.discard(sandbox)  # it died between two calls; that is nobody's failure
                sandbox.close()
        sandbox = Sandbox(self.function, self._environment(), self._log, self._layers)
        with self._lock:
            if not self._closed:
                self._all.add(sandbox)
                return sandbox
        sandbox.close()
        raise FunctionFailed("Runtime.ExitError", "closed")

    def _give_back(self, sandbox: Sandbox) -> None:
        with self._lock:
            if sandbox.is_alive and sandbox in self._all:
                self._free.append(sandbox)
                return
            self._all.discard(sandbox)
        sandbox.close()

    def _tell(self, failed: FunctionFailed) -> None:
        """In the function's log, as Lambda does: a process that was killed cannot."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(OSError), self._log.open("a") as log:  # the disk may be full
                    print(failed, file=log)

    def _environment(self) -> dict[str, str]:
        """What Lambda would set, the function's own, the way to the embedded cloud; nothing of the developer's."""
        function = self.function
        path = [str(function.folder), *map(str, self._layers), os.environ.get("PYTHONPATH", "")]
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
            "HOME": str(self._log.parent),  # ~/.aws must not be read
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "PYTHONPYCACHEPREFIX": str(BYTECODE),
            "PYTHONUNBUFFERED": "1",
            "TZ": ":UTC",
            "LANG": "en_US.UTF-8",
            "LAMBDA_TASK_ROOT": str(function.folder),
            "_HANDLER": function.handler,
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",  # its client then answers in UTF-8, unescaped
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/local/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self._endpoint_url,
            **aws.CREDENTIALS,
            **function.environment,
        }
