"""Maps Anthropic's errors to OpenAI's format.

Source: https://platform.claude.com/docs/en/api/errors
"""

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.anthropic.capabilities import STATUSES
from aiserver.providers.adapters.base.completion import build_error
from aiserver.providers.response import ProviderResponse

CALLER_RESOURCE_PREFIXES = ("File ", "Container ")  # of messages about resources that the caller named


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""


class _ErrorBody(msgspec.Struct):
    error: _Error
    request_id: str | None = None


_error_body = msgspec.json.Decoder(_ErrorBody)


def map_error(response: ProviderResponse) -> ProviderResponse:
    """Map an error to OpenAI's format. Raises: msgspec.DecodeError, when the body is not an error of Anthropic's."""
    error_body = _error_body.decode(response.body)
    error = error_body.error
    status = STATUSES.get(error.type, 500) if response.is_success else response.status
    headers = ({"x-request-id": error_body.request_id} if error_body.request_id else {}) | response.headers
    return ProviderResponse(status, headers, _error(error, Raw(response.body)))


def _error(error: _Error, original: Raw) -> bytes:
    names_caller_resource = error.message.startswith(CALLER_RESOURCE_PREFIXES)
    return build_error(
        error.message, error.type, None, {"anthropic": original}, param="anthropic" if names_caller_resource else None
    )
