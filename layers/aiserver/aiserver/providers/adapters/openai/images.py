"""Requests and responses for images: the size, masks and optional members of other providers, and usage in images.

Source: https://platform.openai.com/docs/api-reference/images
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from aiserver.operations import IMAGE_EDITS
from aiserver.providers.adapters.openai.media import MediaRules, render_usage, with_settings
from aiserver.providers.adapters.openai.request import build_json, build_request
from aiserver.providers.adapters.openai.response import storable_usage
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.catalogue import ImageFacts
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire import forms, json_scan, json_text
from aiserver.wire.aiserver_images import HINTS
from aiserver.wire.binding import scalar_value
from aiserver.wire.forms import Part
from aiserver.wire.image_files import has_transparency
from aiserver.wire.image_requests import IMAGE, MASK, is_image_part
from aiserver.wire.image_responses import count_images
from aiserver.wire.media_types import is_form
from aiserver.wire.validation import invalid_field

AUTO_SIZE = "auto"
SIZE_MEMBERS = {"size", "width", "height", "aspect_ratio"}
LIST_NAME = f"{IMAGE}[]"
_COUNT = re.compile(r"[0-9]{1,9}")
_SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")

Fields = Mapping[str, Any]  # the scalar members of a JSON body, or the text fields of a form, by name


@dataclass(frozen=True)
class ImageExchange:
    """The MediaExchange of images."""

    request: ProviderRequest
    ignored: tuple[str, ...] = ()

    def map_text(self, response: ProviderResponse) -> ProviderResponse:
        return response

    def usage(self, body: bytes, end_events: int) -> str | None:
        return image_usage(body, end_events)


def check_images(upstream: Upstream, call: ProviderCall) -> None:
    """Raises: InvalidRequest, for a format, number, size or mask that the provider is known not to support."""
    facts = upstream.provider.catalogue_preset.image_facts_of(upstream.model)
    provider, has_form = f"provider {upstream.provider.name}", is_form(call.content_type)
    parts = forms.parse_form(call.body, call.content_type) if has_form else []
    fields = {**upstream.settings, **(_form_fields(parts) if has_form else _json_fields(call.body))}
    if call.operation is IMAGE_EDITS and not (has_form or facts.accepts_json):
        raise invalid_field("InvalidForm", "image", f"Edits by {provider} need a form with files")
    count = str(fields.get("n", ""))
    if facts.max_images and _COUNT.fullmatch(count) and int(count) > facts.max_images:
        name = "batchSize" if call.is_aiserver else "n"
        message = f"'{name}' must be at most {facts.max_images} for model {upstream.model} of {provider}"
        raise invalid_field("InvalidRange", name, message)
    size = str(fields.get("size") or AUTO_SIZE)
    if facts.size != "size" and size != AUTO_SIZE and not _SIZE.fullmatch(size):
        raise invalid_field("InvalidRange", "size", f"'size' must be two numbers such as 1024x768, for {provider}")
    if call.operation is IMAGE_EDITS and has_form:
        _check_mask(facts, next((part for part in parts if part.name == MASK), None), provider, call)


def _check_mask(facts: ImageFacts, mask: Part | None, provider: str, call: ProviderCall) -> None:
    """Raises: InvalidRequest, for a mask that the provider would ignore, or read as its opposite."""
    if mask is None:
        problem = "is required: {} edits only the area of a mask" if facts.needs_mask else ""
    elif facts.mask == "none":
        problem = "is not supported: {} ignores it"
    elif facts.mask == "transparent" and not has_transparency(mask.content):
        problem = "has no transparency: {} edits the transparent pixels of a mask"
    elif facts.mask == "white" and not call.is_aiserver and has_transparency(mask.content):
        problem = "has transparency: {} edits the white pixels of a mask"
    else:
        problem = ""
    if problem:
        raise invalid_field("InvalidImage", MASK, f"'{MASK}' {problem.format(provider)}")


def prepare_images(upstream: Upstream, call: ProviderCall) -> ImageExchange:
    """The request for a provider, with the names and settings of its model, in the provider's dialect."""
    facts = upstream.provider.catalogue_preset.image_facts_of(upstream.model)
    upstream = _without_other_sizes(upstream, call)
    if is_form(call.content_type):
        parts = forms.with_value(forms.parse_form(call.body, call.content_type), "model", upstream.model)
        hints = _hints(_form_fields(parts), call)
        parts = with_settings(parts, upstream.settings)
        changes = field_changes(facts, _form_fields(parts), hints)
        body, content_type = forms.encode_form(_change_parts(facts, parts, changes.fields))
    else:
        body, content_type = build_json(upstream, call), call.content_type
        hints = _hints(_json_fields(call.body), call)
        changes = field_changes(facts, _json_fields(body), hints)
        body = _change_members(body, changes.fields)
    return ImageExchange(build_request(upstream, call, body, content_type), changes.ignored)


@dataclass(frozen=True)
class Changes:
    """Fields to set, or to remove (None), and the members of AI Server's request that are left out."""

    fields: dict[str, Any]
    ignored: tuple[str, ...] = ()


def field_changes(facts: ImageFacts, fields: Fields, hints: Fields) -> Changes:
    """What a provider's dialect changes in the fields of a request.

    `hints` are the optional members that the caller of an AI Server request has given; empty for OpenAI's requests.
    """
    changes = _size_changes(facts, fields)
    if fields.get("response_format") == "b64_json" != facts.base64_format:
        changes["response_format"] = facts.base64_format or None
    changes |= dict.fromkeys(hints)
    if facts.prompt_element and hints:
        element, text = facts.prompt_element, json.dumps(hints).replace("<", "\\u003c")  # which would end the element
        changes["prompt"] = f"{fields['prompt']}<{element}>{text}</{element}>"
        return Changes(changes)
    if facts.negative_separator and "negative_prompt" in hints:
        changes["prompt"] = f"{fields['prompt']}{facts.negative_separator}{hints['negative_prompt']}"
        hints = {name: value for name, value in hints.items() if name != "negative_prompt"}
    changes |= {facts.optional[name]: value for name, value in hints.items() if name in facts.optional}
    return Changes(changes, tuple(HINTS[name] for name in hints if name not in facts.optional))


def _without_other_sizes(upstream: Upstream, call: ProviderCall) -> Upstream:
    """The upstream without settings of the size, if the caller gives one in any member."""
    has_form = is_form(call.content_type)
    fields = _form_fields(forms.parse_form(call.body, call.content_type)) if has_form else _json_fields(call.body)
    if not fields.keys() & SIZE_MEMBERS:
        return upstream
    return replace(upstream, settings={k: value for k, value in upstream.settings.items() if k not in SIZE_MEMBERS})


def _hints(fields: Fields, call: ProviderCall) -> Fields:
    """The optional members of an AI Server request, as JSON values also where a form has them as text."""
    numbers = {"seed": int, "strength": float}
    names = [name for name in HINTS if name in fields and call.is_aiserver]
    return {name: numbers.get(name, str)(fields[name]) for name in names}


def _size_changes(facts: ImageFacts, fields: Fields) -> dict[str, Any]:
    """The size in the provider's members, unless the caller has given these."""
    size = _SIZE.fullmatch(str(fields.get("size")))
    if facts.size == "size" or "size" not in fields:
        return {}
    width, height = (int(size[1]), int(size[2])) if size else (0, 0)
    if not size or fields.keys() & {"width", "height", "aspect_ratio"}:
        return {"size": None}
    if facts.size == "aspect_ratio":
        divisor = math.gcd(width, height)
        return {"size": None, "aspect_ratio": f"{width // divisor}:{height // divisor}"}
    return {"size": None, "width": width, "height": height}


def _json_fields(body: bytes) -> Fields:
    return {member.key: scalar_value(body, member) for member in json_text.parse_members(body)}


def _form_fields(parts: Sequence[Part]) -> Fields:
    return {part.name: part.text for part in parts if not part.is_file}


def _change_members(body: bytes, changes: Fields) -> bytes:
    body = json_text.without_members(body, changes.keys())
    for name, value in changes.items():
        if value is not None:
            body = json_text.with_member(body, name, json.dumps(value).encode())
    return body


def _change_parts(facts: ImageFacts, parts: Sequence[Part], changes: Fields) -> list[Part]:
    kept = [part for part in parts if part.is_file or part.name not in changes]
    added = [Part(name, str(value).encode()) for name, value in changes.items() if value is not None]
    renamed = [replace(part, name=_part_name(facts, part)) if part.is_file else part for part in kept]
    files = [part for part in renamed if part.is_file]  # after the fields, as the SDKs send them
    return [*(part for part in renamed if not part.is_file), *added, *files] if added else renamed


def _part_name(facts: ImageFacts, part: Part) -> str:
    if is_image_part(part):
        return facts.image_part or (part.name if part.name == IMAGE else LIST_NAME)
    return facts.mask_part if part.name == MASK else part.name


def image_usage(body: bytes, end_events: int) -> str | None:
    """The provider's usage, and the number of images of a response, or of the events that completed one."""
    usage = storable_usage((json_scan.find_members(body, "usage") or {}).get("usage", b""))
    count = end_events or count_images(body)
    return render_usage({"images": count} if count else {}, usage)


IMAGE_RULES = MediaRules(check_images, prepare_images)
