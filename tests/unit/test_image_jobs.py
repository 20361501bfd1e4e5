"""Queued image jobs: their stored images in statuses, results and callbacks, and the failures of storing them."""

import base64
import json
import secrets
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import pytest

from aiserver.errors import Conflict
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.limits import MAX_CALLBACK_BYTES
from aiserver.providers.downloads import DownloadFailed, Downloads
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.image_outputs import PUT_PAUSES_S
from aiserver.usecases.terminal import MAX_ERROR_CHARS
from aiserver.wire.aiserver_images import bind_image_to_text, bind_text_to_image
from aiserver.wire.forms import Part, encode_form
from aiserver.wire.image_requests import bind_edit, bind_generation, bind_variation
from aiserver.wire.requests import ModelRequest, Options
from tests.app import LEASE_MS, ME, TestApp
from tests.fakes import FakeArtifacts, FakeFileSource
from tests.hostile_servers import receiver, respond

PNG, JPEG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)), b"\xff\xd8\xff\xe0" + bytes(99)
URL = "https://images.example/a.png?sig=1"
HOOK = "https://r.io/hook"
OPERATIONS = ["images.generations", "images.edits", "images.variations", "chat.completions"]
HOSTED = {"name": "p", "models": {"m": ""}, "operations": OPERATIONS}
DAY_S = 86_400


class ImageApp(TestApp):
    """The use cases with a provider of images; `artifacts` and `files` are the fakes behind ImageOutputs."""

    def __init__(self, **provider: Any) -> None:
        super().__init__(HOSTED | provider)
        run_job, status = cast(Any, self.run_job), cast(Any, self.status)
        self.outputs = outputs = run_job._recorder._images
        self.urls = status._urls
        self.artifacts: FakeArtifacts = outputs._artifacts
        self.source: FakeFileSource = outputs._source
        self.source.files[URL] = PNG

    def queue(self, request: ModelRequest, *outputs: Any, **members: Any) -> Job:
        """Accept a request whose provider will return these outputs."""
        self.dispatcher.outcomes = [image_response(*outputs, **members)]
        return self.enqueue.accept(request, ME)

    def document(self, job: Job) -> dict[str, Any]:
        return json.loads(self.status.status(self.reload(job)))

    def read_signed(self, url: str) -> bytes:
        """The file of an artifact's URL, if its signature is valid."""
        parts = urlsplit(url)
        key, query = parts.path.removeprefix("/"), parse_qs(parts.query)
        assert url.startswith(f"{ME.base_url}/artifacts/")
        assert self.urls.is_valid(key, query["e"][0], query["s"][0])
        assert int(query["e"][0]) == self.clock.now // 1000 + DAY_S
        return self.artifacts.files[key]

    def only_post(self, job: Job) -> tuple[Any, dict[str, str]]:
        """The document and the headers of the job's only callback."""
        assert self.deliver(job).callback == CallbackState.DELIVERED
        ((_, body, headers),) = self.webhook_client.posts
        return json.loads(body), headers


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def image_response(*outputs: Any, ignored: tuple[str, ...] = (), **headers: str) -> ProviderResponse:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    body = json.dumps({"created": 1, "data": outputs}).encode()
    return ProviderResponse(200, names, body, usage='{"images":1}', ignored=ignored)


def generation(**options: Any) -> ModelRequest:
    request = bind_generation(b'{"model":"m","prompt":"a cat"}', "application/json", is_queued=True)
    return request.with_options(Options(**options))


def queue_text_to_image(**members: Any) -> ModelRequest:
    body = json.dumps({"model": "m", "positivePrompt": "a cat", **members}).encode()
    return bind_text_to_image(body, "application/json", {}, name="QueueTextToImage")


def edit_form() -> tuple[bytes, str]:
    fields = {"model": "m", "prompt": "a cat"}
    return encode_form([Part(name, text.encode()) for name, text in fields.items()] + [Part("image", PNG, "a.png")])


REQUESTS = [
    generation(reply_to=HOOK),
    bind_edit(*edit_form(), is_queued=True).with_options(Options(reply_to=HOOK)),
    bind_variation(*edit_form(), is_queued=True).with_options(Options(reply_to=HOOK)),
    queue_text_to_image(replyTo=HOOK),
]


# Completed jobs


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.name or request.operation.name)
def test_status_of_a_completed_job_has_signed_urls_and_no_result(request_: ModelRequest) -> None:
    app = ImageApp()
    job = app.run(app.queue(request_, {"url": URL}, {"b64_json": b64(JPEG)}))
    assert (job.state, job.error, job.maybe_billed, job.usage) == (JobState.COMPLETED, None, 0, '{"images":1}')
    assert sorted(app.artifacts.files.values()) == sorted([PNG, JPEG])
    document = app.document(job)
    assert "result" not in document
    assert "chatResponse" not in document
    assert "responseStatus" not in document
    assert document["results"] == document["outputs"]
    assert [app.read_signed(output["url"]) for output in document["results"]] == [PNG, JPEG]
    assert [output["provider"] for output in document["results"]] == ["p", "p"]
    assert [output["fileName"] for output in document["results"]] == (job.outputs or "").split(",")
    assert b64(JPEG) not in str(document)
    record = app.status.record(app.reload(job))
    assert (record["responseBody"], record["resultUrl"]) == (None, document["resultUrl"])


def test_urls_of_each_status_are_signed_again_and_expire() -> None:
    app = ImageApp()
    job = app.run(app.queue(generation(), {"url": URL}))
    (first,) = app.document(job)["results"]
    app.clock.advance(DAY_S - 1)
    (second,) = app.document(job)["results"]
    assert first["url"] != second["url"]
    assert [app.urls.is_valid(*signed_parts(output)) for output in (first, second)] == [True, True]
    app.clock.advance(1)
    assert [app.urls.is_valid(*signed_parts(output)) for output in (first, second)] == [False, True]


def signed_parts(output: dict[str, str]) -> tuple[str, str, str]:
    parts = urlsplit(output["url"])
    return parts.path.removeprefix("/"), parse_qs(parts.query)["e"][0], parse_qs(parts.query)["s"][0]


def test_result_has_signed_urls_in_place_of_those_of_the_provider() -> None:
    app = ImageApp()
    job = app.run(app.queue(generation(), {"url": URL, "revised_prompt": "é"}, {"b64_json": b64(JPEG)}))
    result = app.status.result(job)
    assert isinstance(result, bytes)
    first, second = json.loads(result)["data"]
    assert app.read_signed(first["url"]) == PNG
    assert (first["revised_prompt"], second) == ("é", {"b64_json": b64(JPEG)})
    assert b"images.example" not in result
    assert b"?e=" not in (app.jobs.read_result(job) or b"")  # stored without signatures


def test_result_of_base64_is_the_response_byte_for_byte() -> None:
    app = ImageApp()
    job = app.run(app.queue(generation(), {"b64_json": b64(PNG)}))
    assert app.status.result(job) == app.jobs.read_result(job) == image_response({"b64_json": b64(PNG)}).body


def test_ignored_members_of_the_request_and_of_the_provider_are_listed() -> None:
    app = ImageApp()
    request = queue_text_to_image(arguments={"a": 1}, seed=1)
    job = app.run(app.queue(request, {"b64_json": b64(PNG)}, ignored=("seed", "arguments")))
    assert app.document(job)["ignored"] == ["arguments", "seed"]


def test_own_url_of_a_gpu_server_is_downloaded_for_its_job() -> None:
    """Issues: URLs on the server's own host (llama-swap #623, LocalAI #10482)."""
    with receiver(respond(503), respond(200, body=PNG)) as server:
        app = ImageApp(queue="gpu", base_url=f"http://127.0.0.1:{server.port}/v1")
        app.outputs._source = Downloads(sleep=app.clock.advance)
        job = app.queue(generation(), {"url": f"http://127.0.0.1:{server.port}/generated-images/x.png"})
        assert job.queue == "gpu"
        job = app.run(job)
    assert server.connections == 2
    assert [app.read_signed(output["url"]) for output in app.document(job)["outputs"]] == [PNG]


def test_private_url_of_a_hosted_provider_is_lost() -> None:
    app = ImageApp()
    app.outputs._source = Downloads(sleep=app.clock.advance)
    job = app.run(app.queue(generation(), {"url": "http://127.0.0.1:1/a"}, {"url": "http://169.254.169.254/"}))
    assert (job.state, job.maybe_billed) == (JobState.FAILED, 1)
    assert "image 2: the host must be a name, not an IP address" in (job.error or "")


def test_queued_image_to_text_has_text_outputs() -> None:
    app = ImageApp()
    body = encode_form(
        [Part("model", b"m"), Part("replyTo", HOOK.encode()), Part("state", b"s"), Part("image", PNG, "a.png")]
    )
    chat = {"choices": [{"message": {"role": "assistant", "content": "a cat"}}]}
    app.dispatcher.outcomes = [ProviderResponse(200, {}, json.dumps(chat).encode())]
    job = app.run(app.enqueue.accept(bind_image_to_text(*body, {}, name="QueueImageToText"), ME))
    document = app.document(job)
    assert document["results"] == document["textOutputs"] == [{"text": "a cat"}]
    assert (document["result"], "outputs" in document, app.artifacts.files) == (chat, False, {})
    payload, _ = app.only_post(job)
    assert payload == {"state": "s", "refId": job.ref_id, "textOutputs": [{"text": "a cat"}]}


def test_every_url_of_a_result_is_signed() -> None:
    app = ImageApp()
    app.source.files["/b"] = JPEG
    job = app.run(app.queue(generation(), {"url": URL}, {"url": "/b"}, {"url": URL}))
    result = app.status.result(job)
    assert isinstance(result, bytes)
    assert [app.read_signed(output["url"]) for output in json.loads(result)["data"]] == [PNG, JPEG, PNG]


# Callbacks


def test_callback_of_a_small_result_is_the_result_with_signed_urls() -> None:
    app = ImageApp()
    job = app.run(app.queue(generation(reply_to=HOOK), {"url": URL}, {"b64_json": b64(JPEG)}))
    app.clock.advance(60)  # signed when it is sent
    payload, headers = app.only_post(job)
    assert app.read_signed(payload["data"][0]["url"]) == PNG
    assert payload["data"][1] == {"b64_json": b64(JPEG)}
    assert "x-result-url" not in headers


def test_callback_of_a_large_result_is_the_status_with_its_url() -> None:
    app = ImageApp()
    image = PNG + secrets.token_bytes(MAX_CALLBACK_BYTES)
    job = app.run(app.queue(generation(reply_to=HOOK), {"b64_json": b64(image)}))
    payload, headers = app.only_post(job)
    assert headers["x-result-url"] == payload["resultUrl"] == f"{ME.base_url}/v1/jobs/{job.id}/result"
    assert [app.read_signed(output["url"]) for output in payload["results"]] == [image]
    assert ("result" in payload, payload["jobState"]) == (False, "Completed")


@pytest.mark.parametrize("size", [0, MAX_CALLBACK_BYTES], ids=["small", "large"])
@pytest.mark.parametrize("state", ["{1}", None])
def test_callback_of_aiservers_request_has_the_outputs(size: int, state: str | None) -> None:
    app = ImageApp()
    image = PNG + secrets.token_bytes(size)
    job = app.run(app.queue(queue_text_to_image(replyTo=HOOK, refId="r", state=state), {"b64_json": b64(image)}))
    payload, _ = app.only_post(job)
    (output,) = payload.pop("outputs")
    assert payload == {"refId": "r"} | ({"state": state} if state else {})
    assert (app.read_signed(output["url"]), output["provider"], output["fileName"]) == (image, "p", job.outputs)


# Lost images


@pytest.mark.parametrize("outputs", [[{"url": "https://lost.example/"}, {}], []], ids=["lost", "none"])
def test_job_whose_images_are_all_lost_fails_and_may_be_billed(outputs: list[Any]) -> None:
    """Issues: 200 with empty `data` is repeated and paid twice (vercel/ai #19168)."""
    app = ImageApp()
    job = app.run(app.queue(generation(reply_to=HOOK), *outputs, x_request_id="req_1"))
    assert (job.state, job.maybe_billed, job.error_code) == (JobState.FAILED, 1, "ProviderError")
    problem = "2 of 2 images could not" if outputs else "the response contains no images"
    assert (job.error or "").startswith(f"Provider p, request req_1: {problem}")
    assert (job.result_location, job.outputs, len(app.dispatcher.calls), app.messages.jobs[1:]) == (None, None, 1, [])
    document = app.document(job)
    assert (document["maybeBilled"], document["responseStatus"]["message"]) == (1, job.error)
    with pytest.raises(Conflict):
        app.status.result(job)
    payload, headers = app.only_post(job)
    assert (payload["responseStatus"]["errorCode"], headers["x-job-state"]) == ("ProviderError", "Failed")


@pytest.mark.parametrize("is_aiserver", [False, True])
def test_job_with_one_lost_image_completes_with_a_response_status(is_aiserver: bool) -> None:
    app = ImageApp()
    app.source.files["https://lost.example/"] = DownloadFailed("its URL returned status 403")
    request = queue_text_to_image(replyTo=HOOK) if is_aiserver else generation(reply_to=HOOK)
    job = app.run(app.queue(request, {"url": "https://lost.example/"}, {"url": URL}))
    message = "Provider p: 1 of 2 images could not be stored: image 1: its URL returned status 403"
    status = {"errorCode": "ProviderError", "message": message}
    assert (job.state, job.error, job.maybe_billed) == (JobState.COMPLETED, message, 0)
    assert status.items() <= app.document(job)["responseStatus"].items()
    assert [app.read_signed(output["url"]) for output in app.document(job)["results"]] == [PNG]
    payload, _ = app.only_post(job)
    if is_aiserver:
        assert status.items() <= payload["responseStatus"].items()
        assert [app.read_signed(output["url"]) for output in payload["outputs"]] == [PNG]
    else:
        assert payload["data"][0] == {"url": "https://lost.example/"}
        assert app.read_signed(payload["data"][1]["url"]) == PNG


def test_error_of_many_lost_images_is_truncated() -> None:
    app = ImageApp()
    urls = [f"https://{index}.example/" for index in range(10)]
    app.source.files.update((url, DownloadFailed("x" * 999)) for url in urls)
    job = app.run(app.queue(generation(), *({"url": url} for url in urls)))
    assert (job.state, len(job.error or "")) == (JobState.FAILED, MAX_ERROR_CHARS)


# A store that fails


def test_temporary_failure_of_the_store_is_retried_without_a_call() -> None:
    app = ImageApp()
    app.artifacts.failures = [ConnectionError("S3 is unavailable")] * 9
    job, started_ms = app.queue(generation(), {"url": URL}, {"b64_json": b64(JPEG)}), app.clock.now
    job = app.run(job)
    assert (job.state, job.error, job.attempt, len(app.dispatcher.calls)) == (JobState.COMPLETED, None, 1, 1)
    assert (app.clock.now - started_ms) / 1000 == 3 * sum(PUT_PAUSES_S) + 1 + 2 + 4
    assert [app.artifacts.files[key] for key in stored_keys(app, job)] == [PNG, JPEG]


def stored_keys(app: ImageApp, job: Job) -> Iterator[str]:
    return (signed_parts(output)[0] for output in app.document(job)["outputs"])


def test_job_of_an_unavailable_store_ends_without_another_call() -> None:
    app = ImageApp()
    app.artifacts.failures = [ConnectionError("S3 is unavailable")] * 99
    job = app.queue(generation(), {"url": URL})
    with pytest.raises(ConnectionError):
        app.run(job)
    assert app.reload(job).state == JobState.STARTED
    app.clock.advance(LEASE_MS / 1000 + 1)
    swept = app.run_sweep(job)
    assert (swept.state, swept.maybe_billed, len(app.dispatcher.calls)) == (JobState.FAILED, 1, 1)


@pytest.mark.parametrize("is_aiserver", [False, True])
def test_cancel_while_images_are_stored_cancels_the_job(is_aiserver: bool) -> None:
    app = ImageApp()
    request = queue_text_to_image(replyTo=HOOK, refId="r") if is_aiserver else generation(reply_to=HOOK)
    job = app.queue(request, {"url": URL})
    fetch = app.source.fetch

    def cancel_and_fetch(*args: Any, **options: Any) -> bytes:
        app.enqueue.cancel(app.reload(job))
        return fetch(*args, **options)

    app.source.fetch = cancel_and_fetch  # type: ignore[method-assign]
    job = app.run(job)
    assert (job.state, job.outputs, job.result_location) == (JobState.CANCELLED, None, None)
    assert job.usage == '{"images":1}'
    assert "results" not in app.document(job)
    payload, headers = app.only_post(job)
    assert (payload["responseStatus"]["errorCode"], headers["x-job-state"]) == ("Cancelled", "Cancelled")
    assert not payload.keys() & {"outputs", "data"}


# Time


@pytest.mark.parametrize(
    ("remaining_ms", "timeout_s"), [(900_000, 900 - 40), (400_000, 400 - 40), (100_000, 75), (20_000, 15)]
)
def test_call_leaves_the_worker_time_to_store_images(remaining_ms: int, timeout_s: float) -> None:
    app = ImageApp(timeout_s=9999)
    job = app.queue(generation(), {"url": URL})
    app.run_job.run(job.id, remaining_ms=remaining_ms)
    ((_, call),) = app.dispatcher.calls
    assert call["timeout_s"] == timeout_s


@pytest.mark.parametrize(
    ("remaining_s", "latency_s", "limits"), [(900, 10, [60]), (900, 850, [45]), (20, 10, [5]), (20, 15, [])]
)
def test_downloads_end_before_the_lease_does(remaining_s: int, latency_s: int, limits: list[float]) -> None:
    app = ImageApp()
    timeouts: list[float] = []

    def fetch(url: str, upstream: Any, *, max_bytes: int, timeout_s: float) -> bytes:
        timeouts.append(timeout_s)
        return PNG

    app.source.fetch = fetch  # type: ignore[method-assign]
    app.dispatcher.latency_s = latency_s
    job = app.queue(generation(), {"url": URL})
    app.run_job.run(job.id, remaining_ms=remaining_s * 1000)
    assert (timeouts, app.reload(job).state) == (limits, JobState.COMPLETED if limits else JobState.FAILED)
