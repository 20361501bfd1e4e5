"""Bodies through the local gateway: forms and other bytes as API Gateway passes them, and responses to HEAD.

The expected matches of media types were observed on deployed APIs: https://github.com/localstack/localstack/pull/12199,
https://github.com/ministackorg/ministack/pull/767.
"""

import base64
import http.client
import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local import template
from local.gateway import MAX_BODY_BYTES, Gateway
from local.runtime_api import MAX_PAYLOAD_BYTES, FunctionFailed
from local.streamed_response import HEAD_TERMINATOR
from local.template import Route, gateway_responses, read_template

TEMPLATE = read_template()
RESPONSES = gateway_responses(TEMPLATE)
BINARY_MEDIA_TYPES = template.routes(TEMPLATE)[0].binary_media_types
FORM = "multipart/form-data"
FORM_SPELLINGS = [
    FORM,
    f"{FORM}; boundary=b",
    f'{FORM};boundary="a,b;c"',
    f"Multipart/Form-Data ; charset=utf-8; boundary={'b' * 70}",
]
OTHER_TYPES = [
    *("application/json", "audio/mpeg", "application/octet-stream", "multipart/mixed; boundary=b", "text/plain"),
    *("*/*", "multipart/*", f"{FORM}s", f"x-{FORM}", "multipart", "", f"application/json, {FORM}"),
]
# (binary media types, media type of a request, whether it matches)
MATCHES = [
    (["image/png"], "image/png", True),
    (["image/png"], "IMAGE/PNG;q=0.5", True),
    (["Image/Png"], "image/png", True),
    (["audio/mpeg", "image/png"], "image/png", True),
    (["image/png"], "image/jpg", False),
    (["image/png"], "image/*", False),
    (["image/png"], "*/*", False),
    (["image/png"], "", False),
    (["image/*"], "image/png", True),
    (["image/*"], "image/*", True),
    (["image/*"], "imagery/png", False),
    (["image/*"], "image", False),
    (["image/*"], "*/*", False),
    (["*/png"], "image/png", False),
    (["*/*"], "image/png", True),
    (["*/*"], "*/*", True),
    (["*/*"], "", True),
    ([], "image/png", False),
    ([], "*/*", False),
]


class Function:
    """Records its event; returns `response`, or streams `chunks` on a streaming route."""

    def __init__(self) -> None:
        self.event: dict[str, Any] = {}
        self.event_bytes = 0
        self.response: dict[str, Any] = {"statusCode": 200}
        self.chunks: list[bytes] = []

    def __call__(self, function: str, event: bytes, request_id: str, sink: Any) -> bytes:
        self.event, self.event_bytes = json.loads(event), len(event)
        if len(event) > MAX_PAYLOAD_BYTES:  # as SandboxPool
            raise FunctionFailed("RequestTooLargeException", f"the event has {len(event)} bytes")
        if sink is None:
            return json.dumps(self.response).encode()
        sink.write(json.dumps({"statusCode": 200}).encode() + HEAD_TERMINATOR)
        for chunk in self.chunks:
            sink.write(chunk)
        return b""


class FormApi:
    """A gateway with the function on a buffered route /buffered and a streaming route /streamed."""

    def __init__(self, port: int, function: Function) -> None:
        self.port = port
        self.function = function

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def post(self, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(self.connect()) as connection:
            connection.request("POST", path, body, names)
            response = connection.getresponse()
            return response.status, response.read()


@contextmanager
def serving(binary_media_types: tuple[str, ...]) -> Iterator[FormApi]:
    function, gateway = Function(), Gateway(0)
    routes = [
        Route(method, path, "f", 29.0, path == "/streamed", binary_media_types)
        for path in ("/buffered", "/streamed")
        for method in ("POST", "GET", "HEAD")
    ]
    gateway.open(routes, RESPONSES, function)
    try:
        yield FormApi(gateway.port, function)
    finally:
        gateway.close()


@pytest.fixture(scope="module")
def api() -> Iterator[FormApi]:
    """A gateway with the binary media types of the template."""
    with serving(BINARY_MEDIA_TYPES) as form_api:
        yield form_api


# --- requests ---


@given(st.binary(min_size=1), st.sampled_from(FORM_SPELLINGS), st.sampled_from(["/buffered", "/streamed"]))
def test_form_bytes_arrive_unchanged_in_base64(api: FormApi, body: bytes, content_type: str, path: str) -> None:
    assert api.post(path, body, content_type=content_type)[0] == 200
    event = api.function.event
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"], validate=True) == body


@given(st.binary(min_size=1), st.sampled_from(OTHER_TYPES), st.sampled_from(["/buffered", "/streamed"]))
def test_other_bodies_arrive_as_text_and_binary_ones_damaged(
    api: FormApi, body: bytes, content_type: str, path: str
) -> None:
    assert api.post(path, body, content_type=content_type)[0] == 200
    event = api.function.event
    assert event["isBase64Encoded"] is False
    assert event["body"] == body.decode("utf-8", "replace")
    try:
        body.decode()
    except UnicodeDecodeError:
        assert event["body"].encode() != body
    else:
        assert event["body"].encode() == body


@pytest.mark.parametrize(("binary_media_types", "media_type", "matches"), MATCHES)
def test_binary_media_types_match_content_type_and_accept(
    binary_media_types: list[str], media_type: str, matches: bool
) -> None:
    headers = {"content_type": media_type, "accept": media_type} if media_type else {}
    with serving(tuple(binary_media_types)) as api:
        api.function.response = {"statusCode": 200, "body": "aGk=", "isBase64Encoded": True}
        assert api.post("/buffered", b"body", **headers) == (200, b"hi" if matches else b"aGk=")
        assert api.function.event["isBase64Encoded"] is matches
        assert api.function.event["body"] == ("Ym9keQ==" if matches else "body")


def test_empty_form_has_no_body(api: FormApi) -> None:
    api.post("/buffered", b"", content_type=FORM)
    assert (api.function.event["body"], api.function.event["isBase64Encoded"]) == (None, False)


# --- limits ---


def test_form_of_4_500_000_bytes_fits_into_an_event(api: FormApi) -> None:
    assert api.post("/buffered", b"\xff" * 4_500_000, content_type=FORM)[0] == 200
    assert 6_000_000 < api.function.event_bytes < MAX_PAYLOAD_BYTES


def test_event_limit_counts_a_form_in_base64(api: FormApi) -> None:
    size = MAX_PAYLOAD_BYTES * 3 // 4
    status, body = api.post("/buffered", b"\xff" * size, content_type=FORM)
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")
    assert api.function.event_bytes > MAX_PAYLOAD_BYTES
    assert api.post("/buffered", b"x" * size, content_type="text/plain")[0] == 200


def test_form_over_ten_megabytes_does_not_reach_the_function(api: FormApi) -> None:
    api.function.event = {}
    assert api.post("/buffered", b"x" * (MAX_BODY_BYTES + 1), content_type=FORM)[0] == 413
    assert api.function.event == {}


# --- responses ---


@given(st.binary(), st.lists(st.sampled_from([*FORM_SPELLINGS[:2], "image/png", "*/*", "multipart/*", ""])))
def test_base64_response_is_decoded_only_for_the_first_accepted_type(
    api: FormApi, content: bytes, accepted_types: list[str]
) -> None:
    text = base64.b64encode(content).decode()
    api.function.response = {"statusCode": 200, "body": text, "isBase64Encoded": True}
    headers = {"accept": ", ".join(accepted_types)} if accepted_types else {}
    is_decoded = bool(accepted_types) and accepted_types[0].startswith(FORM)
    assert api.post("/buffered", b"{}", **headers) == (200, content if is_decoded else text.encode())


@given(st.text())
def test_text_response_is_never_decoded(api: FormApi, text: str) -> None:
    api.function.response = {"statusCode": 200, "body": text, "isBase64Encoded": False}
    assert api.post("/buffered", b"{}", accept=FORM) == (200, text.encode())


@pytest.mark.parametrize("text", ["èé+à)(", "a", "aGk", "aGk=!", "\nnot base64"])
def test_invalid_base64_response_returns_500_only_if_decoded(api: FormApi, text: str) -> None:
    api.function.response = {"statusCode": 200, "body": text, "isBase64Encoded": True}
    status, body = api.post("/buffered", b"{}", accept=FORM)
    assert (status, json.loads(body)["error"]["code"]) == (500, "internal_error")
    assert api.post("/buffered", b"{}") == (200, text.encode())


@given(st.lists(st.binary()), st.sampled_from(["", FORM, "*/*"]))
def test_streamed_bytes_arrive_unchanged_for_any_accept(api: FormApi, chunks: list[bytes], accept: str) -> None:
    api.function.chunks = chunks
    assert api.post("/streamed", b"{}", accept=accept) == (200, b"".join(chunks))


# --- HEAD ---


@given(
    st.lists(st.tuples(st.sampled_from(["HEAD", "GET"]), st.sampled_from(["/buffered", "/streamed"])), max_size=6),
    st.lists(st.sampled_from([b"one", b"", b"0\r\n\r\n", b"HTTP/1.1 500 \r\n\r\n"])),
)
def test_head_and_get_share_a_connection_in_any_order(
    api: FormApi, requests: list[tuple[str, str]], chunks: list[bytes]
) -> None:
    content = b"".join(chunks)
    api.function.chunks = chunks
    api.function.response = {"statusCode": 200, "body": content.decode()}
    with closing(api.connect()) as connection:
        for method, path in requests:
            connection.request(method, path)
            connected_socket = connection.sock
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"" if method == "HEAD" else content)
            assert connection.sock is connected_socket, "the gateway closed the connection"


def test_head_of_a_stream_has_the_headers_of_get_and_no_body(api: FormApi) -> None:
    api.function.chunks = [b"one", b"two"]
    with closing(api.connect()) as connection:
        connection.connect()
        requests = [f"{method} /streamed HTTP/1.1\r\nHost: x\r\n\r\n" for method in ("HEAD", "HEAD", "GET")]
        connection.sock.sendall("".join(requests).encode())
        connection.sock.settimeout(20)
        received = b""
        while not received.endswith(b"\r\n0\r\n\r\n"):
            received += connection.sock.recv(65_536)
    first, second, third, body = received.split(b"\r\n\r\n", 3)
    assert first == second == third
    assert b"Transfer-Encoding: chunked" in first
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
