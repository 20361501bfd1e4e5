"""A streaming function behind a door: its main loop, the local Runtime API, and a gate at which its handler waits."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from local.gateway import Gateway
from local.runtime_api import DeployedFunction
from local.sandbox_pool import SandboxPool
from local.template import REPOSITORY, Route, gateway_responses, read_template

LAYER = REPOSITORY / "layers" / "aiserver"
RESPONSES = gateway_responses(read_template())
PATIENCE_S = 20
# A handler that streams: it waits where it calls `wait()`, and says when it is closed.
TOLD = """
import json, os, socket
def handler(event, context):
    with socket.create_connection(("127.0.0.1", int(event["queryStringParameters"]["gate"]))) as gate:
        def wait():
            assert gate.recv(1)
        try:
            %s
        except GeneratorExit:
            gate.sendall(b"closed")
            raise
"""
HEAD = "yield {'statusCode': 201, 'headers': {'X-Pid': str(os.getpid()), 'Content-Length': '3'}}"


class Served:
    """A door before one streaming function, and the gate at which its handler waits."""

    def __init__(self, pool: SandboxPool, door: Gateway, gate: socket.socket) -> None:
        self.pool = pool
        self.port = door.port
        self._gate = gate
        self.target = f"/x?gate={gate.getsockname()[1]}"

    def at_gate(self) -> socket.socket:
        connection = self._gate.accept()[0]
        connection.settimeout(PATIENCE_S)
        return connection

    @contextmanager
    def asked(self, connection: http.client.HTTPConnection | None = None) -> Iterator[http.client.HTTPResponse]:
        asking = connection or self.connected()
        try:
            asking.request("GET", self.target)
            yield asking.getresponse()
        finally:
            if connection is None:
                asking.close()

    def connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def raw(self, request: str) -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        caller.sendall(request.encode())
        return caller


@contextmanager
def serving(
    folder: Path, *lines: str, module: str = "", limit_s: int = PATIENCE_S, route_s: float = PATIENCE_S
) -> Iterator[Served]:
    """Serve a handler whose body is given line by line, or whose module is given as a whole."""
    (folder / "handler.py").write_text(module or TOLD % "\n            ".join(lines), encoding="utf-8")
    wrapped = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/bin/aiserver-runtime", "PYTHONPYCACHEPREFIX": ""}
    toy = DeployedFunction("toy", "arn:toy", folder, "handler.handler", limit_s, 256, wrapped)
    pool = SandboxPool(toy, "http://127.0.0.1:1", folder, [LAYER])

    def invoke(function: str, event: bytes, request_id: str, sink: Any) -> bytes:
        return pool.invoke(event, request_id=request_id, sink=sink)

    with ExitStack() as running:
        running.callback(pool.close)
        gate = running.enter_context(socket.create_server(("127.0.0.1", 0)))
        gate.settimeout(PATIENCE_S)
        door = Gateway(0)
        running.callback(door.close)
        door.open([Route("GET", "/x", "toy", route_s, streamed=True)], RESPONSES, invoke)
        yield Served(pool, door, gate)
