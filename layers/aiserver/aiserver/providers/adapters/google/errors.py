"""Maps Gemini's errors to OpenAI's format; the complete error goes into `google`.

Source: https://ai.google.dev/gemini-api/docs/troubleshooting https://google.aip.dev/193
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.adapters.base.completion import build_error
from aiserver.providers.response import ProviderResponse
from aiserver.wire import json_scan

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
CALLER_RESOURCE_PREFIX = "CachedContent "  # of messages about a resource that the caller named
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
    """Map an error, also in an array, to OpenAI's format. Raises: msgspec.DecodeError, when it is not an error."""
    body = json_scan.unwrap_single(response.body)
    error = _error_body.decode(body).error
    status = response.status
    if response.is_success:
        status = error.code if 400 <= error.code < 600 else 500
    error_type = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = "google" if error.message.startswith(CALLER_RESOURCE_PREFIX) else None
    openai_error = build_error(error.message, error_type, error.status, {"google": Raw(body)}, param=param)
    return ProviderResponse(status, _detail_headers(error.details) | response.headers, openai_error)


def build_error_body(code: int, status: str, message: str, root: Mapping[str, Any]) -> bytes:
    """An error in Google's format for a response that failed; `root` contains the response's other members."""
    error_message = message or f"The response ended with finish reason {status}"
    return msgspec.json.encode({"error": {"code": code, "message": error_message, "status": status}, **root})


def _detail_headers(details: list[_Detail]) -> dict[str, str]:
    """The retry delay in seconds and the request id, as headers."""
    headers: dict[str, str] = {}
    for detail in details:
        if _SECONDS.fullmatch(detail.retry_delay):
            headers["retry-after"] = str(math.ceil(float(detail.retry_delay.removesuffix("s"))))
        if detail.request_id:
            headers["x-request-id"] = detail.request_id
    return headers
