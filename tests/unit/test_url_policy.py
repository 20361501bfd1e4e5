"""URL policy of ReplyTo: the vectors of tests/vectors, and a second, independent implementation of the rules."""

import re
import socket
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aiserver.http_client.addresses import is_public
from aiserver.webhooks.client import WebhookClient
from aiserver.webhooks.url_policy import CallbackRefused, parse_url
from tests import addresses
from tests.examples import examples

STRICT = WebhookClient(resolver=addresses.resolve)


@pytest.mark.parametrize("url", addresses.ssrf_urls())
def test_ssrf_vectors_are_rejected(url: str) -> None:
    with pytest.raises(CallbackRefused):
        STRICT.check_url(url)


@pytest.mark.parametrize("url", [url for urls in addresses.FORMS.values() for url in urls])
def test_unsafe_url_forms_are_rejected(url: str) -> None:
    with pytest.raises(CallbackRefused):
        STRICT.check_url(url)


@pytest.mark.parametrize("name", addresses.ADDRESSES)
def test_name_with_any_non_public_address_is_rejected(name: str) -> None:
    with pytest.raises(CallbackRefused, match=f"{name} resolves to an address that is not public"):
        STRICT.check_url(f"https://{name}/")


ACCEPTED = [pair for urls in addresses.ACCEPTED.values() for pair in urls.items()]


@pytest.mark.parametrize(("url", "normalized"), ACCEPTED)
def test_public_url_is_accepted_and_normalized(url: str, normalized: str) -> None:
    STRICT.check_url(url)
    assert str(parse_url(url)) == normalized
    assert str(parse_url(normalized)) == normalized


# The rules for IP addresses, a second time: each row is a prefix and whether its addresses are public. The longest
# matching prefix applies. Source: IANA's special-purpose registries, with entries up to RFC 9780 (May 2025):
# https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
# "Globally Reachable" there is True or False here, N/A is False. Rows marked `ours` differ from
# the registries, or are not in them.
IPV4 = [
    ("0.0.0.0", 0, True),  # all addresses that are not special
    ("0.0.0.0", 8, False),
    ("10.0.0.0", 8, False),
    ("100.64.0.0", 10, False),
    ("127.0.0.0", 8, False),
    ("168.63.129.16", 32, False),  # ours: Azure's platform services
    ("169.254.0.0", 16, False),
    ("172.16.0.0", 12, False),
    ("192.0.0.0", 24, False),
    ("192.0.0.9", 32, False),  # ours: PCP anycast, to the nearest NAT
    ("192.0.0.10", 32, False),  # ours: TURN anycast
    ("192.0.2.0", 24, False),
    ("192.31.196.0", 24, True),  # AS112
    ("192.52.193.0", 24, True),  # AMT
    ("192.88.99.0", 24, False),
    ("192.168.0.0", 16, False),
    ("192.175.48.0", 24, True),  # AS112
    ("198.18.0.0", 15, False),
    ("198.51.100.0", 24, False),
    ("203.0.113.0", 24, False),
    ("224.0.0.0", 4, False),  # ours: multicast has a separate registry
    ("240.0.0.0", 4, False),
    ("255.255.255.255", 32, False),
]
IPV6 = [
    ("::", 0, False),  # ours: unassigned addresses are not public
    ("2000::", 3, True),  # global unicast
    ("::1", 128, False),
    ("::", 128, False),
    ("::ffff:0:0", 96, False),
    ("64:ff9b::", 96, False),  # ours: NAT64 leads to any IPv4 address
    ("64:ff9b:1::", 48, False),
    ("100::", 64, False),
    ("100:0:0:1::", 64, False),
    ("2001::", 23, False),
    ("2001::", 32, False),
    ("2001:1::1", 128, False),  # ours, as all below 2001::/23: anycast and identifiers, no servers
    ("2001:1::2", 128, False),
    ("2001:1::3", 128, False),
    ("2001:2::", 48, False),
    ("2001:3::", 32, False),
    ("2001:4:112::", 48, False),
    ("2001:10::", 28, False),
    ("2001:20::", 28, False),
    ("2001:30::", 28, False),
    ("2001:db8::", 32, False),
    ("2002::", 16, False),
    ("2620:4f:8000::", 48, True),  # AS112
    ("3fff::", 20, False),
    ("5f00::", 16, False),
    ("fc00::", 7, False),
    ("fe80::", 10, False),
    ("fec0::", 10, False),  # ours: site-local, no longer registered
    ("ff00::", 8, False),
]


def number(text: str) -> int:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    return int.from_bytes(socket.inet_pton(family, text), "big")


def text(address: int, bits: int) -> str:
    return socket.inet_ntop(socket.AF_INET if bits == 32 else socket.AF_INET6, address.to_bytes(bits // 8, "big"))


def expected(address: int, bits: int) -> bool:
    rows = [
        (length, public)
        for prefix, length, public in (IPV4 if bits == 32 else IPV6)
        if address >> (bits - length) == number(prefix) >> (bits - length)
    ]
    return max(rows)[1]


def numbers(bits: int) -> st.SearchStrategy[int]:
    """Draw any address, one near the boundary of a prefix, or one inside a prefix."""
    rows = [(number(prefix), 2 ** (bits - length)) for prefix, length, _ in (IPV4 if bits == 32 else IPV6)]
    last = 2**bits - 1
    edges = [edge for start, size in rows for edge in (start, start + size)]
    near = st.builds(lambda edge, offset: min(max(edge + offset, 0), last), st.sampled_from(edges), st.integers(-3, 3))
    inside = st.sampled_from(rows).flatmap(lambda row: st.integers(row[0], row[0] + row[1] - 1))
    return st.one_of(st.integers(0, last), near, inside)


@given(numbers(32))
def test_ipv4_is_public_matches_iana_registry(address: int) -> None:
    assert is_public(text(address, 32)) == expected(address, 32)


@given(numbers(128))
def test_ipv6_is_public_matches_iana_registry(address: int) -> None:
    assert is_public(text(address, 128)) == expected(address, 128)


@pytest.mark.parametrize(("bits", "rows"), [(32, IPV4), (128, IPV6)])
def test_prefix_boundaries_match_iana_registry(bits: int, rows: list[tuple[str, int, bool]]) -> None:
    for prefix, length, _ in rows:
        start, size = number(prefix), 2 ** (bits - length)
        for address in (start - 1, start, start + size - 1, start + size):
            if 0 <= address < 2**bits:
                assert is_public(text(address, bits)) == expected(address, bits), text(address, bits)


@given(numbers(128), st.text(min_size=1))
@settings(max_examples=examples(100, at_least=100))  # a callback must reach no private address
def test_address_with_zone_is_not_public(address: int, zone: str) -> None:
    assert not is_public(f"{text(address, 128)}%{zone}")


# Spellings of IPv4 addresses that inet_aton and browsers accept


DIGITS = ("０１２３４５６７８９", "⓪①②③④⑤⑥⑦⑧⑨", "𝟎𝟏𝟐𝟑𝟒𝟓𝟔𝟕𝟖𝟗", "⁰¹²³⁴⁵⁶⁷⁸⁹")  # noqa: RUF001
WIDE = [str.maketrans("0123456789", digits) for digits in DIGITS]
FORMATS = ("{:d}", "0{:o}", "000{:o}", "{:#x}", "{:#X}", "0x0{:x}")


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """Draw an IPv4 address in one to four parts, each decimal, octal or hexadecimal, in any Unicode digits."""
    octets = struct.pack("!I", draw(st.integers(0, 2**32 - 1)))
    parts = draw(st.integers(1, 4))
    values = [*octets[: parts - 1], int.from_bytes(octets[parts - 1 :], "big")]
    formatted = [draw(st.sampled_from(FORMATS)).format(value) for value in values]
    translated = [part.translate(draw(st.sampled_from([{}, *WIDE]))) for part in formatted]
    dot = draw(st.sampled_from(".。．｡"))  # noqa: RUF001
    return dot.join(translated) + draw(st.sampled_from(["", ".", ":443"]))


@given(spellings())
@example("127.0.0.1")
def test_no_ipv4_spelling_is_accepted_as_host_name(host: str) -> None:
    with pytest.raises(CallbackRefused):
        STRICT.check_url(f"https://{host}/")


# Arbitrary text


HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.(?!\d+$|0x[0-9a-f]*$)[a-z0-9_-]+")
TEXT = st.text(st.characters() | st.sampled_from(".。:/@#?%[]-xｘ\u00ad0１"))  # noqa: RUF001


@given(st.builds("{}{}{}".format, st.sampled_from(["", "https://", "https://a"]), TEXT, st.sampled_from(["", ".com/"])))
def test_any_text_is_rejected_or_has_an_ascii_host_name(url: str) -> None:
    try:
        host = parse_url(url).raw_host.decode()
    except CallbackRefused:
        return
    assert HOST.fullmatch(host)
    assert not host.endswith((".internal", ".local", ".localhost"))
