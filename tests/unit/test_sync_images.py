"""Images of synchronous requests: stored with a RefId, a Tag or AI Server's request, signed again when replayed."""

import base64
import json
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from aiserver.clock import Deadline
from aiserver.errors import Conflict, ProviderError
from aiserver.jobs.job import Job
from aiserver.jobs.states import JobState
from aiserver.limits import MAX_DEPTH
from aiserver.providers.downloads import DownloadFailed
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.complete import CompletionResult
from aiserver.usecases.generate_media import GeneratedMedia, GenerateMedia
from aiserver.wire import sse
from aiserver.wire.aiserver_images import bind_image_to_text, bind_text_to_image
from aiserver.wire.forms import Part, encode_form
from aiserver.wire.image_requests import bind_generation
from aiserver.wire.requests import ModelRequest, Options
from tests.app import ME, FakeStream, TestApp
from tests.fakes import FakeArtifacts, FakeFileSource

PNG, JPEG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"\xff\xd8\xff\xe0" + bytes(99)
URL, LOST_URL = "https://images.example/a.png?sig=1", "https://lost.example/"
LIMIT_S = 60
DAY_S = 86_400
HOSTED = {"name": "p", "models": {"m": ""}, "operations": ["images.generations", "chat.completions"]}
RECORDED = [{"ref_id": "r"}, {"tag": "t"}, {"ref_id": "r", "tag": "t"}]
LOST_TEXT = "Provider p: 1 of 2 images could not be stored: image 1: its URL returned status 403"


class ImageApp(TestApp):
    """The use cases with a provider of images; `artifacts` and `files` are the fakes behind ImageOutputs."""

    def __init__(self) -> None:
        super().__init__(HOSTED)
        run_job, status = cast(Any, self.run_job), cast(Any, self.status)
        outputs, self.urls = run_job._recorder._images, status._urls
        self.artifacts: FakeArtifacts = outputs._artifacts
        self.source: FakeFileSource = outputs._source
        self.source.files[URL] = PNG
        self.source.files[LOST_URL] = DownloadFailed("its URL returned status 403")
        self.media = GenerateMedia(self.complete, self.artifacts, self.urls, self.clock)

    def request(self, request: ModelRequest, *outcomes: Any) -> CompletionResult:
        """Make an OpenAI request to a provider with these outcomes."""
        self.dispatcher.outcomes = list(outcomes)
        deadline = Deadline.after(LIMIT_S, self.clock)
        return self.complete.run(request, owner=ME.owner, base_url=ME.base_url, deadline=deadline)

    def generate(self, request: ModelRequest, *outcomes: Any) -> GeneratedMedia:
        """Make one of AI Server's requests to a provider with these outcomes."""
        self.dispatcher.outcomes = list(outcomes)
        deadline = Deadline.after(LIMIT_S, self.clock)
        return self.media.run(request, owner=ME.owner, base_url=ME.base_url, deadline=deadline)

    def read_signed(self, url: str) -> bytes:
        """The file of an artifact's URL, if it is signed for a day from now."""
        parts = urlsplit(url)
        key, query = parts.path.removeprefix("/"), parse_qs(parts.query)
        assert url.startswith(f"{ME.base_url}/artifacts/")
        assert self.urls.is_valid(key, query["e"][0], query["s"][0])
        assert int(query["e"][0]) == self.clock.now // 1000 + DAY_S
        return self.artifacts.files[key]

    @property
    def job(self) -> Job:
        """The only job."""
        (job,) = self.jobs.list_page(ME.owner, take=9).jobs
        return job


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def image_response(*outputs: Any, ignored: tuple[str, ...] = ()) -> ProviderResponse:
    body = json.dumps({"created": 1, "data": outputs}).encode()
    return ProviderResponse(200, {"x-request-id": ""}, body, usage='{"images":1}', ignored=ignored)


def generation(*, stream: bool = False, **options: Any) -> ModelRequest:
    body = b'{"model":"m","prompt":"a cat"%s}' % (b',"stream":true' if stream else b"")
    return bind_generation(body, "application/json").with_options(Options(**options))


def text_to_image(**members: Any) -> ModelRequest:
    body = json.dumps({"model": "m", "positivePrompt": "a cat", **members}).encode()
    return bind_text_to_image(body, "application/json", {}, name="TextToImage")


def document(response: CompletionResult) -> dict[str, Any]:
    assert isinstance(response.body, bytes)
    return json.loads(response.body)


# OpenAI's requests


@pytest.mark.parametrize("outputs", [[{"url": URL}], [{"url": LOST_URL}], [{"b64_json": b64(PNG)}], []])
def test_response_without_record_is_untouched_and_nothing_is_stored(outputs: list[Any]) -> None:
    app = ImageApp()
    upstream = image_response(*outputs)
    response = app.request(generation(), upstream)
    assert (response.body, response.headers, response.keys) == (upstream.body, upstream.headers, ())
    assert (app.artifacts.files, app.jobs.items, app.source.fetched) == ({}, {}, [])


@pytest.mark.parametrize("options", RECORDED, ids=["RefId", "Tag", "RefId and Tag"])
def test_recorded_response_has_signed_urls_and_unchanged_base64(options: dict[str, Any]) -> None:
    app = ImageApp()
    response = app.request(generation(**options), image_response({"url": URL}, {"b64_json": b64(JPEG)}))
    first, second = document(response)["data"]
    assert (app.read_signed(first["url"]), second) == (PNG, {"b64_json": b64(JPEG)})
    assert sorted(app.artifacts.files.values()) == sorted([PNG, JPEG])
    assert (app.job.state, app.job.maybe_billed, app.job.usage) == (JobState.COMPLETED, 0, '{"images":1}')
    status = json.loads(app.status.status(app.job))
    assert [app.read_signed(output["url"]) for output in status["results"]] == [PNG, JPEG]
    assert b"?e=" not in (app.jobs.read_result(app.job) or b"")  # stored without signatures


def test_base64_with_a_ref_id_is_returned_byte_for_byte() -> None:
    app = ImageApp()
    upstream = image_response({"b64_json": b64(PNG), "url": None, "revised_prompt": "é"})
    assert [app.request(generation(ref_id="r"), upstream).body for _ in range(2)] == [upstream.body] * 2


def test_replay_has_fresh_signatures_of_images_that_are_stored_once() -> None:
    app = ImageApp()
    first = app.request(generation(ref_id="r"), image_response({"url": URL}))
    app.clock.advance(2 * DAY_S)
    repeat = app.request(generation(ref_id="r"))
    assert (first.is_replay, repeat.is_replay) == (False, True)
    assert app.read_signed(document(repeat)["data"][0]["url"]) == PNG
    assert document(repeat) != document(first)
    assert (app.source.fetched, len(app.artifacts.files), len(app.dispatcher.calls)) == ([URL], 1, 1)


def test_tag_alone_records_each_request() -> None:
    app = ImageApp()
    for _ in range(2):
        app.request(generation(tag="t"), image_response({"url": URL}))
        app.clock.advance(1)
    assert (len(app.jobs.items), len(app.dispatcher.calls), len(app.artifacts.files)) == (2, 2, 1)


@pytest.mark.parametrize("options", RECORDED, ids=["RefId", "Tag", "RefId and Tag"])
def test_response_with_one_lost_image_completes_with_its_error(options: dict[str, Any]) -> None:
    app = ImageApp()
    response = app.request(generation(**options), image_response({"url": LOST_URL}, {"url": URL}))
    first, second = document(response)["data"]
    assert (first, app.read_signed(second["url"])) == ({"url": LOST_URL}, PNG)
    assert (response.lost, app.job.error, app.job.maybe_billed) == (LOST_TEXT, LOST_TEXT, 0)
    status = json.loads(app.status.status(app.job))
    assert (status["jobState"], status["responseStatus"]["message"]) == ("Completed", LOST_TEXT)


@pytest.mark.parametrize("fault", ["lost", "none", "store"])
@pytest.mark.parametrize("options", RECORDED, ids=["RefId", "Tag", "RefId and Tag"])
def test_response_whose_images_are_all_lost_is_returned_and_job_fails(options: dict[str, Any], fault: str) -> None:
    app = ImageApp()
    if fault == "store":
        app.artifacts.failures = [ConnectionError("a secret of the store")] * 9
    outputs = {"lost": [{"url": LOST_URL}], "none": [], "store": [{"url": URL}]}[fault]
    response = app.request(generation(**options), image_response(*outputs))
    assert document(response)["data"] == outputs
    assert (response.response_headers["x-images-not-stored"], "secret" in response.lost) == (response.lost, False)
    assert (app.job.state, app.job.error, app.job.maybe_billed) == (JobState.FAILED, response.lost, 1)
    assert (app.job.usage, app.job.outputs, app.job.result_location) == ('{"images":1}', None, None)
    if "ref_id" in options:
        with pytest.raises(Conflict, match="belongs to a job that is Failed"):
            app.request(generation(**options), image_response({"url": URL}))
        assert len(app.dispatcher.calls) == 1


def test_provider_is_not_called_when_signing_secrets_cannot_be_read() -> None:
    app = ImageApp()

    def fail() -> Any:
        raise ConnectionError("DynamoDB is unavailable")

    app.urls._store.artifact_secrets = fail
    with pytest.raises(ConnectionError):
        app.request(generation(ref_id="r"), image_response({"url": URL}))
    assert (app.dispatcher.calls, app.jobs.items) == ([], {})
    assert app.request(generation(), image_response({"url": URL})).status == 200  # needs no signature


@pytest.mark.parametrize(("options", "timeout_s"), [({}, 60), ({"ref_id": "r"}, 45), ({"tag": "t"}, 45)])
def test_call_leaves_a_quarter_of_a_short_time_to_store_images(options: dict[str, Any], timeout_s: float) -> None:
    app = ImageApp()
    app.request(generation(**options), image_response({"url": URL}))
    ((_, call),) = app.dispatcher.calls
    assert call["timeout_s"] == timeout_s


# Streams

PARTIAL = {"type": "image_generation.partial_image", "partial_image_index": 0, "b64_json": b64(JPEG)}
COMPLETED = {"type": "image_generation.completed", "b64_json": b64(PNG), "usage": {"total_tokens": 1}}


def stream(app: ImageApp, *documents: dict[str, Any]) -> tuple[FakeStream, list[bytes]]:
    events = [sse.format_event(json.dumps(document).encode()) for document in documents]
    return FakeStream(app.clock, list(events)), events


def read(response: CompletionResult) -> bytes:
    assert not isinstance(response.body, bytes)
    return b"".join(filter(None, response.body))


@pytest.mark.parametrize("options", RECORDED, ids=["RefId", "Tag", "RefId and Tag"])
def test_complete_image_of_a_recorded_stream_is_stored(options: dict[str, Any]) -> None:
    app = ImageApp()
    script, events = stream(app, PARTIAL, PARTIAL, COMPLETED)
    assert read(app.request(generation(stream=True, **options), script)) == b"".join(events)
    assert list(app.artifacts.files.values()) == [PNG]
    assert (app.job.state, app.jobs.read_result(app.job)) == (JobState.COMPLETED, events[-1])
    if "ref_id" in options:
        repeat = app.request(generation(stream=True, **options))
        assert (repeat.is_replay, repeat.body, len(app.dispatcher.calls)) == (True, events[-1], 1)
        assert repeat.headers["content-type"].startswith("text/event-stream")


def test_only_events_that_complete_an_image_are_copied_from_a_chunk() -> None:
    app = ImageApp()
    partial = PARTIAL | {"revised_prompt": 'type "image_generation.completed"'}
    _, events = stream(app, partial, COMPLETED, {"type": "image_generation.usage"})
    read(app.request(generation(stream=True, ref_id="r"), FakeStream(app.clock, [b"".join(events)])))
    assert (list(app.artifacts.files.values()), app.jobs.read_result(app.job)) == ([PNG], events[1])


@pytest.mark.parametrize("is_complete", [True, False])
def test_stream_whose_caller_disconnects_is_read_to_its_end(is_complete: bool) -> None:
    app = ImageApp()
    script, events = stream(app, PARTIAL, COMPLETED)
    script.is_complete = is_complete
    body = app.request(generation(stream=True, ref_id="r"), script).body
    assert not isinstance(body, bytes)
    assert next(body) == events[0]
    body.close()
    assert script.is_closed
    assert app.job.state == (JobState.COMPLETED if is_complete else JobState.CANCELLED)
    assert list(app.artifacts.files.values()) == ([PNG] if is_complete else [])


def test_url_of_a_stream_is_replaced_in_the_replay() -> None:
    app = ImageApp()
    script, events = stream(app, {"type": "image_generation.completed", "url": URL})
    assert read(app.request(generation(stream=True, ref_id="r"), script)) == b"".join(events)
    app.clock.advance(60)
    repeat = app.request(generation(stream=True, ref_id="r")).body
    assert isinstance(repeat, bytes)
    assert app.read_signed(json.loads(sse.event_data(repeat))["url"]) == PNG


def test_stream_without_record_is_untouched_and_nothing_is_stored() -> None:
    app = ImageApp()
    script, events = stream(app, PARTIAL, COMPLETED)
    assert read(app.request(generation(stream=True), script)) == b"".join(events)
    assert (app.artifacts.files, app.jobs.items) == ({}, {})


@pytest.mark.parametrize(
    "documents", [[PARTIAL], [{"type": "image_generation.completed"}]], ids=["partial", "no image"]
)
def test_stream_without_a_complete_image_fails_its_job(documents: list[dict[str, Any]]) -> None:
    app = ImageApp()
    script, events = stream(app, *documents)
    assert read(app.request(generation(stream=True, ref_id="r"), script)) == b"".join(events)
    assert (app.job.state, app.job.maybe_billed, app.artifacts.files) == (JobState.FAILED, 1, {})


def test_event_that_is_nested_too_deeply_does_not_break_the_stream() -> None:
    app = ImageApp()
    deep: Any = "x"
    for _ in range(MAX_DEPTH + 1):
        deep = [deep]
    script, events = stream(app, COMPLETED | {"x": deep})
    assert read(app.request(generation(stream=True, ref_id="r"), script)) == b"".join(events)


def test_stream_whose_image_is_lost_fails_its_job() -> None:
    app = ImageApp()
    script, events = stream(app, {"type": "image_generation.completed", "url": LOST_URL})
    assert read(app.request(generation(stream=True, ref_id="r"), script)) == b"".join(events)
    assert (app.job.state, app.job.maybe_billed, app.job.result_location) == (JobState.FAILED, 1, None)
    assert "its URL returned status 403" in (app.job.error or "")


# AI Server's requests


def test_aiservers_request_has_the_files_under_both_names() -> None:
    app = ImageApp()
    generated = app.generate(text_to_image(), image_response({"url": URL}, {"b64_json": b64(JPEG)}))
    members = json.loads(generated.body)
    assert members.keys() == {"results", "outputs", "duration"}
    assert members["results"] == members["outputs"]
    assert [app.read_signed(output["url"]) for output in members["results"]] == [PNG, JPEG]
    assert [output["provider"] for output in members["results"]] == ["p", "p"]
    assert [output["fileName"].rpartition(".")[2] for output in members["results"]] == ["png", "jpg"]
    assert (app.jobs.items, generated.headers["x-provider"]) == ({}, "p")


def test_aiservers_request_names_lost_images_also_when_replayed() -> None:
    app = ImageApp()
    request = text_to_image(refId="r")
    first = app.generate(request, image_response({"url": LOST_URL}, {"url": URL}))
    app.clock.advance(2 * DAY_S)
    repeat = app.generate(request)
    for generated, now in ((first, app.clock.now - 2 * DAY_S * 1000), (repeat, app.clock.now)):
        app.clock.now = now
        members = json.loads(generated.body)
        assert [app.read_signed(output["url"]) for output in members["results"]] == [PNG]
        assert members["responseStatus"]["message"] == LOST_TEXT
    assert (repeat.headers["x-replayed"], app.source.fetched) == ("true", [LOST_URL, URL])


@pytest.mark.parametrize("fault", ["lost", "none", "store"])
def test_aiservers_request_whose_images_are_all_lost_is_an_error(fault: str) -> None:
    app = ImageApp()
    app.artifacts.failures = [ConnectionError("S3 is unavailable")] * 9 if fault == "store" else []
    outputs = {"lost": [{"url": LOST_URL}], "none": [], "store": [{"url": URL}]}[fault]
    with pytest.raises(ProviderError, match=r"could not be stored|contains no images") as raised:
        app.generate(text_to_image(), image_response(*outputs))
    assert (raised.value.may_be_billed, app.jobs.items) == (True, {})


def test_ignored_members_are_in_the_header_also_when_replayed() -> None:
    app = ImageApp()
    request = text_to_image(arguments={"a": 1}, seed=1, refId="r")
    upstream = image_response({"url": URL}, ignored=("seed", "arguments"))
    for generated in (app.generate(request, upstream), app.generate(request)):
        assert generated.headers["x-ignored"] == "arguments, seed"
    assert json.loads(app.status.status(app.job))["ignored"] == ["arguments", "seed"]


def test_image_to_text_returns_texts_and_stores_no_file() -> None:
    app = ImageApp()
    form = encode_form([Part("model", b"m"), Part("image", PNG, "a.png")])
    chat = {"choices": [{"message": {"content": "a cat"}}]}
    request = bind_image_to_text(*form, {}, name="ImageToText")
    members = json.loads(app.generate(request, ProviderResponse(200, {}, json.dumps(chat).encode())).body)
    assert members["results"] == members["textOutputs"] == [{"text": "a cat"}]
    assert ("outputs" in members, app.artifacts.files) == (False, {})
