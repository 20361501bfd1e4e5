"""What becomes of a callback whose receiver, name or certificate means no good: production's rules, over real TLS.

A name's public address is led to a port of 127.0.0.1 behind the rules; all else is as it is in production.
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
from aiserver.webhooks.client import MAX_EXCERPT_CHARS, TOTAL_S, DeliveryResult, WebhookClient
from aiserver.webhooks.url_policy import CallbackRefused
from tests import hostile_servers
from tests.hostile_servers import Authority, Behaviour, Loopback, Receiver

NAME = "hook.example"
URL = f"https://{NAME}/hook"
PUBLIC, SECOND = "93.184.215.14", "93.184.215.15"
PRIVATE = "10.0.0.7"
NO_HTTP = "the answer is no HTTP, breaks off, or has too long a head"
SHORT_S = 1.5  # for a deadline that is waited for: enough for a handshake on a busy machine


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(autouse=True)
def trusted(authority: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    authority.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def replier(network: Loopback, *addresses: str, total_s: float = TOTAL_S) -> WebhookClient:
    """Production's, but for the addresses that names have and where those lead."""
    return WebhookClient(resolver=lambda host, port: list(addresses or [PUBLIC]), network=network, total_s=total_s)


@dataclass
class Called:
    """A receiver, and a network on which the name's address leads to it."""

    receiver: Receiver
    network: Loopback

    def post(self, total_s: float = TOTAL_S) -> DeliveryResult:
        return replier(self.network, total_s=total_s).post(URL, b'{"a": 1}', {"x-a": "b"})


Calling = Callable[..., AbstractContextManager[Called]]


@pytest.fixture
def calling(authority: Authority) -> Calling:
    @contextmanager
    def calling(
        *behaviours: Behaviour, tls: ssl.SSLContext | None = None, speaks_tls: bool = True
    ) -> Generator[Called]:
        context = (tls or authority.tls_for(NAME)) if speaks_tls else None
        with hostile_servers.receiver(*behaviours, tls=context) as receiver:
            yield Called(receiver, Loopback({PUBLIC: receiver.port}))

    return calling


# An orderly receiver


def test_the_pinned_address_is_called_and_hears_the_name_in_its_certificate_s_and_its_host_header(
    calling: Calling,
) -> None:
    with calling(hostile_servers.answers(200)) as called:
        assert called.post() == DeliveryResult(200, None)
    assert called.network.connects == [(PUBLIC, 443)]
    assert called.receiver.server_names == [NAME]
    head, _, body = called.receiver.requests[0].partition("\r\n\r\n")
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
        ("https://faß.hook.example/", "xn--fa-hia.hook.example"),  # older rules make fass of it
        ("https://xn--i-7iq.hook.example/", "xn--i-7iq.hook.example"),  # DNS has emoji, today's rules have none
        ("https://HOOK。example:443/", "hook.example"),
    ],
)
def test_resolver_certificate_and_host_get_one_and_the_same_name_at_the_check_and_at_delivery(
    url: str, name: str, authority: Authority
) -> None:
    certified = name if name == NAME else f"*.{NAME}"
    asked: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return [PUBLIC]

    with hostile_servers.receiver(hostile_servers.answers(200), tls=authority.tls_for(certified)) as receiver:
        strict = WebhookClient(resolver=resolver, network=Loopback({PUBLIC: receiver.port}))
        strict.check_url(url)
        assert strict.post(url, b"", {}).status == 200
    assert asked == [name, name]
    assert receiver.server_names == [name]
    assert f"host: {name}\r\n" in receiver.requests[0].lower()


def test_nothing_that_a_receiver_sets_comes_back_to_it(calling: Calling) -> None:
    with calling(hostile_servers.answers(200, "set-cookie: a=b; path=/; secure")) as called:
        again = replier(called.network)
        for _ in range(2):
            again.post(URL, b"", {})
    assert len(called.receiver.requests) == 2
    assert "cookie" not in called.receiver.requests[1].lower()


# What counts as success


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_a_2xx_is_success(status: int, calling: Calling) -> None:
    with calling(hostile_servers.says(hostile_servers.head(status))) as called:
        assert called.post() == DeliveryResult(status, None)


@pytest.mark.parametrize("status", [300, 304, 400, 410, 500, 600, 999])
def test_any_other_status_is_not(status: int, calling: Calling) -> None:
    with calling(hostile_servers.says(hostile_servers.head(status), b"no")) as called:
        delivery = called.post()
    assert delivery.status == status
    assert (delivery.error or "").startswith(f"status {status}: ")


def test_each_attempt_is_told_what_that_attempt_was_answered(calling: Calling) -> None:
    with calling(*map(hostile_servers.answers, (500, 500, 200))) as called:
        again = replier(called.network)
        assert [again.post(URL, b"", {}).status for _ in range(3)] == [500, 500, 200]


def test_a_429_is_told_with_its_retry_after(calling: Calling) -> None:
    with calling(hostile_servers.answers(429, "retry-after: 120", body=b"slow down")) as called:
        assert called.post() == DeliveryResult(429, "status 429: slow down", "120")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int, calling: Calling) -> None:
    with (
        hostile_servers.receiver(hostile_servers.answers(200)) as other,
        calling(hostile_servers.answers(status, f"location: http://127.0.0.1:{other.port}/")) as called,
    ):
        assert called.post() == DeliveryResult(status, f"status {status}: ")
    assert (called.receiver.connections, other.connections) == (1, 0)


@pytest.mark.parametrize("location", ["https://[", "https://xn--n3h.net/", "//", "\xff\xfe", ":", "https://a:b/"])
def test_where_a_redirect_leads_is_not_even_read(location: str, calling: Calling) -> None:
    start = b"HTTP/1.1 302 Found\r\nlocation: " + location.encode("latin-1") + b"\r\n\r\n"
    with calling(hostile_servers.says(start)) as called:
        assert called.post() == DeliveryResult(302, "status 302: ")


def test_a_2xx_that_breaks_off_is_still_a_2xx(calling: Calling) -> None:
    with calling(hostile_servers.says(hostile_servers.head(200, "content-length: 99"), b"half")) as called:
        assert called.post() == DeliveryResult(200, None)


# Receivers that do not answer


def test_a_closed_port_is_a_failed_attempt() -> None:
    with hostile_servers.closed_port() as port:
        delivery = replier(Loopback({PUBLIC: port})).post(URL, b"", {})
    assert delivery.status is None
    assert "refused" in (delivery.error or "")


def test_a_name_without_any_address_is_a_failed_attempt() -> None:
    network = Loopback({})
    assert (
        WebhookClient(resolver=lambda host, port: [], network=network).post(URL, b"", {}).error
        == f"{NAME} has no address"
    )
    assert network.connects == []


@pytest.mark.parametrize("speaks_tls", [True, False], ids=["after the handshake", "before it"])
def test_a_reset_is_a_failed_attempt(speaks_tls: bool, calling: Calling) -> None:
    with calling(hostile_servers.resets, speaks_tls=speaks_tls) as called:
        delivery = called.post()
    assert (delivery.status, called.receiver.connections) == (None, 1)
    assert delivery.error


@pytest.mark.parametrize("speaks_tls", [True, False], ids=["HTTP", "TLS"])
def test_a_receiver_that_never_says_a_word_of_it_is_left_in_time(speaks_tls: bool, calling: Calling) -> None:
    with calling(hostile_servers.hangs, speaks_tls=speaks_tls) as called:
        delivery = called.post(SHORT_S)
    assert (delivery.status, called.network.read_bytes) == (None, 0)
    assert "timed out" in (delivery.error or "")


def test_a_handshake_that_drips_is_not_waited_for_beyond_the_total_deadline(calling: Calling) -> None:
    with calling(hostile_servers.drips_handshake(200), speaks_tls=False) as called:
        delivery = called.post(SHORT_S)
    assert delivery.status is None
    assert "timed out" in (delivery.error or "")


def test_a_head_that_drips_is_not_waited_for_beyond_the_total_deadline(calling: Calling) -> None:
    with calling(hostile_servers.drips(200, head_bytes=200)) as called:  # 10 s, with never more than 0.05 s of silence
        delivery = called.post(SHORT_S)
    assert delivery.status is None
    assert delivery.error
    assert 0 < called.network.read_bytes < 200


def test_a_body_that_drips_is_not_waited_for_beyond_the_total_deadline_and_its_status_counts(calling: Calling) -> None:
    with calling(hostile_servers.drips(200, body_bytes=200)) as called:
        assert called.post(SHORT_S) == DeliveryResult(200, None)
    assert 0 < called.network.read_bytes < 200


@pytest.mark.parametrize(
    "said",
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
def test_what_is_no_http_is_a_failed_attempt(said: bytes, calling: Calling) -> None:
    with calling(hostile_servers.says(said)) as called:
        assert called.post() == DeliveryResult(None, NO_HTTP)


# Receivers that answer too much


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        pytest.param(hostile_servers.head(200)[:-2] + b"x: ", b"y", id="a huge header"),
        pytest.param(hostile_servers.head(200)[:-2], b"x: y\r\n", id="headers without end"),
        pytest.param(b"", hostile_servers.head(103, "link: </>"), id="informational answers without end"),
    ],
)
def test_a_head_without_end_is_refused_at_the_limit(start: bytes, piece: bytes, calling: Calling) -> None:
    with calling(hostile_servers.floods(start, piece)) as called:
        assert called.post() == DeliveryResult(None, NO_HTTP)
    assert called.network.read_bytes == MAX_RECEIVER_BYTES == 16_384


@pytest.mark.parametrize("lines", [["x: " + "y" * 17_000], [f"x-{n}: y" for n in range(5_000)]], ids=["huge", "many"])
def test_a_head_that_is_too_long_is_refused_though_it_ends(lines: list[str], calling: Calling) -> None:
    with calling(hostile_servers.answers(200, *lines)) as called:
        assert called.post() == DeliveryResult(None, NO_HTTP)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("lines", "piece"),
    [
        pytest.param([], b"no ", id="a body without end"),
        pytest.param(["content-length: 999999999999"], b"no ", id="a body of a terabyte"),
        pytest.param(["transfer-encoding: chunked"], b"3\r\nno \r\n", id="tiny chunks without end"),
        pytest.param(
            ["transfer-encoding: chunked"], b"3;" + b"x" * 9_000 + b"\r\nno \r\n", id="mostly chunk extensions"
        ),
    ],
)
def test_a_body_without_end_is_read_to_the_limit_and_its_start_is_kept(
    status: int, lines: list[str], piece: bytes, calling: Calling
) -> None:
    with calling(hostile_servers.floods(hostile_servers.head(status, *lines), piece)) as called:
        delivery = called.post()
    assert called.network.read_bytes == MAX_RECEIVER_BYTES
    assert delivery.status == status
    if status == 200:
        assert delivery.error is None
    else:
        assert (delivery.error or "").startswith("status 500: no ")


def test_of_a_long_error_512_characters_are_kept(calling: Calling) -> None:
    with calling(hostile_servers.answers(500, body="é".encode() * 4_000)) as called:
        error = called.post().error or ""
    assert error == f"status 500: {'é' * 500}"
    assert len(error) == MAX_EXCERPT_CHARS == 512


def test_a_gzip_bomb_is_asked_not_to_come_and_never_unpacked(calling: Calling) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    with calling(
        *(hostile_servers.answers(status, "content-encoding: gzip", body=bomb) for status in (200, 500))
    ) as called:
        assert called.post() == DeliveryResult(200, None)
        error = called.post().error or ""
    assert error.startswith("status 500: \x1f")  # as it came
    assert all("accept-encoding: identity" in request.lower() for request in called.receiver.requests)


# Certificates


@pytest.mark.parametrize(
    ("tls", "why"),
    [
        (lambda ours: ours.tls_for("other.example"), "Hostname mismatch"),
        (lambda ours: ours.tls_for(PUBLIC), "Hostname mismatch"),
        (lambda ours: ours.tls_for(NAME, not_after=datetime(2001, 1, 1, tzinfo=UTC)), "expired"),
        (lambda ours: hostile_servers.self_signed(), "self-signed"),
        (lambda ours: Authority().tls_for(NAME), "unable to get local issuer"),
    ],
    ids=["another name's", "the address's", "an expired one", "a self-signed one", "an unknown authority's"],
)
def test_a_certificate_that_proves_nothing_ends_the_attempt_before_a_word_is_said(
    tls: Callable[[Authority], ssl.SSLContext], why: str, authority: Authority, calling: Calling
) -> None:
    with calling(hostile_servers.answers(200), tls=tls(authority)) as called:
        delivery = called.post()
    assert delivery.status is None
    assert why in (delivery.error or "")
    assert (called.receiver.connections, called.receiver.requests) == (1, [])


def test_a_tls_version_that_is_too_old_ends_the_attempt(authority: Authority, calling: Calling) -> None:
    old = authority.tls_for(NAME)
    with warnings.catch_warnings(action="ignore"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with calling(hostile_servers.answers(200), tls=old) as called:
        assert called.post().status is None
    assert called.receiver.requests == []


# Names that change, and names with many addresses


def test_a_name_that_turned_private_gets_no_packet() -> None:
    answers, network = iter([[PUBLIC], [PRIVATE]]), Loopback({})
    turning = WebhookClient(resolver=lambda host, port: next(answers), network=network)
    turning.check_url(URL)
    with pytest.raises(CallbackRefused, match=f"{NAME} leads to an address that is not public"):
        turning.post(URL, b"", {})
    assert network.connects == []


@pytest.mark.parametrize("addresses", [(PUBLIC, PRIVATE), (PRIVATE, PUBLIC), (*[PUBLIC] * 9, PRIVATE)])
def test_a_name_with_any_address_that_is_not_public_is_refused_both_times(addresses: tuple[str, ...]) -> None:
    network = Loopback({})
    mixed = replier(network, *addresses)
    with pytest.raises(CallbackRefused):
        mixed.check_url(URL)
    with pytest.raises(CallbackRefused):
        mixed.post(URL, b"", {})
    assert network.connects == []


def test_a_name_is_resolved_once_for_a_delivery_and_that_answer_is_called(calling: Calling) -> None:
    answers = iter([[SECOND], [PUBLIC], [PRIVATE], [PRIVATE]])
    with calling(hostile_servers.answers(200)) as called:
        changing = WebhookClient(resolver=lambda host, port: next(answers), network=called.network)
        changing.check_url(URL)
        assert changing.post(URL, b"", {}).status == 200
    assert called.network.connects == [(PUBLIC, 443)]
    assert next(answers) == [PRIVATE]
    assert next(answers) == [PRIVATE]


def test_of_many_addresses_four_are_tried() -> None:
    network, many = Loopback({}), [f"93.184.216.{n}" for n in range(100)]
    assert replier(network, *many).post(URL, b"", {}).error == "nobody at 93.184.216.3"
    assert [host for host, _ in network.connects] == many[:4]


def test_a_silent_address_leaves_time_for_the_next(calling: Calling) -> None:
    with hostile_servers.silent_port() as silent, calling(hostile_servers.answers(200)) as called:
        network = Loopback({PUBLIC: silent, SECOND: called.receiver.port})
        assert replier(network, PUBLIC, SECOND, total_s=2 * SHORT_S).post(URL, b"", {}).status == 200
    assert [host for host, _ in network.connects] == [PUBLIC, SECOND]


# The environment


def test_a_proxy_of_the_environment_is_ignored(calling: Calling, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        hostile_servers.receiver(hostile_servers.answers(200)) as proxy,
        calling(hostile_servers.answers(200)) as called,
    ):
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("NO_PROXY", "")
        assert called.post().status == 200
    assert (proxy.connections, called.receiver.connections) == (0, 1)


def test_the_keys_of_a_session_are_not_written_down(
    calling: Calling, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    with calling(hostile_servers.answers(200)) as called:
        assert called.post().status == 200
    assert "SECRET" not in (tmp_path / "keys").read_text()
