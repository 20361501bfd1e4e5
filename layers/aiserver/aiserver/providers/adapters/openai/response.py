"""Checks complete responses of OpenAI's protocol, and model lists."""

import msgspec

from aiserver.errors import ProviderError
from aiserver.limits import MAX_EVENT_VALUES, MAX_USAGE_BYTES
from aiserver.operations import CHAT, Operation, ResponseKind
from aiserver.providers.adapters.openai.errors import (
    choice_error,
    empty_response_error,
    map_stream_error,
)
from aiserver.providers.call import Upstream
from aiserver.providers.error_mapping import map_error
from aiserver.providers.error_message import extract_message
from aiserver.providers.response import ProviderResponse
from aiserver.wire import json_scan
from aiserver.wire.json_text import count_values
from aiserver.wire.media_types import JSON, is_text, media_type


def check_response(
    upstream: Upstream,
    operation: Operation,
    kind: ResponseKind,
    response: ProviderResponse,
    *,
    retry_after_s: int | None,
) -> ProviderResponse:
    """Return a successful response of that kind with its usage. Raises: the ProviderError that a failed one means."""
    if not response.is_success:
        raise map_error(upstream, response, retry_after_s=retry_after_s)
    if kind is not ResponseKind.JSON:
        # The transcript of silence may be empty, but not an audio file.
        if media_type(response.content_type) == JSON:
            raise empty_response_error(upstream.provider, response.body, response.headers)
        if kind is ResponseKind.BYTES and (not response.body or is_text(response.content_type)):
            message = f"Provider {upstream.provider.name}: status 200 without audio"
            raise ProviderError(message, may_be_billed=True)
        return ProviderResponse(200, response.headers, response.body)
    members = json_scan.find_members(response.body, "usage")
    if members is None:
        raise _not_json_error(upstream, response)
    result = operation.result
    if result and not result.start.match(json_scan.member_view(response.body, result.member)):
        raise empty_response_error(upstream.provider, response.body, response.headers)
    if operation is CHAT and (error := _first_choice_error(response.body)):
        raise map_stream_error(upstream, error, has_content=True)
    return ProviderResponse(200, response.headers, response.body, usage=storable_usage(members.get("usage", b"")))


def storable_usage(text: bytes) -> str | None:
    """Return the JSON text of a usage object, None if it is not an object or too large to be stored with a job."""
    return text.decode() if text[:1] == b"{" and len(text) <= MAX_USAGE_BYTES else None


def parse_models(body: bytes) -> tuple[list[str], str | None]:
    """The ids in a model list, which has no further pages. Raises: msgspec.DecodeError, for another body."""
    models = _LIST.decode(body)
    models = models.data if isinstance(models, _ModelList) else models
    return [model.id for model in models], None


def _not_json_error(upstream: Upstream, response: ProviderResponse) -> ProviderError:
    detail = extract_message(response.body)
    message = f"Provider {upstream.provider.name}: the response is not valid JSON" + (f": {detail}" if detail else "")
    return ProviderError(message, may_be_billed=True)


def _first_choice_error(body: bytes) -> bytes:
    """Return the error of the first failed choice. Responses over MAX_EVENT_VALUES are not searched."""
    if b'"error"' not in body or count_values(body, MAX_EVENT_VALUES) > MAX_EVENT_VALUES:
        return b""
    try:
        choices = _FAILED_CHOICES.decode(body).choices
    except msgspec.DecodeError:
        return b""
    errors = (choice_error(bytes(choice.finish_reason), bytes(choice.error)) for choice in choices)
    return next(filter(None, errors), b"")


class _Model(msgspec.Struct):
    id: str


class _ModelList(msgspec.Struct):
    data: list[_Model]


class _FailedChoice(msgspec.Struct):
    finish_reason: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _FailedChoices(msgspec.Struct):
    choices: list[_FailedChoice] = []


_LIST = msgspec.json.Decoder(_ModelList | list[_Model])  # Together AI returns a bare list
_FAILED_CHOICES = msgspec.json.Decoder(_FailedChoices)
