"""What Gemini says where it fails, in OpenAI's words; the whole of it stands in a member named `google`.

Source: https://ai.google.dev/gemini-api/docs/troubleshooting https://google.aip.dev/193
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from aiserver.errors import UpstreamAnswer
from aiserver.providers.translation.completion import error_body
from aiserver.wire import json_scan

TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
NAMED_BY_CALLER = "CachedContent "  # how an error begins of what only a caller can have named
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


class _Refused(msgspec.Struct):
    error: _Error


_refused = msgspec.json.Decoder(_Refused)


def error(said: UpstreamAnswer) -> UpstreamAnswer:
    """An error in OpenAI's shape, alone or in an array. Raises: msgspec.DecodeError, where it is none of Google's."""
    body = json_scan.sole(said.body)
    told = _refused.decode(body).error
    status = said.status
    if said.is_success:
        status = told.code if 400 <= told.code < 600 else 500
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    param = "google" if told.message.startswith(NAMED_BY_CALLER) else None
    shaped = error_body(told.message, kind, told.status, {"google": Raw(body)}, param=param)
    return UpstreamAnswer(status, _headers(told.details) | said.headers, shaped)


def failure(code: int, status: str, message: str, root: Mapping[str, Any]) -> bytes:
    """An error as Google words one, for an answer that means one; `root` are its other members."""
    words = message or f"The answer ended by {status}"
    return msgspec.json.encode({"error": {"code": code, "message": words, "status": status}, **root})


def _headers(details: list[_Detail]) -> dict[str, str]:
    """What other vendors say in headers."""
    told: dict[str, str] = {}
    for detail in details:
        if _SECONDS.fullmatch(detail.retry_delay):
            told["retry-after"] = str(math.ceil(float(detail.retry_delay.removesuffix("s"))))
        if detail.request_id:
            told["x-request-id"] = detail.request_id
    return told
