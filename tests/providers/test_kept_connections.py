"""A kept connection that closes as it is used again: the request is sent once more, and in no other case."""

import socket
import struct
import time
from collections.abc import Callable

import pytest

from aiserver.errors import ProviderTimeout
from aiserver.providers import transport
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.transport import STALE_S
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Behaviour, Connection
from tests.providers.calls import QUESTION, provider

ANSWER = hostile_servers.head(200, "content-type: application/json", "content-length: 16") + b'{"choices":[{}]}'
End = Callable[[Connection], None]


def closes(connection: Connection) -> None:
    """By FIN."""


def resets(connection: Connection) -> None:
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def begins(connection: Connection) -> None:
    connection.socket.sendall(b"HTTP/1.1 2")


def waits(connection: Connection) -> None:
    time.sleep(4 * STALE_S)


def serves_once(end: End) -> Behaviour:
    """Answers one request, takes another, and ends without an answer to it."""

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(ANSWER)
        connection.take_request()
        end(connection)

    return behave


def ends_first(end: End) -> Behaviour:
    def behave(connection: Connection) -> None:
        connection.take_request()
        end(connection)

    return behave


def asked_twice(*behaviours: Behaviour) -> tuple[int, int]:
    """How many requests arrived, and over how many connections. Raises: what the second one means."""
    with hostile_servers.receiver(*behaviours) as server, create_client() as http:
        seen = OpenAiClient(http, FakeClock())
        asked = provider(f"http://127.0.0.1:{server.port}/v1")

        def ask() -> None:
            seen.call(
                asked,
                "chat.completions",
                QUESTION,
                api_key="k",
                idempotency_key=None,
                model_is_configured=True,
                timeout_s=5,
            )

        ask()
        try:
            ask()
        finally:
            counts = len(server.requests), server.connections
    return counts


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes its time: what ends at once still ends soon enough."""
    monkeypatch.setattr(transport, "STALE_S", 5)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("end", [closes, resets])
def test_a_kept_connection_that_closes_as_it_is_reused_is_retried_once(end: End) -> None:
    assert asked_twice(serves_once(end), hostile_servers.says(ANSWER)) == (3, 2)


@pytest.mark.usefixtures("busy")
def test_a_reused_connection_that_began_is_not_retried() -> None:
    with pytest.raises(ProviderTimeout):
        asked_twice(serves_once(begins), hostile_servers.says(ANSWER))


def test_a_reused_connection_that_took_its_time_is_not_retried() -> None:
    with pytest.raises(ProviderTimeout):
        asked_twice(serves_once(waits), hostile_servers.says(ANSWER))


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("end", [closes, resets])
def test_a_retry_that_fails_is_not_retried(end: End) -> None:
    with pytest.raises(ProviderTimeout):
        asked_twice(serves_once(end), ends_first(end), hostile_servers.says(ANSWER))


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("end", [closes, resets])
def test_a_new_connection_that_closes_is_not_retried(end: End) -> None:
    with hostile_servers.receiver(ends_first(end), hostile_servers.says(ANSWER)) as server, create_client() as http:
        seen = OpenAiClient(http, FakeClock())
        asked = provider(f"http://127.0.0.1:{server.port}/v1")
        with pytest.raises(ProviderTimeout):
            seen.call(
                asked,
                "chat.completions",
                QUESTION,
                api_key="k",
                idempotency_key=None,
                model_is_configured=True,
                timeout_s=5,
            )
        assert (len(server.requests), server.connections) == (1, 1)


@pytest.mark.usefixtures("busy")
def test_a_stream_over_a_kept_connection_that_closes_is_retried_once() -> None:
    events = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
    head = hostile_servers.head(200, "content-type: text/event-stream", f"content-length: {len(events)}")
    with (
        hostile_servers.receiver(serves_once(closes), hostile_servers.says(head + events)) as server,
        create_client() as http,
    ):
        seen = OpenAiClient(http, FakeClock())
        asked = provider(f"http://127.0.0.1:{server.port}/v1")
        seen.call(
            asked,
            "chat.completions",
            QUESTION,
            api_key="k",
            idempotency_key=None,
            model_is_configured=True,
            timeout_s=5,
        )
        stream = seen.stream(
            asked,
            "chat.completions",
            QUESTION,
            api_key="k",
            model_is_configured=True,
            head_timeout_s=5,
            total_timeout_s=5,
        )
        assert b"".join(piece or b"" for piece in stream) == events
        stream.close()
