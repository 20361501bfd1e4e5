"""Images of a provider's response: decoded or downloaded, stored by their bytes, and named when they are lost."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.artifacts import artifact_folder, artifact_key, file_type
from aiserver.clock import Deadline
from aiserver.limits import MAX_DEPTH, MAX_DOWNLOAD_BYTES, MAX_STORED_IMAGES
from aiserver.providers.call import Upstream
from aiserver.providers.downloads import DownloadFailed
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.image_outputs import DOWNLOAD_TIMEOUT_S, MAX_REASON_CHARS, PUT_PAUSES_S, ImageOutputs
from aiserver.usecases.terminal import StoredResponse
from aiserver.wire.file_types import UNKNOWN
from tests.app import load_providers
from tests.fakes import FakeArtifacts, FakeClock, FakeFileSource

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(255))  # its base64 is padded
JPEG, WEBP, GIF = b"\xff\xd8\xff\xe0" + bytes(99), b"RIFF\x08\0\0\0WEBPVP8 " + bytes(99), b"GIF89a" + bytes(99)
BASE_URL = "https://x.io"
URL = "https://images.example/a.png?sig=1&x=2"
(PROVIDER,) = load_providers({"name": "p", "models": {"m": ""}})
UPSTREAM = Upstream(PROVIDER, "m", True, "k3y")
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@dataclass
class RecordingSource:
    """image_outputs.FileSource that takes `seconds` for each file, and records the limits of each download."""

    clock: FakeClock
    file: bytes = PNG
    seconds: float = 0
    limits: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def fetch(self, url: str, upstream: Upstream, *, max_bytes: int, timeout_s: float) -> bytes:
        assert upstream is UPSTREAM
        self.limits.append((max_bytes, timeout_s))
        self.clock.advance(self.seconds)
        if len(self.file) > max_bytes:
            raise DownloadFailed("too large")
        return self.file


@dataclass
class Store:
    """ImageOutputs over fakes."""

    files: Mapping[str, bytes | Exception] = field(default_factory=dict[str, "bytes | Exception"])

    def __post_init__(self) -> None:
        self.clock = FakeClock()
        self.artifacts = FakeArtifacts()
        self.source: Any = FakeFileSource(self.files)

    def store(self, body: bytes, headers: dict[str, str] | None = None, *, limit_s: float = 300) -> StoredResponse:
        outputs = ImageOutputs(self.artifacts, self.source, self.clock, self.clock.advance)
        return outputs.store(
            ProviderResponse(200, headers or {}, body, usage='{"images":1}', ignored=("seed",)),
            UPSTREAM,
            owner="me",
            created_at=self.clock.now,
            base_url=BASE_URL,
            deadline=Deadline.after(limit_s, self.clock),
        )

    def key(self, content: bytes) -> str:
        return artifact_key("me", self.clock.now, content, "")

    def url(self, content: bytes) -> str:
        return f"{BASE_URL}/{self.key(content)}"


def render(*outputs: Any, **members: Any) -> bytes:
    return json.dumps({"created": 1, "data": outputs, **members}, indent=1).encode()


def check_stored(store: Store, stored: StoredResponse, *contents: bytes) -> None:
    """Exactly these images are stored, and none is lost."""
    assert (stored.error, stored.is_lost) == (None, False)
    assert stored.keys == tuple(store.key(content) for content in contents)
    assert store.artifacts.files == {store.key(content): content for content in contents}


def lost_text(stored: StoredResponse) -> str:
    assert stored.error
    assert stored.error.may_be_billed
    return stored.error.message


# Base64

SPELLINGS = {
    "plain": b64(PNG),
    "data URL": f"data:image/jpeg;base64,{b64(PNG)}",
    "lines": "\n".join(b64(PNG)[index : index + 64] for index in range(0, 400, 64)),
    "CRLF": "\r\n".join(b64(PNG)[index : index + 76] for index in range(0, 400, 76)) + "\r\n",
    "no padding": b64(PNG).rstrip("="),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("others", [{}, {"url": None}, {"url": ""}, {"revised_prompt": "é", "index": 0}])
def test_base64_is_stored_and_the_response_unchanged(spelling: str, others: dict[str, Any]) -> None:
    """Issue: `data:` prefixes are expected, or unexpected (deepchat #647)."""
    store = Store()
    body = render({"b64_json": spelling, **others})
    stored = store.store(body)
    check_stored(store, stored, PNG)
    assert stored.response == ProviderResponse(200, {}, body, '{"images":1}', ("seed",))
    assert store.source.fetched == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A", "invalid base64"),
        ("####", "invalid base64"),
        ("é", "invalid base64"),
        ("AAAA=AAA", "invalid base64"),
        ("data:image/png;base64", "empty image"),
        ("data:image/png;base64,", "empty image"),
        ("\n ", "empty image"),
        *((value, "neither base64 nor a URL") for value in ("", None, 1, ["A"], {"a": 1}, True)),
    ],
)
@pytest.mark.parametrize("url", [{}, {"url": None}, {"url": ""}, {"url": 1}])
def test_invalid_base64_is_a_lost_image(text: Any, reason: str, url: dict[str, Any]) -> None:
    stored = Store().store(render({"b64_json": text, **url}))
    assert (stored.keys, stored.is_lost) == ((), True)
    assert lost_text(stored).startswith("Provider p: 1 of 1 images could not be stored: image 1: the provider sent")
    assert lost_text(stored).endswith(reason)


# URLs


@pytest.mark.parametrize("others", [{}, {"b64_json": None}, {"b64_json": ""}, {"b64_json": 1}])
@pytest.mark.parametrize("url", [URL, "/v1/images/x/content", "images/x.png", "HTTPS://images.example/ü"])
def test_url_is_downloaded_and_replaced(url: str, others: dict[str, Any]) -> None:
    """Issues: empty base64 beside a URL (cherry-studio #14938); URLs that expire (openagent #945)."""
    store = Store({url: PNG})
    stored = store.store(render({**others, "url": url, "revised_prompt": f"see {url}", "file_path": "/x"}, id="1"))
    check_stored(store, stored, PNG)
    replaced = {**others, "url": store.url(PNG), "revised_prompt": f"see {url}", "file_path": "/x"}
    assert stored.response.body == render(replaced, id="1")
    assert store.source.fetched == [url]


@pytest.mark.parametrize(
    "text",
    [
        URL.replace("/", r"\/"),
        URL.replace("&", r"\u0026"),
        "".join(f"\\u{ord(char):04x}" for char in URL),
        URL.replace("a.png", r"a\u002Epng").replace("/", r"\/"),
    ],
    ids=["slashes", "ampersand", "all", "mixed"],
)
def test_escaped_url_is_decoded_and_replaced(text: str) -> None:
    store = Store({URL: PNG})
    stored = store.store(f'{{"data":[{{"url":"{text}"}}]}}'.encode())
    check_stored(store, stored, PNG)
    assert stored.response.body == json.dumps({"data": [{"url": store.url(PNG)}]}, separators=(",", ":")).encode()
    assert store.source.fetched == [URL]


def test_base64_beside_a_url_is_stored_without_a_download() -> None:
    store = Store()
    stored = store.store(render({"b64_json": b64(PNG), "url": URL}))
    check_stored(store, stored, PNG)
    assert stored.response.body == render({"b64_json": b64(PNG), "url": store.url(PNG)})
    assert store.source.fetched == []


def test_data_url_is_decoded_and_replaced() -> None:
    store = Store()
    stored = store.store(render({"url": f"data:image/png;base64,{b64(PNG)}"}))
    check_stored(store, stored, PNG)
    assert stored.response.body == render({"url": store.url(PNG)})
    assert store.source.fetched == []


def test_same_image_twice_has_one_file_and_two_outputs() -> None:
    store = Store({URL: PNG})
    stored = store.store(render({"url": URL}, {"b64_json": b64(PNG)}, {"url": URL}))
    assert (stored.keys, len(store.artifacts.files), stored.error) == ((store.key(PNG),) * 3, 1, None)
    outputs = [{"url": store.url(PNG)}, {"b64_json": b64(PNG)}, {"url": store.url(PNG)}]
    assert stored.response.body == render(*outputs)


@pytest.mark.parametrize("name", ["data", "url"])
def test_url_that_equals_a_member_name_changes_no_other_member(name: str) -> None:
    store = Store({name: PNG})
    assert store.store(render({"url": name})).response.body == render({"url": store.url(PNG)})


# Types


@pytest.mark.parametrize(
    ("content", "extension", "is_inline"),
    [
        (PNG, "png", True),
        (JPEG, "jpg", True),
        (WEBP, "webp", True),
        (GIF, "gif", True),
        (PNG + b"<script>alert(1)</script>", "png", True),
        (b"GIF89a/*" + bytes(9) + b"*/=1;alert(1)", "gif", True),
        (b"%PDF-1.7 <html>", "pdf", False),
        (b"<html><script>alert(1)</script></html>", "bin", False),
        (b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>', "bin", False),
        (b'<?xml version="1.0"?><svg/>', "bin", False),
        (b"\n" + PNG, "bin", False),
        (b"\xef\xbb\xbf<!doctype html>", "bin", False),
        (b"alert(1)", "bin", False),
    ],
)
@pytest.mark.parametrize("member", ["b64_json", "url", "data URL"])
def test_type_is_that_of_the_bytes(content: bytes, extension: str, is_inline: bool, member: str) -> None:
    """Issue: JPEG is labelled as PNG (open-webui #29948)."""
    store = Store({URL: content})
    data_url = f"data:image/png;base64,{b64(content)}"
    output = {"b64_json": {"b64_json": b64(content), "output_format": "png"}, "url": {"url": URL}}
    stored = store.store(render(output.get(member, {"url": data_url}), output_format="png"))
    check_stored(store, stored, content)
    (key,) = stored.keys
    assert (key.rpartition(".")[2], file_type(key).is_inline) == (extension, is_inline)
    assert (file_type(key) == UNKNOWN) == (extension == "bin")
    assert key.startswith(artifact_folder("me", store.clock.now))


# Lost images


@pytest.mark.parametrize(
    ("headers", "origin"),
    [({}, "Provider p"), ({"x-request-id": "req_1", "content-type": "application/json"}, "Provider p, request req_1")],
)
def test_lost_images_are_named_with_the_request_id(headers: dict[str, str], origin: str) -> None:
    store = Store({URL: PNG, "https://b.example/": DownloadFailed("its URL returned status 403")})
    outputs = [{"url": "https://b.example/"}, {"url": URL}, {}, {"b64_json": b64(JPEG)}]
    stored = store.store(render(*outputs), headers)
    assert (stored.keys, stored.is_lost) == ((store.key(PNG), store.key(JPEG)), False)
    assert lost_text(stored) == (
        f"{origin}: 2 of 4 images could not be stored: image 1: its URL returned status 403; "
        "image 3: the provider sent neither base64 nor a URL"
    )
    outputs[1] = {"url": store.url(PNG)}
    assert stored.response.body == render(*outputs)


def test_reason_of_a_lost_image_is_truncated() -> None:
    stored = Store({URL: DownloadFailed("x" * 9999)}).store(render({"url": URL}))
    assert len(lost_text(stored).partition("stored: ")[2]) == MAX_REASON_CHARS


@pytest.mark.parametrize(
    "body",
    [
        *(
            render(),
            b'{"data":null}',
            b'{"data":{}}',
            b'{"data":"x"}',
            b"{}",
            b"[]",
            b"null",
            b"",
            b"<html>",
            b'{"data":[',
        ),
        PNG,
    ],
)
def test_response_without_images_is_lost(body: bytes) -> None:
    """Issues: 200 with empty `data` (vercel/ai #19168, LiteLLM #10501); bytes instead of JSON (coder/xum #3286)."""
    stored = Store().store(body)
    assert (stored.is_lost, stored.response.body) == (True, body)
    assert "the response contains no images" in lost_text(stored)


TOLERATED = {  # by the adapter, which has counted the response as billed
    "null entry": b'{"data":[{"b64_json":"%s"},null]}',
    "number as entry": b'{"data":[{"b64_json":"%s"},1]}',
    "byte order mark": b'\xef\xbb\xbf{"data":[{"b64_json":"%s"}]}',
    "half an emoji": b'{"data":[{"b64_json":"%s","revised_prompt":"\\ud83d"}]}',
    "partial_image_index": b'{"data":[{"b64_json":"%s","partial_image_index":"0"}]}',
}


@pytest.mark.parametrize("body", TOLERATED.values(), ids=TOLERATED)
def test_tolerated_response_keeps_its_valid_images(body: bytes) -> None:
    store = Store()
    assert store.store(body % b64(PNG).encode()).keys == (store.key(PNG),)


def test_number_of_stored_images_is_limited() -> None:
    store = Store()
    images = [PNG + bytes([index]) for index in range(MAX_STORED_IMAGES + 1)]
    check_stored(store, store.store(render(*({"b64_json": b64(image)} for image in images[:-1]))), *images[:-1])
    stored = store.store(render(*({"b64_json": b64(image)} for image in images)))
    assert (len(stored.keys), len(store.artifacts.files)) == (MAX_STORED_IMAGES, MAX_STORED_IMAGES)
    assert "1 of 11 images could not be stored: image 11 and the following: at most 10" in lost_text(stored)


def test_all_images_above_the_limit_are_counted() -> None:
    stored = Store().store(render(*[{"b64_json": b64(PNG)}] * (MAX_STORED_IMAGES + 3)))
    assert "3 of 13 images could not be stored" in lost_text(stored)


# Limits


def test_sum_of_downloads_is_limited() -> None:
    store = Store()
    store.source = RecordingSource(store.clock, PNG + bytes(MAX_DOWNLOAD_BYTES // 2 - len(PNG) - 100))
    stored = store.store(render({"url": "a"}, {"b64_json": b64(JPEG)}, {"url": "b"}, {"url": "c"}))
    size = len(store.source.file)
    remaining = [int(MAX_DOWNLOAD_BYTES), MAX_DOWNLOAD_BYTES - size, MAX_DOWNLOAD_BYTES - 2 * size]
    assert [max_bytes for max_bytes, _ in store.source.limits] == remaining
    assert (len(stored.keys), remaining[-1]) == (3, 200)
    assert "1 of 4 images could not be stored: image 4: too large" in lost_text(stored)


@pytest.mark.parametrize(("limit_s", "timeouts"), [(300, [60, 35, 10]), (40, [40, 15]), (0, []), (-5, [])])
def test_downloads_end_before_the_deadline(limit_s: float, timeouts: list[float]) -> None:
    store = Store()
    store.source = RecordingSource(store.clock, seconds=25)
    started = store.clock.now
    stored = store.store(render(*[{"url": "a"}] * 4, {"b64_json": b64(JPEG)}), limit_s=limit_s)
    assert [timeout_s for _, timeout_s in store.source.limits] == timeouts
    assert len(stored.keys) == len(timeouts) + 1  # base64 needs no download
    assert lost_text(stored).count("the time for downloads has passed") == 4 - len(timeouts)
    assert (store.clock.now - started) / 1000 <= DOWNLOAD_TIMEOUT_S + 25


@pytest.mark.parametrize("outputs", [[{"b64_json": b64(PNG)}], [{"b64_json": b64(JPEG)}, {"url": URL}]])
def test_error_of_the_artifact_store_is_raised(outputs: list[Any]) -> None:
    store = Store({URL: PNG})
    store.artifacts.failures = [ConnectionError("S3 is unavailable")] * (len(PUT_PAUSES_S) + 1)
    with pytest.raises(ConnectionError, match="S3 is unavailable"):
        store.store(render(*outputs))
    assert store.store(render(*outputs)).error is None  # a repeat stores all


@pytest.mark.parametrize(("limit_s", "attempts"), [(0.1, 1), (0.5, 2), (0, 1), (-1, 1)])
def test_artifact_store_is_not_retried_after_the_deadline(limit_s: float, attempts: int) -> None:
    store = Store()
    store.artifacts.failures = [ConnectionError("S3 is unavailable")] * 9
    with pytest.raises(ConnectionError):
        store.store(render({"b64_json": b64(PNG)}), limit_s=limit_s)
    assert len(store.artifacts.failures) == 9 - attempts


# Streams


def event(**members: Any) -> bytes:
    return f"event: {members.get('type', 'x')}\ndata: {json.dumps(members)}\n\n".encode()


def test_complete_images_of_events_are_stored() -> None:
    store = Store({URL: JPEG})
    partial = event(type="image_generation.partial_image", partial_image_index=0, b64_json=b64(GIF))
    completed = event(type="image_generation.completed", b64_json=b64(PNG))
    body = b": ping\n\n" + partial + completed + event(type="image_edit.completed", url=URL) + b"data: [DONE]\n\n"
    stored = store.store(body, EVENTS)
    check_stored(store, stored, PNG, JPEG)
    assert stored.response.body == body.replace(URL.encode(), store.url(JPEG).encode())


@pytest.mark.parametrize(
    "body", [b"", b": ping\n\n", b"data: [DONE]\n\n", b"data: {\n\n", event(b64_json=b64(PNG))[:-2]]
)
def test_events_without_a_complete_image_are_lost(body: bytes) -> None:
    stored = Store().store(body, EVENTS)
    assert (stored.is_lost, stored.response.body) == (True, body)


def test_event_with_a_null_partial_image_index_is_complete() -> None:
    store = Store()
    stored = store.store(event(type="image_edit.completed", b64_json=b64(PNG), partial_image_index=None), EVENTS)
    check_stored(store, stored, PNG)


def test_number_of_stored_images_of_events_is_limited() -> None:
    events = [event(type="image_edit.completed", b64_json=b64(PNG + bytes([index]))) for index in range(11)]
    stored = Store().store(b"".join(events), EVENTS)
    assert (len(stored.keys), stored.is_lost) == (MAX_STORED_IMAGES, False)
    assert "1 of 11 images could not be stored: image 11 and the following: at most 10" in lost_text(stored)


def test_url_in_an_event_of_several_data_lines_is_replaced() -> None:
    store = Store({URL: PNG})
    stored = store.store(f'data: {{"type":"x",\ndata: "url":"{URL}"}}\n\n'.encode(), EVENTS)
    check_stored(store, stored, PNG)
    assert store.url(PNG).encode() in stored.response.body


def test_event_that_is_nested_too_deeply_is_a_lost_image() -> None:
    deep = b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1)
    assert Store().store(b'data: {"b64_json":"AAAA","x":%s}\n\n' % deep, EVENTS).is_lost


# Any response

CONTENTS = st.sampled_from([PNG, JPEG, WEBP, GIF, b"<html>"])
URLS = {f"https://{index}.example/": content for index, content in enumerate((PNG, JPEG, b"<html>"))}
TEXTS = CONTENTS.map(b64) | st.sampled_from(["", None, "#", b64(PNG)[:-1], 1])
OUTPUTS = st.fixed_dictionaries(
    {},
    optional={
        "b64_json": TEXTS,
        "url": st.sampled_from([*URLS, "https://lost.example/", "", None]),
        "revised_prompt": st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
    },
)


@given(st.lists(OUTPUTS, max_size=MAX_STORED_IMAGES), st.booleans())
def test_each_image_is_stored_or_named_and_only_urls_change(outputs: list[dict[str, Any]], is_ascii: bool) -> None:
    store = Store(URLS)
    stored = store.store(json.dumps({"data": outputs}, ensure_ascii=is_ascii).encode())
    message = stored.error.message if stored.error else ""
    are_stored = [f"image {number}: " not in message for number in range(1, len(outputs) + 1)]
    assert len(stored.keys) == sum(are_stored)
    assert stored.is_lost == (not stored.keys)
    afters = json.loads(stored.response.body)["data"]
    for before, after, is_stored in zip(outputs, afters, are_stored, strict=True):
        is_replaced = is_stored and bool(before.get("url"))
        assert after == before | ({"url": after["url"]} if is_replaced else {})
        assert not is_replaced or after["url"].removeprefix(f"{BASE_URL}/") in stored.keys
