"""The drawing server, called directly by OpenAI's SDK: its types judge the responses, and OCR reads the prompts."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Image as OpenAiImage
from openai.types import (
    ImageEditCompletedEvent,
    ImageEditPartialImageEvent,
    ImageGenCompletedEvent,
    ImageGenPartialImageEvent,
    ImagesResponse,
)
from PIL import Image

from local import drawing
from tests.images import drawing_server
from tests.images.drawing_server import DrawingServer
from tests.images.ocr import needs_tesseract, read_text

PROMPT, EDIT_PROMPT = "two red apples on a table", "now they are green"
SIDE = 512
SIZE = f"{SIDE}x{SIDE}"


@pytest.fixture
def server() -> Iterator[DrawingServer]:
    with DrawingServer() as running_server:
        yield running_server


@pytest.fixture
def sdk(server: DrawingServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.base_url, api_key="drawing-key", max_retries=0) as client:
        yield client


@pytest.fixture
def strict_sdk(server: DrawingServer, sdk: openai.OpenAI) -> openai.OpenAI:
    """The SDK, of a server that rejects what OpenAI's GPT image models reject."""
    server.is_strict = True
    return sdk


def generate(sdk: openai.OpenAI, model: str = "drawing", **options: Any) -> Any:
    images: Any = sdk.images
    return images.generate(**{"model": model, "prompt": PROMPT, "size": SIZE, **options})


def edit(sdk: openai.OpenAI, model: str = "drawing", **options: Any) -> Any:
    images: Any = sdk.images
    return images.edit(**{"model": model, "image": png_file(), "prompt": EDIT_PROMPT, **options})


def png_file(prompt: str = PROMPT, side: int = SIDE) -> tuple[str, bytes, str]:
    return "apples.png", drawing.encode_image(drawing.draw_prompt(prompt, (side, side), 0), "png"), "image/png"


def mask_file(mode: str, *, side: int = SIDE) -> tuple[str, bytes, str]:
    """A mask whose upper half is edited: transparent in RGBA, white in RGB."""
    kept, edited = {"RGBA": ((0, 0, 0, 255), (0, 0, 0, 0)), "RGB": ((0, 0, 0), (255, 255, 255))}[mode]
    mask = Image.new(mode, (side, side), kept)
    mask.paste(edited, (0, 0, side, side // 2))
    return "mask.png", drawing.encode_image(mask, "png"), "image/png"


def data_url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def decode(image: Any) -> bytes:
    return base64.b64decode(image.b64_json, validate=True)


def open_image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def validate(response: Any) -> ImagesResponse:
    """The response after a validation that the SDK itself does not do. Raises: ValidationError."""
    return ImagesResponse.model_validate(response.to_dict(), strict=True)


def images_of(response: Any) -> list[OpenAiImage]:
    """The images of a valid response."""
    return validate(response).data or []


@needs_tesseract
def test_generated_image_shows_its_prompt(sdk: openai.OpenAI) -> None:
    (image,) = images_of(generate(sdk))
    assert read_text(decode(image)) == PROMPT


@needs_tesseract
@pytest.mark.parametrize("mask", [None, mask_file("RGBA"), mask_file("RGB")], ids=["all", "transparent", "white"])
def test_edited_image_shows_the_new_prompt(mask: Any, sdk: openai.OpenAI) -> None:
    (image,) = images_of(edit(sdk, **({"mask": mask} if mask else {})))
    assert read_text(decode(image)) == EDIT_PROMPT


@pytest.mark.parametrize("mode", ["RGBA", "RGB"])
def test_area_outside_the_mask_is_unchanged(mode: str, sdk: openai.OpenAI) -> None:
    (image,) = edit(sdk, mask=mask_file(mode)).data
    lower_half = (0, SIDE // 2, SIDE, SIDE)
    original, edited = open_image(png_file()[1]), open_image(decode(image))
    assert edited.crop(lower_half).tobytes() == original.crop(lower_half).tobytes()
    assert edited.tobytes() != original.tobytes()


def test_images_of_a_response_differ_by_their_seeds(sdk: openai.OpenAI) -> None:
    response = validate(generate(sdk, n=3, size="512x768", extra_body={"seed": 5}))
    contents = [decode(image) for image in response.data or ()]
    assert [open_image(content).size for content in contents] == [(512, 768)] * 3
    assert len(set(contents)) == 3
    assert decode(generate(sdk, size="512x768", extra_body={"seed": 6}).data[0]) == contents[1]
    assert response.usage
    assert response.usage.output_tokens == 3000


@pytest.mark.parametrize("output_format", ["png", "jpeg", "webp"])
def test_url_serves_the_file_in_its_format(output_format: str, server: DrawingServer, sdk: openai.OpenAI) -> None:
    response = validate(generate(sdk, response_format="url", output_format=output_format))
    (image,) = response.data or []
    assert image.b64_json is None
    assert image.url
    file = httpx.get(image.url)
    assert (file.status_code, file.headers["content-type"]) == (200, f"image/{output_format}")
    assert (open_image(file.content).format or "").lower() == response.output_format == output_format
    assert [request.path for request in server.downloads] == [httpx.URL(image.url).path]
    assert httpx.get(f"{image.url}x").status_code == 404


def test_stream_ends_with_the_complete_image(strict_sdk: openai.OpenAI) -> None:
    *partial, completed = generate(strict_sdk, stream=True, partial_images=2)
    partial = [ImageGenPartialImageEvent.model_validate(event.to_dict(), strict=True) for event in partial]
    completed = ImageGenCompletedEvent.model_validate(completed.to_dict(), strict=True)
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert len({event.b64_json for event in (*partial, completed)}) == 3
    assert decode(completed) == decode(generate(strict_sdk).data[0])
    assert completed.usage.total_tokens == completed.usage.input_tokens + completed.usage.output_tokens


def test_stream_of_an_edit_has_events_of_its_own(strict_sdk: openai.OpenAI) -> None:
    partial, completed = edit(strict_sdk, stream=True, partial_images=1)
    ImageEditPartialImageEvent.model_validate(partial.to_dict(), strict=True)
    assert decode(ImageEditCompletedEvent.model_validate(completed.to_dict(), strict=True))


def test_gate_holds_back_each_event_after_the_first(
    server: DrawingServer, sdk: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drawing_server, "GATE_S", 0.2)
    server.gate = threading.Semaphore(1)
    assert [event.type for event in generate(sdk, stream=True, partial_images=3)] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
    ]


def test_json_edit_is_the_same_as_that_of_a_form(server: DrawingServer, sdk: openai.OpenAI) -> None:
    image, mask = ({"image_url": data_url(file[1])} for file in (png_file(), mask_file("RGBA")))
    request = {"model": "drawing", "prompt": EDIT_PROMPT, "images": [image], "mask": mask}
    response = httpx.post(f"{server.base_url}/images/edits", json=request)
    by_form = edit(sdk, mask=mask_file("RGBA"))
    assert ImagesResponse.model_validate_json(response.content).to_dict() == by_form.to_dict()


def test_several_images_are_accepted(server: DrawingServer, strict_sdk: openai.OpenAI) -> None:
    response = validate(edit(strict_sdk, image=[png_file(), png_file("x")], input_fidelity="high"))
    assert response.usage
    assert response.usage.input_tokens_details.image_tokens == 2000
    assert server.requests[0].body.count(b'name="image[]"') == 2


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"response_format": "b64_json"}, "response_format", "unknown_parameter"),
        ({"extra_body": {"seed": 1}}, "seed", "unknown_parameter"),
        ({"n": 11}, "n", "integer_out_of_range"),
        ({"n": 2, "stream": True}, "n", None),
        ({"partial_images": 4}, "partial_images", "integer_out_of_range"),
        ({"size": "500x512"}, "size", "invalid_value"),
        ({"size": "512x2048"}, "size", "invalid_value"),
        ({"size": "large"}, "size", "invalid_value"),
        ({"output_format": "gif"}, "output_format", "invalid_value"),
        ({"prompt": ""}, "prompt", "missing_required_parameter"),
        ({"prompt": "x" * 32_001}, "prompt", "string_above_max_length"),
    ],
    ids=lambda value: json.dumps(value)[:40],
)
def test_bad_generation_is_rejected(
    options: dict[str, Any], param: str, code: str | None, strict_sdk: openai.OpenAI
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        generate(strict_sdk, **options)
    assert (error.value.param, error.value.code, error.value.type) == (param, code, "invalid_request_error")


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"image": ("a.png", png_file()[1], "application/octet-stream")}, "image", "unsupported_file_mimetype"),
        ({"image": ("a.gif", b"GIF89a", "image/png")}, "image", "invalid_image_file"),
        ({"mask": ("a.txt", b"white", "image/png")}, "mask", "invalid_image_file"),
        ({"mask": mask_file("RGB")}, "mask", "invalid_image_mask"),
        ({"mask": mask_file("RGBA", side=256)}, "mask", "invalid_image_mask"),
        ({"image": [png_file(side=16)] * 17}, "image", "array_above_max_length"),
    ],
    ids=["octet-stream", "GIF", "text as mask", "mask without alpha", "mask of another size", "17 images"],
)
def test_bad_files_are_rejected(options: dict[str, Any], param: str, code: str, strict_sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        edit(strict_sdk, **options)
    assert (error.value.param, error.value.code) == (param, code)


@pytest.mark.parametrize("name", ["image", "image[]", "mask"])
def test_text_in_place_of_a_file_is_rejected(name: str, server: DrawingServer) -> None:
    form: Any = {"data": {"prompt": "x", "model": "drawing", name: "text"}, "files": {"file": png_file()}}
    error = httpx.post(f"{server.base_url}/images/edits", **form).json()["error"]
    assert (error["param"], error["code"]) == (name, "invalid_type")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"images": "x"},
        {"images": [{"file_id": "file-1"}]},
        {"images": [{"image_url": "https://example.com/a.png"}]},
        {"images": [{"image_url": "data:image/png;base64,!"}]},
    ],
    ids=json.dumps,
)
def test_reference_that_is_not_a_data_url_is_rejected(body: dict[str, Any], server: DrawingServer) -> None:
    response = httpx.post(f"{server.base_url}/images/edits", json={"prompt": "x", **body})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


def test_form_of_a_generation_and_invalid_json_are_rejected(server: DrawingServer) -> None:
    bodies: list[Any] = [{"files": {"image": png_file()}}, {"content": b"["}]
    for body in bodies:
        assert httpx.post(f"{server.base_url}/images/generations", **body).status_code == 400


def test_wrong_key_opens_neither_images_nor_files(server: DrawingServer, sdk: openai.OpenAI) -> None:
    server.api_key = "drawing-key"
    url = generate(sdk, response_format="url").data[0].url
    for headers in ({}, {"authorization": "Bearer wrong"}):
        assert httpx.get(url, headers=headers).status_code == 401
    assert httpx.get(url, headers={"authorization": "Bearer drawing-key"}).status_code == 200
    with (
        openai.OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError),
    ):
        generate(other)
