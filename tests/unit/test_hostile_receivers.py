"""Callbacks to hostile receivers, names and certificates: the production rules over real TLS.

Only the network differs from production: it maps a public address to a port of 127.0.0.1.
"""

import gzip
import ssl
import warnings
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from aiserver.limits import MAX_RECEIVER_BYTES
from aiserver.webhooks.client import MAX_EXCERPT_CHARS, TOTAL_TIMEOUT_S, DeliveryResult, WebhookClient
from aiserver.webhooks.url_policy import CallbackRefused
from tests import hostile_servers
from tests.hostile_servers import Authority, Behaviour, Loopback, Receiver

NAME = "hook.example"
URL = f"https://{NAME}/hook"
PUBLIC, SECOND = "93.184.215.14", "93.184.215.15"
PRIVATE = "10.0.0.7"
NO_HTTP = "the response is not valid HTTP, is incomplete, or its headers are too long"
SHORT_S = 1.5  # for deadlines that tests wait for: enough for a TLS handshake on a busy machine


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(autouse=True)
def trust_authority(authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def webhook_client(network: Loopback, *addresses: str, total_s: float = TOTAL_TIMEOUT_S) -> WebhookClient:
    """Return a production client with another resolver and network."""
    return WebhookClient(resolver=lambda host, port: list(addresses or [PUBLIC]), network=network, total_s=total_s)


@dataclass
class Target:
    """A receiver, and a network that maps the address of the name to it."""

    receiver: Receiver
    network: Loopback

    def post(self, total_s: float = TOTAL_TIMEOUT_S) -> DeliveryResult:
        return webhook_client(self.network, total_s=total_s).post(URL, b'{"a": 1}', {"x-a": "b"})


StartTarget = Callable[..., AbstractContextManager[Target]]


@pytest.fixture
def start_target(authority: Authority) -> StartTarget:
    @contextmanager
    def start_target(
        *behaviours: Behaviour, tls: ssl.SSLContext | None = None, speaks_tls: bool = True
    ) -> Generator[Target]:
        context = (tls or authority.tls_for(NAME)) if speaks_tls else None
        with hostile_servers.receiver(*behaviours, tls=context) as receiver:
            yield Target(receiver, Loopback({PUBLIC: receiver.port}))

    return start_target


# A valid receiver


def test_delivery_connects_to_the_pinned_address_with_sni_and_host_header(
    start_target: StartTarget,
) -> None:
    with start_target(hostile_servers.respond(200)) as target:
        assert target.post() == DeliveryResult(200, None)
    assert target.network.connects == [(PUBLIC, 443)]
    assert target.receiver.server_names == [NAME]
    head, _, body = target.receiver.requests[0].partition("\r\n\r\n")
    line, *headers = head.lower().split("\r\n")
    assert line == "post /hook http/1.1"
    assert sorted(headers) == [
        "accept-encoding: identity",
        "accept: */*",
        "connection: close",
        "content-length: 8",
        f"host: {NAME}",
        "user-agent: aiserver",
        "x-a: b",
    ]
    assert body == '{"a": 1}'


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://faß.hook.example/", "xn--fa-hia.hook.example"),  # older rules map it to fass
        ("https://xn--i-7iq.hook.example/", "xn--i-7iq.hook.example"),  # DNS has emoji names, current rules do not
        ("https://HOOK。example:443/", "hook.example"),
    ],
)
def test_same_normalized_name_is_resolved_verified_and_sent_as_host(url: str, name: str, authority: Authority) -> None:
    certificate_name = name if name == NAME else f"*.{NAME}"
    lookups: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        lookups.append(host)
        return [PUBLIC]

    with hostile_servers.receiver(hostile_servers.respond(200), tls=authority.tls_for(certificate_name)) as receiver:
        client = WebhookClient(resolver=resolver, network=Loopback({PUBLIC: receiver.port}))
        client.check_url(url)
        assert client.post(url, b"", {}).status == 200
    assert lookups == [name, name]
    assert receiver.server_names == [name]
    assert f"host: {name}\r\n" in receiver.requests[0].lower()


def test_cookies_of_a_receiver_are_not_sent_back(start_target: StartTarget) -> None:
    with start_target(hostile_servers.respond(200, "set-cookie: a=b; path=/; secure")) as target:
        client = webhook_client(target.network)
        for _ in range(2):
            client.post(URL, b"", {})
    assert len(target.receiver.requests) == 2
    assert "cookie" not in target.receiver.requests[1].lower()


# Statuses


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_success(status: int, start_target: StartTarget) -> None:
    with start_target(hostile_servers.send_raw(hostile_servers.head(status))) as target:
        assert target.post() == DeliveryResult(status, None)


@pytest.mark.parametrize("status", [300, 304, 400, 410, 500, 600, 999])
def test_other_status_is_a_failure(status: int, start_target: StartTarget) -> None:
    with start_target(hostile_servers.send_raw(hostile_servers.head(status), b"no")) as target:
        delivery = target.post()
    assert delivery.status == status
    assert (delivery.error or "").startswith(f"status {status}: ")


def test_each_attempt_returns_its_own_status(start_target: StartTarget) -> None:
    with start_target(*map(hostile_servers.respond, (500, 500, 200))) as target:
        client = webhook_client(target.network)
        assert [client.post(URL, b"", {}).status for _ in range(3)] == [500, 500, 200]


def test_429_returns_retry_after(start_target: StartTarget) -> None:
    with start_target(hostile_servers.respond(429, "retry-after: 120", body=b"slow down")) as target:
        assert target.post() == DeliveryResult(429, "status 429: slow down", "120")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(status: int, start_target: StartTarget) -> None:
    with (
        hostile_servers.receiver(hostile_servers.respond(200)) as redirect_target,
        start_target(hostile_servers.respond(status, f"location: http://127.0.0.1:{redirect_target.port}/")) as target,
    ):
        assert target.post() == DeliveryResult(status, f"status {status}: ")
    assert (target.receiver.connections, redirect_target.connections) == (1, 0)


@pytest.mark.parametrize("location", ["https://[", "https://xn--n3h.net/", "//", "\xff\xfe", ":", "https://a:b/"])
def test_location_of_a_redirect_is_not_parsed(location: str, start_target: StartTarget) -> None:
    start = b"HTTP/1.1 302 Found\r\nlocation: " + location.encode("latin-1") + b"\r\n\r\n"
    with start_target(hostile_servers.send_raw(start)) as target:
        assert target.post() == DeliveryResult(302, "status 302: ")


def test_truncated_2xx_is_success(start_target: StartTarget) -> None:
    with start_target(hostile_servers.send_raw(hostile_servers.head(200, "content-length: 99"), b"half")) as target:
        assert target.post() == DeliveryResult(200, None)


# Receivers that do not respond


def test_refused_connection_is_a_failed_attempt() -> None:
    with hostile_servers.refusing_port() as port:
        delivery = webhook_client(Loopback({PUBLIC: port})).post(URL, b"", {})
    assert delivery.status is None
    assert "refused" in (delivery.error or "")


def test_name_without_address_is_a_failed_attempt() -> None:
    network = Loopback({})
    assert (
        WebhookClient(resolver=lambda host, port: [], network=network).post(URL, b"", {}).error
        == f"{NAME} has no IP address"
    )
    assert network.connects == []


@pytest.mark.parametrize("speaks_tls", [True, False], ids=["after the handshake", "before it"])
def test_connection_reset_is_a_failed_attempt(speaks_tls: bool, start_target: StartTarget) -> None:
    with start_target(hostile_servers.reset, speaks_tls=speaks_tls) as target:
        delivery = target.post()
    assert (delivery.status, target.receiver.connections) == (None, 1)
    assert delivery.error


@pytest.mark.parametrize("speaks_tls", [True, False], ids=["HTTP", "TLS"])
def test_silent_receiver_times_out(speaks_tls: bool, start_target: StartTarget) -> None:
    with start_target(hostile_servers.hang, speaks_tls=speaks_tls) as target:
        delivery = target.post(SHORT_S)
    assert (delivery.status, target.network.read_bytes) == (None, 0)
    assert "timed out" in (delivery.error or "")


def test_slow_handshake_ends_at_the_total_timeout(start_target: StartTarget) -> None:
    with start_target(hostile_servers.drip_handshake(200), speaks_tls=False) as target:
        delivery = target.post(SHORT_S)
    assert delivery.status is None
    assert "timed out" in (delivery.error or "")


def test_slow_response_head_ends_at_the_total_timeout(start_target: StartTarget) -> None:
    with start_target(
        hostile_servers.drip_response(200, head_bytes=200)
    ) as target:  # 10 s, with gaps of at most 0.05 s
        delivery = target.post(SHORT_S)
    assert delivery.status is None
    assert delivery.error
    assert 0 < target.network.read_bytes < 200


def test_slow_response_body_ends_at_the_total_timeout_with_its_status(start_target: StartTarget) -> None:
    with start_target(hostile_servers.drip_response(200, body_bytes=200)) as target:
        assert target.post(SHORT_S) == DeliveryResult(200, None)
    assert 0 < target.network.read_bytes < 200


@pytest.mark.parametrize(
    "response",
    [
        b"garbage\r\n\r\n",
        b"<html>an answer as of HTTP/0.9</html>",
        b"HTTP/1.1 200",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"\x00" * 100,
        b"",
    ],
)
def test_invalid_http_is_a_failed_attempt(response: bytes, start_target: StartTarget) -> None:
    with start_target(hostile_servers.send_raw(response)) as target:
        assert target.post() == DeliveryResult(None, NO_HTTP)


# Receivers that send too much


@pytest.mark.parametrize(
    ("start", "chunk"),
    [
        pytest.param(hostile_servers.head(200)[:-2] + b"x: ", b"y", id="a huge header"),
        pytest.param(hostile_servers.head(200)[:-2], b"x: y\r\n", id="headers without end"),
        pytest.param(b"", hostile_servers.head(103, "link: </>"), id="informational answers without end"),
    ],
)
def test_endless_response_head_is_rejected_at_the_limit(start: bytes, chunk: bytes, start_target: StartTarget) -> None:
    with start_target(hostile_servers.flood(start, chunk)) as target:
        assert target.post() == DeliveryResult(None, NO_HTTP)
    assert target.network.read_bytes == MAX_RECEIVER_BYTES == 16_384


@pytest.mark.parametrize("lines", [["x: " + "y" * 17_000], [f"x-{n}: y" for n in range(5_000)]], ids=["huge", "many"])
def test_too_long_response_head_is_rejected(lines: list[str], start_target: StartTarget) -> None:
    with start_target(hostile_servers.respond(200, *lines)) as target:
        assert target.post() == DeliveryResult(None, NO_HTTP)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("lines", "chunk"),
    [
        pytest.param([], b"no ", id="a body without end"),
        pytest.param(["content-length: 999999999999"], b"no ", id="a body of a terabyte"),
        pytest.param(["transfer-encoding: chunked"], b"3\r\nno \r\n", id="tiny chunks without end"),
        pytest.param(
            ["transfer-encoding: chunked"], b"3;" + b"x" * 9_000 + b"\r\nno \r\n", id="mostly chunk extensions"
        ),
    ],
)
def test_endless_body_is_read_to_the_limit_and_its_start_recorded(
    status: int, lines: list[str], chunk: bytes, start_target: StartTarget
) -> None:
    with start_target(hostile_servers.flood(hostile_servers.head(status, *lines), chunk)) as target:
        delivery = target.post()
    assert target.network.read_bytes == MAX_RECEIVER_BYTES
    assert delivery.status == status
    if status == 200:
        assert delivery.error is None
    else:
        assert (delivery.error or "").startswith("status 500: no ")


def test_error_excerpt_is_limited_to_512_characters(start_target: StartTarget) -> None:
    with start_target(hostile_servers.respond(500, body="é".encode() * 4_000)) as target:
        error = target.post().error or ""
    assert error == f"status 500: {'é' * 500}"
    assert len(error) == MAX_EXCERPT_CHARS == 512


def test_gzip_response_is_never_decompressed(start_target: StartTarget) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with start_target(
        *(hostile_servers.respond(status, "content-encoding: gzip", body=bomb) for status in (200, 500))
    ) as target:
        assert target.post() == DeliveryResult(200, None)
        error = target.post().error or ""
    assert error.startswith("status 500: \x1f")  # still compressed
    assert all("accept-encoding: identity" in request.lower() for request in target.receiver.requests)


# Certificates


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        (lambda authority: authority.tls_for("other.example"), "Hostname mismatch"),
        (lambda authority: authority.tls_for(PUBLIC), "Hostname mismatch"),
        (lambda authority: authority.tls_for(NAME, not_after=datetime(2001, 1, 1, tzinfo=UTC)), "expired"),
        (lambda _: hostile_servers.self_signed_context(), "self-signed"),
        (lambda _: Authority().tls_for(NAME), "unable to get local issuer"),
    ],
    ids=["another name's", "the address's", "an expired one", "a self-signed one", "an unknown authority's"],
)
def test_invalid_certificate_fails_before_the_request(
    tls: Callable[[Authority], ssl.SSLContext], reason: str, authority: Authority, start_target: StartTarget
) -> None:
    with start_target(hostile_servers.respond(200), tls=tls(authority)) as target:
        delivery = target.post()
    assert delivery.status is None
    assert reason in (delivery.error or "")
    assert (target.receiver.connections, target.receiver.requests) == (1, [])


def test_old_tls_version_is_a_failed_attempt(authority: Authority, start_target: StartTarget) -> None:
    tls = authority.tls_for(NAME)
    with warnings.catch_warnings(action="ignore"):
        tls.minimum_version = tls.maximum_version = ssl.TLSVersion.TLSv1_1
    with start_target(hostile_servers.respond(200), tls=tls) as target:
        assert target.post().status is None
    assert target.receiver.requests == []


# Names that change, and names with many addresses


def test_name_that_becomes_private_gets_no_connection() -> None:
    resolutions, network = iter([[PUBLIC], [PRIVATE]]), Loopback({})
    client = WebhookClient(resolver=lambda host, port: next(resolutions), network=network)
    client.check_url(URL)
    with pytest.raises(CallbackRefused, match=f"{NAME} resolves to an address that is not public"):
        client.post(URL, b"", {})
    assert network.connects == []


@pytest.mark.parametrize("addresses", [(PUBLIC, PRIVATE), (PRIVATE, PUBLIC), (*[PUBLIC] * 9, PRIVATE)])
def test_name_with_non_public_address_is_rejected_at_check_and_delivery(addresses: tuple[str, ...]) -> None:
    network = Loopback({})
    client = webhook_client(network, *addresses)
    with pytest.raises(CallbackRefused):
        client.check_url(URL)
    with pytest.raises(CallbackRefused):
        client.post(URL, b"", {})
    assert network.connects == []


def test_name_is_resolved_once_per_delivery(start_target: StartTarget) -> None:
    resolutions = iter([[SECOND], [PUBLIC], [PRIVATE], [PRIVATE]])
    with start_target(hostile_servers.respond(200)) as target:
        client = WebhookClient(resolver=lambda host, port: next(resolutions), network=target.network)
        client.check_url(URL)
        assert client.post(URL, b"", {}).status == 200
    assert target.network.connects == [(PUBLIC, 443)]
    assert next(resolutions) == [PRIVATE]
    assert next(resolutions) == [PRIVATE]


def test_at_most_four_addresses_are_tried() -> None:
    network, addresses = Loopback({}), [f"93.184.216.{n}" for n in range(100)]
    assert webhook_client(network, *addresses).post(URL, b"", {}).error == "nobody at 93.184.216.3"
    assert [host for host, _ in network.connects] == addresses[:4]


def test_unresponsive_address_leaves_time_for_the_next(start_target: StartTarget) -> None:
    with hostile_servers.unresponsive_port() as silent, start_target(hostile_servers.respond(200)) as target:
        network = Loopback({PUBLIC: silent, SECOND: target.receiver.port})
        assert webhook_client(network, PUBLIC, SECOND, total_s=2 * SHORT_S).post(URL, b"", {}).status == 200
    assert [host for host, _ in network.connects] == [PUBLIC, SECOND]


# The environment


def test_environment_proxy_is_ignored(start_target: StartTarget, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        hostile_servers.receiver(hostile_servers.respond(200)) as proxy,
        start_target(hostile_servers.respond(200)) as target,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        assert target.post().status == 200
    assert (proxy.connections, target.receiver.connections) == (0, 1)


def test_tls_session_keys_are_not_logged(
    start_target: StartTarget, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with start_target(hostile_servers.respond(200)) as target:
        assert target.post().status == 200
    assert "SECRET" not in (tmp_path / "keys").read_text()
