"""What a name that cannot be resolved means, what development's rules allow, and how a callback is signed."""

import socket
import threading
from datetime import UTC, datetime

import httpcore
import pytest
from standardwebhooks import Webhook

from aiserver.errors import InvalidRequest
from aiserver.providers.transport import SLICE_BYTES, DeadlineStream, total_deadline
from aiserver.webhooks import url_policy
from aiserver.webhooks.client import DeliveryResult, WebhookClient
from aiserver.webhooks.signature import signature_headers
from aiserver.webhooks.url_policy import CallbackRefused, NameNotFound, ResolverFailed
from local.receiver import receiver


def test_a_name_that_does_not_exist_is_refused_and_a_resolver_that_fails_is_not_held_against_it() -> None:
    def absent(host: str, port: int) -> list[str]:
        raise NameNotFound("no such name")

    def failing(host: str, port: int) -> list[str]:
        raise ResolverFailed("later")

    with pytest.raises(InvalidRequest):
        WebhookClient(resolver=absent).check_url("https://example.com/")
    WebhookClient(resolver=failing).check_url("https://example.com/")
    assert WebhookClient(resolver=failing).post("https://example.com/", b"", {}).error == "later"


@pytest.mark.parametrize(
    ("code", "becomes"),
    [(socket.EAI_NONAME, NameNotFound), (socket.EAI_AGAIN, ResolverFailed), (socket.EAI_FAIL, ResolverFailed)],
)
def test_what_the_system_s_resolver_says_is_told_apart(
    code: int, becomes: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(code, "said so")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(becomes):
        url_policy.resolve("r.example.com", 443)


def test_all_addresses_of_a_name_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    v4, v6 = (2, 1, 6, "", ("192.0.2.1", 443)), (10, 1, 6, "", ("2001:db8::1", 443, 0, 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [v4, v6, v4])
    assert url_policy.resolve("r.example.com", 443) == ["192.0.2.1", "2001:db8::1"]


def test_a_resolver_that_is_silent_is_waited_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: silence.wait(60))
    monkeypatch.setattr(url_policy, "RESOLVE_S", 0.01)
    with pytest.raises(ResolverFailed, match=r"r\.example\.com could not be resolved within"):
        url_policy.resolve("r.example.com", 443)
    silence.set()


def test_a_name_that_does_not_exist_is_told_as_the_field_it_stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    with pytest.raises(NameNotFound) as refused:
        WebhookClient().check_url("https://r.example.com/")
    assert [field.field_name for field in refused.value.fields] == ["ReplyTo"]


def test_of_an_address_only_its_receiver_is_told() -> None:
    assert WebhookClient().receiver("https://bücher.example:443/hook?token=s3cret") == "xn--bcher-kva.example"
    assert WebhookClient(unsafe=True).receiver("http://127.0.0.1:9000/hook?token=s3cret") == "127.0.0.1:9000"
    assert WebhookClient().receiver("http://127.0.0.1:9000/hook") == ""


def test_what_is_sent_goes_out_in_slices_each_within_what_is_left_of_the_time() -> None:
    written: list[tuple[int, float | None]] = []

    class Network(httpcore.NetworkStream):
        def write(self, buffer: bytes, timeout: float | None = None) -> None:
            written.append((len(buffer), timeout))

    with total_deadline(60):
        DeadlineStream(Network()).write(b"x" * (2 * SLICE_BYTES + 1))
    assert [size for size, _ in written] == [SLICE_BYTES, SLICE_BYTES, 1]
    first, second, third = (timeout or 0 for _, timeout in written)
    assert 60 >= first > second > third  # what is left is looked up anew each time


def test_development_s_rules_let_http_and_private_addresses_pass_and_the_connection_is_pinned_all_the_same() -> None:
    with receiver() as hook:
        url = hook.url.replace("127.0.0.1", "somewhere.example")
        lenient = WebhookClient(unsafe=True, resolver=lambda host, port: ["127.0.0.1"])
        lenient.check_url(url)
        assert lenient.post(url, b"{}", {"x-a": "b"}) == DeliveryResult(200, None)
        callback = hook.next(5)
    assert callback.headers["host"] == url.split("/")[2]
    assert callback.headers["x-a"] == "b"


@pytest.mark.parametrize(
    "url", ["http:///", "ftp://a.example/", "http://a@b/", "http://a/#b", "http://a\\b/", "http://a:b/"]
)
def test_development_s_rules_still_want_a_url_that_reads_one_way(url: str) -> None:
    with pytest.raises(CallbackRefused):
        WebhookClient(unsafe=True, resolver=lambda host, port: ["127.0.0.1"]).check_url(url)


def test_standard_webhooks_own_library_accepts_each_signature() -> None:
    secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_" + "AAAA" * 8]
    for moment in (1_614_265_330, 2_000_000_000):
        headers = signature_headers(secrets, "msg_1_0", moment, b'{"test": 2432232314}')
        for secret in secrets:
            webhook = Webhook(secret)
            expected = set(headers["webhook-signature"].split())
            assert webhook.sign("msg_1_0", datetime.fromtimestamp(moment, UTC), '{"test": 2432232314}') in expected


def test_the_specification_s_own_example_is_signed_as_it_says() -> None:
    """https://github.com/standard-webhooks/standard-webhooks, the test vector its libraries share."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signature_headers([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
