"""Downloads of a provider's files: SSRF rules for every URL and redirect, retries, and limits of time and size."""

import gzip
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aiserver.http_client import transport
from aiserver.http_client.addresses import Resolve, ResolverFailed, UnknownHost
from aiserver.limits import LARGE_RESPONSE_BYTES
from aiserver.providers.call import Upstream
from aiserver.providers.downloads import MAX_REDIRECTS, PAUSES_S, DownloadFailed, Downloads
from aiserver.providers.memory_budget import MemoryBudget, reserve
from aiserver.providers.provider import Provider
from tests import addresses
from tests.hostile_servers import (
    Authority,
    Behaviour,
    Loopback,
    Receiver,
    drip_response,
    flood,
    hang,
    head,
    receiver,
    reset,
    respond,
    send_raw,
)

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
IMAGE = respond(200, "content-type: image/png", body=PNG)
PUBLIC, SECOND, PRIVATE = "93.184.215.14", "93.184.215.15", "10.0.0.7"
NAMES = {"images.example": PUBLIC, "api.example": PUBLIC, "other.example": SECOND, "inside.example": PRIVATE}
URL = "http://images.example/a.png"
KEY = "k3y"
LIMIT_BYTES = 1_000_000
SHORT_S = 1.0  # for limits that tests wait for
CREATE_TLS_CONTEXT: Callable[[], ssl.SSLContext] = getattr(transport, "_tls_context")  # noqa: B009
TLS_CONTEXT = CREATE_TLS_CONTEXT()  # reading the certificates takes longer than a test


def make_upstream(base_url: str, queue: str = "gpu", auth_header: str = "authorization") -> Upstream:
    settings = {"name": "p", "base_url": base_url, "queue": queue, "auth_header": auth_header, "models": {"m": ""}}
    return Upstream(Provider.model_validate(settings), "m", True, KEY)


HOSTED = make_upstream("http://api.example/v1", "hosted")


@pytest.fixture(autouse=True)
def share_tls_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "_tls_context", lambda: TLS_CONTEXT)


@pytest.fixture
def authority(share_tls_context: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority that the downloads of this test trust."""
    authority = Authority()
    authority.write_to(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(transport, "_tls_context", CREATE_TLS_CONTEXT)
    return authority


def resolve(host: str, port: int) -> list[str]:
    return [NAMES[host]]


def fetch(
    url: str,
    network: Loopback | None = None,
    upstream: Upstream = HOSTED,
    *,
    resolver: Resolve = resolve,
    pauses: list[float] | None = None,
    max_bytes: int = LIMIT_BYTES,
    timeout_s: float = 30,
) -> bytes:
    """Download by the production rules, over another network and without waits; they are added to `pauses`."""
    downloads = Downloads(sleep=([] if pauses is None else pauses).append, resolver=resolver, network=network)
    return downloads.fetch(url, upstream, max_bytes=max_bytes, timeout_s=timeout_s)


def check_refused(
    url: str, text: str, network: Loopback | None = None, upstream: Upstream = HOSTED, resolver: Resolve = resolve
) -> None:
    """The download fails without a retry."""
    pauses: list[float] = []
    with pytest.raises(DownloadFailed, match=text) as raised:
        fetch(url, network, upstream, resolver=resolver, pauses=pauses)
    assert (pauses, raised.value.can_retry) == ([], False)


def public_server(server: Receiver, *names: str) -> Loopback:
    return Loopback(dict.fromkeys(names or (PUBLIC,), server.port))


def own_url(server: Receiver, path: str = "/v1") -> str:
    return f"http://127.0.0.1:{server.port}{path}"


# URLs that are refused before a packet is sent

NOT_URLS = [
    *("file:///etc/passwd", "file://images.example/etc/passwd", "ftp://images.example/a.png", "data:,x"),
    *("gopher://127.0.0.1:6379/_SET", "dict://127.0.0.1/", "javascript:alert(1)", "unix:/var/run/docker.sock"),
    *("http://user:password@images.example/", "http://user@images.example/", "http://@images.example/"),
    *("http://images.example@127.0.0.1/", r"http://images.example\@127.0.0.1/", "http://images.example:0/"),
    *("https://", "https:///a.png", "http://:80/", "http://images.example:99999/", "http://images.example:x/"),
    *("http://images.example/a b", "http://images.example/\x7f", f"http://images.example/{'x' * 70_000}"),
]
NOT_NAMES = [
    *("127.0.0.1", "10.0.0.7", "169.254.169.254", "169.254.170.2", "0.0.0.0", "[::1]", "[::ffff:10.0.0.7]"),
    *("[fe80::1]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2606:2800:21f::1]", "93.184.215.14"),
    *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "0", "①②⑦.⓪.⓪.①", "127。0。0。1", "127.0.0.1."),
    *("localhost", "metadata", "metadata.google.internal", "printer.local", "a.localhost", "images.example."),
    *("localhost%00.example", "%31%32%37.0.0.1"),
]


@pytest.mark.parametrize("url", NOT_URLS, ids=lambda url: url[:40])
def test_invalid_url_is_refused_before_dns(url: str) -> None:
    network = Loopback({})
    check_refused(url, "its URL is not a valid HTTP URL", network, resolver=raise_assertion)
    assert network.connects == []


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("host", NOT_NAMES)
def test_host_that_is_not_a_public_name_is_refused_before_dns(host: str, scheme: str) -> None:
    network = Loopback({})
    text = "not an IP address|is not a valid name|is not a public name"
    check_refused(f"{scheme}://{host}/a.png", text, network, resolver=raise_assertion)
    assert network.connects == []


@pytest.mark.parametrize(
    "url", ["http://images.example:8080/", "https://images.example:80/", "http://api.example:443/"]
)
def test_unusual_port_is_refused_before_dns(url: str) -> None:
    network = Loopback({})
    check_refused(url, "the port of its URL must be", network, resolver=raise_assertion)
    assert network.connects == []


def raise_assertion(host: str, port: int) -> list[str]:
    raise AssertionError(f"{host} was resolved")


@pytest.mark.parametrize("name", addresses.ADDRESSES)
def test_name_with_any_address_that_is_not_public_is_refused(name: str) -> None:
    network = Loopback({})
    check_refused(f"https://{name}/", "resolves to an address that is not public", network, resolver=addresses.resolve)
    assert network.connects == []


@pytest.mark.parametrize("url", ["https://[", "https://[::1", "https://a\u2100b/"])
def test_unparsable_url_is_a_failed_download(url: str) -> None:
    check_refused(url, "its URL is not a valid HTTP URL", Loopback({}))


# A valid URL


@pytest.mark.parametrize("name", ["images.example", "IMAGES。example"])
def test_https_download_connects_to_the_checked_address(name: str, authority: Authority) -> None:
    with receiver(IMAGE, tls=authority.tls_for("images.example")) as server:
        network = public_server(server)
        assert fetch(f"https://{name}/a.png?x=1&y=%2F#part", network) == PNG
    assert (network.connects, server.server_names) == ([(PUBLIC, 443)], ["images.example"])
    line, *headers = server.requests[0].lower().strip().split("\r\n")
    assert line == "get /a.png?x=1&y=%2f http/1.1"
    assert sorted(headers) == [
        "accept-encoding: identity",
        "accept: */*",
        "host: images.example",
        "user-agent: aiserver",
    ]


def test_certificate_of_another_name_is_a_failed_download(authority: Authority) -> None:
    with (
        receiver(IMAGE, tls=authority.tls_for("other.example")) as server,
        pytest.raises(DownloadFailed, match="Hostname mismatch"),
    ):
        fetch("https://images.example/", public_server(server))
    assert server.requests == []


# The provider's own origin


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("/v1/images/x/content", "/v1/images/x/content"),
        ("images/x.png?y=1", "/images/x.png?y=1"),
        ("http://127.0.0.1:{port}/generated-images/x.png", "/generated-images/x.png"),
        ("HTTP://127.0.0.1:{port}/x", "/x"),
        ("//127.0.0.1:{port}/x", "/x"),
    ],
)
def test_own_private_origin_of_a_gpu_gets_the_api_key(url: str, target: str) -> None:
    """Issues: SGLang's relative URLs; LocalAI's files need the API key (nextcloud/integration_openai #138)."""
    with receiver(IMAGE) as server:
        assert fetch(url.format(port=server.port), upstream=make_upstream(own_url(server))) == PNG
    assert server.requests[0].startswith(f"GET {target} HTTP/1.1\r\n")
    assert f"\r\nhost: 127.0.0.1:{server.port}\r\n" in server.requests[0].lower()
    assert f"\r\nauthorization: bearer {KEY}\r\n" in server.requests[0].lower()


def test_key_is_sent_in_the_header_of_the_provider() -> None:
    with receiver(IMAGE) as server:
        fetch("/x", upstream=make_upstream(own_url(server), auth_header="api-key"))
    assert f"\r\napi-key: {KEY}\r\n" in server.requests[0].lower()
    assert "authorization" not in server.requests[0].lower()


@pytest.mark.parametrize("queue", ["hosted", "gpu"])
def test_own_public_origin_of_a_provider_gets_the_api_key(queue: str) -> None:
    upstream = HOSTED if queue == "hosted" else make_upstream("http://127.0.0.1/v1")
    with receiver(IMAGE) as server:
        network = Loopback({PUBLIC: server.port, "127.0.0.1": server.port})
        assert fetch("/x", network, upstream) == PNG
    assert KEY in server.requests[0]


def test_own_private_origin_of_a_hosted_provider_is_refused() -> None:
    with receiver(IMAGE) as server:
        check_refused("/x", "the port of its URL must be 80", upstream=make_upstream(own_url(server), "hosted"))
        check_refused("/x", "not an IP address", upstream=make_upstream("http://127.0.0.1/v1", "hosted"))
    assert server.connections == 0


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://localhost:{own}/", "https://127.0.0.1:{own}/"])
def test_other_private_origin_of_a_gpu_is_refused(url: str) -> None:
    with receiver(IMAGE) as own, receiver(IMAGE) as other:
        address = url.format(port=other.port, own=own.port)
        check_refused(address, "the port of its URL must be", upstream=make_upstream(own_url(own)))
        for location in (address, "http://127.0.0.1/", "http://inside.example/"):
            with receiver(respond(302, f"location: {location}")) as server:
                with pytest.raises(DownloadFailed):
                    fetch("/x", upstream=make_upstream(own_url(server)))
                assert server.connections == 1
    assert (own.connections, other.connections) == (0, 0)


@pytest.mark.parametrize("url", [URL, "http://other.example/", "http://api.example.other.example/", "//other.example"])
def test_other_host_gets_no_api_key(url: str) -> None:
    """Issues: the key is sent to the host of an image (open-webui #21337, #29692, presenton #677)."""
    with receiver(IMAGE) as server:
        network = public_server(server, PUBLIC, SECOND)
        assert fetch(url, network, resolver=lambda host, port: [SECOND]) == PNG
    assert KEY not in server.requests[0]
    assert "authorization" not in server.requests[0].lower()


def test_own_host_of_another_scheme_gets_no_api_key() -> None:
    with receiver(IMAGE) as server:
        fetch("http://api.example/", public_server(server), make_upstream("https://api.example/v1", "hosted"))
    assert KEY not in server.requests[0]


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_another_host_is_followed_without_the_key(status: int) -> None:
    with receiver(respond(status, "location: http://other.example/b.png", "set-cookie: a=b; path=/"), IMAGE) as server:
        network = public_server(server, PUBLIC, SECOND)
        assert fetch("/x", network) == PNG
    assert network.connects == [(PUBLIC, 80), (SECOND, 80)]
    own_request, other_request = server.requests
    assert (KEY in own_request, KEY in other_request) == (True, False)
    assert other_request.startswith("GET /b.png HTTP/1.1\r\n")
    assert "host: other.example\r\n" in other_request.lower()
    assert "cookie" not in other_request.lower()


@pytest.mark.parametrize(
    ("location", "target"),
    [("b.png", "/a/b.png"), ("/b", "/b"), ("../b?c=d", "/b?c=d"), ("?e", "/a/x?e"), ("//images.example/b", "/b")],
)
def test_relative_redirect_is_resolved_against_its_url(location: str, target: str) -> None:
    with receiver(respond(302, f"location: {location}"), IMAGE) as server:
        assert fetch("http://images.example/a/x", public_server(server)) == PNG
    assert server.requests[1].startswith(f"GET {target} HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "location",
    [
        *("http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/", "http://localhost/"),
        *("http://2130706433/", "http://0x7f000001/", "//10.0.0.7/x", "http://inside.example/", "//inside.example/"),
        *("http://images.example:8080/", "http://user:p@images.example/", "file:///etc/passwd"),
        *("ftp://images.example/a", "data:,x", "gopher://images.example/", "http://[::ffff:a9fe:a9fe]/"),
        "https://[",
    ],
)
def test_redirect_to_a_forbidden_url_is_refused(location: str) -> None:
    with receiver(respond(302, f"location: {location}", body=PNG)) as server:
        network = public_server(server)
        check_refused(URL, "its URL|not an IP address|not a valid name|not a public name|not public", network)
    assert network.connects == [(PUBLIC, 80)]


@pytest.mark.parametrize("count", range(MAX_REDIRECTS + 2))
def test_at_most_three_redirects_are_followed(count: int) -> None:
    with receiver(*[respond(302, f"location: /{index}") for index in range(count)], IMAGE) as server:
        network = public_server(server)
        if count <= MAX_REDIRECTS:
            assert fetch(URL, network) == PNG
        else:
            check_refused(URL, "its URL redirects more than 3 times", network)
    assert server.connections == min(count, MAX_REDIRECTS) + 1


def test_redirect_loop_ends_without_a_retry() -> None:
    with receiver(respond(302, f"location: {URL}")) as server:
        check_refused(URL, "redirects more than 3 times", public_server(server))
    assert server.connections == 1 + MAX_REDIRECTS


@pytest.mark.parametrize("first", [respond(302, f"location: {URL}"), respond(503)], ids=["redirect", "retry"])
def test_every_connection_resolves_and_checks_the_name_again(first: Behaviour) -> None:
    resolutions = iter([[PUBLIC], [PRIVATE]])
    with receiver(first, IMAGE) as server:
        network = Loopback({PUBLIC: server.port, PRIVATE: server.port})
        with pytest.raises(DownloadFailed, match="resolves to an address that is not public"):
            fetch(URL, network, resolver=lambda host, port: next(resolutions))
    assert network.connects == [(PUBLIC, 80)]


def test_redirect_from_https_to_http_is_refused(authority: Authority) -> None:
    with receiver(respond(302, f"location: {URL}"), IMAGE, tls=authority.tls_for("images.example")) as server:
        network = public_server(server)
        check_refused("https://images.example/", "its URL redirects from HTTPS to HTTP", network)
    assert network.connects == [(PUBLIC, 443)]


def test_redirect_of_another_host_to_a_private_own_origin_is_refused() -> None:
    with receiver(IMAGE) as own, receiver(respond(302, f"location: {own_url(own)}")) as other:
        check_refused(URL, "the port of its URL must be 80", public_server(other), make_upstream(own_url(own)))
    assert (own.connections, other.connections) == (0, 1)


def test_redirect_of_another_host_to_the_own_origin_gets_no_api_key() -> None:
    with receiver(respond(302, "location: http://api.example/b.png"), IMAGE) as server:
        assert fetch(URL, public_server(server)) == PNG
    assert [KEY in request for request in server.requests] == [False, False]


@pytest.mark.parametrize("status", [201, 300, 304, 404, 410])
def test_location_of_another_status_is_not_followed(status: int) -> None:
    with receiver(respond(status, "location: /b.png", body=PNG), IMAGE) as server:
        check_refused(URL, f"its URL returned status {status}", public_server(server))
    assert server.connections == 1


def test_location_of_a_complete_file_is_ignored() -> None:
    with receiver(respond(200, "location: http://127.0.0.1/", body=PNG)) as server:
        assert fetch(URL, public_server(server)) == PNG


# Retries

TEMPORARY = {
    **{f"status {status}": respond(status, body=b"later") for status in (429, 500, 502, 503, 504, 599)},
    "reset": reset,
    "truncated body": send_raw(head(200, "content-length: 9999"), PNG),
    "truncated chunk": send_raw(head(200, "transfer-encoding: chunked"), b"ff\r\n\x89PNG"),
    "truncated gzip": respond(200, "content-encoding: gzip", body=gzip.compress(PNG)[:-9]),
    "no HTTP": send_raw(b"garbage\r\n\r\n"),
    "no response": send_raw(b""),
}
PERMANENT = {
    **{f"status {status}": respond(status, body=PNG) for status in (201, 206, 300, 304, 400, 401, 403, 404, 410)},
    "status 204": send_raw(head(204)),
    "redirect without location": respond(302, body=PNG),
    "empty": respond(200, "content-type: image/png"),
    "empty gzip": respond(200, "content-encoding: gzip", body=gzip.compress(b"")),
    "unknown coding": respond(200, "content-encoding: br", body=PNG),
    "two codings": respond(200, "content-encoding: gzip, gzip", body=gzip.compress(gzip.compress(PNG))),
    "invalid gzip": respond(200, "content-encoding: gzip", body=PNG),
    "too large": respond(200, body=bytes(LIMIT_BYTES + 1)),
    "gzip bomb": respond(200, "content-encoding: gzip", body=gzip.compress(bytes(20 * LIMIT_BYTES))),
}


@pytest.mark.parametrize("failures", range(1, 4))
@pytest.mark.parametrize("failure", TEMPORARY.values(), ids=TEMPORARY)
def test_temporary_failure_is_retried_twice(failure: Behaviour, failures: int) -> None:
    pauses: list[float] = []
    with receiver(*[failure] * failures, IMAGE) as server:
        if failures < 3:
            assert fetch(URL, public_server(server), pauses=pauses) == PNG
        else:
            with pytest.raises(DownloadFailed):
                fetch(URL, public_server(server), pauses=pauses)
    assert pauses == list(PAUSES_S[:failures])
    assert server.connections == min(failures + 1, 3)


@pytest.mark.parametrize("failure", PERMANENT.values(), ids=PERMANENT)
def test_permanent_failure_is_not_retried(failure: Behaviour) -> None:
    with receiver(failure, IMAGE) as server:
        check_refused(URL, "status|empty file|content-encoding|not valid gzip|larger than", public_server(server))
    assert server.connections == 1


def test_retry_begins_with_the_first_url_and_without_cookies() -> None:
    redirect = respond(302, "location: /b", "set-cookie: a=b; path=/")
    with receiver(redirect, respond(503, "set-cookie: c=d; path=/"), redirect, IMAGE) as server:
        assert fetch(URL, public_server(server)) == PNG
    assert [request.split()[1] for request in server.requests] == ["/a.png", "/b", "/a.png", "/b"]
    assert all("cookie" not in request.lower() for request in server.requests)


@pytest.mark.parametrize(
    ("error", "attempts"), [(ResolverFailed("the resolver failed"), 3), (UnknownHost("no such name"), 1)]
)
def test_only_a_temporary_resolver_failure_is_retried(error: Exception, attempts: int) -> None:
    lookups: list[str] = []

    def fail(host: str, port: int) -> list[str]:
        lookups.append(host)
        raise error

    with pytest.raises(DownloadFailed, match=str(error)):
        fetch(URL, Loopback({}), resolver=fail)
    assert lookups == ["images.example"] * attempts


# Limits


@pytest.mark.parametrize(
    "behaviour",
    [hang, drip_response(200, head_bytes=400), drip_response(200, body_bytes=400)],
    ids=["silent", "slow head", "slow body"],
)
def test_time_limit_ends_a_slow_download_without_a_retry(behaviour: Behaviour) -> None:
    pauses: list[float] = []
    with receiver(behaviour) as server:
        network = public_server(server)
        with pytest.raises(DownloadFailed, match=r"timed out|deadline"):
            fetch(URL, network, pauses=pauses, timeout_s=SHORT_S)
    assert (pauses, server.connections) == ([], 1)
    assert network.read_bytes < 400


def test_time_limit_is_for_all_attempts_together() -> None:
    pauses: list[float] = []
    with receiver(respond(503), hang) as server, pytest.raises(DownloadFailed, match=r"timed out|deadline"):
        fetch(URL, public_server(server), pauses=pauses, timeout_s=SHORT_S)
    assert (pauses, server.connections) == ([PAUSES_S[0]], 2)


def test_attempt_that_cannot_begin_in_time_is_not_made() -> None:
    pauses: list[float] = []
    with receiver(respond(503)) as server, pytest.raises(DownloadFailed, match="status 503"):
        fetch(URL, public_server(server), pauses=pauses, timeout_s=PAUSES_S[0])
    assert (pauses, server.connections) == ([], 1)


@pytest.mark.parametrize("coding", ["identity", "gzip"])
def test_file_of_exactly_the_size_limit_is_returned(coding: str) -> None:
    content = bytes(LIMIT_BYTES)
    body = gzip.compress(content) if coding == "gzip" else content
    with receiver(respond(200, f"content-encoding: {coding}", body=body)) as server:
        assert fetch(URL, public_server(server)) == content


@pytest.mark.parametrize("lines", [[], ["content-length: 999999999999"], ["content-length: 99999999"]])
def test_endless_file_is_read_up_to_the_size_limit(lines: list[str]) -> None:
    with receiver(flood(head(200, *lines), b"x" * 1000)) as server:
        network = public_server(server)
        check_refused(URL, "it is larger than 1,000,000 bytes", network)
    assert LIMIT_BYTES < network.read_bytes < LIMIT_BYTES + 200_000


@pytest.fixture
def occupied_budget() -> Iterator[MemoryBudget]:
    """A memory budget of which another thread holds the part for large responses."""
    budget, is_held, is_done = MemoryBudget(), threading.Event(), threading.Event()

    def hold() -> None:
        with budget.share():
            reserve(LARGE_RESPONSE_BYTES + 1, lambda: 1)
            is_held.set()
            is_done.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    assert is_held.wait(60)
    yield budget
    is_done.set()
    thread.join()


def test_large_file_waits_for_memory_within_the_time_limit(occupied_budget: MemoryBudget) -> None:
    body = bytes(LARGE_RESPONSE_BYTES + 1)
    with receiver(respond(200, body=body)) as server:
        network = public_server(server)
        with occupied_budget.share(), pytest.raises(DownloadFailed, match="Other calls are using the memory"):
            fetch(URL, network, max_bytes=len(body), timeout_s=SHORT_S)
        assert fetch(URL, network, max_bytes=len(body)) == body  # outside of a budget
