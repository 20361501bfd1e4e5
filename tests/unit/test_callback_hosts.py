"""Which hosts a key's ReplyTo may name, where its operator says so."""

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
def test_a_callback_host_is_stored_as_it_is_compared(text: str, stored: str) -> None:
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
def test_what_is_no_callback_host_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no callback host; write hooks.example.com") as refused:
        host_pattern(text)
    assert repr(text) in str(refused.value)


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
def test_a_pattern_allows_its_own_host_or_every_name_below_it(host: str, allowed: bool) -> None:
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
def test_a_reply_to_is_held_against_the_list_when_accepted_and_at_each_delivery(url: str, allowed: bool) -> None:
    patterns = tuple(map(host_pattern, ("hooks.example.com", "*.bücher.example")))
    connects: list[str] = []

    def resolver(host: str, port: int) -> list[str]:
        connects.append(host)
        return []

    replier = WebhookClient(resolver=resolver)
    if allowed:
        replier.check_url(url, patterns)
        assert replier.post(url, b"{}", {}, patterns).error
    else:
        for deed in (lambda: replier.check_url(url, patterns), lambda: replier.post(url, b"{}", {}, patterns)):
            with pytest.raises(CallbackRefused, match="is not among the hosts that this API key may name"):
                deed()
        assert connects == []
    replier.check_url(url)
