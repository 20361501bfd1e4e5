"""Image calls to one provider, as the gateway makes them, and what a preset's adapter makes of them."""

import io
import json
from typing import Any, NamedTuple

from PIL import Image

from aiserver.aws.bedrock import bedrock_transport
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.catalogue import CATALOGUE, IMAGE_OPERATIONS
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from tests.fakes import FakeClock
from tests.providers.audio_calls import FORM, audio_call, form_body, form_field
from tests.providers.calls import provider

IMAGES, EDITS, VARIATIONS = "images.generations", "images.edits", "images.variations"
IMAGE_PRESETS = [name for name, preset in CATALOGUE.items() if set(preset.operations) & set(IMAGE_OPERATIONS)]
GENERIC = ""  # the preset of a provider without one
SCHNELL, KONTEXT = "black-forest-labs/FLUX.1-schnell-Free", "black-forest-labs/FLUX.1-kontext-pro"
URL = "http://127.0.0.1:1/v1"
TOKENS = {
    "total_tokens": 100,
    "input_tokens": 50,
    "output_tokens": 50,
    "input_tokens_details": {"text_tokens": 10, "image_tokens": 40},
}


class Subject(NamedTuple):
    """A preset, and a model to which one of its rows of facts applies."""

    preset: str
    model: str = "m"

    def __str__(self) -> str:
        return f"{self.preset or 'generic'}-{self.model}"

    def upstream(self, **settings: Any) -> Upstream:
        return Upstream(image_provider(self.preset), self.model, True, "k", settings=settings)


SUBJECTS = [
    *(Subject(name) for name in IMAGE_PRESETS),
    *(Subject("together", model) for model in (SCHNELL, KONTEXT)),
    Subject(GENERIC),
]
EDIT_SUBJECTS = [subject for subject in SUBJECTS if not subject.preset or EDITS in CATALOGUE[subject.preset].operations]


def image_provider(preset: str = GENERIC, base_url: str = URL, **options: object) -> Provider:
    """A provider with the operations of its preset, or with all image operations."""
    operations = {} if preset else {"operations": IMAGE_OPERATIONS}
    return provider(base_url, preset=preset, **operations | options)


def image_bytes(mode: str = "RGB", image_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, image_format)
    return file.getvalue()


PNG, TRANSPARENT_PNG, JPEG = image_bytes(), image_bytes("RGBA"), image_bytes(image_format="JPEG")


def image_file(name: str, content: bytes = PNG, file_name: str = "a.png", content_type: str = "image/png") -> bytes:
    """The bytes of a file in a form, as curl sends it."""
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="{file_name}"'
    return f"{disposition}\r\nContent-Type: {content_type}\r\n\r\n".encode() + content


def generation_call(
    body: bytes = b"", *, stream: bool = False, is_aiserver: bool = False, **members: Any
) -> ProviderCall:
    """A generation with these members, or with `body`; with `stream`, its member `stream` is true."""
    fields = {"model": "m", "prompt": "A fox"} | members | ({"stream": True} if stream else {})
    body = body or json.dumps(fields).encode()
    return audio_call(IMAGES, body, "application/json", stream=stream, is_aiserver=is_aiserver)


def edit_call(*files: bytes, stream: bool = False, is_aiserver: bool = False, **fields: object) -> ProviderCall:
    """An edit with a form of these text fields, then the files; one image by default."""
    texts = {"model": "m", "prompt": "A fox"} | fields | ({"stream": "true"} if stream else {})
    parts = [form_field(name, str(text)) for name, text in texts.items()]
    body = form_body(*parts, *(files or [image_file("image")]))
    return audio_call(EDITS, body, FORM, stream=stream, is_aiserver=is_aiserver)


def json_edit_call(**members: Any) -> ProviderCall:
    fields = {"model": "m", "prompt": "A fox", "images": [{"image_url": "https://example.com/a.png"}]} | members
    return audio_call(EDITS, json.dumps(fields).encode(), "application/json")


class Prepared(NamedTuple):
    """The request for the provider, and the members that its response reports as ignored."""

    request: ProviderRequest
    ignored: tuple[str, ...]

    @property
    def members(self) -> dict[str, Any]:
        return json.loads(self.request.body or b"")


def prepare(subject: Subject, call: ProviderCall, **settings: Any) -> Prepared:
    """What the adapter makes of a call, without a network."""
    exchange = adapter().prepare(subject.upstream(**settings), call)
    response = exchange.map_response(ProviderResponse(200, {}, b'{"data":[{"b64_json":"AA=="}]}'))
    return Prepared(exchange.request, response.ignored)


def check(subject: Subject, call: ProviderCall, **settings: Any) -> None:
    """Raises: InvalidRequest."""
    adapter().check(subject.upstream(**settings), call)


def adapter() -> Any:
    return AdapterRegistry(FakeClock(), bedrock_transport).adapter_for("openai")


def operation_path(subject: Subject, operation: str) -> str:
    """The path of an operation, after the base URL."""
    if (subject.preset, operation) == ("localai", EDITS):
        return "/images/inpainting"
    return {IMAGES: "/images/generations", EDITS: "/images/edits", VARIATIONS: "/images/variations"}[operation]
