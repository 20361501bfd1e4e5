"""Images through the running gateway: drawn by real servers, received by the clients that users have, read by OCR."""

import base64
import hashlib
import json
import subprocess
import threading
import uuid
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import requests
from servicestack import JsonServiceClient, UploadFile
from standardwebhooks import Webhook

from local.receiver import Callback, Receiver
from tests import sse_reader
from tests.flow.audio_cloud import Form, FormPart, parts_at_provider
from tests.flow.audio_dtos import GetArtifactGenerationStatus, GetTextGenerationStatus
from tests.flow.image_cloud import (
    BACKUP_UPSTREAM_MODEL,
    BUSY_UPSTREAM_MODEL,
    DEFAULT_MODELS,
    FAILOVER_MODEL,
    GPU_URL_MODEL,
    HOSTED_URL_MODEL,
    OPENAI_MODEL,
    PROVIDER_KEY,
    SCRIPTED_MODEL,
    SCRIPTED_UPSTREAM_MODEL,
    STUDIO_MODEL,
    VISION_UPSTREAM_MODEL,
    ImageProduct,
    running_image_product,
)
from tests.flow.image_dtos import (
    ActiveMediaModels,
    ImageToImage,
    ImageToText,
    ImageWithMask,
    QueueImageToImage,
    QueueImageToText,
    QueueImageWithMask,
    QueueTextToImage,
    TextToImage,
)
from tests.flow.test_npm_clients import NODE, needs_node
from tests.flow.test_wire import error_of
from tests.images.ocr import needs_tesseract, read_text
from tests.images.test_drawing_server import (
    EDIT_PROMPT,
    PROMPT,
    SIZE,
    data_url,
    decode,
    edit,
    generate,
    images_of,
    mask_file,
    open_image,
    png_file,
    validate,
)

CALLBACK_S = 30
PATIENCE_S = 0.5  # of a caller that gives up and repeats its request
OPENAI_ALIAS = "my-openai"
EVENT_STREAM = "text/event-stream"
LARGE_EVENT_BYTES = 12 * 1024 * 1024
IMAGE, MASK, WHITE_MASK = png_file()[1], mask_file("RGBA")[1], mask_file("RGB")[1]


@pytest.fixture(scope="module")
def running_images() -> Iterator[ImageProduct]:
    with running_image_product() as product:
        yield product


@pytest.fixture
def images(running_images: ImageProduct) -> ImageProduct:
    for server in (running_images.studio, running_images.openai, running_images.upstream):
        server.requests.clear()
    return running_images


@pytest.fixture
def sdk(images: ImageProduct) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{images.url}/v1", api_key=images.key, max_retries=0) as client:
        yield client


@pytest.fixture
def keep_circuit_closed(images: ImageProduct) -> Iterator[None]:
    """Make successful calls before and after the test, so that its failures do not open the provider's circuit."""
    requests_ = [{"model": model, "prompt": "x", "size": "64x64"} for model in (SCRIPTED_MODEL, FAILOVER_MODEL)]
    for request in requests_:
        assert images.http.post("/v1/images/generations", json=request).status_code == 200
    images.upstream.requests.clear()
    yield
    for request in requests_:
        assert images.http.post("/v1/images/generations", json=request).status_code == 200


@pytest.fixture
def service(images: ImageProduct) -> Any:
    client: Any = JsonServiceClient(images.url)
    client.set_bearer_token(images.key)
    return client


def download(url: str) -> httpx.Response:
    """The file at an artifact's URL, without a key."""
    return httpx.get(url, follow_redirects=True, trust_env=False)


def verify(callback: Callback, product: ImageProduct) -> None:
    """Raises: WebhookVerificationError, when the signature is not valid."""
    Webhook(product.cloud.keys.webhook_secret).verify(callback.body, callback.headers, json_parse=False)


def upload(name: str, content: bytes) -> UploadFile:
    return UploadFile(name, f"{name}.png", "image/png", BytesIO(content))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def invalid_field_of(response: httpx.Response) -> tuple[str, str]:
    """The error code and the name of the field that a 400 is about."""
    assert error_of(response)[:3] == (400, "ValidationException", "invalid_request_error")
    (error,) = response.json()["responseStatus"]["errors"]
    return error["errorCode"], error["fieldName"]


# OpenAI's Python SDK


@needs_tesseract
def test_sdk_receives_the_drawn_image(images: ImageProduct, sdk: openai.OpenAI) -> None:
    response = validate(generate(sdk, STUDIO_MODEL))
    (image,) = response.data or []
    assert read_text(decode(image)) == PROMPT
    assert response.usage
    assert response.usage.output_tokens == 1000
    (request,) = images.studio.requests
    assert json.loads(request.body) == {"model": "drawing", "prompt": PROMPT, "size": SIZE}


def test_url_of_a_request_without_a_record_is_the_provider_s(images: ImageProduct, sdk: openai.OpenAI) -> None:
    (image,) = images_of(generate(sdk, STUDIO_MODEL, response_format="url"))
    assert image.url
    assert image.url.startswith(images.studio.base_url.removesuffix("/v1"))
    assert images.studio.downloads == []
    key = {"authorization": f"Bearer {PROVIDER_KEY}"}
    assert open_image(httpx.get(image.url, headers=key, trust_env=False).content).format == "PNG"


@needs_tesseract
def test_edited_image_shows_the_new_prompt(images: ImageProduct, sdk: openai.OpenAI) -> None:
    (image,) = images_of(edit(sdk, STUDIO_MODEL))
    assert read_text(decode(image)) == EDIT_PROMPT
    (request,) = images.studio.requests
    *fields, file = parts_at_provider(request)
    assert [(part.name, part.content) for part in fields] == [
        ("prompt", EDIT_PROMPT.encode()),
        ("model", b"drawing"),
    ]
    assert file == FormPart("image", IMAGE, "apples.png", "image/png")


def test_several_images_keep_their_name_and_order(images: ImageProduct, sdk: openai.OpenAI) -> None:
    files = [png_file(), ("b.png", png_file("b")[1], "image/png"), ("c.png", png_file("c")[1], "image/png")]
    validate(edit(sdk, STUDIO_MODEL, image=files))
    (request,) = images.studio.requests
    received = [part for part in parts_at_provider(request) if part.file_name]
    assert received == [FormPart("image[]", content, name, kind) for name, content, kind in files]


@pytest.mark.parametrize("model", [STUDIO_MODEL, OPENAI_MODEL])
def test_mask_reaches_the_provider_unchanged(model: str, images: ImageProduct, sdk: openai.OpenAI) -> None:
    (image,) = images_of(edit(sdk, model, mask=mask_file("RGBA")))
    lower_half = (0, 256, 512, 512)
    assert open_image(decode(image)).crop(lower_half).tobytes() == open_image(IMAGE).crop(lower_half).tobytes()
    (request,) = (images.studio if model == STUDIO_MODEL else images.openai).requests
    assert parts_at_provider(request)[-1] == FormPart("mask", MASK, "mask.png", "image/png")


@pytest.mark.parametrize("call", [generate, edit])
def test_partial_images_arrive_before_the_next_is_sent(
    call: Any, images: ImageProduct, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Semaphore(0)
    monkeypatch.setattr(images.openai, "gate", gate)
    events: list[Any] = []
    for event in call(sdk, OPENAI_MODEL, stream=True, partial_images=2):
        events.append(event)
        gate.release()  # only now the provider sends the next event
    *partial, completed = events
    prefix = "image_generation" if call is generate else "image_edit"
    assert [(event.type, event.partial_image_index) for event in partial] == [
        (f"{prefix}.partial_image", 0),
        (f"{prefix}.partial_image", 1),
    ]
    assert completed.type == f"{prefix}.completed"
    assert open_image(decode(completed)).size == (512, 512)
    assert completed.usage.output_tokens == 1000
    assert len({event.b64_json for event in events}) == 3


def test_number_size_and_seed_reach_the_provider(images: ImageProduct, sdk: openai.OpenAI) -> None:
    response = validate(generate(sdk, STUDIO_MODEL, n=3, size="512x768", extra_body={"seed": 7}))
    contents = [decode(image) for image in response.data or ()]
    assert [open_image(content).size for content in contents] == [(512, 768)] * 3
    assert len(set(contents)) == 3
    (request,) = images.studio.requests
    members = {"model": "drawing", "prompt": PROMPT, "n": 3, "size": "512x768", "seed": 7}
    assert json.loads(request.body) == members


@pytest.mark.parametrize("size", ["auto", "1024x1536", "1792x1024"])
def test_size_is_sent_as_it_is(size: str, images: ImageProduct, sdk: openai.OpenAI) -> None:
    generate(sdk, OPENAI_MODEL, size=size)
    assert json.loads(images.openai.requests[0].body)["size"] == size


def test_error_of_the_provider_keeps_its_members(images: ImageProduct, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        generate(sdk, OPENAI_MODEL, n=2, stream=True)
    assert (error.value.param, error.value.type) == ("n", "invalid_request_error")
    assert "Streaming is only supported with n=1." in error.value.message
    assert len(images.openai.requests) == 1


# npm clients


@needs_node
def test_npm_clients_generate_edit_and_stream(images: ImageProduct, tmp_path: Path) -> None:
    image, mask = tmp_path / "apples.png", tmp_path / "mask.png"
    image.write_bytes(IMAGE)
    mask.write_bytes(MASK)
    arguments = [images.url, images.key, str(image), str(mask), PROMPT, EDIT_PROMPT]
    command = ["node", "images.mjs", *arguments]
    completed = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
    output = json.loads(completed.stdout)
    with openai.OpenAI(base_url=images.studio.base_url, api_key=PROVIDER_KEY, max_retries=0) as studio:
        drawn = [sha256(decode(image)) for image in generate(studio, n=2).data]
        edited = [sha256(decode(image)) for image in edit(studio).data]
        masked = [sha256(decode(image)) for image in edit(studio, mask=mask_file("RGBA")).data]
    assert output["generated"]["images"] == drawn
    assert output["generated"]["usage"]["output_tokens"] == 2000
    assert output["url"].startswith(images.studio.base_url.removesuffix("/v1"))
    assert [(event["type"], event.get("index")) for event in output["streamed"]] == [
        ("image_generation.partial_image", 0),
        ("image_generation.partial_image", 1),
        ("image_generation.completed", None),
    ]
    assert output["streamed"][-1]["image"] == drawn[0]
    assert output["editStreamed"][-1]["type"] == "image_edit.completed"
    assert output["edited"] == output["untyped"] == [output["editStreamed"][-1]["image"]] == edited
    assert output["masked"] == masked
    assert output["vercel"] == [{"generated": drawn[:1], "edited": masked}] * 2


# Requests as other clients send them


def open_webui_edit(model: str, *images: bytes, response_format: bool = True) -> Form:
    """An edit by Open WebUI: aiohttp's FormData types every part, and a list of images is named `image[]`.

    Source: https://github.com/open-webui/open-webui/blob/02530d501461ce58ab06231d7c2ef2024a141ddf/backend/open_webui/routers/images.py
    """
    fields = {"model": model, "prompt": EDIT_PROMPT, "n": "1", "size": SIZE, "background": "auto"}
    fields |= {"response_format": "b64_json"} if response_format else {}
    texts = [FormPart(name, value.encode(), None, "text/plain; charset=utf-8") for name, value in fields.items()]
    files = [FormPart("image[]", content, f"{uuid.uuid4()}.png", "image/png") for content in images]
    return Form((*texts, *files))


@pytest.mark.parametrize("model", [OPENAI_MODEL, OPENAI_ALIAS, STUDIO_MODEL])
def test_open_webui_generates_with_response_format(model: str, images: ImageProduct) -> None:
    request = {"model": model, "prompt": PROMPT, "n": 1, "size": SIZE, "response_format": "b64_json"}
    headers = {"X-OpenWebUI-User-Name": "Ann", "content-type": "application/json"}
    response = images.http.post("/v1/images/generations?api-version=1", json=request, headers=headers)
    assert response.status_code == 200, response.text
    (image,) = response.json()["data"]
    assert open_image(base64.b64decode(image["b64_json"])).size == (512, 512)
    server = images.studio if model == STUDIO_MODEL else images.openai
    (upstream_request,) = server.requests
    expected = {**request, "model": "drawing" if model == STUDIO_MODEL else OPENAI_MODEL}
    if server is images.openai:
        del expected["response_format"]
    assert json.loads(upstream_request.body) == expected


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("model", [OPENAI_ALIAS, STUDIO_MODEL])
def test_open_webui_edits_a_list_of_images(model: str, count: int, images: ImageProduct) -> None:
    form = open_webui_edit(model, *[IMAGE] * count)
    response = images.http.post("/v1/images/edits", content=form.body, headers=form.headers)
    assert response.status_code == 200, response.text
    assert "b64_json" in response.json()["data"][0]
    server = images.studio if model == STUDIO_MODEL else images.openai
    upstream_model = "drawing" if model == STUDIO_MODEL else OPENAI_MODEL
    parts = parts_at_provider(server.requests[0])
    assert [part for part in parts if part.file_name] == list(form.parts[-count:])
    texts = {part.name: part.content.decode() for part in parts if not part.file_name}
    expected = {part.name: part.content.decode() for part in form.parts[:-count]} | {"model": upstream_model}
    if server is images.openai:
        del expected["response_format"]
    assert texts == expected


def vercel_edit(model: str, *images: bytes, mask: bytes | None = None) -> Form:
    """An edit by `@ai-sdk/openai`: its Blobs have no file name of their own, and only a list is named `image[]`.

    Source: https://github.com/vercel/ai/blob/00b29610775bddfbb2f82b4ec409b4465721283e/packages/openai/src/image/openai-image-model.ts
    """
    name = "image" if len(images) == 1 else "image[]"
    texts = {"model": model, "prompt": EDIT_PROMPT}
    files = [FormPart(name, content, "blob", "image/png") for content in images]
    files += [FormPart("mask", mask, "blob", "image/png")] if mask else []
    options = {"n": "1", "size": SIZE, "quality": "high"}
    return Form(
        (
            *(FormPart(field, text.encode()) for field, text in texts.items()),
            *files,
            *(FormPart(field, text.encode()) for field, text in options.items()),
        ),
        "----formdata-undici-012345678901",
    )


@pytest.mark.parametrize("count", [1, 2])
def test_vercel_edits_files_without_names(count: int, images: ImageProduct) -> None:
    form = vercel_edit(OPENAI_ALIAS, *[IMAGE] * count, mask=MASK)
    response = images.http.post("/v1/images/edits", content=form.body, headers=form.headers)
    assert response.status_code == 200, response.text
    assert isinstance(response.json()["data"][0]["b64_json"], str)
    parts = parts_at_provider(images.openai.requests[0])
    assert [part.name for part in parts] == [part.name for part in form.parts]
    assert [part.content for part in parts if part.file_name] == [IMAGE] * count + [MASK]


@pytest.mark.parametrize("model", [OPENAI_MODEL, OPENAI_ALIAS])
def test_vercel_generates_with_and_without_response_format(model: str, images: ImageProduct) -> None:
    request = {"model": model, "prompt": PROMPT, "n": 1, "size": SIZE, "output_format": "webp"}
    request |= {} if model.startswith("gpt-image-") else {"response_format": "b64_json"}
    response = images.http.post("/v1/images/generations", json=request)
    assert response.status_code == 200, response.text
    assert open_image(base64.b64decode(response.json()["data"][0]["b64_json"])).format == "WEBP"
    assert response.json()["usage"]["total_tokens"] > 1000


def test_json_edit_with_data_urls_reaches_the_provider(images: ImageProduct) -> None:
    request = {
        "model": OPENAI_ALIAS,
        "prompt": EDIT_PROMPT,
        "images": [{"image_url": data_url(IMAGE)}],
        "mask": {"image_url": data_url(MASK)},
    }
    response = images.http.post("/v1/images/edits", json=request)
    assert response.status_code == 200, response.text
    (upstream_request,) = images.openai.requests
    assert json.loads(upstream_request.body) == {**request, "model": OPENAI_MODEL}


# Queued


@needs_tesseract
def test_artifact_of_a_queued_image_shows_its_prompt(images: ImageProduct, hook: Receiver) -> None:
    request = {"model": STUDIO_MODEL, "prompt": PROMPT, "size": SIZE, "n": 2, "replyTo": hook.url, "tag": "été/1"}
    response = images.http.post("/v1/queue/images/generations", json=request)
    assert response.status_code == 202, response.text
    callback = hook.next(CALLBACK_S)
    verify(callback, images)
    assert callback.headers["content-type"].startswith("application/json")
    assert callback.headers["x-tag"] == "%C3%A9t%C3%A9%2F1"
    contents = [base64.b64decode(image["b64_json"]) for image in json.loads(callback.body)["data"]]
    status = images.http.get(response.json()["statusUrl"]).json()
    assert (status["jobState"], status["usage"]["images"]) == ("Completed", 2)
    assert "result" not in status
    files = [download(result["url"]) for result in status["results"]]
    assert [file.headers["content-type"] for file in files] == ["image/png"] * 2
    assert [file.content for file in files] == contents
    assert read_text(files[0].content) == PROMPT
    assert [result["fileName"] for result in status["results"]] == [f"{sha256(content)}.png" for content in contents]
    result = images.http.get(f"/v1/jobs/{response.json()['id']}/result", follow_redirects=True)
    assert result.content == callback.body
    (upstream_request,) = images.studio.requests
    assert json.loads(upstream_request.body) == {"model": "drawing", "prompt": PROMPT, "size": SIZE, "n": 2}


def test_callback_of_a_large_image_is_the_status(images: ImageProduct, hook: Receiver) -> None:
    content = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 1200
    images.upstream.respond_with(200, json.dumps({"data": [{"b64_json": base64.b64encode(content).decode()}]}).encode())
    request = {"model": SCRIPTED_MODEL, "prompt": PROMPT, "replyTo": hook.url, "stream": True, "partial_images": 2}
    response = images.http.post("/v1/queue/images/generations", json=request)
    assert response.status_code == 202, response.text
    callback = hook.next(CALLBACK_S)
    verify(callback, images)
    document = json.loads(callback.body)
    assert document["jobState"] == "Completed"
    assert download(document["results"][0]["url"]).content == content
    result = images.http.get(callback.headers["x-result-url"], follow_redirects=True)
    assert base64.b64decode(result.json()["data"][0]["b64_json"]) == content
    (upstream_request,) = images.upstream.requests
    assert json.loads(upstream_request.body) == {"model": SCRIPTED_UPSTREAM_MODEL, "prompt": PROMPT}


def test_queued_edit_arrives_whole_at_the_second_provider(images: ImageProduct) -> None:
    images.upstream.respond_with(503, b"{}")
    form = vercel_edit(FAILOVER_MODEL, IMAGE, IMAGE, mask=MASK)
    response = images.http.post("/v1/queue/images/edits", content=form.body, headers=form.headers)
    assert response.status_code == 202, response.text
    assert images.wait_for_job(response.json()["refId"])["state"] == "Completed"
    for request, model in zip(images.upstream.requests, (BUSY_UPSTREAM_MODEL, BACKUP_UPSTREAM_MODEL), strict=True):
        parts = parts_at_provider(request)
        assert [(part.name, part.content) for part in parts] == [
            (part.name, model.encode() if part.name == "model" else part.content) for part in form.parts
        ]


# AI Server's typed client


@needs_tesseract
def test_typed_client_receives_a_url_that_works_without_a_key(images: ImageProduct, service: Any) -> None:
    request = TextToImage(PROMPT, negative_prompt="blurry", width=512, height=768, model=STUDIO_MODEL, seed=3)
    response = service.send(request)
    (output,) = response.results
    assert output.provider == "studio"
    file = download(output.url)
    assert (file.headers["content-type"], output.file_name) == ("image/png", f"{sha256(file.content)}.png")
    assert read_text(file.content) == PROMPT
    assert open_image(file.content).size == (512, 768)
    members = {"model": "drawing", "prompt": PROMPT, "size": "512x768", "seed": 3, "negative_prompt": "blurry"}
    assert json.loads(images.studio.requests[0].body) == members
    assert response.duration.startswith("PT")


@needs_tesseract
def test_typed_client_uploads_an_image_to_edit(images: ImageProduct, service: Any) -> None:
    request = ImageToImage(EDIT_PROMPT, denoise=0.5, batch_size=2, seed=4)
    response = service.post_file_with_request(request, upload("image", IMAGE))
    assert len(response.results) == 2
    assert read_text(download(response.results[0].url).content) == EDIT_PROMPT
    parts = parts_at_provider(images.studio.requests[0])
    assert {part.name: part.content for part in parts} == {
        "model": b"drawing",
        "prompt": EDIT_PROMPT.encode(),
        "n": b"2",
        "seed": b"4",
        "strength": b"0.5",
        "image": IMAGE,
    }


def test_typed_client_uploads_an_image_and_its_mask(images: ImageProduct, service: Any) -> None:
    files = [upload("image", IMAGE), upload("mask", WHITE_MASK)]
    (output,) = service.post_files_with_request(ImageWithMask(EDIT_PROMPT), files).results
    lower_half = (0, 256, 512, 512)
    edited = open_image(download(output.url).content)
    assert edited.crop(lower_half).tobytes() == open_image(IMAGE).crop(lower_half).tobytes()
    assert edited.tobytes() != open_image(IMAGE).tobytes()
    parts = {part.name: part.content for part in parts_at_provider(images.studio.requests[0])}
    assert (parts["image"], parts["mask"]) == (IMAGE, WHITE_MASK)


@pytest.mark.parametrize("prompt", [None, "What is it?"])
def test_typed_client_receives_the_description(prompt: str | None, images: ImageProduct, service: Any) -> None:
    response = service.post_file_with_request(ImageToText(prompt=prompt), upload("image", IMAGE))
    (output,) = response.results
    assert "scripted response" in output.text
    (request,) = images.upstream.requests
    (message,) = json.loads(request.body)["messages"]
    assert json.loads(request.body)["model"] == VISION_UPSTREAM_MODEL
    assert message["content"] == [
        {"type": "text", "text": prompt or "Describe this image."},
        {"type": "image_url", "image_url": {"url": data_url(IMAGE)}},
    ]


def test_members_without_a_counterpart_are_named(images: ImageProduct) -> None:
    members = {"positivePrompt": PROMPT, "negativePrompt": "blurry", "seed": 3, "model": OPENAI_MODEL}
    response = images.http.post("/api/TextToImage", json={**members, "width": 512, "height": 512})
    assert response.status_code == 200, response.text
    assert response.headers["x-ignored"] == "negativePrompt, seed"
    assert json.loads(images.openai.requests[0].body) == {"model": OPENAI_MODEL, "prompt": PROMPT, "size": SIZE}


def test_typed_client_queues_every_request_and_reads_its_status(
    images: ImageProduct, hook: Receiver, service: Any
) -> None:
    options: Any = {"reply_to": hook.url, "tag": "images", "state": "été/1"}
    refs = [uuid.uuid4().hex for _ in range(4)]
    image = upload("image", IMAGE)
    jobs = [
        service.send(QueueTextToImage(PROMPT, width=512, height=512, model=STUDIO_MODEL, ref_id=refs[0], **options)),
        service.post_file_with_request(QueueImageToImage(EDIT_PROMPT, ref_id=refs[1], **options), image),
        service.post_files_with_request(
            QueueImageWithMask(EDIT_PROMPT, ref_id=refs[2], **options),
            [upload("image", IMAGE), upload("mask", WHITE_MASK)],
        ),
        service.post_file_with_request(QueueImageToText(ref_id=refs[3], **options), upload("image", IMAGE)),
    ]
    assert [(job.ref_id, job.job_state) for job in jobs] == [(ref_id, "Queued") for ref_id in refs]
    bodies: dict[str, dict[str, Any]] = {}
    for _ in jobs:
        callback = hook.next(CALLBACK_S)
        verify(callback, images)
        assert callback.headers["x-tag"] == "images"
        bodies[json.loads(callback.body)["refId"]] = json.loads(callback.body)
    assert {bodies[ref_id]["state"] for ref_id in refs} == {"été/1"}
    for job in jobs[:3]:
        assert bodies[job.ref_id].keys() == {"state", "refId", "outputs"}
        (output,) = bodies[job.ref_id]["outputs"]
        status = service.get(GetArtifactGenerationStatus(job_id=job.job_id))
        assert (status.ref_id, status.job_state) == (job.ref_id, "Completed")
        (result,) = status.results
        content = download(result.url).content
        assert output["fileName"] == result.file_name == f"{sha256(content)}.png"
        assert download(output["url"]).content == content
    (text,) = service.get(GetTextGenerationStatus(ref_id=refs[3])).results
    assert bodies[refs[3]] == {"state": "été/1", "refId": refs[3], "textOutputs": [{"text": text.text}]}
    assert "scripted response" in text.text


def test_typed_client_lists_the_models_for_images(service: Any) -> None:
    entries = service.get(ActiveMediaModels()).results
    names = {STUDIO_MODEL, OPENAI_MODEL, OPENAI_ALIAS, GPU_URL_MODEL, HOSTED_URL_MODEL, SCRIPTED_MODEL, FAILOVER_MODEL}
    assert {(entry.key, entry.value) for entry in entries} == {(name, name) for name in (*names, *DEFAULT_MODELS)}


# URLs in responses


@pytest.mark.parametrize("name", ["TextToImage", "QueueTextToImage"])
def test_image_at_a_self_hosted_provider_is_stored(name: str, images: ImageProduct) -> None:
    members = {"positivePrompt": PROMPT, "width": 512, "height": 512, "batchSize": 2, "model": GPU_URL_MODEL}
    response = images.http.post(f"/api/{name}", json={**members, "refId": uuid.uuid4().hex}).json()
    if name.startswith("Queue"):
        assert images.wait_for_job(response["refId"])["state"] == "Completed"
        response = images.http.get(response["statusUrl"]).json()
    urls = [output["url"] for output in response["results"]]
    assert all(url.startswith(f"{images.url}/artifacts/") for url in urls)
    assert [download(url).content for url in urls] == [
        images.studio.files[request.path] for request in images.studio.downloads
    ]
    assert {request.headers["authorization"] for request in images.studio.downloads} == {f"Bearer {PROVIDER_KEY}"}


@pytest.mark.parametrize("is_relative", [False, True], ids=["absolute", "relative"])
def test_url_in_the_result_is_replaced_by_a_signed_one(
    is_relative: bool, images: ImageProduct, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images.studio, "has_relative_urls", is_relative)
    request = {"model": GPU_URL_MODEL, "prompt": PROMPT, "size": SIZE, "replyTo": hook.url}
    queued = images.http.post("/v1/queue/images/generations", json=request).json()
    callback = hook.next(CALLBACK_S)
    verify(callback, images)
    result = images.http.get(f"/v1/jobs/{queued['id']}/result", follow_redirects=True)
    for document in (json.loads(callback.body), result.json()):
        (image,) = document["data"]
        assert image["url"].startswith(f"{images.url}/artifacts/")
        assert sha256(download(image["url"]).content) in image["url"]
    assert b"/generated/" not in callback.body + result.content
    assert len(images.studio.downloads) == 1


def test_loopback_url_of_a_hosted_provider_fails_the_job(images: ImageProduct, hook: Receiver) -> None:
    request = {"model": HOSTED_URL_MODEL, "prompt": PROMPT, "size": SIZE, "replyTo": hook.url}
    queued = images.http.post("/v1/queue/images/generations", json=request).json()
    verify(hook.next(CALLBACK_S), images)
    status = images.http.get(queued["statusUrl"]).json()
    assert (status["jobState"], status["maybeBilled"]) == ("Failed", True)
    assert "images could not be stored: image 1" in status["responseStatus"]["message"]
    assert "results" not in status
    assert len(images.studio.calls) == 1
    assert images.studio.downloads == []


def test_loopback_url_of_a_hosted_provider_is_a_502(images: ImageProduct) -> None:
    members = {"positivePrompt": PROMPT, "width": 512, "height": 512, "model": HOSTED_URL_MODEL}
    response = images.http.post("/api/TextToImage", json=members)
    assert response.status_code == 502, response.text
    assert response.headers["x-should-retry"] == "false"
    assert len(images.studio.calls) == 1
    assert images.studio.downloads == []


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "https://localhost/a.png",
        "https://[::1]/a.png",
        "https://0x7f000001/a.png",
        "file:///etc/passwd",
        "//10.0.0.5/a.png",
    ],
)
def test_image_at_a_private_url_is_named_as_lost(url: str, images: ImageProduct) -> None:
    kept = {"b64_json": base64.b64encode(IMAGE).decode()}
    images.upstream.respond_with(200, json.dumps({"data": [{"url": url}, kept]}).encode())
    response = images.http.post("/api/TextToImage", json={"positivePrompt": PROMPT, "model": SCRIPTED_MODEL})
    assert response.status_code == 200, response.text
    (output,) = response.json()["results"]
    assert download(output["url"]).content == IMAGE
    assert "images could not be stored: image 1" in response.json()["responseStatus"]["message"]


@pytest.mark.parametrize(("output_format", "extension"), [("jpeg", "jpg"), ("webp", "webp")])
def test_type_of_a_file_is_that_of_its_bytes(output_format: str, extension: str, images: ImageProduct) -> None:
    request = {
        "model": STUDIO_MODEL,
        "prompt": PROMPT,
        "size": SIZE,
        "output_format": output_format,
        "refId": uuid.uuid4().hex,
    }
    image = images.http.post("/v1/images/generations", json=request).json()["data"][0]
    status = images.http.get("/api/GetArtifactGenerationStatus", params={"refId": request["refId"]}).json()
    (result,) = status["results"]
    assert result["fileName"].endswith(f".{extension}")
    file = download(result["url"])
    assert (file.headers["content-type"], file.content) == (
        f"image/{output_format}",
        base64.b64decode(image["b64_json"]),
    )


# RefId


@pytest.mark.parametrize("model", [STUDIO_MODEL, GPU_URL_MODEL])
def test_repeat_gets_the_same_images_of_one_call(model: str, images: ImageProduct) -> None:
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    request = {"model": model, "prompt": PROMPT, "size": SIZE, "n": 2}
    first, repeat = (images.http.post("/v1/images/generations", json=request, headers=headers) for _ in range(2))
    assert (first.status_code, "x-replayed" in first.headers) == (200, False)
    assert (repeat.status_code, repeat.headers["x-replayed"]) == (200, "true")
    if model == STUDIO_MODEL:
        assert repeat.content == first.content
    else:
        by_response = [[download(image["url"]).content for image in r.json()["data"]] for r in (first, repeat)]
        assert by_response[0] == by_response[1]
        assert len(set(by_response[0])) == 2
    assert len(images.studio.calls) == 1
    conflict = images.http.post("/v1/images/generations", json={**request, "n": 1}, headers=headers)
    assert (conflict.status_code, conflict.json()["error"]["param"]) == (409, "refId")


def test_repeat_of_an_edit_gets_the_same_file(images: ImageProduct, service: Any) -> None:
    ref_id = uuid.uuid4().hex
    outputs = [
        service.post_file_with_request(ImageToImage(EDIT_PROMPT, ref_id=ref_id), upload("image", IMAGE)).results
        for _ in range(2)
    ]
    assert [[output.file_name for output in of_call] for of_call in outputs] == [[outputs[0][0].file_name]] * 2
    assert len(images.studio.calls) == 1


def test_repeats_during_and_after_the_call_get_its_images(images: ImageProduct) -> None:
    caller_has_left = threading.Event()
    document = {"data": [{"b64_json": base64.b64encode(IMAGE).decode()}]}
    images.upstream.respond_with(200, json.dumps(document).encode(), hold=caller_has_left)
    request = {"positivePrompt": PROMPT, "model": SCRIPTED_MODEL, "refId": uuid.uuid4().hex}
    for _ in range(2):  # the second one waits for the call of the first one
        with pytest.raises(httpx.ReadTimeout):
            images.http.post("/api/TextToImage", json=request, timeout=PATIENCE_S)
    caller_has_left.set()
    response = images.http.post("/api/TextToImage", json=request)
    assert response.headers["x-replayed"] == "true"
    assert download(response.json()["results"][0]["url"]).content == IMAGE
    assert len(images.upstream.requests) == 1


def test_repeat_of_a_stream_gets_its_complete_image(images: ImageProduct, sdk: openai.OpenAI) -> None:
    headers = {"X-Ref-Id": uuid.uuid4().hex}
    first, repeat = (
        list(generate(sdk, OPENAI_MODEL, stream=True, partial_images=1, extra_headers=headers)) for _ in range(2)
    )
    assert [event.type for event in first] == ["image_generation.partial_image", "image_generation.completed"]
    assert repeat == first[1:]
    assert len(images.openai.calls) == 1


def test_image_of_a_caller_that_left_mid_stream_is_stored(
    images: ImageProduct, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, ref_id = threading.Semaphore(0), uuid.uuid4().hex
    monkeypatch.setattr(images.openai, "gate", gate)
    options = {"stream": True, "partial_images": 1, "extra_headers": {"X-Ref-Id": ref_id}}
    with generate(sdk, OPENAI_MODEL, **options) as stream:
        next(iter(stream))
    gate.release()
    assert images.wait_for_job(ref_id)["state"] == "Completed"
    (result,) = images.http.get("/api/GetArtifactGenerationStatus", params={"refId": ref_id}).json()["results"]
    (event,) = generate(sdk, OPENAI_MODEL, **options)
    assert download(result["url"]).content == decode(event)
    assert len(images.openai.calls) == 1


# Requests that are rejected before a provider is called


@pytest.mark.parametrize("path", ["/v1/images/edits", "/v1/queue/images/edits"])
@pytest.mark.parametrize("name", ["image", "image[]", "mask"])
def test_file_that_is_not_an_image_is_a_400(name: str, path: str, images: ImageProduct) -> None:
    files = [("image", png_file())] if name == "mask" else []
    form: Any = {"data": {"model": STUDIO_MODEL, "prompt": EDIT_PROMPT}}
    form["files"] = [*files, (name, ("a.png", b"<html>", "image/png"))]
    response = images.http.post(path, **form)
    assert invalid_field_of(response) == ("InvalidImage", name.capitalize())
    assert response.json()["error"]["param"] == name
    assert images.call_counts() == (0, 0, 0)


@pytest.mark.parametrize("request_type", [ImageToImage, QueueImageToImage, ImageToText, QueueImageToText])
def test_typed_client_raises_for_a_file_that_is_not_an_image(
    request_type: Any, images: ImageProduct, service: Any
) -> None:
    request = request_type() if request_type in (ImageToText, QueueImageToText) else request_type(EDIT_PROMPT)
    with pytest.raises(requests.HTTPError) as error:  # for uploads the client does not parse errors
        service.post_file_with_request(request, upload("image", b"a text"))
    response: Any = error.value.response
    assert response.status_code == 400
    (field_error,) = response.json()["responseStatus"]["errors"]
    assert (field_error["errorCode"], field_error["fieldName"]) == ("InvalidImage", "Image")
    assert images.call_counts() == (0, 0, 0)


def test_mask_without_transparency_is_a_400(images: ImageProduct, sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="transparent pixels") as error:
        edit(sdk, OPENAI_MODEL, mask=mask_file("RGB"))
    assert error.value.param == "mask"
    assert images.call_counts() == (0, 0, 0)


@pytest.mark.parametrize(
    "path", ["/v1/images/edits", "/v1/queue/images/edits", "/api/ImageWithMask", "/api/QueueImageWithMask"]
)
def test_mask_without_transparency_is_a_400_on_every_route(path: str, images: ImageProduct) -> None:
    data = {"model": OPENAI_ALIAS, "positivePrompt": EDIT_PROMPT, "prompt": EDIT_PROMPT}
    files = {"image": png_file(), "mask": mask_file("RGB")}
    response = images.http.post(path, data=data, files=files)
    assert invalid_field_of(response) == ("InvalidImage", "Mask")
    assert images.call_counts() == (0, 0, 0)


@pytest.mark.parametrize(
    "members",
    [
        {"images": [{"image_url": "/etc/passwd"}]},
        {"image": "file:///etc/passwd"},
        {"images": [{"image_url": data_url(IMAGE)}], "mask": {"image_url": "mask.png"}},
        {},
    ],
    ids=["path", "file URL", "mask", "none"],
)
def test_reference_that_is_not_a_url_is_a_400(members: dict[str, Any], images: ImageProduct) -> None:
    for model in (OPENAI_MODEL, STUDIO_MODEL):
        request = {"model": model, "prompt": EDIT_PROMPT, **members}
        assert images.http.post("/v1/images/edits", json=request).status_code == 400
    assert images.call_counts() == (0, 0, 0)


@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/queue/images/generations"])
def test_form_of_a_generation_is_a_400(path: str, images: ImageProduct) -> None:
    form = open_webui_edit(STUDIO_MODEL, IMAGE)
    response = images.http.post(path, content=form.body, headers=form.headers)
    assert invalid_field_of(response)[0] == "InvalidForm"
    assert images.call_counts() == (0, 0, 0)


# Responses that are not images, and large ones


@pytest.mark.usefixtures("keep_circuit_closed")
@pytest.mark.parametrize("data", [[], [{}], [{"url": None, "b64_json": None}], [{"b64_json": "!"}]], ids=json.dumps)
def test_response_without_images_is_a_502_and_not_repeated(data: list[Any], images: ImageProduct) -> None:
    images.upstream.respond_with(200, json.dumps({"created": 1, "data": data}).encode())
    response = images.http.post("/api/TextToImage", json={"positivePrompt": PROMPT, "model": FAILOVER_MODEL})
    assert response.status_code == 502, response.text
    assert response.headers["x-should-retry"] == "false"
    assert len(images.upstream.requests) == 1


@pytest.mark.usefixtures("keep_circuit_closed")
@pytest.mark.parametrize(
    ("content", "content_type"),
    [(IMAGE, "image/png"), (b"<html>Log in</html>", "text/html"), (b'{"error":"no GPU"}', "application/json")],
    ids=["image", "HTML", "error"],
)
@pytest.mark.parametrize("path", ["/v1/images/generations", "/api/TextToImage"])
def test_response_that_is_not_openai_s_json_is_a_502(
    path: str, content: bytes, content_type: str, images: ImageProduct
) -> None:
    images.upstream.respond_with(200, content, {"content-type": content_type})
    members = {"positivePrompt": PROMPT, "prompt": PROMPT, "model": SCRIPTED_MODEL}
    response = images.http.post(path, json=members)
    assert response.status_code == 502
    assert len(images.upstream.requests) == 1


def test_error_that_is_a_text_becomes_openai_s_error(images: ImageProduct) -> None:
    images.upstream.respond_with(400, b'{"error":"the prompt is too long"}')
    response = images.http.post("/v1/images/generations", json={"model": SCRIPTED_MODEL, "prompt": PROMPT})
    assert response.status_code == 400
    assert "the prompt is too long" in response.json()["error"]["message"]


def test_moderation_is_passed_on_without_a_second_call(images: ImageProduct) -> None:
    error = {
        "message": "Your request was rejected by the safety system.",
        "type": "image_generation_user_error",
        "param": None,
        "code": "moderation_blocked",
    }
    images.upstream.respond_with(400, json.dumps({"error": error}).encode())
    response = images.http.post("/v1/images/generations", json={"model": FAILOVER_MODEL, "prompt": PROMPT})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "moderation_blocked")
    assert response.json()["error"]["type"] == "image_generation_user_error"
    assert len(images.upstream.requests) == 1


def test_base64_as_a_data_url_is_decoded(images: ImageProduct) -> None:
    document = {"data": [{"b64_json": data_url(IMAGE)}, {"b64_json": "", "url": data_url(IMAGE)}]}
    images.upstream.respond_with(200, json.dumps(document).encode())
    response = images.http.post("/api/TextToImage", json={"positivePrompt": PROMPT, "model": SCRIPTED_MODEL})
    assert [download(output["url"]).content for output in response.json()["results"]] == [IMAGE, IMAGE]


def test_event_of_12_mb_passes_unchanged(images: ImageProduct) -> None:
    event = {"type": "image_generation.completed", "b64_json": "A" * LARGE_EVENT_BYTES}
    content = b"event: image_generation.completed\ndata: %b\n\n" % json.dumps(event).encode()
    images.upstream.stream_with([content[:70_000], content[70_000:]])
    request = {"model": SCRIPTED_MODEL, "prompt": PROMPT, "stream": True}
    with images.http.stream("POST", "/v1/images/generations", json=request) as response:
        assert response.headers["content-type"].startswith(EVENT_STREAM)
        assert response.read() == content


@pytest.mark.usefixtures("keep_circuit_closed")
def test_stream_that_breaks_off_ends_with_an_error(images: ImageProduct) -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": "AA==", "partial_image_index": 0}
    images.upstream.stream_with([b"data: %b\n\n" % json.dumps(partial).encode()])
    request = {"model": SCRIPTED_MODEL, "prompt": PROMPT, "stream": True, "partial_images": 1}
    response = images.http.post("/v1/images/generations", json=request)
    first, last = (event.document for event in sse_reader.read(response.content))
    assert first == partial
    assert "error" in last


# Access to artifacts


def test_artifact_opens_with_its_signature_or_its_owner_s_key_only(images: ImageProduct) -> None:
    members = {"positivePrompt": PROMPT, "width": 512, "height": 512, "model": STUDIO_MODEL}
    url = images.http.post("/api/TextToImage", json=members).json()["results"][0]["url"]
    path, _, query = url.partition("?")
    other_digit = "0" if url[-1] != "0" else "1"
    forged = (path, f"{url[:-1]}{other_digit}", url.partition("&s=")[0], f"{path.replace('.png', '.jpg')}?{query}")
    for key in (None, images.cloud.keys.other_api_key, "ak-junk"):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        assert {httpx.get(link, headers=headers, trust_env=False).status_code for link in forged} == {404}
    assert download(url).headers["content-type"] == "image/png"
    assert images.http.get(path, follow_redirects=True).content == download(url).content
