"""A request is retried once if its keep-alive connection closes on reuse, and in no other case."""

import socket
import struct
import time
from collections.abc import Callable

import httpx
import pytest

from aiserver.errors import ProviderTimeout
from aiserver.http_client import transport
from aiserver.http_client.transport import STALE_S
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from tests import hostile_servers
from tests.hostile_servers import Behaviour, Connection
from tests.providers.calls import dispatcher, make_call, provider, upstream_of
from tests.providers.streaming import open_stream

RESPONSE = hostile_servers.head(200, "content-type: application/json", "content-length: 16") + b'{"choices":[{}]}'
End = Callable[[Connection], None]


def close(connection: Connection) -> None:
    """End the connection by FIN."""


def reset(connection: Connection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def begin_response(connection: Connection) -> None:
    connection.socket.sendall(b"HTTP/1.1 2")


def wait(connection: Connection) -> None:
    time.sleep(4 * STALE_S)


def serve_once(end: End) -> Behaviour:
    """Respond to one request, read another, and end without a response to it."""

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(RESPONSE)
        connection.take_request()
        end(connection)

    return behave


def end_first(end: End) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.take_request()
        end(connection)

    return behave


def send(http: httpx.Client, target: Provider) -> None:
    dispatcher(http).send(upstream_of(target), make_call())


def call_twice(*behaviours: Behaviour) -> tuple[int, int]:
    """Return the numbers of requests and connections. Raises: ProviderError of the second call."""
    with hostile_servers.receiver(*behaviours) as server, create_client() as http:
        target = provider(f"http://127.0.0.1:{server.port}/v1")
        send(http, target)
        try:
            send(http, target)
        finally:
            counts = len(server.requests), server.connections
    return counts


@pytest.fixture
def slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A longer stale timeout, so that a slow machine does not miss an immediate close."""
    monkeypatch.setattr(transport, "STALE_S", 5)


@pytest.mark.usefixtures("slow_machine")
@pytest.mark.parametrize("end", [close, reset])
def test_keep_alive_connection_that_closes_on_reuse_is_retried_once(end: End) -> None:
    assert call_twice(serve_once(end), hostile_servers.send_raw(RESPONSE)) == (3, 2)


@pytest.mark.usefixtures("slow_machine")
def test_reused_connection_with_a_partial_response_is_not_retried() -> None:
    with pytest.raises(ProviderTimeout):
        call_twice(serve_once(begin_response), hostile_servers.send_raw(RESPONSE))


def test_reused_connection_that_closes_late_is_not_retried() -> None:
    with pytest.raises(ProviderTimeout):
        call_twice(serve_once(wait), hostile_servers.send_raw(RESPONSE))


@pytest.mark.usefixtures("slow_machine")
@pytest.mark.parametrize("end", [close, reset])
def test_failed_retry_is_not_retried(end: End) -> None:
    with pytest.raises(ProviderTimeout):
        call_twice(serve_once(end), end_first(end), hostile_servers.send_raw(RESPONSE))


@pytest.mark.usefixtures("slow_machine")
@pytest.mark.parametrize("end", [close, reset])
def test_new_connection_that_closes_is_not_retried(end: End) -> None:
    with (
        hostile_servers.receiver(end_first(end), hostile_servers.send_raw(RESPONSE)) as server,
        create_client() as http,
    ):
        with pytest.raises(ProviderTimeout):
            send(http, provider(f"http://127.0.0.1:{server.port}/v1"))
        assert (len(server.requests), server.connections) == (1, 1)


@pytest.mark.usefixtures("slow_machine")
def test_stream_on_a_keep_alive_connection_that_closes_is_retried_once() -> None:
    events = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    head = hostile_servers.head(200, "content-type: text/event-stream", f"content-length: {len(events)}")
    with (
        hostile_servers.receiver(serve_once(close), hostile_servers.send_raw(head + events)) as server,
        create_client() as http,
    ):
        target = provider(f"http://127.0.0.1:{server.port}/v1")
        send(http, target)
        with open_stream(target, total_timeout_s=5, http=http) as stream:
            assert b"".join(chunk or b"" for chunk in stream.events) == events
