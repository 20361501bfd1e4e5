"""The sandboxes of a function: one for each concurrent call, reused, up to a limit."""

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

MAX_SANDBOXES = 16  # of one function; further calls wait for a free one
BYTECODE = REPOSITORY / ".local" / "bytecode"  # shared by all runs, so that it is compiled once


class SandboxPool:
    """The sandboxes of one function: a free one is reused; another is started if all are busy."""

    def __init__(self, function: DeployedFunction, endpoint_url: str, log_dir: Path, layers: list[Path]) -> None:
        self.function = function
        self._endpoint_url = endpoint_url
        self._log = log_dir / f"{function.name}.log"
        self._layers = layers
        self._free: list[Sandbox] = []
        self._sandboxes: set[Sandbox] = set()
        self._concurrency = threading.Semaphore(MAX_SANDBOXES)
        self._closed = False
        self._lock = threading.Lock()

    def warm(self) -> None:
        """Start a sandbox ahead of the first call. Raises: FunctionFailed, when it cannot initialise."""
        sandbox = self._acquire()
        sandbox.wait_until_ready()
        self._release(sandbox)

    def invoke(self, event: bytes, *, request_id: str | None = None, sink: Sink | None = None) -> bytes:
        """Run the function once; its response as JSON, or empty if it was written to `sink`. Raises: FunctionFailed.

        Without a sink, a streamed response is collected and returned.
        """
        buffered = BufferedResponse()
        if len(event) > MAX_PAYLOAD_BYTES:
            raise FunctionFailed("RequestTooLargeException", f"the event has {len(event)} bytes")
        with self._concurrency:
            sandbox = self._acquire()
            try:
                response = sandbox.invoke(request_id or str(uuid.uuid4()), event, sink or buffered)
                return buffered.content() if response is None else response
            except FunctionFailed as failure:
                self._log_failure(failure)
                raise
            finally:
                self._release(sandbox)

    @property
    def size(self) -> int:
        """Number of running processes."""
        with self._lock:
            return sum(sandbox.is_alive for sandbox in self._sandboxes)

    @property
    def pids(self) -> list[int]:
        """Ids of the running processes."""
        with self._lock:
            return [sandbox.pid for sandbox in self._sandboxes if sandbox.is_alive]

    @property
    def max_memory_used_mb(self) -> int:
        """The largest peak memory of the running processes in MB, as in Lambda's REPORT line (Linux)."""
        with self._lock:
            peaks_kb = [sandbox.memory_kb("VmHWM") for sandbox in self._sandboxes if sandbox.is_alive]
            return max(peaks_kb, default=0) // 1024

    @property
    def memory_kb(self) -> list[int]:
        """Current memory of each running process in KB (Linux)."""
        with self._lock:
            return [sandbox.memory_kb("VmRSS") for sandbox in self._sandboxes if sandbox.is_alive]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            sandboxes, self._sandboxes, self._free = self._sandboxes, set(), []
        if sandboxes:
            with ThreadPoolExecutor(len(sandboxes)) as threads:  # each takes as long as STOP_POLL_S
                list(threads.map(Sandbox.close, sandboxes))

    def _acquire(self) -> Sandbox:
        with self._lock:
            while self._free:
                if (sandbox := self._free.pop()).is_alive:
                    return sandbox
                self._sandboxes.discard(sandbox)  # its process ended between two calls: no call failed
                sandbox.close()
        sandbox = Sandbox(self.function, self._environment(), self._log, self._layers)
        with self._lock:
            if not self._closed:
                self._sandboxes.add(sandbox)
                return sandbox
        sandbox.close()
        raise FunctionFailed("Runtime.ExitError", "closed")

    def _release(self, sandbox: Sandbox) -> None:
        with self._lock:
            if sandbox.is_alive and sandbox in self._sandboxes:
                self._free.append(sandbox)
                return
            self._sandboxes.discard(sandbox)
        sandbox.close()

    def _log_failure(self, failure: FunctionFailed) -> None:
        """Append to the function's log, as Lambda does: a killed process cannot do so itself."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(OSError), self._log.open("a") as log:  # the disk may be full
                    print(failure, file=log)

    def _environment(self) -> dict[str, str]:
        """Lambda's variables, the function's own, and the endpoint of the embedded cloud; none of the developer's."""
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
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",  # its client then responds in unescaped UTF-8
            "AWS_LAMBDA_LOG_GROUP_NAME": f"/local/{function.name}",
            "AWS_LAMBDA_LOG_STREAM_NAME": "local",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self._endpoint_url,
            **aws.CREDENTIALS,
            **function.environment,
        }
