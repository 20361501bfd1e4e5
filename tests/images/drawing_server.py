"""A server on loopback that draws and edits images with OpenAI's `POST /v1/images/generations` and `/v1/images/edits`.

Its images are plain backgrounds with the prompt written on them, so that OCR can read it (`local/drawing.py`).
Sources: https://platform.openai.com/docs/api-reference/images, and for the texts of errors
https://github.com/vercel/ai/blob/d6ad96ae0e3b7fbb1a3a9245cc9156fcfb7cdb4a/packages/openai/src/image/__fixtures__/gpt-image-response-format-error.json,
https://github.com/BerriAI/litellm/pull/39512, https://github.com/theopenco/llmgateway/issues/3963,
https://github.com/openai/openai-node/issues/1468
"""

import base64
import binascii
import hashlib
import io
import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast
from urllib.parse import urljoin

from PIL import Image, ImageChops

from local import drawing
from local.scripted import RecordedRequest
from tests.audio.speech_server import (
    EVENT_STREAM,
    ApiError,
    AudioResponse,
    AudioServer,
    json_response,
)
from tests.audio.transcription_server import form_parts

GENERATIONS, EDITS = "/v1/images/generations", "/v1/images/edits"
GENERATED = "/generated/"  # the path of the files
IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
MAX_PROMPT_CHARS, MAX_IMAGES, MAX_COUNT, MAX_PARTIAL_IMAGES = 32_000, 16, 10, 3
SIDE_FACTOR, MAX_RATIO = 16, 3  # of a size
TOKENS_PER_IMAGE, CHARS_PER_TOKEN = 1000, 4
GATE_S = 20  # an event that is not released by then ends the stream
COMMON = {
    *("model", "prompt", "n", "size", "quality", "background", "output_format", "output_compression"),
    *("moderation", "user", "stream", "partial_images"),
}
PARAMETERS = {GENERATIONS: COMMON | {"style"}, EDITS: COMMON | {"image", "images", "mask", "input_fidelity"}}


class ImageApiError(ApiError):
    """An error response with OpenAI's code."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message, param, status)
        self.code = code

    def response(self) -> AudioResponse:
        document: dict[str, Any] = json.loads(cast(bytes, super().response().body))
        document["error"]["code"] = self.code
        return json_response(document, self.status)


class GatedEvents(list[bytes]):
    """The events of a stream. Each one after the first waits until the gate is released; without a gate, none waits."""

    gate: threading.Semaphore | None = None

    def __iter__(self) -> Iterator[bytes]:
        for number, event in enumerate(super().__iter__()):
            if number and self.gate and not self.gate.acquire(timeout=GATE_S):
                return
            yield event


@dataclass(frozen=True)
class ImageRequest:
    """The fields of a request that change the images or their transfer, and the files to edit."""

    prompt: str
    count: int
    size: tuple[int, int] | None
    seed: int
    output_format: str
    response_format: str
    partial_images: int
    is_stream: bool
    images: list[bytes]
    mask: bytes | None


@dataclass
class DrawingServer(AudioServer):
    """Draws and edits images. Any model is accepted.

    `is_strict`: unknown parameters are rejected, and images are always base64, as OpenAI's GPT image models are;
    otherwise `seed` and `response_format` are read, and other parameters are ignored, as self-hosted servers do.
    `api_key` is required of all requests, also for files. `gate` holds back the events of streams.
    `has_relative_urls`: a URL is only its path.
    """

    model: ClassVar[str] = "drawing"
    paths: ClassVar[tuple[str, ...]] = (GENERATIONS, EDITS)

    is_strict: bool = False
    api_key: str = ""
    gate: threading.Semaphore | None = None
    has_relative_urls: bool = False
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])

    @property
    def downloads(self) -> list[RecordedRequest]:
        """The requests for files."""
        return [request for request in self.requests if request.path.startswith(GENERATED)]

    @property
    def calls(self) -> list[RecordedRequest]:
        """The requests for images."""
        return [request for request in self.requests if request.method == "POST"]

    def respond(self, request: RecordedRequest) -> AudioResponse:
        is_edit = request.path == EDITS
        parsed = parse_image_request(request, is_strict=self.is_strict)
        contents = _draw(parsed, is_edit=is_edit)
        common = _common_members(parsed, contents)
        if parsed.is_stream:
            events = GatedEvents(_events(parsed, contents[0], common, is_edit=is_edit))
            events.gate = self.gate
            return AudioResponse(EVENT_STREAM, events)
        is_url = parsed.response_format == "url"
        data = [self._url_member(content, parsed) if is_url else _base64_member(content) for content in contents]
        return json_response({"created": 1, "data": data, **common})

    def _url_member(self, content: bytes, parsed: ImageRequest) -> dict[str, Any]:
        path = f"{GENERATED}{hashlib.sha256(content).hexdigest()}.{parsed.output_format}"
        self.files[path] = content
        return {"url": path if self.has_relative_urls else urljoin(self.base_url, path)}

    def _route(self, request: RecordedRequest) -> AudioResponse:
        if self.api_key and request.headers.get("authorization") != f"Bearer {self.api_key}":
            return ImageApiError("Incorrect API key provided", code="invalid_api_key", status=401).response()
        if request.method == "GET" and (content := self.files.get(request.path)):
            return AudioResponse(f"image/{request.path.rpartition('.')[2]}", content)
        return super()._route(request)


def parse_image_request(request: RecordedRequest, *, is_strict: bool = False) -> ImageRequest:
    """Parse and check the body of a request for images: JSON, or for edits also a form. Raises: ImageApiError."""
    is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
    if is_form and request.path == GENERATIONS:
        raise ImageApiError("Unsupported content type: 'multipart/form-data'. Use 'application/json'.")
    fields, images, mask = _read_form(request) if is_form else _read_json(request)
    if is_strict:
        for name in fields:
            if name not in PARAMETERS[request.path]:
                raise ImageApiError(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    if request.path == EDITS:
        _check_images(images, mask, is_strict=is_strict)
    parsed = ImageRequest(
        prompt=_prompt(fields),
        count=_integer(fields, "n", 1, MAX_COUNT, 1),
        size=_size(fields),
        seed=_integer(fields, "seed", 0, 2**64, 0),
        output_format=_choice(fields, "output_format", ("png", "jpeg", "webp")),
        response_format=_choice(fields, "response_format", ("b64_json", "url")),
        partial_images=_integer(fields, "partial_images", 0, MAX_PARTIAL_IMAGES, 0),
        is_stream=str(fields.get("stream")).lower() == "true",
        images=images,
        mask=mask,
    )
    if parsed.is_stream and parsed.count > 1:
        raise ImageApiError("Streaming is only supported with n=1.", "n")
    return parsed


def _read_form(request: RecordedRequest) -> tuple[dict[str, Any], list[bytes], bytes | None]:
    fields: dict[str, Any] = {}
    images: list[bytes] = []
    mask: bytes | None = None
    for part in form_parts(request):
        name = (part.name or "").removesuffix("[]")
        if name not in ("image", "mask"):
            fields[name] = part.raw.decode()
        elif part.filename is None:
            message = f"Invalid type for '{part.name}': expected a file, but got a string instead."
            raise ImageApiError(message, part.name, "invalid_type")
        elif name == "mask":
            mask = part.raw
        else:
            if part.content_type not in IMAGE_TYPES:
                message = f"Unsupported file type: '{part.content_type}'. Supported: {', '.join(IMAGE_TYPES)}."
                raise ImageApiError(message, part.name, "unsupported_file_mimetype")
            images.append(part.raw)
    return fields, images, mask


def _read_json(request: RecordedRequest) -> tuple[dict[str, Any], list[bytes], bytes | None]:
    try:
        fields: Any = json.loads(request.body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ImageApiError("The request body must be a JSON object", code="invalid_json")
    members = cast(dict[str, Any], fields)
    references: Any = members.get("images") or []
    if not isinstance(references, list):
        raise ImageApiError("Invalid type for 'images': expected an array.", "images", "invalid_type")
    images = [_read_reference(reference, "images") for reference in cast(list[Any], references)]
    mask = members.get("mask")
    return members, images, _read_reference(mask, "mask") if mask else None


def _read_reference(reference: Any, name: str) -> bytes:
    """The bytes of `{"image_url": "data:…;base64,…"}`. This server has no files, and downloads none."""
    url = cast(dict[str, Any], reference).get("image_url") if isinstance(reference, dict) else None
    if not isinstance(url, str) or not url.startswith("data:image/"):
        raise ImageApiError(f"Invalid '{name}': expected a data URL.", name, "invalid_value")
    try:
        return base64.b64decode(url.partition(";base64,")[2], validate=True)
    except binascii.Error as error:
        raise ImageApiError(f"Invalid base64 in '{name}'.", name, "invalid_base64") from error


def _check_images(images: list[bytes], mask: bytes | None, *, is_strict: bool) -> None:
    if not images:
        raise ImageApiError("Missing required parameter: 'image'.", "image", "missing_required_parameter")
    if len(images) > MAX_IMAGES:
        raise ImageApiError(f"At most {MAX_IMAGES} images are allowed.", "image", "array_above_max_length")
    sizes = {_open(content, "image").size for content in images[:1]}
    if mask is None:
        return
    mask_image = _open(mask, "mask")
    if mask_image.size not in sizes:
        raise ImageApiError("Invalid mask: it must have the size of the image.", "mask", "invalid_image_mask")
    if is_strict and (mask_image.format, "A" in mask_image.getbands()) != ("PNG", True):
        raise ImageApiError("Invalid mask: it must be a PNG with an alpha channel.", "mask", "invalid_image_mask")


def _open(content: bytes, name: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(content))
    except OSError as error:
        raise ImageApiError("Invalid image file or mode.", name, "invalid_image_file") from error
    if image.format not in ("PNG", "JPEG", "WEBP"):
        raise ImageApiError("Invalid image file or mode.", name, "invalid_image_file")
    return image


def _prompt(fields: dict[str, Any]) -> str:
    prompt = fields.get("prompt")
    if not isinstance(prompt, str) or not prompt:
        raise ImageApiError("Missing required parameter: 'prompt'.", "prompt", "missing_required_parameter")
    if len(prompt) > MAX_PROMPT_CHARS:
        message = f"Invalid 'prompt': it must have at most {MAX_PROMPT_CHARS} characters."
        raise ImageApiError(message, "prompt", "string_above_max_length")
    return prompt


def _integer(fields: dict[str, Any], name: str, lowest: int, highest: int, default: int) -> int:
    number = fields.get(name)
    if number is None:
        return default
    if isinstance(number, bool | float) or not str(number).isdigit():
        raise ImageApiError(f"Invalid type for '{name}': expected an integer.", name, "invalid_type")
    if not lowest <= int(number) <= highest:
        raise ImageApiError(f"Invalid '{name}': it must be from {lowest} to {highest}.", name, "integer_out_of_range")
    return int(number)


def _choice(fields: dict[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """A value of `choices`; the first one where it is absent."""
    value = fields.get(name)
    if value is not None and value not in choices:
        message = f"Invalid value: '{value}'. Supported values are: {', '.join(choices)}."
        raise ImageApiError(message, name, "invalid_value")
    return cast(str, value or choices[0])


def _size(fields: dict[str, Any]) -> tuple[int, int] | None:
    try:
        size = drawing.parse_size(fields.get("size"))
    except ValueError:
        size = (0, 1)
    is_valid = size is None or (not any(side % SIDE_FACTOR for side in size) and max(size) <= MAX_RATIO * min(size))
    if not is_valid:
        raise ImageApiError(f"Invalid size '{fields['size']}'.", "size", "invalid_value")
    return size


def _draw(parsed: ImageRequest, *, is_edit: bool) -> list[bytes]:
    """The image files; their backgrounds depend on the seed and on their number."""
    if is_edit:
        mask = parsed.mask and _alpha_mask(parsed.mask)
        images = [drawing.edit_image(parsed.images[0], mask, parsed.prompt, parsed.size)] * parsed.count
    else:
        size = parsed.size or drawing.DEFAULT_SIZE
        seeds = range(parsed.seed, parsed.seed + parsed.count)
        images = [drawing.draw_prompt(parsed.prompt, size, seed) for seed in seeds]
    return [drawing.encode_image(image, parsed.output_format) for image in images]


def _alpha_mask(mask: bytes) -> bytes:
    """A mask whose transparent pixels are edited; of one without transparency, the white ones are."""
    image = Image.open(io.BytesIO(mask))
    if "A" in image.getbands():
        return mask
    gray = image.convert("L")
    gray.putalpha(ImageChops.invert(gray))
    return drawing.encode_image(gray, "png")


def _base64_member(content: bytes) -> dict[str, Any]:
    return {"b64_json": base64.b64encode(content).decode()}


def _common_members(parsed: ImageRequest, contents: list[bytes]) -> dict[str, Any]:
    """The members that responses and events share."""
    width, height = Image.open(io.BytesIO(contents[0])).size
    tokens = {
        "input_tokens": len(parsed.prompt) // CHARS_PER_TOKEN + TOKENS_PER_IMAGE * len(parsed.images),
        "output_tokens": TOKENS_PER_IMAGE * len(contents),
    }
    details = {
        "text_tokens": len(parsed.prompt) // CHARS_PER_TOKEN,
        "image_tokens": TOKENS_PER_IMAGE * len(parsed.images),
    }
    return {
        "background": "opaque",
        "output_format": parsed.output_format,
        "quality": "high",
        "size": f"{width}x{height}",
        "usage": {**tokens, "total_tokens": sum(tokens.values()), "input_tokens_details": details},
    }


def _events(parsed: ImageRequest, content: bytes, common: dict[str, Any], *, is_edit: bool) -> Iterable[bytes]:
    """OpenAI's events: incomplete images, each sharper than the one before, and the complete one."""
    prefix = "image_edit" if is_edit else "image_generation"
    final = Image.open(io.BytesIO(content))
    partial = {name: value for name, value in common.items() if name != "usage"}
    for index in range(parsed.partial_images):
        factor = 2 ** (parsed.partial_images - index)
        blurred = final.reduce(factor).resize(final.size)  # pyright: ignore[reportUnknownMemberType]
        image = _base64_member(drawing.encode_image(blurred, parsed.output_format))
        yield _encode_event(f"{prefix}.partial_image", {**image, "partial_image_index": index, **partial})
    yield _encode_event(f"{prefix}.completed", {**_base64_member(content), **common})


def _encode_event(name: str, members: dict[str, Any]) -> bytes:
    document = {"type": name, "created_at": 1, **members}
    return f"event: {name}\ndata: {json.dumps(document)}\n\n".encode()
