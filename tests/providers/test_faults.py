"""Network and server faults over raw sockets on loopback: their errors, and failover to the next provider.

A fault with a known outcome fails over. An unknown outcome of a hosted provider ends the failover, as it may be billed.
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
from aiserver.http_client.transport import DeadlineBackend, total_deadline
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.routing.admission import AdmissionControl
from aiserver.routing.failover import Failover, FailoverResult
from aiserver.routing.selection import select_candidates
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.hostile_servers import Authority, Behaviour, Connection
from tests.providers.calls import call_provider, dispatcher, list_models, make_call, provider

SHORT_S = 0.5  # for timeouts that expire
LONG_S = 20
JSON = "content-type: application/json"
LATE = b'{"error": {"message": "late", "code": 502}}'
DATE = "Fri, 15 Jan 2027 08:00:30 GMT"  # 30 s after FakeClock's now


def speak_first(chunk: bytes) -> Behaviour:
    """Send bytes before the request."""

    def behave(connection: Connection) -> None:
        connection.socket.sendall(chunk)
        hostile_servers.hang(connection)

    return behave


def respond_json(status: int, body: bytes = b"", *lines: str) -> list[Behaviour]:
    return [hostile_servers.respond(status, JSON, *lines, body=body)]


@dataclass(frozen=True)
class Fault:
    """Server behaviours and the resulting error. `continues`: failover goes on after a fault of a hosted provider.

    After a fault of an own GPU it also goes on when only `may_be_billed` prevents it.
    """

    behaviours: Sequence[Behaviour]
    error_class: type[ProviderError]
    may_be_billed: bool = False
    continues: bool = True
    retry_after_s: int | None = None
    deadline_s: float = LONG_S
    tls: str = ""


def billable_fault(
    behaviours: Sequence[Behaviour], error_class: type[ProviderError], deadline_s: float = LONG_S
) -> Fault:
    return Fault(behaviours, error_class, may_be_billed=True, continues=False, deadline_s=deadline_s)


def timeout_fault(*behaviours: Behaviour) -> Fault:
    return billable_fault(behaviours, ProviderTimeout, deadline_s=SHORT_S)


FAULTS = {
    "connection refused": Fault([], ProviderUnavailable),
    "self-signed certificate": Fault([hostile_servers.hang], ProviderUnavailable, tls="self-signed"),
    "certificate of another host": Fault([hostile_servers.hang], ProviderUnavailable, tls="of another host"),
    "plain HTTP instead of TLS": Fault([speak_first(b"HTTP/1.1 200 OK\r\n\r\n")], ProviderUnavailable, tls="none"),
    "silence instead of a TLS handshake": Fault(
        [hostile_servers.hang], ProviderUnavailable, tls="none", deadline_s=SHORT_S
    ),
    "silence": timeout_fault(hostile_servers.hang),
    "partial head, then silence": timeout_fault(hostile_servers.send_then_hang(b"HTTP/1.1 200 OK\r\nx: ")),
    "head, then silence": timeout_fault(
        hostile_servers.send_then_hang(hostile_servers.head(200, JSON, "content-length: 9"))
    ),
    "dripping head": timeout_fault(hostile_servers.drip_response(200, head_bytes=1000)),
    "dripping body": timeout_fault(hostile_servers.drip_response(200, body_bytes=1000)),
    "closed connection": billable_fault([hostile_servers.send_raw()], ProviderTimeout),
    "partial body": billable_fault(
        [hostile_servers.send_raw(hostile_servers.head(200, JSON, "content-length: 9"), b'{"a"')], ProviderTimeout
    ),
    "not HTTP": billable_fault([hostile_servers.send_raw(b"SSH-2.0-OpenSSH_9.6\r\n")], ProviderTimeout),
    "endless header": billable_fault([hostile_servers.flood(b"HTTP/1.1 200 OK\r\nx: ", b"y")], ProviderTimeout),
    "endless headers": billable_fault([hostile_servers.flood(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n")], ProviderTimeout),
    "invalid gzip": billable_fault(respond_json(200, b"{}", "content-encoding: gzip"), ProviderError),
    "200 with HTML": billable_fault(respond_json(200, b"<html>hi</html>"), ProviderError),
    "200 without body": billable_fault(respond_json(200), ProviderError),
    "200 with an error": billable_fault(respond_json(200, LATE), ProviderError),
    "200 with an error string": billable_fault(respond_json(200, b'{"error": "late"}'), ProviderError),
    "500 with an error string": Fault(respond_json(500, b'{"error": "broken"}'), ProviderError),
    "500 without body": Fault(respond_json(500), ProviderError),
    "503 with a detail": Fault(respond_json(503, b'{"detail": "loading"}'), ProviderUnavailable),
    "504 with a proxy page": billable_fault(respond_json(504, b"<html>"), ProviderTimeout),
    "429 with seconds": Fault(respond_json(429, b"{}", "retry-after: 7"), ProviderRateLimited, retry_after_s=7),
    "429 with a date": Fault(respond_json(429, b"slow", f"retry-after: {DATE}"), ProviderRateLimited, retry_after_s=30),
    "401 with a message": Fault(respond_json(401, b'{"message": "no"}'), ProviderAuth),
    "400 with an error string": Fault(respond_json(400, b'{"error": "bad"}'), ProviderRejected, continues=False),
    "422 with a detail": Fault(respond_json(422, b'{"detail": [{"msg": "bad"}]}'), ProviderRejected, continues=False),
    "413 with a message": Fault(respond_json(413, b'{"message": "too much"}'), ProviderRejected, continues=False),
    "400 without body": Fault(respond_json(400), ProviderRejected, continues=False),
    "502 with a proxy page": Fault(respond_json(502, b"<html>"), ProviderError),
}


@contextmanager
def faulty_provider(fault: Fault, queue: str = "hosted") -> Generator[Provider]:
    """A provider with the fault."""
    options = {"name": "first", "priority": 1, "queue": queue, "timeout_s": fault.deadline_s}
    if not fault.behaviours:
        with hostile_servers.refusing_port() as port:
            yield provider(f"http://127.0.0.1:{port}/v1", **options)
        return
    with hostile_servers.receiver(*fault.behaviours, tls=_tls(fault.tls)) as server:
        yield provider(f"{'https' if fault.tls else 'http'}://127.0.0.1:{server.port}/v1", **options)


def _tls(kind: str) -> ssl.SSLContext | None:
    if kind == "self-signed":
        return hostile_servers.self_signed_context()
    return AUTHORITY.tls_for("elsewhere.example") if kind == "of another host" else None


AUTHORITY = Authority()


@pytest.fixture(autouse=True)
def trust_authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    AUTHORITY.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_fault_maps_to_error_class_billing_and_retry_after(fault: Fault) -> None:
    with faulty_provider(fault) as target, pytest.raises(ProviderError) as failed:
        call_provider(target, timeout_s=fault.deadline_s)
    error = failed.value
    assert (type(error), error.may_be_billed, error.retry_after_s) == (
        fault.error_class,
        fault.may_be_billed,
        fault.retry_after_s,
    )


@pytest.mark.parametrize("queue", ["hosted", "gpu"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_failover_continues_only_if_the_fault_costs_nothing(
    fault: Fault, queue: str, upstream: ScriptedProvider
) -> None:
    with faulty_provider(fault, queue) as target:
        outcome = fail_over(target, provider(upstream.base_url, name="second"))
    continues = fault.continues or (queue == "gpu" and fault.may_be_billed)
    assert len(upstream.requests) == continues
    assert (outcome.provider, outcome.attempts, outcome.unknown_outcomes) == (
        "second" if continues else "first",
        1 + continues,
        int(fault.may_be_billed),
    )
    assert type(outcome.error) is (type(None) if continues else fault.error_class)


def fail_over(*providers: Provider) -> FailoverResult:
    """One failover pass over the providers, as a request makes it."""
    clock = FakeClock()
    with create_client() as http:
        failover = Failover(dispatcher(http, clock), AdmissionControl(clock), None, clock)
        call = make_call(timeout_s=LONG_S, clock=clock)
        return failover.try_candidates(call, select_candidates(providers, "m"))


def test_provider_with_a_trusted_authority_is_called_over_tls() -> None:
    behaviour = hostile_servers.respond(200, JSON, body=b'{"choices": [{}]}')
    with hostile_servers.receiver(behaviour, tls=AUTHORITY.tls_for("localhost")) as server:
        assert call_provider(provider(f"https://localhost:{server.port}/v1")).status == 200


def test_list_models_is_limited_by_its_timeout() -> None:
    with hostile_servers.receiver(hostile_servers.hang) as server, pytest.raises(ProviderTimeout):
        list_models(provider(f"http://127.0.0.1:{server.port}/v1"), timeout_s=SHORT_S)


def test_call_without_remaining_time_is_not_sent(upstream: ScriptedProvider) -> None:
    with pytest.raises(ProviderUnavailable):
        call_provider(provider(upstream.base_url), timeout_s=0)
    assert upstream.requests == []


def test_cookies_are_not_sent_with_later_calls(upstream: ScriptedProvider) -> None:
    with create_client() as http, total_deadline(5):
        for _ in range(2):
            upstream.respond_with(200, b"{}", {"content-type": "application/json", "set-cookie": "a=b; Path=/"})
            http.post(f"{upstream.base_url}/chat/completions", content=b"{}")
    assert "cookie" not in upstream.requests[-1].headers


class _Addresses(httpcore.NetworkBackend):
    """Time out at every address except `last`; `attempts` contains each address and its timeout."""

    def __init__(self, last: str = "") -> None:
        self.last = last
        self.attempts: list[tuple[str, float]] = []

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, *_: Any) -> httpcore.NetworkStream:
        self.attempts.append((host, timeout or 0))
        if host != self.last:
            raise httpcore.ConnectTimeout
        return httpcore.MockStream([])


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Resolve every host name to these addresses."""
    address_infos = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: address_infos)


def test_all_addresses_of_a_host_share_the_connect_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2", "127.0.0.3")
    network = _Addresses()
    with total_deadline(60), pytest.raises(httpcore.ConnectTimeout):
        DeadlineBackend(9, network).connect_tcp("gpu.example.com", 443)
    assert [address for address, _ in network.attempts] == ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    assert network.attempts[0][1] <= 3
    assert all(timeout <= 9 for _, timeout in network.attempts)


def test_unresponsive_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve_to(monkeypatch, "127.0.0.1", "127.0.0.2")
    with total_deadline(60):
        assert DeadlineBackend(9, _Addresses("127.0.0.2")).connect_tcp("gpu.example.com", 443)


def test_unknown_host_is_a_provider_unavailable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ProviderUnavailable):
        call_provider(provider("http://gpu.example.com/v1"))


@pytest.mark.parametrize("status", [502, 530])
def test_proxy_error_of_a_gpu_provider_is_a_provider_unavailable_error(status: int, upstream: ScriptedProvider) -> None:
    upstream.respond_with(status, b"<html>")
    with pytest.raises(ProviderUnavailable):
        call_provider(provider(upstream.base_url, queue="gpu"))
