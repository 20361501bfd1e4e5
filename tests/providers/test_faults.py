"""What faults of the network and of providers' servers mean: raw sockets on loopback that do what none should."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from aiserver.errors import ProviderTimeout, ProviderUnavailable
from aiserver.providers.openai import client
from aiserver.providers.transport import total_deadline
from local.scripted import ScriptedProvider
from tests.providers.asking import ask, provider


def test_no_cookie_of_one_call_goes_out_with_another(upstream: ScriptedProvider) -> None:
    with client() as http, total_deadline(5):
        for _ in range(2):
            upstream.answer_with(200, b"{}", {"content-type": "application/json", "set-cookie": "a=b; Path=/"})
            http.post(f"{upstream.base_url}/chat/completions", content=b"{}")
    assert "cookie" not in upstream.requests[-1].headers


def test_a_provider_that_is_not_there_was_not_asked() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ProviderUnavailable) as away:
        ask(provider(f"http://127.0.0.1:{port}/v1"))
    assert not away.value.may_be_billed


@contextmanager
def raw_server(*pieces: bytes, pause_s: float) -> Iterator[str]:
    """Sends the pieces with pauses between them, then says nothing more."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                for piece in pieces:
                    connection.sendall(piece)
                    if done.wait(pause_s):
                        return
                done.wait(30)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        done.set()
        thread.join()


def test_a_call_whose_time_is_over_before_it_connects_was_never_made(upstream: ScriptedProvider) -> None:
    upstream.requests.clear()
    with pytest.raises(ProviderUnavailable):
        ask(provider(upstream.base_url), deadline_s=0)
    assert upstream.requests == []


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200 OK\r\n",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", *[b"{"] * 50),
    ],
)
def test_the_deadline_is_total_even_against_a_drip(pieces: tuple[bytes, ...]) -> None:
    with raw_server(*pieces, pause_s=0.05) as base_url, pytest.raises(ProviderTimeout) as late:
        ask(provider(base_url), deadline_s=0.4)
    assert late.value.may_be_billed
