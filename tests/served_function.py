"""A streaming function behind the local gateway, with a socket at which its handler waits for the test."""

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
# A streaming handler: it blocks in `wait()`, and sends b"closed" when it is closed.
HANDLER_TEMPLATE = """
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


class FunctionServer:
    """A gateway in front of one streaming function, and the socket at which its handler waits."""

    def __init__(self, pool: SandboxPool, gateway: Gateway, gate: socket.socket) -> None:
        self.pool = pool
        self.port = gateway.port
        self._gate = gate
        self.target = f"/x?gate={gate.getsockname()[1]}"

    def accept_gate(self) -> socket.socket:
        connection = self._gate.accept()[0]
        connection.settimeout(PATIENCE_S)
        return connection

    @contextmanager
    def get(self, connection: http.client.HTTPConnection | None = None) -> Iterator[http.client.HTTPResponse]:
        client = connection or self.connect()
        try:
            client.request("GET", self.target)
            yield client.getresponse()
        finally:
            if connection is None:
                client.close()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def raw(self, request: str) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        client.sendall(request.encode())
        return client


@contextmanager
def serving(
    folder: Path, *lines: str, module: str = "", limit_s: int = PATIENCE_S, route_s: float = PATIENCE_S
) -> Iterator[FunctionServer]:
    """Serve a handler with these body lines, or with the complete source `module`."""
    (folder / "handler.py").write_text(module or HANDLER_TEMPLATE % "\n            ".join(lines), encoding="utf-8")
    environment = {"AWS_LAMBDA_EXEC_WRAPPER": "/opt/bin/aiserver-runtime", "PYTHONPYCACHEPREFIX": ""}
    toy = DeployedFunction("toy", "arn:toy", folder, "handler.handler", limit_s, 256, environment)
    pool = SandboxPool(toy, "http://127.0.0.1:1", folder, [LAYER])

    def invoke(function: str, event: bytes, request_id: str, sink: Any) -> bytes:
        return pool.invoke(event, request_id=request_id, sink=sink)

    with ExitStack() as running:
        running.callback(pool.close)
        gate = running.enter_context(socket.create_server(("127.0.0.1", 0)))
        gate.settimeout(PATIENCE_S)
        gateway = Gateway(0)
        running.callback(gateway.close)
        gateway.open([Route("GET", "/x", "toy", route_s, is_streamed=True)], RESPONSES, invoke)
        yield FunctionServer(pool, gateway, gate)
