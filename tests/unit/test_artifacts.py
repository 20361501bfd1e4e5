"""Artifacts: keys without freedom, URLs that work until they expire, and secrets that rotate without an outage."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import api_keys, bootstrap
from aiserver.artifacts import (
    CACHE_MS,
    MIN_REFRESH_MS,
    SIGNATURE_CHARS,
    ArtifactSecrets,
    ArtifactSecretStore,
    ArtifactUrls,
    artifact_key,
    artifact_owner,
    file_name,
    file_type,
)
from aiserver.aws.artifacts import S3Artifacts
from aiserver.aws.config import DynamoConfig
from aiserver.providers.provider import Provider
from aiserver.wire.file_types import FILE_TYPES
from tests import stack as template
from tests.fakes import FakeArtifactSecrets, FakeClock
from tests.moto_stack import UNSUPPORTED_PROPERTIES, MotoStack, client, event, example_key, mock_aws

BASE = "https://x.io/prod"
HOURS = 24
TTL_S = HOURS * 3600
DAY_MS = 86_400_000
MP3 = b"ID3\x04" + bytes(20)
KEY = artifact_key("me", 0, MP3, "audio/mpeg")
HASH = hashlib.sha256(MP3).hexdigest()
OWNERS = st.text("abcXYZ019_-", min_size=1, max_size=64)
SECRET = ArtifactSecrets("a" * 64)


@pytest.fixture
def dynamo_secrets() -> Iterator[ArtifactSecretStore]:
    with mock_aws():
        properties = {k: v for k, v in template.properties("ConfigTable").items() if k not in UNSUPPORTED_PROPERTIES}
        client("dynamodb").create_table(**properties | {"TableName": "config"})
        yield DynamoConfig("config", client("dynamodb"))


@pytest.fixture(params=["fake", "moto"])
def store(request: pytest.FixtureRequest) -> ArtifactSecretStore:
    return FakeArtifactSecrets() if request.param == "fake" else request.getfixturevalue("dynamo_secrets")


def artifact_urls(store: ArtifactSecretStore, clock: FakeClock) -> ArtifactUrls:
    """Return the URLs of a new container."""
    return ArtifactUrls(store, clock, hours=HOURS)


def parse_url(url: str) -> tuple[str, str, str]:
    """Return the key, the expiry and the signature in a URL."""
    parts = urlsplit(url)
    query = parse_qs(parts.query, strict_parsing=True)
    assert (f"{parts.scheme}://{parts.netloc}{parts.path}").startswith(f"{BASE}/")
    assert sorted(query) == ["e", "s"]
    return parts.path.removeprefix("/prod/"), query["e"][0], query["s"][0]


def accepts(urls: ArtifactUrls, url: str) -> bool:
    return urls.is_valid(*parse_url(url))


def rotate(store: ArtifactSecretStore, clock: FakeClock, *, overlap_s: int = 2 * TTL_S) -> ArtifactSecrets:
    old = store.artifact_secrets()
    assert old is not None
    new = old.rotate(now_ms=clock.now, overlap_ms=overlap_s * 1000)
    assert store.replace_artifact_secrets(old, new)
    return new


# --- keys ---


@given(OWNERS, st.integers(0, 4_000_000_000_000), st.binary(max_size=20), st.sampled_from(["", "audio/pcm", "a/b"]))
def test_key_names_the_day_the_owner_and_the_content(owner: str, at_ms: int, content: bytes, label: str) -> None:
    key = artifact_key(owner, at_ms, content, label)
    assert artifact_owner(key) == owner
    assert artifact_key(owner, at_ms, content, label) == key
    assert artifact_key(owner, at_ms - at_ms % DAY_MS, content, label) == key
    assert artifact_key(owner, at_ms + DAY_MS, content, label) != key
    assert artifact_key(f"{owner[:-1]}~", at_ms, content, label) != key
    assert artifact_key(owner, at_ms, content + b"x", label) != key
    assert file_name(key).partition(".")[0] == hashlib.sha256(content).hexdigest()
    assert file_type(key) in FILE_TYPES.values()


def test_key_has_its_date_in_utc_and_the_extension_of_the_content() -> None:
    assert (artifact_owner(KEY), KEY) == ("me", f"artifacts/1970/01/01/me/{HASH}.mp3")
    assert artifact_key("me", 1_798_761_599_999, b"x", "audio/mpeg").startswith("artifacts/2026/12/31/me/")
    assert artifact_key("me", 1_798_761_600_000, b"<svg/>", "image/svg+xml").endswith(".bin")
    assert (file_name(KEY), file_type(KEY).media_type) == (f"{HASH}.mp3", "audio/mpeg")


@pytest.mark.parametrize(
    "key",
    [
        "",
        "artifacts/",
        f"artifacts/1970/01/01/../{HASH}.mp3",
        f"artifacts/1970/01/01/me/../you/{HASH}.mp3",
        f"artifacts/1970/01/01/me/../../../../../jobs/{HASH}.mp3",
        f"artifacts/1970/01/01//{HASH}.mp3",
        f"artifacts/1970/01/01//me/{HASH}.mp3",
        f"artifacts//1970/01/01/me/{HASH}.mp3",
        f"artifacts/1970/01/01/me%2F{HASH}.mp3",
        f"artifacts/1970/01/01/m%65/{HASH}.mp3",
        f"artifacts/1970/01/01/m e/{HASH}.mp3",
        f"artifacts/1970/01/01/{'x' * 65}/{HASH}.mp3",
        f"artifacts/1970/1/1/me/{HASH}.mp3",
        f"artifacts/1970/01/01/me/{HASH.upper()}.mp3",
        f"artifacts/1970/01/01/me/{HASH[1:]}.mp3",
        f"artifacts/1970/01/01/me/{HASH}0.mp3",
        f"artifacts/1970/01/01/me/{HASH}",
        f"artifacts/1970/01/01/me/{HASH}.",
        f"artifacts/1970/01/01/me/{HASH}.MP3",
        f"artifacts/1970/01/01/me/{HASH}.mp3.html",
        f"artifacts/1970/01/01/me/{HASH}.mp3\n",
        f"artifacts/1970/01/01/me/{HASH}.mp3/",
        f"/artifacts/1970/01/01/me/{HASH}.mp3",
        f"x/artifacts/1970/01/01/me/{HASH}.mp3",
        f"Artifacts/1970/01/01/me/{HASH}.mp3",
        f"uploads/1970/01/01/me/{HASH}.mp3",
        f"jobs/1970/01/01/me/{HASH}.mp3",
        f"{KEY}?e=1",
    ],
)
def test_other_keys_have_no_owner(key: str) -> None:
    assert artifact_owner(KEY) == "me"
    assert artifact_owner(key) is None


@given(st.text(KEY + "./%\\\x00 語", max_size=len(KEY)) | st.text())
def test_any_text_has_an_owner_only_as_a_key(text: str) -> None:
    for key in (text, f"artifacts/{text}", f"artifacts/1970/01/01/{text}/{HASH}.mp3"):
        owner = artifact_owner(key)
        assert owner is None or key == f"artifacts/1970/01/01/{owner}/{HASH}.mp3"
        assert owner is None or re.fullmatch(r"[0-9A-Za-z_-]{1,64}", owner)


def test_key_of_an_unknown_extension_is_an_unknown_file() -> None:
    assert file_type(f"artifacts/1970/01/01/me/{HASH}.html") is FILE_TYPES["bin"]


# --- URLs ---


def test_url_is_valid_until_it_expires(store: ArtifactSecretStore) -> None:
    """Issue: emulators do not check it (localstack #1685); here the clock moves."""
    clock = FakeClock()
    urls = artifact_urls(store, clock)
    url = urls.url(BASE, KEY)
    assert parse_url(url)[:2] == (KEY, str(clock.now // 1000 + TTL_S))
    assert accepts(urls, url)
    clock.advance(TTL_S - 1)
    assert accepts(urls, url)
    assert accepts(artifact_urls(store, clock), url)
    clock.advance(1)
    assert not accepts(urls, url)
    assert not accepts(artifact_urls(store, clock), url)
    assert accepts(urls, urls.url(BASE, KEY))


@given(st.data())
def test_changed_url_is_invalid(data: st.DataObject) -> None:
    clock = FakeClock()
    urls = artifact_urls(FakeArtifactSecrets(), clock)
    key, expires_at, signature = parse_url(urls.url(BASE, KEY))
    assert len(signature) == SIGNATURE_CHARS
    forged_signature = data.draw(
        st.text(max_size=40)
        | st.sampled_from(
            ["é" * SIGNATURE_CHARS, signature[:-1], signature + "0", signature.upper(), "", signature * 2]
        )
    )
    forged_expiry = data.draw(st.integers(0, 10**13).map(str) | st.text(max_size=14))
    forged_key = data.draw(st.text(KEY, max_size=90) | st.just(artifact_key("you", 0, MP3, "")))
    assert urls.is_valid(key, expires_at, forged_signature) is (forged_signature == signature)
    assert urls.is_valid(key, forged_expiry, signature) is (forged_expiry == expires_at)
    assert urls.is_valid(forged_key, expires_at, signature) is (forged_key == key)
    assert urls.is_valid(key, expires_at, signature)


@pytest.mark.parametrize("change", ["0%s", " %s", "+%s", "%s ", "%s.0", "-%s", "%s0", "0x%s", "%s\n"])
def test_expiry_in_another_notation_is_invalid(change: str) -> None:
    urls = artifact_urls(FakeArtifactSecrets(), FakeClock())
    key, expires_at, signature = parse_url(urls.url(BASE, KEY))
    assert not urls.is_valid(key, change % expires_at, signature)
    assert not urls.is_valid(key, expires_at.translate({48 + digit: 0x660 + digit for digit in range(10)}), signature)


def test_expiry_is_not_extended_by_the_end_of_the_key() -> None:
    urls = artifact_urls(FakeArtifactSecrets(), FakeClock())
    key, expires_at, signature = parse_url(urls.url(BASE, KEY))
    assert key.endswith(".mp3")
    assert not urls.is_valid(key[:-1], f"3{expires_at}", signature)


def test_urls_of_another_gateway_are_invalid() -> None:
    clock = FakeClock()
    urls, other_urls = (artifact_urls(FakeArtifactSecrets(), clock) for _ in range(2))
    assert not accepts(other_urls, urls.url(BASE, KEY))


# --- secrets ---


def test_first_use_creates_one_secret(store: ArtifactSecretStore) -> None:
    clock = FakeClock()
    assert store.artifact_secrets() is None
    first_url = artifact_urls(store, clock).url(BASE, KEY)
    created = store.artifact_secrets()
    assert created is not None
    assert (len(bytes.fromhex(created.current)), created.previous) == (32, None)
    assert artifact_urls(store, clock).url(BASE, KEY) == first_url
    assert store.artifact_secrets() == created


class OvertakenStore:
    """A store in which another container creates the secret between this container's read and its write."""

    def __init__(self, store: ArtifactSecretStore, overtake: Callable[[], object]) -> None:
        self._store = store
        self._overtake = overtake

    def artifact_secrets(self) -> ArtifactSecrets | None:
        return self._store.artifact_secrets()

    def replace_artifact_secrets(self, old: ArtifactSecrets | None, new: ArtifactSecrets) -> bool:
        self._overtake()
        return self._store.replace_artifact_secrets(old, new)


def test_second_container_takes_the_secret_created_meanwhile(store: ArtifactSecretStore) -> None:
    clock = FakeClock()
    first = artifact_urls(store, clock)
    second = ArtifactUrls(OvertakenStore(store, lambda: first.url(BASE, KEY)), clock, hours=HOURS)
    assert second.url(BASE, KEY) == first.url(BASE, KEY)


def test_concurrent_first_uses_create_one_secret(dynamo_secrets: ArtifactSecretStore) -> None:
    clock, threads = FakeClock(), 8
    barrier = threading.Barrier(threads)

    def create_url(_: int) -> str:
        barrier.wait()
        return artifact_urls(dynamo_secrets, clock).url(BASE, KEY)

    with ThreadPoolExecutor(threads) as pool:
        urls = set(pool.map(create_url, range(threads)))
    assert len(urls) == 1
    assert accepts(artifact_urls(dynamo_secrets, clock), urls.pop())


def test_both_secrets_are_valid_during_a_rotation(store: ArtifactSecretStore) -> None:
    clock = FakeClock()
    urls = artifact_urls(store, clock)
    old_url = urls.url(BASE, KEY)
    rotate(store, clock, overlap_s=3600)
    new_url = artifact_urls(store, clock).url(BASE, KEY)
    assert old_url != new_url
    for _ in range(2):
        assert [accepts(artifact_urls(store, clock), url) for url in (old_url, new_url)] == [True, True]
        clock.advance(3599)
    assert accepts(artifact_urls(store, clock), new_url)
    clock.advance(1)
    assert [accepts(artifact_urls(store, clock), url) for url in (old_url, new_url)] == [False, True]


def test_container_with_an_old_secret_accepts_urls_signed_after_a_rotation(store: ArtifactSecretStore) -> None:
    clock = FakeClock()
    old = artifact_urls(store, clock)
    old_url = old.url(BASE, KEY)
    clock.advance(MIN_REFRESH_MS / 1000)
    rotate(store, clock)
    new_url = artifact_urls(store, clock).url(BASE, KEY)
    assert accepts(old, new_url)
    assert accepts(old, old_url)
    assert old.url(BASE, KEY) == artifact_urls(store, clock).url(BASE, KEY)


def test_urls_of_a_container_with_an_old_secret_are_accepted(store: ArtifactSecretStore) -> None:
    clock = FakeClock()
    old = artifact_urls(store, clock)
    old.url(BASE, KEY)
    rotate(store, clock)
    clock.advance(CACHE_MS / 1000 - 1)
    late_url = old.url(BASE, KEY)
    clock.advance(TTL_S - 1)
    assert accepts(artifact_urls(store, clock), late_url)


class CountedSecrets(FakeArtifactSecrets):
    reads = 0

    def artifact_secrets(self) -> ArtifactSecrets | None:
        self.reads += 1
        return super().artifact_secrets()


def test_secrets_are_read_once_per_cache_time() -> None:
    store, clock = CountedSecrets(), FakeClock()
    store.stored = SECRET
    urls = artifact_urls(store, clock)
    url = urls.url(BASE, KEY)
    for _ in range(5):
        clock.advance(CACHE_MS / 5000)
        assert accepts(urls, url)
    assert store.reads == 2


def test_forged_signatures_do_not_cause_a_read_each() -> None:
    store, clock = CountedSecrets(), FakeClock()
    urls = artifact_urls(store, clock)
    store.stored = SECRET
    key, expires_at, _ = parse_url(urls.url(BASE, KEY))
    store.reads = 0
    for _ in range(100):
        clock.advance(0.1)
        assert not urls.is_valid(key, expires_at, "0" * SIGNATURE_CHARS)
    assert store.reads <= 100 * 100 / MIN_REFRESH_MS + 1


def test_expired_and_malformed_urls_cause_no_read() -> None:
    store, clock = CountedSecrets(), FakeClock()
    urls = artifact_urls(store, clock)
    for expires_at in ("", "x", "1", str(clock.now // 1000), "9" * 13, "-1", "\u0661" * 10):
        assert not urls.is_valid(KEY, expires_at, "0" * SIGNATURE_CHARS)
    assert (store.reads, store.stored) == (0, None)


@given(st.integers(0, 10**13), st.integers(0, 10**10), st.integers(0, 10**13))
def test_previous_secret_is_active_until_its_time(now_ms: int, overlap_ms: int, later_ms: int) -> None:
    new = SECRET.rotate(now_ms=now_ms, overlap_ms=overlap_ms)
    expected = [new.current, SECRET.current] if later_ms < now_ms + overlap_ms else [new.current]
    assert new.active(later_ms) == expected
    assert new.current not in (SECRET.current, SECRET.rotate(now_ms=now_ms, overlap_ms=0).current)
    assert SECRET.active(later_ms) == [SECRET.current]


def test_secrets_are_not_in_their_representation() -> None:
    assert "a" * 64 not in repr(SECRET) + repr(SECRET.rotate(now_ms=0, overlap_ms=1))


def test_secrets_are_stored_completely_and_replaced_only_if_unchanged(store: ArtifactSecretStore) -> None:
    second, third = SECRET.rotate(now_ms=1, overlap_ms=2), ArtifactSecrets("c" * 64)
    assert not store.replace_artifact_secrets(SECRET, second)
    assert store.artifact_secrets() is None
    for old, new in ((None, SECRET), (SECRET, second), (second, third), (third, third)):
        assert store.replace_artifact_secrets(old, new)
        assert store.artifact_secrets() == new
        assert store.replace_artifact_secrets(old, new)  # repeated after a lost response
    for old in (None, SECRET, second):
        assert not store.replace_artifact_secrets(old, ArtifactSecrets("d" * 64))
        assert store.artifact_secrets() == third


# --- files in S3 ---


@pytest.fixture
def artifacts() -> Iterator[S3Artifacts]:
    with mock_aws():
        client("s3").create_bucket(Bucket="bodies")
        yield S3Artifacts("bodies", client("s3"))


def test_link_of_a_missing_file_is_none(artifacts: S3Artifacts) -> None:
    for is_head in (False, True):
        assert artifacts.link(KEY, seconds=60, is_head=is_head) is None


@pytest.mark.parametrize(
    ("content", "media_type", "disposition"),
    [
        (MP3, "audio/mpeg", "inline"),
        (b"OggS\x00", "audio/ogg", "inline"),
        (b"\x89PNG\r\n\x1a\n", "image/png", "inline"),
        (b"%PDF-1.7", "application/pdf", "attachment"),
        (b"<svg onload='alert(1)'/>", "application/octet-stream", "attachment"),
        (b"<html>", "application/octet-stream", "attachment"),
    ],
)
@pytest.mark.parametrize("is_head", [False, True])
def test_link_has_the_type_and_name_of_the_file(
    artifacts: S3Artifacts, content: bytes, media_type: str, disposition: str, is_head: bool
) -> None:
    key = artifacts.put("me", 0, content, "image/svg+xml")
    stored = client("s3").get_object(Bucket="bodies", Key=key)
    assert (stored["Body"].read(), stored["ContentType"]) == (content, media_type)
    link = artifacts.link(key, seconds=60, is_head=is_head)
    assert link is not None
    query = parse_qs(urlsplit(link).query)
    assert urlsplit(link).path.endswith(key)
    assert query["response-content-type"] == [media_type]
    assert query["response-content-disposition"] == [f'{disposition}; filename="{file_name(key)}"']
    assert 0 < int(query.get("X-Amz-Expires", ["60"])[0]) <= 60


def test_same_file_of_an_owner_is_stored_once(artifacts: S3Artifacts) -> None:
    keys = {artifacts.put(owner, at_ms, MP3, "") for owner in ("me", "you") for at_ms in (0, 1, DAY_MS)}
    contents: Any = client("s3").list_objects_v2(Bucket="bodies")["Contents"]
    assert {entry["Key"] for entry in contents} == keys
    assert len(keys) == 4


# --- GET /artifacts/{key} ---


def artifact_event(path: str, query: Mapping[str, str], *, method: str = "GET", key: str = "") -> dict[str, Any]:
    """Return the event of a request for a path below /artifacts/, with an API key or without."""
    request = event("status") | {"resource": "/artifacts/{proxy+}", "httpMethod": method}
    request["path"] = f"/artifacts/{path}"
    request["pathParameters"] = {"proxy": path}
    request["queryStringParameters"] = dict(query) or None
    request["headers"] = {"Authorization": f"Bearer {key}"} if key else {}
    request["requestContext"]["path"] = f"/prod/artifacts/{path}"
    return request


@pytest.fixture
def file_key(stack: MotoStack) -> str:
    """Return the key of a file that belongs to the API key of the event files."""
    return S3Artifacts(stack.names["BodiesBucket"], client("s3")).put("example00000", 0, MP3, "audio/mpeg")


def test_signed_url_redirects_without_an_api_key(stack: MotoStack, file_key: str) -> None:
    """Issue: a URL presigned by a role ends with its session (boto3 #2392); ours is signed by the gateway."""
    _, expires_at, signature = parse_url(artifact_url(stack, file_key))
    path = file_key.removeprefix("artifacts/")
    for method in ("GET", "HEAD"):
        request = artifact_event(path, {"e": expires_at, "s": signature}, method=method)
        response = stack.invoke("status", request)
        assert (response["statusCode"], response["body"]) == (302, "")
        location = urlsplit(response["headers"]["location"])
        assert location.path.endswith(file_key)
        assert parse_qs(location.query)["response-content-type"] == ["audio/mpeg"]
    for query in (
        {"e": expires_at, "s": "0" * 32},
        {"e": "1", "s": signature},
        {"s": signature},
        {"e": expires_at},
        {},
    ):
        assert is_missing(stack.invoke_again("status", artifact_event(path, query)))


def artifact_url(stack: MotoStack, key: str) -> str:
    return ArtifactUrls(stack.config(), bootstrap.CLOCK, hours=HOURS).url(BASE, key)


def is_missing(response: Mapping[str, Any]) -> bool:
    document = json.loads(response["body"])
    return response["statusCode"] == 404 and document["responseStatus"]["message"] == "Artifact not found"


def test_owner_downloads_a_file_without_a_signature(stack: MotoStack, file_key: str) -> None:
    path = file_key.removeprefix("artifacts/")
    other_key, record, secrets = api_keys.create_key("other", now_ms=bootstrap.CLOCK.now_ms())
    stack.config().put_key(record, secrets)
    assert stack.invoke("status", artifact_event(path, {}, key=example_key()))["statusCode"] == 302
    for key in (other_key, "x", ""):
        assert is_missing(stack.invoke_again("status", artifact_event(path, {}, key=key)))
    missing = artifact_key("example00000", DAY_MS, MP3, "").removeprefix("artifacts/")
    assert is_missing(stack.invoke_again("status", artifact_event(missing, {}, key=example_key())))


@pytest.mark.parametrize("change", ["..%2F{}", "{}%00", "x/../{}", "/{}", "{}/", "{}.html", "../jobs/{}", "%2e%2e/{}"])
def test_other_paths_are_missing_even_for_the_owner(stack: MotoStack, file_key: str, change: str) -> None:
    path = change.format(file_key.removeprefix("artifacts/"))
    response = stack.invoke("status", artifact_event(path, {}, key=example_key()))
    assert is_missing(response)
    _, expires_at, signature = parse_url(artifact_url(stack, f"artifacts/{path}"))
    assert is_missing(stack.invoke("status", artifact_event(path, {"e": expires_at, "s": signature})))


def test_encoded_slash_in_a_path_is_missing(stack: MotoStack, file_key: str) -> None:
    path = file_key.removeprefix("artifacts/").replace("/", "%2F", 1)
    assert is_missing(stack.invoke("status", artifact_event(path, {}, key=example_key())))


# --- voices ---


def test_voices_are_the_configured_ones_by_page(stack: MotoStack) -> None:
    models = {"a": {"model": "tts-1", "voice": "alloy"}, "b": {"model": "tts-1", "voice": "echo"}, "c": "tts-1"}
    settings = {"name": "p", "base_url": "http://127.0.0.1:1/v1", "operations": ["audio.speech"], "models": models}
    stack.set_providers(Provider.model_validate(settings))
    request = event("status") | {"path": "/api/QueryTextToSpeechVoices"}
    request["pathParameters"] = {"proxy": "QueryTextToSpeechVoices"}
    voices = [{"id": "alloy", "model": "a"}, {"id": "echo", "model": "b"}]
    pages = [({}, 0, voices), ({"Skip": "1"}, 1, voices[1:]), ({"take": "1"}, 0, voices[:1]), ({"skip": "9"}, 9, [])]
    for query, offset, page in pages:
        request["queryStringParameters"] = query
        response = stack.invoke("status", request)
        assert json.loads(response["body"]) == {"offset": offset, "total": 2, "results": page}
    request["headers"] = {}
    assert stack.invoke_again("status", request)["statusCode"] == 401
