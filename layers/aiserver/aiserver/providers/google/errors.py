"""What Gemini says where it fails, in OpenAI's words; the whole of it stands in a member named `google`.

Source: https://ai.google.dev/gemini-api/docs/troubleshooting https://google.aip.dev/193
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.errors import ProviderResponse
from aiserver.providers.translation.completion import build_error
from aiserver.wire import json_scan

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CALLER_RESOURCE_PREFIX = "CachedContent "  # how an error begins of what only a caller can have named
_SECONDS = re.compile(r"\d{1,9}(\.\d+)?s")


class _Detail(msgspec.Struct, rename="camel"):
    """https://github.com/googleapis/googleapis/blob/master/google/rpc/error_details.proto"""

    retry_delay: str = ""
    request_id: str = ""


class _Error(msgspec.Struct):
    code: int = 0
    message: str = ""
    status: str | None = None
    details: list[_Detail] = []


class _ErrorBody(msgspec.Struct):
    error: _Error


_error_body = msgspec.json.Decoder(_ErrorBody)


def map_error(response: ProviderResponse) -> ProviderResponse:
    """An error in OpenAI's shape, alone or in an array. Raises: msgspec.DecodeError, where it is none of Google's."""
    body = json_scan.unwrap_single(response.body)
    told = _error_body.decode(body).error
    status = response.status
    if response.is_success:
        status = told.code if 400 <= told.code < 600 else 500
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = "google" if told.message.startswith(CALLER_RESOURCE_PREFIX) else None
    shaped = build_error(told.message, kind, told.status, {"google": Raw(body)}, param=param)
    return ProviderResponse(status, _detail_headers(told.details) | response.headers, shaped)


def build_error_body(code: int, status: str, message: str, root: Mapping[str, Any]) -> bytes:
    """An error as Google words one, for an answer that means one; `root` are its other members."""
    words = message or f"The answer ended by {status}"
    return msgspec.json.encode({"error": {"code": code, "message": words, "status": status}, **root})


def _detail_headers(details: list[_Detail]) -> dict[str, str]:
    """What other vendors say in headers."""
    told: dict[str, str] = {}
    for detail in details:
        if _SECONDS.fullmatch(detail.retry_delay):
            told["retry-after"] = str(math.ceil(float(detail.retry_delay.removesuffix("s"))))
        if detail.request_id:
            told["x-request-id"] = detail.request_id
    return told
