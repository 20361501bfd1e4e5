"""What a name that cannot be resolved means, what development's rules allow, and how a callback is signed."""

from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook

from aiserver.errors import InvalidRequest
from aiserver.replyto.address import CallbackRefused, NameNotFound, ResolverFailed
from aiserver.replyto.replier import Delivery, Replier
from aiserver.replyto.signature import signature_headers
from local.receiver import receiver


def test_a_name_that_does_not_exist_is_refused_and_a_resolver_that_fails_is_not_held_against_it() -> None:
    def absent(host: str, port: int) -> list[str]:
        raise NameNotFound("no such name")

    def failing(host: str, port: int) -> list[str]:
        raise ResolverFailed("later")

    with pytest.raises(InvalidRequest):
        Replier(resolver=absent).check("https://example.com/")
    Replier(resolver=failing).check("https://example.com/")
    assert Replier(resolver=failing).post("https://example.com/", b"", {}).error == "later"


def test_development_s_rules_let_http_and_private_addresses_pass_and_the_connection_is_pinned_all_the_same() -> None:
    with receiver() as hook:
        url = hook.url.replace("127.0.0.1", "somewhere.example")
        lenient = Replier(unsafe=True, resolver=lambda host, port: ["127.0.0.1"])
        lenient.check(url)
        assert lenient.post(url, b"{}", {"x-a": "b"}) == Delivery(200, None)
        callback = hook.next(5)
    assert callback.headers["host"] == url.split("/")[2]
    assert callback.headers["x-a"] == "b"


@pytest.mark.parametrize(
    "url", ["http:///", "ftp://a.example/", "http://a@b/", "http://a/#b", "http://a\\b/", "http://a:b/"]
)
def test_development_s_rules_still_want_a_url_that_reads_one_way(url: str) -> None:
    with pytest.raises(CallbackRefused):
        Replier(unsafe=True, resolver=lambda host, port: ["127.0.0.1"]).check(url)


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
