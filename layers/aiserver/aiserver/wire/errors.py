"""The one error body, which AI Server's clients (`responseStatus`) and OpenAI's (`error`) both understand."""

from collections.abc import Mapping
from typing import Any

from aiserver.errors import (
    AiServerError,
    Conflict,
    FieldError,
    InvalidRequest,
    ProviderError,
    ProviderTimeout,
    UnsupportedMediaType,
)
from aiserver.limits import MAX_ERROR_BYTES
from aiserver.wire import json_scan, sse
from aiserver.wire import json_text as json_text
from aiserver.wire.render import RawJson, render

NO_META: Mapping[str, str] = {}


def render_error(error: AiServerError) -> bytes:
    """`{"responseStatus": {…}, "error": {…}}`; a provider's own error and other members are kept as they came."""
    if (
        isinstance(error, ProviderError)
        and error.upstream
        and (kept := _relay_upstream_body(error, error.upstream.body))
    ):
        return kept
    return render_envelope(error.error_code, error.message, error.type, error.code, error.param, error.fields)


def render_envelope(
    error_code: str,
    message: str,
    type: str,
    code: str,
    param: str | None = None,
    fields: tuple[FieldError, ...] = (),
) -> bytes:
    """The error body from its parts."""
    return render(
        {
            "responseStatus": response_status(error_code, message, fields),
            "error": {"message": message, "type": type, "code": code, "param": param},
        }
    )


def render_error_event(error: AiServerError) -> bytes:
    """The same as the last event of a stream that has begun: `data: {"error":{…},"responseStatus":{…}}`."""
    text = render_error(error)
    told = {m.key: text[m.value_start : m.value_end] for m in json_text.parse_members(text)}
    return sse.format_event(b'{"error":%b,"responseStatus":%b}' % (told["error"], told["responseStatus"]))


def error_headers(error: AiServerError) -> dict[str, str]:
    """What tells a client when, and whether, to try again; upstream's own word first."""
    told: dict[str, str] = {}
    if error.retry_after_s is not None:
        told["retry-after"] = str(error.retry_after_s)
    if isinstance(error, ProviderError) and error.upstream:
        told |= {k: v for k, v in error.upstream.headers.items() if k != "content-type"}
    if isinstance(error, UnsupportedMediaType):
        told["accept-encoding"] = "identity"  # RFC 9110, 12.5.3: of requests
    if not should_retry(error):
        told["x-should-retry"] = "false"
    return told


def should_retry(error: AiServerError) -> bool:
    """False where the official SDKs would repeat a call that cannot go better, or may already have been billed."""
    billed = isinstance(error, ProviderError) and error.may_be_billed
    return not (billed or isinstance(error, Conflict | ProviderTimeout) or error.code == "insufficient_quota")


def response_status(error_code: str, message: str, fields: tuple[FieldError, ...] = ()) -> dict[str, Any]:
    """AI Server's error; always with `errors` and `meta`, without which its Swift client decodes nothing of it."""
    listed = [
        {"errorCode": f.error_code, "fieldName": f.field_name, "message": f.message, "meta": NO_META} for f in fields
    ]
    return {"errorCode": error_code, "message": message, "errors": listed, "meta": NO_META}


def _relay_upstream_body(error: ProviderError, upstream: bytes) -> bytes | None:
    """The upstream's body, or the one object of its array, with responseStatus added.

    An error object is made where it said so some other way.
    """
    if len(upstream) > MAX_ERROR_BYTES:  # of a 200 that holds no answer
        return None
    try:
        text = json_text.encode_utf8(json_scan.unwrap_single(upstream))
        json_text.check_json(text)
    except InvalidRequest:
        return None
    if not text.lstrip().startswith(b"{"):
        return None
    members: dict[str, Any] = {}
    for member in json_text.parse_members(text):
        members[member.key] = RawJson(text[member.value_start : member.value_end])
    own = {"responseStatus": response_status(error.error_code, error.message)}
    if isinstance(error_object := members.get("error"), RawJson) and error_object.text.startswith(b"{"):
        return render(own | {k: v for k, v in members.items() if k != "responseStatus"})
    made = {"error": {"message": error.message, "type": error.type, "code": error.code, "param": error.param}}
    return render(own | made | {k: v for k, v in members.items() if k not in ("error", "responseStatus")})
