"""A scripted Runtime API on loopback, and a runtime client as a process that polls it: what both said is kept."""

import contextlib
import json
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from local.template import REPOSITORY

LAYER = REPOSITORY / "layers" / "aiserver"
OURS = [sys.executable, "-u", "-m", "aiserver.lambda_runtime"]
AWSLAMBDARIC = [sys.executable, "-m", "awslambdaric", "handler.handler"]
ARN = "arn:aws:lambda:us-east-1:000000000000:function:toy"
PATIENCE_S = 10
STOP_POLL_S = 0.01


@dataclass
class Heard:
    """One request; of a stream its head, while its chunks still come."""

    method: str
    path: str
    headers: Message
    connection: socket.socket
    body: bytes = b""
    trailers: dict[str, str] = field(default_factory=dict[str, str])
    chunks: "queue.SimpleQueue[bytes | None]" = field(default_factory=queue.SimpleQueue)

    def chunk(self) -> bytes | None:
        """The next one; None at the proper end. Raises: queue.Empty, where none comes."""
        return self.chunks.get(timeout=PATIENCE_S)

    def hang_up(self) -> None:
        """Close with a reset: a sender that waits for room would not hear of less."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.shutdown(socket.SHUT_RDWR)

    def __str__(self) -> str:
        return f"{self.method} {self.path.removeprefix('/2018-06-01/runtime')}"


class RuntimeApi:
    """Answers `next` with what is offered, everything else with 202 or what `statuses` has for the last of its path."""

    def __init__(self) -> None:
        self.statuses: dict[str, int] = {}
        self._offers: queue.SimpleQueue[tuple[bytes, bool]] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[Heard] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(STOP_POLL_S,), daemon=True).start()

    def offer(self, event: Any = None, request_id: str | None = "r-1", **headers: str | None) -> None:
        """A call for the next poll; a header that is None is left out."""
        told = {
            "Lambda-Runtime-Aws-Request-Id": request_id,
            "Lambda-Runtime-Deadline-Ms": str(int((time.time() + 60) * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": ARN,
            "Lambda-Runtime-Trace-Id": "Root=1-a-b;Sampled=0",
            "Content-Type": "application/json",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in told.items() if value is not None)
        body = json.dumps(event).encode()
        answer = f"HTTP/1.1 200 OK\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._offers.put((answer, False))

    def offer_last(self, answer: bytes) -> None:
        """What the next poll is answered, as it stands, before the connection is closed."""
        self._offers.put((answer, True))

    def hear(self) -> Heard:
        """The next request, in the order in which they began. Raises: queue.Empty, where none comes."""
        return self._heard.get(timeout=PATIENCE_S)

    def is_silent(self) -> bool:
        """Whether nothing was said that was not heard."""
        return self._heard.empty()

    def close(self) -> None:
        self.offer_last(b"")
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                api._heard.put(Heard("GET", self.path, self.headers, self.connection))
                answer, self.close_connection = api._offers.get()
                self.wfile.write(answer)

            def do_POST(self) -> None:
                heard = Heard("POST", self.path, self.headers, self.connection)
                if self.headers["transfer-encoding"] == "chunked":
                    self.close_connection = True
                    api._heard.put(heard)
                    self._take_chunks(heard)
                else:
                    heard.body = self.rfile.read(int(self.headers["content-length"]))
                    api._heard.put(heard)
                status = api.statuses.get(self.path.rpartition("/")[2], 202)
                self.wfile.write(b"HTTP/1.1 %d -\r\nContent-Length: 2\r\n\r\n{}" % status)

            def _take_chunks(self, heard: Heard) -> None:
                """By the letter of RFC 9112, 7.1: each line ends with CRLF, and nothing follows the last."""
                while size := int(self._line(), 16):
                    chunk = self.rfile.read(size)
                    if len(chunk) < size or self._line():
                        raise ConnectionError("a chunk lacks its end")
                    heard.chunks.put(chunk)
                while line := self._line():
                    name, _, value = line.partition(": ")
                    heard.trailers[name] = value
                heard.chunks.put(None)

            def _line(self) -> str:
                line = self.rfile.readline()
                if not line.endswith(b"\r\n"):
                    raise ConnectionError("a line lacks its end")
                return line[:-2].decode("ascii")

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    super().handle()

            def log_message(self, format: str, *args: object) -> None:
                pass

        return Handler


@dataclass(frozen=True)
class Client:
    """A runtime client that runs."""

    api: RuntimeApi
    process: "subprocess.Popen[bytes]"
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_bytes().decode()

    def ends(self) -> int:
        """Its exit status. Raises: subprocess.TimeoutExpired, where it lives on."""
        return self.process.wait(PATIENCE_S)

    def call(self, event: Any = None, **headers: Any) -> Heard:
        """What it sends for one call, and then it polls again."""
        assert str(self.api.hear()) == "GET /invocation/next"
        self.api.offer(event, **headers)
        return self.api.hear()


@contextmanager
def running(folder: Path, source: str, *, command: list[str] = OURS, **environment: str) -> Iterator[Client]:
    """A client with the handler module `source`, in `folder`."""
    api = RuntimeApi()
    written = folder / f"{api.address}.py"
    written.write_text(source, encoding="utf-8")
    written.replace(folder / "handler.py")  # at once: another client may just read it
    told = {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join([str(folder), str(LAYER), os.environ["PYTHONPATH"]]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LAMBDA_TASK_ROOT": str(folder),
        "AWS_LAMBDA_RUNTIME_API": api.address,
        "AWS_LAMBDA_FUNCTION_NAME": "toy",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/toy",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
        "_HANDLER": "handler.handler",
        **environment,
    }
    log_file = folder / f"{api.address}.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, env=told, cwd=folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        yield Client(api, process, log_file)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        api.close()
