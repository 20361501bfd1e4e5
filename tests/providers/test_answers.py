"""What each answer of a provider means about our money, our key and the caller's request."""

import json

import pytest

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.limits import MAX_ERROR_BYTES, MAX_LIST_BYTES
from aiserver.providers.openai_response import ACCOUNT_CODES
from aiserver.wire import errors as wire_errors
from local.scripted import ScriptedProvider
from tests.providers.calls import ask, models, provider

TOO_LONG = b"m" * (2 * MAX_ERROR_BYTES)
NO_ANSWER = "Provider p answered status 200 without an answer"
SECRET = "sk-...1234"  # part of a key, as providers quote it


def test_an_answer_comes_whole_with_its_usage_and_the_headers_we_relay(upstream: ScriptedProvider) -> None:
    told = b'{"choices":[{}], "usage":{"total_tokens": 7}}'
    upstream.answer_with(200, told, {"x-request-id": "r", "X-RateLimit-Remaining": "1", "server": "s"})
    answer = ask(provider(upstream.base_url))
    assert (answer.body, answer.usage) == (told, '{"total_tokens": 7}')
    assert answer.headers == {"x-request-id": "r", "x-ratelimit-remaining": "1"}
    sent = upstream.requests[-1]
    assert (sent.headers["authorization"], sent.headers["idempotency-key"]) == ("Bearer k", "i")


def test_a_header_of_the_operator_s_choice_carries_the_key_bare(upstream: ScriptedProvider) -> None:
    ask(provider(upstream.base_url, auth_header="api-key"))
    sent = upstream.requests[-1].headers
    assert (sent["api-key"], "authorization" in sent) == ("k", False)


@pytest.mark.parametrize("auth_header", ["authorization", "api-key"])
def test_without_a_key_no_header_carries_one(auth_header: str, upstream: ScriptedProvider) -> None:
    ask(provider(upstream.base_url, auth_header=auth_header), api_key=None)
    assert auth_header not in upstream.requests[-1].headers


@pytest.mark.parametrize(
    ("status", "body", "kind", "billed"),
    [
        (400, b'{"error":{"message":"m"}}', ProviderRejected, False),
        (404, b'{"error":{"message":"m"}}', ProviderAuth, False),
        (402, b"{}", ProviderAuth, False),
        (403, b"<html>", ProviderAuth, False),
        (429, b'{"error":{"message":"m"}}', ProviderRateLimited, False),
        (429, b'{"error":{"message":"%s","code":"insufficient_quota"}}' % TOO_LONG, ProviderRateLimited, False),
        (400, b'{"x":"%s"}' % TOO_LONG, ProviderRejected, False),
        (400, b'[{"error":{"message":"m"}}]', ProviderRejected, False),
        (400, b'[{"error":{"message":"m"}},{}]', ProviderRejected, False),
        (400, b"[]", ProviderRejected, False),
        (413, b"<html>", ProviderRejected, False),
        (502, b"<html>", ProviderError, False),
        (502, b'{"error":{"message":"m"}}', ProviderError, False),
        (404, b"<html>", ProviderAuth, False),
        (404, b'{"error":{"message":"m","param":"model"}}', ProviderAuth, False),
        (404, b'{"error":{"message":"m","param":"previous_response_id"}}', ProviderRejected, False),
        (524, b'{"error":{"message":"m"}}', ProviderTimeout, True),
        (200, b"[]", ProviderError, True),
        (200, b'[{"choices":[]}]', ProviderError, True),
        (204, b"", ProviderError, True),
        (301, b"{}", ProviderError, False),
    ],
)
def test_each_outcome_has_its_own_meaning(
    status: int, body: bytes, kind: type[ProviderError], billed: bool, upstream: ScriptedProvider
) -> None:
    upstream.answer_with(status, body)
    with pytest.raises(ProviderError) as failed:
        ask(provider(upstream.base_url))
    assert type(failed.value) is kind
    assert failed.value.may_be_billed == billed


@pytest.mark.parametrize("member", ["code", "type"])
@pytest.mark.parametrize("status", [400, 429])
@pytest.mark.parametrize("word", sorted(ACCOUNT_CODES))
def test_an_account_without_money_is_our_trouble_whatever_the_status(
    word: str, status: int, member: str, upstream: ScriptedProvider
) -> None:
    upstream.answer_with(status, json.dumps({"error": {"message": SECRET, "code": None, member: word}}).encode())
    with pytest.raises(ProviderAuth) as failed:
        ask(provider(upstream.base_url))
    assert SECRET.encode() not in wire_errors.render_error(failed.value)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("chat.completions", b'{"error":null,"choices":[{}]}'),
        ("chat.completions", b'{"error":{"message":"late"},"choices":[ \n{}]}'),
        ("chat.completions", b'{"choices":[{"error":null,"message":{"content":"\\"error\\""}}]}'),
        ("embeddings", b'{"data":[{"embedding":[0]}],"error":"told beside"}'),
        ("responses", b'{"status":"failed","error":{"code":"server_error"},"output":[]}'),
        ("responses", b'{"status":"queued","background":true,"output":[]}'),
        ("responses", b'{"status":"incomplete","error":null,"output":[]}'),
    ],
)
def test_an_answer_with_what_was_asked_for_is_one_whatever_it_says_of_errors(
    operation: str, body: bytes, upstream: ScriptedProvider
) -> None:
    upstream.answer_with(200, body)
    assert ask(provider(upstream.base_url), operation).body == body


@pytest.mark.parametrize(
    ("operation", "body", "message"),
    [
        ("chat.completions", b'{"id":"g","error":{"message":"late","code":502,"metadata":{"a":1.50}}}', "late"),
        ("chat.completions", b'{"error":{"message":"late"},"choices":null}', "late"),
        ("chat.completions", b'{"error":{"message":"late"},"data":[],"output":[]}', "late"),
        ("embeddings", b'{"error":"late","choices":[]}', "late"),
        ("responses", b'{"error":{},"choices":[]}', "Provider p answered status 200 with an error"),
        ("chat.completions", b"{}", NO_ANSWER),
        ("chat.completions", b'{"choices":[]}', NO_ANSWER),
        ("chat.completions", b'{"choices":null}', NO_ANSWER),
        ("chat.completions", b'{"choices":[null]}', NO_ANSWER),
        ("chat.completions", b'{"choices":{"0":{}}}', NO_ANSWER),
        ("chat.completions", b'{"data":{"choices":[{}]}}', NO_ANSWER),
        ("chat.completions", b'{"error":{"message":"late"},"choices":[]}', "late"),
        ("chat.completions", b'{"status":"435","msg":"Model not supported"}', "Model not supported"),
        ("chat.completions", b'{"success":false,"message":"quota used up"}', "quota used up"),
        ("chat.completions", b'{"choices":null,"base_resp":{"status_msg":"login fail"}}', "login fail"),
        ("chat.completions", b'{"Code":"Throttled","Message":"slow down"}', "slow down"),
        ("chat.completions", b'{"success":false,"errors":[{"code":7,"message":"no such route"}]}', "no such route"),
        ("embeddings", b'{"object":"list","data":[]}', NO_ANSWER),
        ("embeddings", b'{"data":null,"detail":"no embeddings here"}', "no embeddings here"),
        ("responses", b'{"status":"completed","error":null}', NO_ANSWER),
        ("responses", b'{"choices":[{}]}', NO_ANSWER),
    ],
)
def test_an_error_in_place_of_what_was_asked_for_is_no_success_and_may_be_billed(
    operation: str, body: bytes, message: str, upstream: ScriptedProvider
) -> None:
    upstream.answer_with(200, body, {"x-request-id": "r"})
    with pytest.raises(ProviderError) as failed:
        ask(provider(upstream.base_url), operation)
    error = failed.value
    assert (type(error), error.status, error.may_be_billed, error.message) == (ProviderError, 502, True, message)
    told, given = json.loads(wire_errors.render_error(error)), json.loads(body)
    assert told["responseStatus"]["message"] == message
    assert told["error"]["message"] == message
    if isinstance(given.get("error"), dict):
        assert told["error"].items() >= given["error"].items()
    assert wire_errors.error_headers(error) == {"x-request-id": "r", "x-should-retry": "false"}


def test_an_error_for_our_account_in_a_200_is_not_shown_and_may_be_billed(upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, json.dumps({"error": {"message": SECRET, "code": "insufficient_quota"}}).encode())
    with pytest.raises(ProviderAuth) as failed:
        ask(provider(upstream.base_url))
    assert failed.value.may_be_billed
    assert SECRET.encode() not in wire_errors.render_error(failed.value)


def test_an_error_in_an_array_is_relayed_as_the_object_that_it_is(upstream: ScriptedProvider) -> None:
    told = b'{"error": {"code": 400, "message": "Cannot find field.", "details": [{"at": 2.50}]}, "more": 1E400}'
    upstream.answer_with(400, b"\xef\xbb\xbf [ " + told + b" ]\n")
    with pytest.raises(ProviderRejected) as refused:
        ask(provider(upstream.base_url))
    relayed = wire_errors.render_error(refused.value)
    assert b'{"code": 400, "message": "Cannot find field.", "details": [{"at": 2.50}]}' in relayed
    assert b"1E400" in relayed
    assert json.loads(relayed)["responseStatus"]["message"] == "Cannot find field."


@pytest.mark.parametrize("location", ["http://[", "https://%zz:x/", "//", ""])
def test_a_redirect_is_a_bad_answer_wherever_it_leads(location: str, upstream: ScriptedProvider) -> None:
    upstream.answer_with(302, b"{}", {"location": location})
    with pytest.raises(ProviderError) as failed:
        ask(provider(upstream.base_url))
    assert (failed.value.retryable, failed.value.may_be_billed) == (True, False)


def test_an_unknown_model_behind_any_is_the_caller_s_affair(upstream: ScriptedProvider) -> None:
    upstream.answer_with(404, b'{"error":{"message":"no such model"}}')
    with pytest.raises(ProviderRejected) as refused:
        ask(provider(upstream.base_url), model_is_configured=False)
    assert refused.value.status == 404


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        ("Fri, 15 Jan 2027 08:00:30 GMT", 30),
        ("soon", None),
        ("", None),
        ("-1", None),
        ("9" * 4500, None),
        ("\xb2", None),
    ],
)
def test_retry_after_is_read_in_both_its_forms(said: str, seconds: int | None, upstream: ScriptedProvider) -> None:
    upstream.answer_with(429, b"{}", {"retry-after": said})
    with pytest.raises(ProviderRateLimited) as limited:
        ask(provider(upstream.base_url))
    assert limited.value.retry_after_s == seconds


@pytest.mark.parametrize("key", ["schlüssel", "two\r\nlines"])
def test_a_key_that_no_header_can_hold_is_the_gateway_s_own_trouble_and_no_call(
    key: str, upstream: ScriptedProvider
) -> None:
    with pytest.raises(ProviderAuth) as refused:
        ask(provider(upstream.base_url), api_key=key)
    assert (upstream.requests, refused.value.may_be_billed) == ([], False)
    assert key not in str(refused.value)


def test_a_caller_who_writes_of_a_bad_key_does_not_pass_for_trouble_with_ours(upstream: ScriptedProvider) -> None:
    told = {"error": {"message": 'Invalid value at messages[0]: "API key not valid"'}}
    upstream.answer_with(400, json.dumps(told).encode())
    with pytest.raises(ProviderRejected):
        ask(provider(upstream.base_url, preset="gemini"))


# --- its list of models ---


@pytest.mark.parametrize(
    "listed",
    [b'{"object":"list","data":[{"id":"b","n":1E400},{"id":"a"},{"id":"b"}]}', b' [{"id":"b"},{"id":"a"}] '],
)
def test_the_models_of_a_provider_are_its_ids_in_order(listed: bytes, upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, listed)
    assert models(provider(upstream.base_url)) == ["a", "b"]
    asked = upstream.requests[-1]
    assert (asked.method, asked.path, asked.body) == ("GET", "/v1/models", b"")
    assert asked.headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    "listed", [b"{}", b'{"data":{}}', b'{"data":[{"name":"a"}]}', b'{"data":[{"id":1}]}', b"<html>", b'{"error":{}}']
)
def test_what_is_no_list_of_models_is_a_bad_answer(listed: bytes, upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, listed)
    with pytest.raises(ProviderError, match="no list of models"):
        models(provider(upstream.base_url))


def test_a_list_of_models_that_would_fill_the_memory_is_not_read_to_its_end(upstream: ScriptedProvider) -> None:
    upstream.answer_with(200, b'{"data":[]}' + b" " * MAX_LIST_BYTES)
    with pytest.raises(ProviderError, match="too large"):
        models(provider(upstream.base_url))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, ProviderAuth),
        (404, ProviderRejected),
        (429, ProviderRateLimited),
        (503, ProviderUnavailable),
        (500, ProviderError),
        (None, ProviderTimeout),
    ],
)
def test_a_list_that_is_not_told_fails_as_a_call_does(
    status: int | None, kind: type[ProviderError], upstream: ScriptedProvider
) -> None:
    upstream.answer_with(status, b"{}")
    with pytest.raises(ProviderError) as failed:
        models(provider(upstream.base_url))
    assert type(failed.value) is kind
