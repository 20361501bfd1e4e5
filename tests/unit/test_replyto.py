"""Where callbacks may go, and that the connection goes where was checked."""

import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook

from aiserver.errors import InvalidRequest
from aiserver.replyto.address import CallbackRefused, NameNotFound, ResolverFailed, is_public
from aiserver.replyto.replier import MAX_ANSWER_BYTES, Replier
from aiserver.replyto.signature import signature_headers
from local.receiver import receiver

PUBLIC = "93.184.215.14"


def replier(*addresses: str, unsafe: bool = False) -> Replier:
    return Replier(unsafe=unsafe, resolver=lambda host, port: list(addresses or [PUBLIC]))


REFUSED = [
    "http://example.com/hook",
    "https://example.com:8443/hook",
    "https://user:pass@example.com/hook",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0177.0.0.1/",
    "https://①②⑦.⓪.⓪.①/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::1]/",
    "https://[fe80::1%25eth0]/",
    "https://good.example\\@127.0.0.1/",
    "https://localhost/",
    "https://printer.local/",
    "https://db.internal/",
    "https://x.home.arpa/",
    "https://intranet/",
    "https://example.com./",
    "file:///proc/self/environ",
    "gopher://127.0.0.1:6379/_",
    "$PATH@https://example.com/",
    "PUT https://example.com/",
    "https://exa mple.com/",
    "https://example.com/\r\nx: y",
    "https://",
    "//example.com/",
    "https://example.com:99999/",
    "https://[::1/",
    "",
]


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_could_lead_inside_is_refused_by_its_form(url: str) -> None:
    with pytest.raises(CallbackRefused):
        replier().check(url)


@pytest.mark.parametrize(
    "url", ["https://example.com/hook?x=1", "https://EXAMPLE.com:443", "https://bücher.example/é", "https://a.b.co.uk/"]
)
def test_an_ordinary_public_address_is_accepted(url: str) -> None:
    replier().check(url)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0"),
        *("192.0.0.192", "168.63.129.16", "224.0.0.1", "255.255.255.255", "240.0.0.1", "198.18.0.1"),
        *("::1", "::", "fe80::1", "fd00:ec2::254", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"),
        *("2001::1", "ff02::1", "fec0::1", "::8.8.8.8", "2001:db8::1"),
    ],
)
def test_a_name_with_any_address_that_is_not_public_is_refused(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(CallbackRefused):
        replier(PUBLIC, address).check("https://example.com/")


@given(st.ip_addresses())
def test_nothing_private_is_public(address: object) -> None:
    text = str(address)
    first = int(text.split(".")[0]) if "." in text and ":" not in text else None
    if first in (0, 10, 127) or (first or 0) >= 224:
        assert not is_public(text)
    if ":" in text and not text.startswith(("2", "3")):  # global unicast is 2000::/3
        assert not is_public(text)


def test_a_name_that_does_not_exist_is_refused_and_a_resolver_that_fails_is_not_held_against_it() -> None:
    def absent(host: str, port: int) -> list[str]:
        raise NameNotFound("no such name")

    def failing(host: str, port: int) -> list[str]:
        raise ResolverFailed("later")

    with pytest.raises(InvalidRequest):
        Replier(resolver=absent).check("https://example.com/")
    Replier(resolver=failing).check("https://example.com/")
    assert Replier(resolver=failing).post("https://example.com/", b"", {}).error == "later"


def test_a_name_that_turned_private_is_refused_at_delivery_and_no_packet_leaves() -> None:
    with pytest.raises(CallbackRefused):
        replier("127.0.0.1").post("https://example.com/", b"{}", {})


def test_the_connection_goes_to_the_address_that_was_checked() -> None:
    with receiver() as hook:
        port = int(hook.url.split(":")[2].split("/")[0])
        sent = replier("127.0.0.1", unsafe=True).post(f"http://somewhere.example:{port}/hook", b"{}", {"x-a": "b"})
        callback = hook.next(5)
    assert (sent.status, sent.error) == (200, None)
    assert callback.headers["host"] == f"somewhere.example:{port}"
    assert callback.headers["x-a"] == "b"


class Raw:
    """A receiver that says just what it is told to, on a real socket."""

    def __init__(self, *pieces: bytes, endless: bool = False) -> None:
        self._pieces, self._endless = pieces, endless
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/"
        self.sent = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._server.accept()
        with connection, self._server:
            connection.recv(65_536)
            try:
                for piece in self._pieces:
                    connection.sendall(piece)
                while self._endless:
                    connection.sendall(b"x" * 65_536)
                    self.sent += 65_536
            except OSError:
                pass

    def join(self) -> None:
        self._thread.join(10)


@pytest.fixture
def post() -> Iterator[Replier]:
    return Replier(unsafe=True, resolver=lambda host, port: [host])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", 302),
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", 500),
    ],
)
def test_only_a_2xx_is_success_and_redirects_are_not_followed(head: bytes, status: int, post: Replier) -> None:
    delivery = post.post(Raw(head).url, b"{}", {})
    assert (delivery.status, (delivery.error or "")[:10]) == (status, f"status {status}")


def test_a_2xx_that_breaks_off_in_its_body_is_still_a_2xx(post: Replier) -> None:
    assert post.post(Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhalf").url, b"{}", {}).error is None


@pytest.mark.parametrize("pieces", [(), (b"garbage\r\n\r\n",), (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000,)])
def test_a_receiver_that_speaks_no_http_is_a_failed_attempt(pieces: tuple[bytes, ...], post: Replier) -> None:
    delivery = post.post(Raw(*pieces).url, b"{}", {})
    assert delivery.status is None
    assert delivery.error


def test_an_endless_answer_is_read_no_further_than_its_limit(post: Replier) -> None:
    endless = Raw(b"HTTP/1.1 500 No\r\n\r\n", endless=True)
    delivery = post.post(endless.url, b"{}", {})
    endless.join()
    assert len(delivery.error or "") <= 512
    assert endless.sent < 20_000_000  # what the sockets' buffers swallow
    assert MAX_ANSWER_BYTES == 16_384


def test_a_proxy_of_the_environment_is_ignored(post: Replier, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiver() as hook:
        assert Replier(unsafe=True, resolver=lambda h, p: [h]).post(hook.url, b"{}", {}).status == 200
    assert os.environ["HTTP_PROXY"]


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


def test_every_listed_vector_is_refused() -> None:
    vectors = Path(__file__).parents[1] / "vectors" / "ssrf.txt"
    for url in vectors.read_text(encoding="utf-8").splitlines():
        if url and not url.startswith("#"):
            with pytest.raises(CallbackRefused):
                Replier(resolver=lambda host, port: [PUBLIC]).check(url)
