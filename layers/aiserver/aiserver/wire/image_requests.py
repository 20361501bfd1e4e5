"""Binds OpenAI's requests for images: texts to draw, and images to edit or vary."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from aiserver import operations
from aiserver.operations import Operation
from aiserver.wire import forms
from aiserver.wire.form_requests import STREAM_FIELDS, bind_form, check_is_file, check_single, missing_file
from aiserver.wire.forms import Part
from aiserver.wire.image_files import check_image
from aiserver.wire.requests import ModelRequest, bind_json, root_members
from aiserver.wire.schemas import IMAGE_EDITS, IMAGES, fold_name
from aiserver.wire.validation import invalid_field

IMAGE, MASK = "image", "mask"
_INDEX = re.compile(r"\[\d*\]$")  # `image[]` is how the SDKs send a list; some clients send `mask[]`
_SINGLE_FIELDS = ("prompt", "n", "size")
URL_SCHEMES = ("https://", "http://", "data:")
# Members of a JSON body with references to images, and of a reference beside its URL; servers may ignore case.
REFERENCES = ("images", IMAGE, "imageurl", "imageurls", "referenceimages", MASK, "maskimage")
TEXT_MEMBERS = ("fileid", "type", "detail")


def is_image_part(part: Part) -> bool:
    """Whether a part of a form is an image to edit: `image`, `image[]` or `image[0]`."""
    return _INDEX.sub("", part.name) == IMAGE


def bind_generation(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a JSON body of OpenAI's image generations. Raises: InvalidRequest."""
    if forms.is_form(content_type):
        raise forms.invalid_form("The request body must be JSON")
    return bind_json(operations.IMAGES, body, IMAGES, STREAM_FIELDS if is_queued else ())


def bind_edit(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind OpenAI's image edits: a form with files, or JSON with references to images. Raises: InvalidRequest."""
    if forms.is_form(content_type):
        return _bind_files(operations.IMAGE_EDITS, body, content_type, is_queued=is_queued)
    request = bind_json(operations.IMAGE_EDITS, body, IMAGE_EDITS, STREAM_FIELDS if is_queued else ())
    values = [
        (member.key, json.loads(request.body[member.value_start : member.value_end]))
        for member in root_members(request.body)
        if fold_name(member.key.removesuffix("[]")) in REFERENCES
    ]
    if all(value in (None, [], {}) for key, value in values if not key.lower().startswith(MASK)):
        raise invalid_field("NotEmpty", "images", "'images' is required: the images to edit, or a form with files")
    for key, value in values:
        _check_references(key, value)
    return request


def _check_references(name: str, value: Any) -> None:
    """Raises: InvalidRequest, for a reference that is not a URL: some servers read it as the path of a local file."""
    if isinstance(value, dict):
        for key, member in cast(dict[str, Any], value).items():
            if fold_name(key) not in TEXT_MEMBERS:
                _check_references(f"{name}.{key}", member)
    elif isinstance(value, list):
        for index, item in enumerate(cast(list[Any], value)):
            _check_references(f"{name}[{index}]", item)
    elif isinstance(value, str) and not value.lower().startswith(URL_SCHEMES):
        raise invalid_field("InvalidImage", name, f"'{name}' must be a URL: https://… or data:…")


def bind_variation(body: bytes, content_type: str, *, is_queued: bool = False) -> ModelRequest:
    """Bind a form of OpenAI's image variations. Raises: InvalidRequest."""
    return _bind_files(operations.IMAGE_VARIATIONS, body, content_type, is_queued=is_queued)


def _bind_files(operation: Operation, body: bytes, content_type: str, *, is_queued: bool) -> ModelRequest:
    def check(parts: list[Part]) -> list[Part]:
        parts = [replace(part, name=MASK) if _INDEX.sub("", part.name) == MASK else part for part in parts]
        check_single(parts, (*_SINGLE_FIELDS, MASK))
        if operation is operations.IMAGE_EDITS and not forms.text_value(parts, "prompt"):
            raise invalid_field("NotEmpty", "prompt", "'prompt' must not be empty")
        return _check_images(parts)

    return bind_form(operation, body, content_type, check, is_queued=is_queued)


def _check_images(parts: Sequence[Part]) -> list[Part]:
    """The parts with typed image files. Raises: InvalidRequest, unless there is an image, and every file is one."""
    if not any(is_image_part(part) for part in parts):
        raise missing_file(parts, IMAGE, "the image to edit")
    checked: list[Part] = []
    for part in parts:
        is_image = is_image_part(part) or part.name == MASK
        if is_image:
            check_is_file(part)
        checked.append(check_image(part) if is_image else part)
    return checked
