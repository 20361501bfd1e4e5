"""WebhookClient: name resolution, the rules of development mode, sliced writes and signatures."""

import socket
import threading
from datetime import UTC, datetime

import httpcore
import pytest
from standardwebhooks import Webhook

from aiserver.errors import InvalidRequest
from aiserver.http_client import addresses
from aiserver.http_client.addresses import ResolverFailed, UnknownHost
from aiserver.http_client.transport import SLICE_BYTES, DeadlineStream, total_deadline
from aiserver.webhooks.client import DeliveryResult, WebhookClient
from aiserver.webhooks.signature import signature_headers
from aiserver.webhooks.url_policy import CallbackRefused
from local.receiver import receiver


def test_unknown_host_is_rejected_and_a_resolver_failure_is_not() -> None:
    def resolve_unknown(host: str, port: int) -> list[str]:
        raise UnknownHost("no such name")

    def resolve_failing(host: str, port: int) -> list[str]:
        raise ResolverFailed("later")

    with pytest.raises(InvalidRequest):
        WebhookClient(resolver=resolve_unknown).check_url("https://example.com/")
    WebhookClient(resolver=resolve_failing).check_url("https://example.com/")
    assert WebhookClient(resolver=resolve_failing).post("https://example.com/", b"", {}).error == "later"


@pytest.mark.parametrize(
    ("code", "error_type"),
    [(socket.EAI_NONAME, UnknownHost), (socket.EAI_AGAIN, ResolverFailed), (socket.EAI_FAIL, ResolverFailed)],
)
def test_resolver_errors_map_to_error_types(
    code: int, error_type: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "resolver error")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(error_type):
        addresses.resolve_host("r.example.com", 443)


def test_resolve_host_returns_each_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    v4, v6 = (2, 1, 6, "", ("192.0.2.1", 443)), (10, 1, 6, "", ("2001:db8::1", 443, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [v4, v6, v4])
    assert addresses.resolve_host("r.example.com", 443) == ["192.0.2.1", "2001:db8::1"]


def test_silent_resolver_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver_done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: resolver_done.wait(60))
    monkeypatch.setattr(addresses, "RESOLVE_TIMEOUT_S", 0.01)
    with pytest.raises(ResolverFailed, match=r"r\.example\.com could not be resolved within"):
        addresses.resolve_host("r.example.com", 443)
    resolver_done.set()


def test_error_of_an_unknown_host_names_the_reply_to_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(InvalidRequest) as raised:
        WebhookClient().check_url("https://r.example.com/")
    assert [field.field_name for field in raised.value.fields] == ["ReplyTo"]


def test_receiver_is_only_the_host_of_the_url() -> None:
    assert WebhookClient().receiver("https://bücher.example:443/hook?token=s3cret") == "xn--bcher-kva.example"
    assert WebhookClient(unsafe=True).receiver("http://127.0.0.1:9000/hook?token=s3cret") == "127.0.0.1:9000"
    assert WebhookClient().receiver("http://127.0.0.1:9000/hook") == ""


def test_body_is_written_in_slices_within_the_remaining_time() -> None:
    writes: list[tuple[int, float | None]] = []

    class Network(httpcore.NetworkStream):
        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            writes.append((len(buffer), timeout))

    with total_deadline(60):
        DeadlineStream(Network()).write(b"x" * (2 * SLICE_BYTES + 1))
    assert [size for size, _ in writes] == [SLICE_BYTES, SLICE_BYTES, 1]
    first, second, third = (timeout or 0 for _, timeout in writes)
    assert 60 >= first > second > third  # each slice has the time that remains


def test_unsafe_client_allows_http_and_private_addresses() -> None:
    """The connection is pinned to the resolved address in development mode too."""
    with receiver() as hook:
        url = hook.url.replace("127.0.0.1", "somewhere.example")
        client = WebhookClient(unsafe=True, resolver=lambda host, port: ["127.0.0.1"])
        client.check_url(url)
        assert client.post(url, b"{}", {"x-a": "b"}) == DeliveryResult(200, None)
        callback = hook.next(5)
    assert callback.headers["host"] == url.split("/")[2]
    assert callback.headers["x-a"] == "b"


@pytest.mark.parametrize(
    "url", ["http:///", "ftp://a.example/", "http://a@b/", "http://a/#b", "http://a\\b/", "http://a:b/"]
)
def test_unsafe_client_rejects_ambiguous_urls(url: str) -> None:
    with pytest.raises(CallbackRefused):
        WebhookClient(unsafe=True, resolver=lambda host, port: ["127.0.0.1"]).check_url(url)


def test_standard_webhooks_library_accepts_each_signature() -> None:
    secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "AAAA" * 8]
    for timestamp in (1_614_265_330, 2_000_000_000):
        headers = signature_headers(secrets, "msg_1_0", timestamp, b'{"test": 2432232314}')
        for secret in secrets:
            webhook = Webhook(secret)
            expected = set(headers["webhook-signature"].split())
            assert webhook.sign("msg_1_0", datetime.fromtimestamp(timestamp, UTC), '{"test": 2432232314}') in expected


def test_signature_matches_the_specification_example() -> None:
    """Source: https://github.com/standard-webhooks/standard-webhooks, the test vector shared by its libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signature_headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
