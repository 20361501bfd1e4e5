"""The error body, and the tree of error classes that determines its content."""

import json
import re

import pytest

from aiserver import errors
from aiserver.errors import (
    AiServerError,
    Conflict,
    FieldError,
    InvalidRequest,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    UnsupportedMediaType,
)
from aiserver.providers.response import ProviderResponse
from aiserver.wire import errors as wire_errors


def error_classes() -> list[type[AiServerError]]:
    classes: list[type[AiServerError]] = [AiServerError]
    for kind in classes:
        classes += kind.__subclasses__()
    return [kind for kind in classes if kind.__module__ == errors.__name__]


def test_docstring_drawing_matches_the_error_classes() -> None:
    lines = re.findall(r"^( *)[*x+-] (\w+) +(\d+) +(\w+)", errors.__doc__ or "", re.MULTILINE)
    parents: dict[int, str] = {}  # the last name at each indent
    documented: set[tuple[str, int, str, str | None]] = set()
    for indent, name, status, code in lines:
        documented.add((name, int(status), code, parents.get(len(indent) - 2)))
        parents[len(indent)] = name
    actual = {
        (kind.__name__, kind.status, kind.error_code, None if kind is AiServerError else kind.__base__.__name__)  # pyright: ignore
        for kind in error_classes()
    }
    assert documented == actual


def test_error_body_contains_both_dialects() -> None:
    error = InvalidRequest(
        "'messages' must not be empty", param="messages", fields=(FieldError("NotEmpty", "Messages", "m"),)
    )
    assert json.loads(wire_errors.render_error(error)) == {
        "responseStatus": {
            "errorCode": "ValidationException",
            "message": "'messages' must not be empty",
            "errors": [{"errorCode": "NotEmpty", "fieldName": "Messages", "message": "m", "meta": {}}],
            "meta": {},
        },
        "error": {
            "message": "'messages' must not be empty",
            "type": "invalid_request_error",
            "code": "invalid_request",
            "param": "messages",
        },
    }


@pytest.mark.parametrize(
    ("upstream", "expected"),
    [
        (
            b'{"error":{"message":"no","type":"t","code":null,"x":1.0},"extra":2.50}',
            b'"error":{"message":"no","type":"t","code":null,"x":1.0},"extra":2.50}',
        ),
        (b'{"error":"no","trace":[1]}', b'"trace":[1]}'),
        (b'{"detail":"no"}', b'"detail":"no"}'),
        (b'{"object":"error","message":"no"}', b'"object":"error","message":"no"}'),
    ],
)
def test_upstream_error_keeps_its_members(upstream: bytes, expected: bytes) -> None:
    error = ProviderRejected("no", upstream=ProviderResponse(418, {}, upstream))
    body = wire_errors.render_error(error)
    assert body.endswith(expected)
    document = json.loads(body)
    assert error.status == 418
    assert (document["error"]["message"], document["responseStatus"]["message"]) == ("no", "no")
    assert (document["responseStatus"]["errors"], document["responseStatus"]["meta"]) == ([], {})


@pytest.mark.parametrize("upstream", [b"<html>teapot</html>", b"", b"[]", b"\xff", b'"error"'])
def test_upstream_error_without_json_object_gets_a_generated_body(upstream: bytes) -> None:
    body = json.loads(wire_errors.render_error(ProviderError("bad", upstream=ProviderResponse(502, {}, upstream))))
    assert body["error"] == {"message": "bad", "type": "server_error", "code": "provider_error"}


@pytest.mark.parametrize(
    ("error", "may_retry"),
    [
        (Conflict(), False),
        (ProviderTimeout(), False),
        (ProviderError(may_be_billed=True), False),
        (ProviderRateLimited(code="insufficient_quota"), False),
        (ProviderRateLimited(retry_after_s=3), True),
        (ProviderError(), True),
    ],
)
def test_should_retry_header_forbids_useless_or_billed_retries(error: AiServerError, may_retry: bool) -> None:
    assert (wire_errors.error_headers(error).get("x-should-retry") != "false") == may_retry


def test_unsupported_media_type_lists_the_accepted_encoding() -> None:
    assert wire_errors.error_headers(UnsupportedMediaType("no")) == {"accept-encoding": "identity"}


def test_upstream_rate_limit_headers_are_forwarded() -> None:
    upstream = ProviderResponse(429, {"retry-after": "7", "x-ratelimit-limit": "1", "content-type": "text/x"}, b"{}")
    headers = wire_errors.error_headers(ProviderRateLimited("slow", upstream=upstream, retry_after_s=7))
    assert headers == {"retry-after": "7", "x-ratelimit-limit": "1"}
