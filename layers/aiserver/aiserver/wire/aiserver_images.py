"""Binds AI Server's requests for images as OpenAI's: TextToImage, ImageToImage, ImageWithMask, ImageToText.

The members that OpenAI's API does not have are sent as `negative_prompt`, `seed` and `strength`. A provider that is
known not to have one of them does not get it, and the response says so.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiserver import operations
from aiserver.limits import MAX_IMAGE_BATCH, MAX_IMAGE_PIXELS_PER_SIDE, MIN_IMAGE_PIXELS_PER_SIDE
from aiserver.wire.aiserver_members import Members, read_members, with_options
from aiserver.wire.form_requests import form_request
from aiserver.wire.forms import Part
from aiserver.wire.image_files import check_image
from aiserver.wire.image_requests import IMAGE, MASK
from aiserver.wire.requests import ModelRequest, parse_options
from aiserver.wire.validation import invalid_field

EDIT_MODEL, MASK_MODEL, DESCRIPTION_MODEL = "image-to-image", "image-with-mask", "image-to-text"  # if none is named
DESCRIPTION_PROMPT = "Describe this image."
# Optional members, by the name under which they are sent; AI Server's name is used in messages.
HINTS = {"negative_prompt": "negativePrompt", "seed": "seed", "strength": "denoise"}
IGNORED = "arguments"  # never sent, as in AI Server


def bind_text_to_image(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind TextToImage or QueueTextToImage, by `name`. Raises: InvalidRequest."""
    members = read_members(body, content_type, query)
    fields = {"model": members.model(), **_prompt_fields(members)} | _size_fields(members)
    request_body = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    ignored = (IGNORED,) if members.has(IGNORED) else ()
    request = ModelRequest(operations.IMAGES, request_body, fields["model"], parse_options({}), ignored=ignored)
    return with_options(request, members, name)


def bind_image_to_image(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind ImageToImage or QueueImageToImage, by `name`. Raises: InvalidRequest."""
    members = read_members(body, content_type, query)
    return _edit_request(members, members.model(EDIT_MODEL), [_check(members.file(IMAGE), IMAGE)], name)


def bind_image_with_mask(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind ImageWithMask or QueueImageWithMask, by `name`. Raises: InvalidRequest."""
    members = read_members(body, content_type, query)
    files = members.assign_files(IMAGE, MASK)
    images = [_check(files[name], name) for name in (IMAGE, MASK)]
    return _edit_request(members, members.model(MASK_MODEL), images, name)


def bind_image_to_text(body: bytes, content_type: str, query: Mapping[str, str], *, name: str) -> ModelRequest:
    """Bind ImageToText or QueueImageToText, by `name`, as a chat with an image. Raises: InvalidRequest."""
    members = read_members(body, content_type, query)
    model, image = members.model(DESCRIPTION_MODEL), _check(members.file(IMAGE), IMAGE)
    url = f"data:{image.content_type};base64,{base64.b64encode(image.content).decode()}"
    content = [
        {"type": "text", "text": members.text("prompt") or DESCRIPTION_PROMPT},
        {"type": "image_url", "image_url": {"url": url}},
    ]
    chat = {"model": model, "messages": [{"role": "user", "content": content}]}
    request_body = json.dumps(chat, ensure_ascii=False, separators=(",", ":")).encode()
    return with_options(ModelRequest(operations.CHAT, request_body, model, parse_options({})), members, name)


def _edit_request(members: Members, model: str, files: list[Part], name: str) -> ModelRequest:
    fields = {"model": model, **_prompt_fields(members)}
    parts = [Part(field, str(value).encode()) for field, value in fields.items()]
    return with_options(form_request(operations.IMAGE_EDITS, model, [*parts, *files]), members, name)


def _check(file: Part, name: str) -> Part:
    return check_image(replace(file, name=name))


def _prompt_fields(members: Members) -> dict[str, Any]:
    """The prompt, the number of images and the optional members, by their names in OpenAI's API or beside it."""
    prompt = members.text("positivePrompt")
    if not prompt:
        raise invalid_field("NotEmpty", "positivePrompt", "'positivePrompt' must not be empty")
    fields = {
        "prompt": prompt,
        "n": members.integer("batchSize", 1, MAX_IMAGE_BATCH),
        "negative_prompt": members.text("negativePrompt") or None,
        "seed": members.integer("seed", 0, math.inf),
        "strength": members.number("denoise", 0, 1),
    }
    return {field: value for field, value in fields.items() if value is not None}


def _size_fields(members: Members) -> dict[str, Any]:
    width, height = (
        members.integer(name, MIN_IMAGE_PIXELS_PER_SIDE, MAX_IMAGE_PIXELS_PER_SIDE) for name in ("width", "height")
    )
    if (width is None) != (height is None):
        missing = "width" if width is None else "height"
        raise invalid_field("NotEmpty", missing, f"'{missing}' must be given, too: the size has two sides")
    return {} if width is None else {"size": f"{width}x{height}"}
