"""The error body: `responseStatus` for AI Server's clients, `error` for OpenAI's."""

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
    """`{"responseStatus": {…}, "error": {…}}`; a provider's error and its other members are relayed unchanged."""
    if (
        isinstance(error, ProviderError)
        and error.upstream
        and (relayed_body := _relay_upstream_body(error, error.upstream.body))
    ):
        return relayed_body
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
    """The error as the last event of an open stream: `data: {"error":{…},"responseStatus":{…}}`."""
    body = render_error(error)
    members = {member.key: body[member.value_start : member.value_end] for member in json_text.parse_members(body)}
    return sse.format_event(b'{"error":%b,"responseStatus":%b}' % (members["error"], members["responseStatus"]))


def error_headers(error: AiServerError) -> dict[str, str]:
    """Headers that control a client's retries; the upstream's headers take precedence."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(error.retry_after_s)
    if isinstance(error, ProviderError) and error.upstream:
        headers |= {name: value for name, value in error.upstream.headers.items() if name != "content-type"}
    if isinstance(error, UnsupportedMediaType):
        headers["accept-encoding"] = "identity"  # supported in requests: RFC 9110, 12.5.3
    if not should_retry(error):
        headers["x-should-retry"] = "false"
    return headers


def should_retry(error: AiServerError) -> bool:
    """False where a retry by the official SDKs cannot succeed, or where the call may already be billed."""
    may_be_billed = isinstance(error, ProviderError) and error.may_be_billed
    return not (may_be_billed or isinstance(error, Conflict | ProviderTimeout) or error.code == "insufficient_quota")


def response_status(error_code: str, message: str, fields: tuple[FieldError, ...] = ()) -> dict[str, Any]:
    """AI Server's error; always with `errors` and `meta`, because its Swift client cannot decode it without them."""
    errors = [
        {"errorCode": f.error_code, "fieldName": f.field_name, "message": f.message, "meta": NO_META} for f in fields
    ]
    return {"errorCode": error_code, "message": message, "errors": errors, "meta": NO_META}


def _relay_upstream_body(error: ProviderError, upstream: bytes) -> bytes | None:
    """The upstream's JSON object, or the only object of its array, with `responseStatus` added; None for other bodies.

    An OpenAI error object replaces an `error` that is not an object.
    """
    if len(upstream) > MAX_ERROR_BYTES:  # possible for a 200 without a valid response
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
    members.pop("responseStatus", None)
    envelope: dict[str, Any] = {"responseStatus": response_status(error.error_code, error.message)}
    error_object = members.get("error")
    if not (isinstance(error_object, RawJson) and error_object.text.startswith(b"{")):
        members.pop("error", None)
        envelope["error"] = {"message": error.message, "type": error.type, "code": error.code, "param": error.param}
    return render(envelope | members)
