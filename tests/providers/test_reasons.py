"""Why a provider refused a request, in whatever shape it says so; and never with its own key in it."""

import base64
import html
import json
from urllib.parse import quote, unquote

import pytest

from aiserver.errors import ProviderError, ProviderRejected, ProviderResponse
from aiserver.limits import MAX_ERROR_BYTES, MAX_REASON_CHARS
from aiserver.providers.error_message import extract_message
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.wire import errors as wire_errors
from local.scripted import ScriptedProvider
from tests import hostile_servers
from tests.fakes import FakeClock
from tests.providers.calls import ask, provider
from tests.providers.fake_provider import Said
from tests.providers.streaming import DONE, QUESTION, chunk, heard, streams
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.test_nonsense import BORN, judge

WORDS = "the context is too long"
SHAPES = {
    "openai": {"error": {"message": WORDS}},
    "error as a string": {"error": WORDS},
    "error as a list": {"error": [WORDS]},
    "error without a message": {"error": {"code": "x", "detail": WORDS}},
    "message as an object": {"error": {"message": {"text": None, "reason": WORDS}, "type": "t"}},
    "message as a list": {"error": {"message": [WORDS]}},
    "fastapi": {"detail": [{"type": "missing", "loc": ["body", "messages", 0], "msg": WORDS, "input": {"a": 1}}]},
    "detail": {"detail": WORDS},
    "mistral": {"object": "error", "message": {"detail": [{"loc": ["body"], "msg": WORDS}]}},
    "cloudflare": {"success": False, "errors": [{"code": 7003, "message": WORDS}], "messages": []},
    "error_msg": {"error_code": 336, "error_msg": WORDS},
    "aws": {"__type": "ValidationException", "Message": WORDS},
    "minimax": {"base_resp": {"status_code": 1004, "status_msg": WORDS}},
    "problem": {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": WORDS},
    "title": {"title": WORDS},
    "array": [{"error": {"message": WORDS}}],
    "array of two": [{"message": WORDS}, {}],
    "string": WORDS,
}
TEXTS = {
    "text": WORDS,
    "html": f"<html><head><style>b {{ a: b }}</style><title>x</title></head><body><b>{WORDS}</b></body></html>",
    "xml": f'<?xml version="1.0"?><Error><Code>Bad</Code><Message>{WORDS}</Message></Error>',
    "script without end": f"{WORDS}<script>" + "<script>" * 9000,
}
BODIES = {kind: json.dumps(shape).encode() for kind, shape in SHAPES.items()} | {
    kind: text.encode() for kind, text in TEXTS.items()
}


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_the_reason_of_a_refusal_is_the_error_message(body: bytes, status: int, upstream: ScriptedProvider) -> None:
    upstream.answer_with(status, body)
    with pytest.raises(ProviderRejected) as refused:
        ask(provider(upstream.base_url))
    told = json.loads(wire_errors.render_error(refused.value))
    assert WORDS in refused.value.message  # kept with a job
    assert WORDS in told["error"]["message"]
    assert WORDS in told["responseStatus"]["message"]
    assert "<" not in refused.value.message


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("dialect", DIALECTS, ids=name)
def test_the_reason_of_a_vendor_s_refusal_in_another_shape_is_told(dialect: Dialect, body: bytes) -> None:
    error = judge(dialect).map_error(ProviderResponse(400, {}, body))
    told = json.loads(wire_errors.render_error(error))
    assert WORDS in error.message
    assert WORDS in told["error"]["message"]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("dialect", DIALECTS, ids=name)
def test_a_vendor_s_200_without_an_answer_is_an_error_with_its_reason(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(ProviderError) as failed:
        judge(dialect).map_response(ProviderResponse(200, {}, body), BORN)
    assert failed.value.status in (500, 502)
    assert failed.value.may_be_billed
    assert WORDS in failed.value.message


def test_an_own_error_object_keeps_its_members_beside_the_message(upstream: ScriptedProvider) -> None:
    upstream.answer_with(422, b'{"error":{"message":{"detail":"no"},"code":7,"x":2.50},"more":1E400}')
    with pytest.raises(ProviderRejected) as refused:
        ask(provider(upstream.base_url))
    told = wire_errors.render_error(refused.value)
    assert b'"x":2.50' in told
    assert b"1E400" in told
    assert json.loads(told)["error"] == {"message": "no", "code": 7, "x": 2.5}


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
def test_a_reason_is_cut_where_it_is_too_long(body: bytes, upstream: ScriptedProvider) -> None:
    upstream.answer_with(400, body)
    with pytest.raises(ProviderRejected) as refused:
        ask(provider(upstream.base_url))
    assert refused.value.message.startswith(("m", "Provider p answered status 400: m"))
    assert len(refused.value.message) <= MAX_REASON_CHARS + 40


@pytest.mark.parametrize(
    "body", [b"", b"{}", b"[]", b"null", b'{"detail":[]}', b'{"message":7}', b'{"a":%b}' % (b"9" * 9000)]
)
def test_a_body_without_a_reason_gives_none(body: bytes) -> None:
    assert extract_message(body) == ""


# --- the provider's own key ---

KEY = 'sk-live-0123/45"67+89'
FORMS = {
    "bare": KEY,
    "bearer": f"Bearer {KEY}",
    "in a url": quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
}


def refused_by(said: Said, upstream: ScriptedProvider, key: str = KEY) -> ProviderError:
    upstream.answer_with(said.status, said.body, dict(said.headers))
    with pytest.raises(ProviderError) as failed:
        ask(provider(upstream.base_url), api_key=key)
    return failed.value


def shown(error: ProviderError) -> str:
    """All of an error that leaves the gateway."""
    return json.dumps(
        [
            wire_errors.render_error(error).decode(),
            wire_errors.render_error_event(error).decode(),
            wire_errors.error_headers(error),
            error.message,
        ]
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("status", [200, 400, 422, 429, 500, 503, 504])
def test_a_key_that_an_error_repeats_is_masked(status: int, form: str, upstream: ScriptedProvider) -> None:
    body = json.dumps({"error": {"message": f"{WORDS}: {form}"}, "headers": [form]}).encode()
    error = refused_by(Said(status, body, {"x-request-id": form, "x-ratelimit-key": form}), upstream)
    assert WORDS in error.message
    assert "[key]" in error.message
    for secret in (*FORMS.values(), json.dumps(form)[1:-1], json.dumps(json.dumps(form)[1:-1])[1:-1]):
        assert secret not in shown(error)


def error_with(key: str) -> str:
    return f'{{"error":{{"message":"{WORDS}: {key}"}}}}'


SPELLINGS = {
    "plain text": f"refused {KEY}",
    "html": f"<p>{html.escape(KEY)}</p>",
    "html, each as a decimal entity": f"<p>{''.join(f'&#{ord(char)};' for char in KEY)}</p>",
    "xml, each as a hexadecimal entity": f"<Message>{''.join(f'&#x{ord(char):X};' for char in KEY)}</Message>",
    "an array": json.dumps([KEY]),
    "detail": json.dumps({"detail": KEY}),
    "json, each escaped": error_with("".join(f"\\u{ord(char):04x}" for char in KEY)),
    "json, one escaped": error_with(json.dumps(KEY)[1:-1].replace("+", "\\u002B")),
    "json within json": error_with("".join(f"\\\\u{ord(char):04X}" for char in KEY)),
    "url, lower-case": error_with(quote(KEY, safe="").replace("%2F", "%2f").replace("%2B", "%2b")),
    "url, the slash as it is": error_with(quote(KEY)),
    "url, each": error_with("".join(f"%{ord(char):02X}" for char in KEY)),
    "url, twice": error_with(quote(quote(KEY, safe=""), safe="")),
    "base64 of a header": error_with(base64.b64encode(f"Bearer {KEY}".encode()).decode()),
    "base64 of basic credentials": error_with(base64.b64encode(f"x:{KEY}!".encode()).decode()),
}
LEAKS = ("0123", *(base64.b64encode(bytes(before) + KEY.encode()).decode()[4:-4] for before in range(3)))


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("status", [200, 400])
def test_a_key_in_any_spelling_in_an_error_is_masked(
    status: int, encoding: str, body: str, upstream: ScriptedProvider
) -> None:
    text = shown(refused_by(Said(status, body.encode(encoding), {}), upstream))
    for reading in (text, unquote(unquote(text)), html.unescape(text), text.encode().decode("unicode_escape")):
        assert not [leak for leak in LEAKS if leak in reading]


def test_a_key_in_an_answer_or_its_headers_is_masked(upstream: ScriptedProvider) -> None:
    upstream.answer_with(
        200, b'{"choices":[{}],"debug":"abcd-1234-efgh-5678"}', {"x-request-id": "r-abcd-1234-efgh-5678"}
    )
    answer = ask(provider(upstream.base_url), api_key="abcd-1234-efgh-5678")
    assert answer.body == b'{"choices":[{}],"debug":"[key]"}'
    assert answer.headers["x-request-id"] == "r-[key]"


@pytest.mark.parametrize("key", ["lm-studio", "password", "17345678"])
def test_a_key_that_could_be_a_word_masks_nothing_in_an_answer(key: str, upstream: ScriptedProvider) -> None:
    body = b'{"choices":[{"message":{"content":"open %b"}}],"created":1734567890}' % key.encode()
    upstream.answer_with(200, body)
    assert ask(provider(upstream.base_url), api_key=key).body == body


@pytest.mark.parametrize(
    ("body", "words"),
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
def test_a_reason_is_found_in_more_shapes(body: bytes, words: str) -> None:
    assert words in extract_message(body)


@pytest.mark.parametrize("key", [None, "", "k", "choices"])
def test_a_short_key_masks_nothing(key: str | None, upstream: ScriptedProvider) -> None:
    body = b'{"choices":[{"k":"choices"}]}'
    upstream.answer_with(200, body)
    assert ask(provider(upstream.base_url), api_key=key).body == body


def streamed_with(behaviour: hostile_servers.Behaviour, key: str) -> tuple[bytes, ProviderError | None]:
    with hostile_servers.receiver(behaviour) as server, create_client() as http:
        asked = provider(f"http://127.0.0.1:{server.port}/v1")
        try:
            stream = OpenAiClient(http, FakeClock()).stream(
                asked,
                "chat.completions",
                QUESTION,
                api_key=key,
                model_is_configured=True,
                head_timeout_s=5,
                total_timeout_s=20,
            )
        except ProviderError as error:
            return b"", error
        came = heard(stream)
        stream.close()
        return came


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("cut", [0, 9, 40])
def test_a_key_in_an_error_within_a_stream_is_masked_however_it_is_split(cut: int, is_first: bool) -> None:
    event = b"data: " + json.dumps({"error": {"message": f"{WORDS} {KEY}"}}).encode() + b"\n\n"
    before = b"" if is_first else chunk("hi")
    came, error = streamed_with(streams(before, event[:cut], event[cut:]), KEY)
    assert came == before
    assert error is not None
    assert WORDS in error.message
    assert "0123" not in shown(error)


def test_a_key_in_an_event_that_passes_is_masked() -> None:
    event = chunk("hi", debug="abcd-1234-efgh-5678")
    came, error = streamed_with(streams(event[:-20], event[-20:], chunk(finish="stop"), DONE), "abcd-1234-efgh-5678")
    assert error is None
    assert came == event.replace(b"abcd-1234-efgh-5678", b"[key]") + chunk(finish="stop") + DONE
