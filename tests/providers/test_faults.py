"""What faults of networks and servers mean, and whether another provider is asked: over raw sockets on loopback.

A fault whose outcome is known to be nothing goes on to the next provider; a hosted one's unknown outcome ends the pass.
"""

import socket
import ssl
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpcore
import pytest

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.provider import Provider
from aiserver.providers.transport import DeadlineBackend, total_deadline
from aiserver.router import ProviderCall, Router
from aiserver.usecases.failover import FailoverResult
from aiserver.usecases.failover import try_candidates as ask_in_turn
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Authority, Behaviour, Connection
from tests.providers.calls import QUESTION, ask, models, provider

SHORT_S = 0.5  # for a deadline that is waited for
LONG_S = 20
JSON = "content-type: application/json"
LATE = b'{"error": {"message": "late", "code": 502}}'
DATE = "Fri, 15 Jan 2027 08:00:30 GMT"  # 30 s after FakeClock's now


def greets(piece: bytes) -> Behaviour:
    """Speaks before it is asked."""

    def behave(connection: Connection) -> None:
        connection.socket.sendall(piece)
        hostile_servers.hangs(connection)

    return behave


def answers(status: int, body: bytes = b"", *lines: str) -> list[Behaviour]:
    return [hostile_servers.answers(status, JSON, *lines, body=body)]


@dataclass(frozen=True)
class Fault:
    """What a server does, and what that means. `goes_on` is whether the next provider is asked after a hosted one.

    An own GPU's is asked after as well where only `may_be_billed` speaks against it.
    """

    does: Sequence[Behaviour]
    means: type[ProviderError]
    may_be_billed: bool = False
    goes_on: bool = True
    waits_s: int | None = None
    deadline_s: float = LONG_S
    tls: str = ""


def billed(does: Sequence[Behaviour], means: type[ProviderError], deadline_s: float = LONG_S) -> Fault:
    return Fault(does, means, may_be_billed=True, goes_on=False, deadline_s=deadline_s)


def late(*does: Behaviour) -> Fault:
    return billed(does, ProviderTimeout, deadline_s=SHORT_S)


FAULTS = {
    "nobody listens": Fault([], ProviderUnavailable),
    "a certificate that nobody vouches for": Fault([hostile_servers.hangs], ProviderUnavailable, tls="self-signed"),
    "a certificate of another host": Fault([hostile_servers.hangs], ProviderUnavailable, tls="of another host"),
    "no TLS where TLS is spoken": Fault([greets(b"HTTP/1.1 200 OK\r\n\r\n")], ProviderUnavailable, tls="none"),
    "silence where TLS is spoken": Fault([hostile_servers.hangs], ProviderUnavailable, tls="none", deadline_s=SHORT_S),
    "silence": late(hostile_servers.hangs),
    "half a head, and silence": late(hostile_servers.then_hangs(b"HTTP/1.1 200 OK\r\nx: ")),
    "a head, and silence": late(hostile_servers.then_hangs(hostile_servers.head(200, JSON, "content-length: 9"))),
    "a head that drips": late(hostile_servers.drips(200, head_bytes=1000)),
    "a body that drips": late(hostile_servers.drips(200, body_bytes=1000)),
    "the end of the connection": billed([hostile_servers.says()], ProviderTimeout),
    "half a body": billed(
        [hostile_servers.says(hostile_servers.head(200, JSON, "content-length: 9"), b'{"a"')], ProviderTimeout
    ),
    "no HTTP": billed([hostile_servers.says(b"SSH-2.0-OpenSSH_9.6\r\n")], ProviderTimeout),
    "a head without end": billed([hostile_servers.floods(b"HTTP/1.1 200 OK\r\nx: ", b"y")], ProviderTimeout),
    "headers without end": billed([hostile_servers.floods(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")], ProviderTimeout),
    "what claims to be gzip": billed(answers(200, b"{}", "content-encoding: gzip"), ProviderError),
    "200 and a page": billed(answers(200, b"<html>hi</html>"), ProviderError),
    "200 and nothing": billed(answers(200), ProviderError),
    "200 and an error": billed(answers(200, LATE), ProviderError),
    "200 and an error as a string": billed(answers(200, b'{"error": "late"}'), ProviderError),
    "500 and an error as a string": Fault(answers(500, b'{"error": "broken"}'), ProviderError),
    "500 and nothing": Fault(answers(500), ProviderError),
    "503 and a detail": Fault(answers(503, b'{"detail": "loading"}'), ProviderUnavailable),
    "504 and a page of a proxy": billed(answers(504, b"<html>"), ProviderTimeout),
    "429 and seconds": Fault(answers(429, b"{}", "retry-after: 7"), ProviderRateLimited, waits_s=7),
    "429 and a date": Fault(answers(429, b"slow", f"retry-after: {DATE}"), ProviderRateLimited, waits_s=30),
    "401 and a message": Fault(answers(401, b'{"message": "no"}'), ProviderAuth),
    "400 and an error as a string": Fault(answers(400, b'{"error": "bad"}'), ProviderRejected, goes_on=False),
    "422 and a detail": Fault(answers(422, b'{"detail": [{"msg": "bad"}]}'), ProviderRejected, goes_on=False),
    "413 and a message": Fault(answers(413, b'{"message": "too much"}'), ProviderRejected, goes_on=False),
    "400 and nothing": Fault(answers(400), ProviderRejected, goes_on=False),
    "502 and a page of a proxy": Fault(answers(502, b"<html>"), ProviderError),
}


@contextmanager
def having(fault: Fault, queue: str = "hosted") -> Generator[Provider]:
    """A provider that has the fault."""
    how = {"name": "first", "priority": 1, "queue": queue, "timeout_s": fault.deadline_s}
    if not fault.does:
        with hostile_servers.closed_port() as port:
            yield provider(f"http://127.0.0.1:{port}/v1", **how)
        return
    with hostile_servers.receiver(*fault.does, tls=_tls(fault.tls)) as server:
        yield provider(f"{'https' if fault.tls else 'http'}://127.0.0.1:{server.port}/v1", **how)


def _tls(kind: str) -> ssl.SSLContext | None:
    if kind == "self-signed":
        return hostile_servers.self_signed()
    return AUTHORITY.tls_for("elsewhere.example") if kind == "of another host" else None


AUTHORITY = Authority()


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    AUTHORITY.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_each_fault_means_what_is_known_of_its_outcome(fault: Fault) -> None:
    with having(fault) as faulty, pytest.raises(ProviderError) as failed:
        ask(faulty, deadline_s=fault.deadline_s)
    error = failed.value
    assert (type(error), error.may_be_billed, error.retry_after_s) == (fault.means, fault.may_be_billed, fault.waits_s)


@pytest.mark.parametrize("queue", ["hosted", "gpu"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_the_next_provider_is_asked_only_where_that_cannot_cost_twice_or_costs_nobody(
    fault: Fault, queue: str, upstream: ScriptedProvider
) -> None:
    with having(fault, queue) as faulty:
        done = in_turn(faulty, provider(upstream.base_url, name="second"))
    goes_on = fault.goes_on or (queue == "gpu" and fault.may_be_billed)
    assert len(upstream.requests) == goes_on
    assert (done.provider, done.attempts, done.unknown_outcomes) == (
        "second" if goes_on else "first",
        1 + goes_on,
        int(fault.may_be_billed),
    )
    assert type(done.error) is (type(None) if goes_on else fault.means)


def in_turn(*providers: Provider) -> FailoverResult:
    """One pass over the providers, as a request makes it."""
    clock = FakeClock()
    with create_client() as http:
        router = Router(lambda: list(providers), {"openai": OpenAiClient(http, clock)}, None, clock)
        deadline_ms = clock.now_ms() + 1000 * LONG_S
        question = ProviderCall("chat.completions", QUESTION)
        return ask_in_turn(router, question, router.candidates("m"), clock=clock, deadline_ms=deadline_ms)


def test_a_provider_whose_authority_is_trusted_is_called_over_tls() -> None:
    told = hostile_servers.answers(200, JSON, body=b'{"choices": [{}]}')
    with hostile_servers.receiver(told, tls=AUTHORITY.tls_for("localhost")) as server:
        assert ask(provider(f"https://localhost:{server.port}/v1")).status == 200


def test_a_list_of_models_that_does_not_come_is_waited_for_no_longer_than_was_said() -> None:
    with hostile_servers.receiver(hostile_servers.hangs) as server, pytest.raises(ProviderTimeout):
        models(provider(f"http://127.0.0.1:{server.port}/v1"), deadline_s=SHORT_S)


def test_a_call_whose_time_is_over_before_it_connects_was_never_made(upstream: ScriptedProvider) -> None:
    with pytest.raises(ProviderUnavailable):
        ask(provider(upstream.base_url), deadline_s=0)
    assert upstream.requests == []


def test_no_cookie_of_one_call_goes_out_with_another(upstream: ScriptedProvider) -> None:
    with create_client() as http, total_deadline(5):
        for _ in range(2):
            upstream.answer_with(200, b"{}", {"content-type": "application/json", "set-cookie": "a=b; Path=/"})
            http.post(f"{upstream.base_url}/chat/completions", content=b"{}")
    assert "cookie" not in upstream.requests[-1].headers


class _Addresses(httpcore.NetworkBackend):
    """Lets nobody in at any address but the last, after as long as it may take; `tried` is who was tried how long."""

    def __init__(self, last: str = "") -> None:
        self.last = last
        self.tried: list[tuple[str, float]] = []

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *_: Any) -> httpcore.NetworkStream:
        self.tried.append((host, timeout or 0))
        if host != self.last:
            raise httpcore.ConnectTimeout
        return httpcore.MockStream([])


def named(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Have every name stand for these."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_all_addresses_of_a_name_share_the_time_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    network = _Addresses()
    with total_deadline(60), pytest.raises(httpcore.ConnectTimeout):
        DeadlineBackend(9, network).connect_tcp("gpu.example.com", 443)
    assert [address for address, _ in network.tried] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert network.tried[0][1] <= 3
    assert all(waited <= 9 for _, waited in network.tried)


def test_an_address_that_lets_nobody_in_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    named(monkeypatch, "127.0.0.1", "127.0.0.2")
    with total_deadline(60):
        assert DeadlineBackend(9, _Addresses("127.0.0.2")).connect_tcp("gpu.example.com", 443)


def test_a_name_that_does_not_exist_is_a_provider_that_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ProviderUnavailable):
        ask(provider("http://gpu.example.com/v1"))


@pytest.mark.parametrize("status", [502, 530])
def test_a_proxy_s_word_for_an_own_gpu_that_is_away_is_that_it_is_away(status: int, upstream: ScriptedProvider) -> None:
    upstream.answer_with(status, b"<html>")
    with pytest.raises(ProviderUnavailable):
        ask(provider(upstream.base_url, queue="gpu"))
