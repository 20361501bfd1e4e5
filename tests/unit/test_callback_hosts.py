"""The callback hosts of an API key: the hosts that its ReplyTo URLs may name."""

import pytest

from aiserver.webhooks.client import WebhookClient
from aiserver.webhooks.url_policy import CallbackRefused, host_pattern, is_allowed_host


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("hooks.example.com", "hooks.example.com"),
        ("*.example.com", "*.example.com"),
        ("*.Example.COM", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.BÜCHER.example", "*.xn--bcher-kva.example"),
        ("XN--BCHER-KVA.example", "xn--bcher-kva.example"),
    ],
)
def test_callback_host_is_stored_normalized(text: str, stored: str) -> None:
    assert host_pattern(text) == host_pattern(stored) == stored


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "*",
            "*.",
            ".",
            "localhost",
            "*.com",
            "example.com.",
            "*.example.com.",
            "a..b",
            ".a.b",
            " a.b",
            "a.b\n",
        ),
        *(
            "https://a.b",
            "a.b:443",
            "a.b/x",
            "a.b?",
            "u@a.b",
            "a,b.c",
            "-a.b",
            "printer.local",
            "*.internal",
            "a.b\0",
            "a" * 64 + ".b",
        ),
        *("a.*.b", "*.*.b", "*a.b", "**.a.b", "a.*"),
        *("127.0.0.1", "*.0.0.1", "[::1]", "::1", "①②⑦.⓪.⓪.①", "a.0x7f", "a.0x", ".".join(["a" * 60] * 5)),
    ],
)
def test_invalid_callback_host_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a valid callback host; write hooks.example.com") as exc_info:
        host_pattern(text)
    assert repr(text) in str(exc_info.value)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("hooks.example.com", True),
        ("other.example.com", False),
        ("a.hooks.example.com", False),
        ("a.example.org", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evil-example.org", False),
        ("example.org.evil.net", False),
        ("hooks.example.com.evil.net", False),
    ],
)
def test_pattern_allows_its_host_or_all_subdomains(host: str, allowed: bool) -> None:
    assert is_allowed_host(host, ("hooks.example.com", "*.example.org")) is allowed


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://hooks.example.com/x", True),
        ("https://HOOKS.example.com:443/x", True),
        ("https://a.bücher.example/", True),
        ("https://example.com/", False),
        ("https://bücher.example/", False),
    ],
)
def test_callback_hosts_are_checked_at_acceptance_and_delivery(url: str, allowed: bool) -> None:
    patterns = tuple(map(host_pattern, ("hooks.example.com", "*.bücher.example")))
    connects: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        connects.append(host)
        return []

    webhook_client = WebhookClient(resolver=resolver)
    if allowed:
        webhook_client.check_url(url, patterns)
        assert webhook_client.post(url, b"{}", {}, patterns).error
    else:
        for action in (
            lambda: webhook_client.check_url(url, patterns),
            lambda: webhook_client.post(url, b"{}", {}, patterns),
        ):
            with pytest.raises(CallbackRefused, match="is not among the callback hosts of this API key"):
                action()
        assert connects == []
    webhook_client.check_url(url)
