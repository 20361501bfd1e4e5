"""The one error body, and the tree that decides what it says."""

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
    ProviderResponse,
    ProviderTimeout,
    UnsupportedMediaType,
)
from aiserver.wire import errors as wire_errors


def tree() -> list[type[AiServerError]]:
    found: list[type[AiServerError]] = [AiServerError]
    for kind in found:
        found += kind.__subclasses__()
    return [kind for kind in found if kind.__module__ == errors.__name__]


def test_the_drawing_of_the_tree_is_the_tree() -> None:
    drawn = re.findall(r"^( *)[*x+-] (\w+) +(\d+) +(\w+)", errors.__doc__ or "", re.MULTILINE)
    above: dict[int, str] = {}  # the last name at each indent
    said: set[tuple[str, int, str, str | None]] = set()
    for indent, name, status, code in drawn:
        said.add((name, int(status), code, above.get(len(indent) - 2)))
        above[len(indent)] = name
    true = {
        (kind.__name__, kind.status, kind.error_code, None if kind is AiServerError else kind.__base__.__name__)  # pyright: ignore
        for kind in tree()
    }
    assert said == true


def test_both_vocabularies_stand_in_one_body() -> None:
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
def test_an_upstream_s_error_keeps_its_own_members(upstream: bytes, expected: bytes) -> None:
    error = ProviderRejected("no", upstream=ProviderResponse(418, {}, upstream))
    body = wire_errors.render_error(error)
    assert body.endswith(expected)
    told = json.loads(body)
    assert error.status == 418
    assert (told["error"]["message"], told["responseStatus"]["message"]) == ("no", "no")
    assert (told["responseStatus"]["errors"], told["responseStatus"]["meta"]) == ([], {})


@pytest.mark.parametrize("upstream", [b"<html>teapot</html>", b"", b"[]", b"\xff", b'"error"'])
def test_an_upstream_that_speaks_no_json_gets_an_error_made(upstream: bytes) -> None:
    body = json.loads(wire_errors.render_error(ProviderError("bad", upstream=ProviderResponse(502, {}, upstream))))
    assert body["error"] == {"message": "bad", "type": "server_error", "code": "provider_error"}


@pytest.mark.parametrize(
    ("error", "repeat"),
    [
        (Conflict(), False),
        (ProviderTimeout(), False),
        (ProviderError(may_be_billed=True), False),
        (ProviderRateLimited(code="insufficient_quota"), False),
        (ProviderRateLimited(retry_after_s=3), True),
        (ProviderError(), True),
    ],
)
def test_sdks_are_told_not_to_repeat_what_may_be_billed_or_cannot_go_better(error: AiServerError, repeat: bool) -> None:
    assert (wire_errors.error_headers(error).get("x-should-retry") != "false") == repeat


def test_a_compressed_body_is_told_which_content_encoding_is_taken() -> None:
    assert wire_errors.error_headers(UnsupportedMediaType("no")) == {"accept-encoding": "identity"}


def test_the_upstream_s_own_words_on_waiting_are_relayed() -> None:
    upstream = ProviderResponse(429, {"retry-after": "7", "x-ratelimit-limit": "1", "content-type": "text/x"}, b"{}")
    told = wire_errors.error_headers(ProviderRateLimited("slow", upstream=upstream, retry_after_s=7))
    assert told == {"retry-after": "7", "x-ratelimit-limit": "1"}
