"""Images of a deployment without streaming: whole responses, up to the limit of Lambda."""

import base64
import json
from collections.abc import Iterator

import httpx
import openai
import pytest

from aiserver.limits import MAX_BUFFERED_BYTES
from tests.flow.image_cloud import SCRIPTED_MODEL, STUDIO_MODEL, ImageProduct, running_image_product
from tests.flow.test_wire import error_of
from tests.images.ocr import needs_tesseract, read_text
from tests.images.test_drawing_server import EDIT_PROMPT, PROMPT, SIZE, decode, images_of, png_file

LARGE_IMAGE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * (MAX_BUFFERED_BYTES // 256)


@pytest.fixture(scope="module")
def buffered_images() -> Iterator[ImageProduct]:
    with running_image_product({"ResponseMode": "BUFFERED"}) as product:
        yield product


@pytest.fixture
def images(buffered_images: ImageProduct) -> ImageProduct:
    for server in (buffered_images.studio, buffered_images.openai, buffered_images.upstream):
        server.requests.clear()
    return buffered_images


@pytest.fixture
def sdk(images: ImageProduct) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{images.url}/v1", api_key=images.key, max_retries=0) as client:
        yield client


def respond_with_a_large_image(images: ImageProduct) -> None:
    document = {"data": [{"b64_json": base64.b64encode(LARGE_IMAGE).decode()}]}
    images.upstream.respond_with(200, json.dumps(document).encode())


@needs_tesseract
def test_sdk_receives_drawn_and_edited_images(sdk: openai.OpenAI) -> None:
    (drawn,) = images_of(sdk.images.generate(model=STUDIO_MODEL, prompt=PROMPT, size=SIZE))
    assert read_text(decode(drawn)) == PROMPT
    (edited,) = images_of(sdk.images.edit(model=STUDIO_MODEL, image=png_file(), prompt=EDIT_PROMPT))
    assert read_text(decode(edited)) == EDIT_PROMPT


def test_sdk_reads_a_streamed_image_at_once(sdk: openai.OpenAI) -> None:
    events = list(sdk.images.generate(model=STUDIO_MODEL, prompt=PROMPT, size="512x512", stream=True, partial_images=2))
    assert [event.type.rpartition(".")[2] for event in events] == ["partial_image", "partial_image", "completed"]


def test_image_over_the_limit_is_a_502_that_suggests_the_queue(images: ImageProduct) -> None:
    respond_with_a_large_image(images)
    response = images.http.post("/v1/images/generations", json={"model": SCRIPTED_MODEL, "prompt": PROMPT})
    assert error_of(response)[0] == 502
    assert response.headers["x-should-retry"] == "false"
    assert "queue" in response.json()["error"]["message"]
    assert len(images.upstream.requests) == 1


GENERATION = {"model": STUDIO_MODEL, "prompt": PROMPT, "size": SIZE}
RECORDED_REQUESTS = {
    "AI Server": ("/api/TextToImage", {"positivePrompt": PROMPT, "width": 512, "height": 512, "model": STUDIO_MODEL}),
    "tag": ("/v1/images/generations", {**GENERATION, "tag": "images"}),
    "RefId": ("/v1/images/generations", {**GENERATION, "refId": "image-1"}),
    "stream": ("/v1/images/generations", {**GENERATION, "tag": "images", "stream": True}),
}


@pytest.mark.parametrize("kind", RECORDED_REQUESTS)
def test_image_that_is_stored_is_received(kind: str, images: ImageProduct) -> None:
    path, members = RECORDED_REQUESTS[kind]
    response = images.http.post(path, json=members)
    assert response.status_code == 200, response.text
    assert len(images.studio.calls) == 1


def test_typed_request_stores_an_image_over_the_limit(images: ImageProduct) -> None:
    respond_with_a_large_image(images)
    response = images.http.post("/api/TextToImage", json={"positivePrompt": PROMPT, "model": SCRIPTED_MODEL})
    assert response.status_code == 200, response.text
    url = response.json()["results"][0]["url"]
    assert httpx.get(url, follow_redirects=True, trust_env=False).content == LARGE_IMAGE


def test_queued_image_over_the_limit_is_a_redirect(images: ImageProduct) -> None:
    respond_with_a_large_image(images)
    request = {"model": SCRIPTED_MODEL, "prompt": PROMPT}
    queued = images.http.post("/v1/queue/images/generations", json=request).json()
    assert images.wait_for_job(queued["refId"])["state"] == "Completed"
    result = images.http.get(f"/v1/jobs/{queued['id']}/result", follow_redirects=True)
    assert base64.b64decode(result.json()["data"][0]["b64_json"]) == LARGE_IMAGE
