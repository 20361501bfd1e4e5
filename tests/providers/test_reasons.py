"""Error messages of providers in any format, with the provider's API key masked."""

import base64
import html
import json
from urllib.parse import quote, unquote

import pytest

from aiserver.errors import ProviderError, ProviderRejected
from aiserver.limits import MAX_ERROR_BYTES, MAX_ERROR_MESSAGE_CHARS
from aiserver.providers.error_message import extract_message
from aiserver.providers.response import ProviderResponse
from aiserver.wire import errors as wire_errors
from local.scripted import ScriptedProvider
from tests.providers.calls import call_provider, provider
from tests.providers.fake_provider import FakeResponse
from tests.providers.streaming import DONE, chunk, serve_stream, stream_from
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.test_nonsense import CONTEXT, response_mapper

MESSAGE = "the context is too long"
SHAPES = {
    "openai": {"error": {"message": MESSAGE}},
    "error as a string": {"error": MESSAGE},
    "error as a list": {"error": [MESSAGE]},
    "error without a message": {"error": {"code": "x", "detail": MESSAGE}},
    "message as an object": {"error": {"message": {"text": None, "reason": MESSAGE}, "type": "t"}},
    "message as a list": {"error": {"message": [MESSAGE]}},
    "fastapi": {"detail": [{"type": "missing", "loc": ["body", "messages", 0], "msg": MESSAGE, "input": {"a": 1}}]},
    "detail": {"detail": MESSAGE},
    "mistral": {"object": "error", "message": {"detail": [{"loc": ["body"], "msg": MESSAGE}]}},
    "cloudflare": {"success": False, "errors": [{"code": 7003, "message": MESSAGE}], "messages": []},
    "error_msg": {"error_code": 336, "error_msg": MESSAGE},
    "aws": {"__type": "ValidationException", "Message": MESSAGE},
    "minimax": {"base_resp": {"status_code": 1004, "status_msg": MESSAGE}},
    "problem": {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": MESSAGE},
    "title": {"title": MESSAGE},
    "array": [{"error": {"message": MESSAGE}}],
    "array of two": [{"message": MESSAGE}, {}],
    "string": MESSAGE,
}
TEXTS = {
    "text": MESSAGE,
    "html": f"<html><head><style>b {{ a: b }}</style><title>x</title></head><body><b>{MESSAGE}</b></body></html>",
    "xml": f'<?xml version="1.0"?><Error><Code>Bad</Code><Message>{MESSAGE}</Message></Error>',
    "script without end": f"{MESSAGE}<script>" + "<script>" * 9000,
}
BODIES = {kind: json.dumps(shape).encode() for kind, shape in SHAPES.items()} | {
    kind: text.encode() for kind, text in TEXTS.items()
}


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_message_of_a_rejection_is_the_error_message(body: bytes, status: int, upstream: ScriptedProvider) -> None:
    upstream.respond_with(status, body)
    with pytest.raises(ProviderRejected) as rejection:
        call_provider(provider(upstream.base_url))
    rendered = json.loads(wire_errors.render_error(rejection.value))
    assert MESSAGE in rejection.value.message  # stored with a job
    assert MESSAGE in rendered["error"]["message"]
    assert MESSAGE in rendered["responseStatus"]["message"]
    assert "<" not in rejection.value.message


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
def test_rejection_in_another_format_keeps_the_vendor_s_message(dialect: Dialect, body: bytes) -> None:
    error = response_mapper(dialect).map_error(ProviderResponse(400, {}, body))
    rendered = json.loads(wire_errors.render_error(error))
    assert MESSAGE in error.message
    assert MESSAGE in rendered["error"]["message"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
def test_vendor_s_200_without_content_is_an_error_with_its_message(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(ProviderError) as failed:
        response_mapper(dialect).map_response(ProviderResponse(200, {}, body), CONTEXT)
    assert failed.value.status in (500, 502)
    assert failed.value.may_be_billed
    assert MESSAGE in failed.value.message


def test_error_object_keeps_its_members_beside_the_message(upstream: ScriptedProvider) -> None:
    upstream.respond_with(422, b'{"error":{"message":{"detail":"no"},"code":7,"x":2.50},"more":1E400}')
    with pytest.raises(ProviderRejected) as rejection:
        call_provider(provider(upstream.base_url))
    rendered = wire_errors.render_error(rejection.value)
    assert b'"x":2.50' in rendered
    assert b"1E400" in rendered
    assert json.loads(rendered)["error"] == {"message": "no", "code": 7, "x": 2.5}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"detail": "m" * (MAX_ERROR_BYTES - 100)}).encode(),
        json.dumps({"error": {"message": "m" * 100_000}}).encode(),
        json.dumps({"detail": [{"msg": "m" * 3000}] * 9}).encode(),
        b"m" * 100_000,
        b"<b>" + b"m " * 100_000,
    ],
)
def test_error_message_is_truncated_at_the_limit(body: bytes, upstream: ScriptedProvider) -> None:
    upstream.respond_with(400, body)
    with pytest.raises(ProviderRejected) as rejection:
        call_provider(provider(upstream.base_url))
    assert rejection.value.message.startswith(("m", "Provider p: status 400: m"))
    assert len(rejection.value.message) <= MAX_ERROR_MESSAGE_CHARS + 40


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'{"detail":[]}', b'{"message":7}', b'{"a":%b}' % (b"9" * 9000)]
)
def test_body_without_a_message_yields_an_empty_message(body: bytes) -> None:
    assert extract_message(body) == ""


# --- the provider's API key ---

KEY = 'sk-live-0123/45"67+89'
KEY_FORMS = {
    "bare": KEY,
    "bearer": f"Bearer {KEY}",
    "in a url": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
}


def error_from(response: FakeResponse, upstream: ScriptedProvider, key: str = KEY) -> ProviderError:
    upstream.respond_with(response.status, response.body, dict(response.headers))
    with pytest.raises(ProviderError) as failed:
        call_provider(provider(upstream.base_url), api_key=key)
    return failed.value


def visible_text(error: ProviderError) -> str:
    """Everything of an error that leaves the gateway."""
    return json.dumps(
        [
            wire_errors.render_error(error).decode(),
            wire_errors.render_error_event(error).decode(),
            wire_errors.error_headers(error),
            error.message,
        ]
    )


@pytest.mark.parametrize("form", KEY_FORMS.values(), ids=KEY_FORMS.keys())
@pytest.mark.parametrize("status", [200, 400, 422, 429, 500, 503, 504])
def test_api_key_repeated_in_an_error_is_masked(status: int, form: str, upstream: ScriptedProvider) -> None:
    body = json.dumps({"error": {"message": f"{MESSAGE}: {form}"}, "headers": [form]}).encode()
    error = error_from(FakeResponse(status, body, {"x-request-id": form, "x-ratelimit-key": form}), upstream)
    assert MESSAGE in error.message
    assert "[key]" in error.message
    for secret in (*KEY_FORMS.values(), json.dumps(form)[1:-1], json.dumps(json.dumps(form)[1:-1])[1:-1]):
        assert secret not in visible_text(error)


def error_body(key: str) -> str:
    return f'{{"error":{{"message":"{MESSAGE}: {key}"}}}}'


SPELLINGS = {
    "plain text": f"refused {KEY}",
    "html": f"<p>{html.escape(KEY)}</p>",
    "html, each as a decimal entity": f"<p>{''.join(f'&#{ord(char)};' for char in KEY)}</p>",
    "xml, each as a hexadecimal entity": f"<Message>{''.join(f'&#x{ord(char):X};' for char in KEY)}</Message>",
    "an array": json.dumps([KEY]),
    "detail": json.dumps({"detail": KEY}),
    "json, each escaped": error_body("".join(f"\\u{ord(char):04x}" for char in KEY)),
    "json, one escaped": error_body(json.dumps(KEY)[1:-1].replace("+", "\\u002B")),
    "json within json": error_body("".join(f"\\\\u{ord(char):04X}" for char in KEY)),
    "url, lower-case": error_body(quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b")),
    "url, the slash as it is": error_body(quote(KEY)),
    "url, each": error_body("".join(f"%{ord(char):02X}" for char in KEY)),
    "url, twice": error_body(quote(quote(KEY, safe=""), safe="")),
    "base64 of a header": error_body(base64.b64encode(f"Bearer {KEY}".encode()).decode()),
    "base64 of basic credentials": error_body(base64.b64encode(f"x:{KEY}!".encode()).decode()),
}
KEY_FRAGMENTS = ("0123", *(base64.b64encode(bytes(before) + KEY.encode()).decode()[4:-4] for before in range(3)))


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("status", [200, 400])
def test_api_key_in_any_spelling_in_an_error_is_masked(
    status: int, encoding: str, body: str, upstream: ScriptedProvider
) -> None:
    text = visible_text(error_from(FakeResponse(status, body.encode(encoding), {}), upstream))
    for variant in (text, unquote(unquote(text)), html.unescape(text), text.encode().decode("unicode_escape")):
        assert not [fragment for fragment in KEY_FRAGMENTS if fragment in variant]


def test_api_key_in_a_response_or_its_headers_is_masked(upstream: ScriptedProvider) -> None:
    upstream.respond_with(
        200, b'{"choices":[{}],"debug":"abcd-1234-efgh-5678"}', {"x-request-id": "r-abcd-1234-efgh-5678"}
    )
    response = call_provider(provider(upstream.base_url), api_key="abcd-1234-efgh-5678")
    assert response.body == b'{"choices":[{}],"debug":"[key]"}'
    assert response.headers["x-request-id"] == "r-[key]"


@pytest.mark.parametrize("key", ["lm-studio", "password", "17345678"])
def test_api_key_that_may_be_a_word_masks_nothing_in_a_response(key: str, upstream: ScriptedProvider) -> None:
    body = b'{"choices":[{"message":{"content":"open %b"}}],"created":1734567890}' % key.encode()
    upstream.respond_with(200, body)
    assert call_provider(provider(upstream.base_url), api_key=key).body == body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"prompt is too long"', "prompt is too long"),
        (b'{"error":{"message":"too long"}} trailing', "too long"),
        (b'{"error":{"message":"line\nbreak"}}', "line break"),
        (b"{'error': {'message': 'too long'}}", "too long"),
        (b"<Error><Message><![CDATA[a < b]]></Message></Error>", "a < b"),
        (b'{"error":"invalid_request","error_description":"no such scope"}', "no such scope"),
        (b'{"fault":{"faultstring":"Rate limit"}}', "Rate limit"),
        (b'{"errmsg":"no"}', "no"),
        (b'{"header":{"message":"no"}}', "no"),
        (b'{"Response":{"Error":{"Message":"no"}}}', "no"),
        (b'{"data":{"message":"no"}}', "no"),
        (b'{"status":{"message":"no"}}', "no"),
        (b'{"loc":[],"msg":"no"}', "no"),
    ],
)
def test_error_message_is_extracted_from_more_formats(body: bytes, message: str) -> None:
    assert message in extract_message(body)


@pytest.mark.parametrize("key", [None, "", "k", "choices"])
def test_short_api_key_masks_nothing(key: str | None, upstream: ScriptedProvider) -> None:
    body = b'{"choices":[{"k":"choices"}]}'
    upstream.respond_with(200, body)
    assert call_provider(provider(upstream.base_url), api_key=key).body == body


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("cut", [0, 9, 40])
def test_api_key_in_a_stream_error_is_masked_however_it_is_split(cut: int, is_first: bool) -> None:
    event = b"data: " + json.dumps({"error": {"message": f"{MESSAGE} {KEY}"}}).encode() + b"\n\n"
    first_event = b"" if is_first else chunk("hi")
    received, error = stream_from(serve_stream(first_event, event[:cut], event[cut:]), api_key=KEY)
    assert received == first_event
    assert error is not None
    assert MESSAGE in error.message
    assert "0123" not in visible_text(error)


def test_api_key_in_a_relayed_event_is_masked() -> None:
    event = chunk("hi", debug="abcd-1234-efgh-5678")
    received, error = stream_from(
        serve_stream(event[:-20], event[-20:], chunk(finish="stop"), DONE), api_key="abcd-1234-efgh-5678"
    )
    assert error is None
    assert received == event.replace(b"abcd-1234-efgh-5678", b"[key]") + chunk(finish="stop") + DONE
