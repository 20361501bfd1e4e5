"""Maps Bedrock's errors to OpenAI's format.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/CommonErrors.html
"""

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.completion import build_error
from aiserver.providers.adapters.base.messages import decode_members
from aiserver.providers.adapters.bedrock.capabilities import (
    CONTENT_FAILURES,
    CREDENTIAL_ERRORS,
    STATUS_OVERRIDES,
    STATUSES,
    UNKNOWN_MODEL_PREFIXES,
)
from aiserver.providers.adapters.bedrock.request import ERROR_TYPE_HEADER
from aiserver.providers.response import ProviderResponse


class _Error(msgspec.Struct):
    message: str = ""
    capitalized_message: str = msgspec.field(name="Message", default="")
    original_message: str = msgspec.field(name="originalMessage", default="")


_error = msgspec.json.Decoder(_Error)


def map_error(response: ProviderResponse) -> ProviderResponse:
    """Map an error to OpenAI's format; a body that is not an error of Bedrock's stays unchanged.

    A header contains the error's type. In a stream the error is `{"<type>": {…}}`, and the type starts in lower case.
    """
    headers = {name: value for name, value in response.headers.items() if name != ERROR_TYPE_HEADER}
    type, status, body = response.headers.get(ERROR_TYPE_HEADER, "").partition(":")[0], response.status, response.body
    try:
        if response.is_success:
            ((name, body),) = decode_members(body).items()
            type = name if name in CONTENT_FAILURES else name[:1].upper() + name[1:]
            status = STATUSES.get(type, 500)
        status = 403 if type in CREDENTIAL_ERRORS else status
        details = _error.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return ProviderResponse(response.status, headers, response.body)
    message = details.message or details.capitalized_message or details.original_message
    if status == 400 and message.startswith(UNKNOWN_MODEL_PREFIXES):
        status = 404
    error = build_error(message, type, None, {"bedrock": Raw(response.body)})
    return ProviderResponse(STATUS_OVERRIDES.get(status, status), headers, error)
