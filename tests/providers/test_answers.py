"""Mapping of provider responses to results and errors: billing, gateway account, caller errors."""

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
from aiserver.providers.error_mapping import ACCOUNT_CODES
from aiserver.wire import errors as wire_errors
from local.scripted import ScriptedProvider
from tests.providers.calls import call_provider, list_models, provider

LONG_TEXT = b"m" * (2 * MAX_ERROR_BYTES)
NO_CHOICES = "Provider p: status 200 without a result"
SECRET = "sk-...1234"  # part of a key, as providers quote it


def test_response_keeps_its_body_usage_and_relayed_headers(upstream: ScriptedProvider) -> None:
    body = b'{"choices":[{}], "usage":{"total_tokens": 7}}'
    upstream.respond_with(200, body, {"x-request-id": "r", "X-RateLimit-Remaining": "1", "server": "s"})
    response = call_provider(provider(upstream.base_url))
    assert (response.body, response.usage) == (body, '{"total_tokens": 7}')
    assert response.headers == {"x-request-id": "r", "x-ratelimit-remaining": "1"}
    request = upstream.requests[-1]
    assert (request.headers["authorization"], request.headers["idempotency-key"]) == ("Bearer k", "i")


def test_api_key_is_sent_bare_in_a_custom_auth_header(upstream: ScriptedProvider) -> None:
    call_provider(provider(upstream.base_url, auth_header="api-key"))
    headers = upstream.requests[-1].headers
    assert (headers["api-key"], "authorization" in headers) == ("k", False)


@pytest.mark.parametrize("auth_header", ["authorization", "api-key"])
def test_no_auth_header_is_sent_without_an_api_key(auth_header: str, upstream: ScriptedProvider) -> None:
    call_provider(provider(upstream.base_url, auth_header=auth_header), api_key=None)
    assert auth_header not in upstream.requests[-1].headers


@pytest.mark.parametrize(
    ("status", "body", "error_class", "may_be_billed"),
    [
        (400, b'{"error":{"message":"m"}}', ProviderRejected, False),
        (404, b'{"error":{"message":"m"}}', ProviderAuth, False),
        (402, b"{}", ProviderAuth, False),
        (403, b"<html>", ProviderAuth, False),
        (429, b'{"error":{"message":"m"}}', ProviderRateLimited, False),
        (429, b'{"error":{"message":"%s","code":"insufficient_quota"}}' % LONG_TEXT, ProviderRateLimited, False),
        (400, b'{"x":"%s"}' % LONG_TEXT, ProviderRejected, False),
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
def test_failed_response_maps_to_error_class_and_billing(
    status: int, body: bytes, error_class: type[ProviderError], may_be_billed: bool, upstream: ScriptedProvider
) -> None:
    upstream.respond_with(status, body)
    with pytest.raises(ProviderError) as failed:
        call_provider(provider(upstream.base_url))
    assert type(failed.value) is error_class
    assert failed.value.may_be_billed == may_be_billed


@pytest.mark.parametrize("member", ["code", "type"])
@pytest.mark.parametrize("status", [400, 429])
@pytest.mark.parametrize("code", sorted(ACCOUNT_CODES))
def test_account_error_code_is_a_provider_auth_error_at_any_status(
    code: str, status: int, member: str, upstream: ScriptedProvider
) -> None:
    upstream.respond_with(status, json.dumps({"error": {"message": SECRET, "code": None, member: code}}).encode())
    with pytest.raises(ProviderAuth) as failed:
        call_provider(provider(upstream.base_url))
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
def test_response_with_content_is_accepted_despite_its_error_fields(
    operation: str, body: bytes, upstream: ScriptedProvider
) -> None:
    upstream.respond_with(200, body)
    assert call_provider(provider(upstream.base_url), operation).body == body


@pytest.mark.parametrize(
    ("operation", "body", "message"),
    [
        ("chat.completions", b'{"id":"g","error":{"message":"late","code":502,"metadata":{"a":1.50}}}', "late"),
        ("chat.completions", b'{"error":{"message":"late"},"choices":null}', "late"),
        ("chat.completions", b'{"error":{"message":"late"},"data":[],"output":[]}', "late"),
        ("embeddings", b'{"error":"late","choices":[]}', "late"),
        ("responses", b'{"error":{},"choices":[]}', "Provider p: status 200 with an error"),
        ("chat.completions", b"{}", NO_CHOICES),
        ("chat.completions", b'{"choices":[]}', NO_CHOICES),
        ("chat.completions", b'{"choices":null}', NO_CHOICES),
        ("chat.completions", b'{"choices":[null]}', NO_CHOICES),
        ("chat.completions", b'{"choices":{"0":{}}}', NO_CHOICES),
        ("chat.completions", b'{"data":{"choices":[{}]}}', NO_CHOICES),
        ("chat.completions", b'{"error":{"message":"late"},"choices":[]}', "late"),
        ("chat.completions", b'{"status":"435","msg":"Model not supported"}', "Model not supported"),
        ("chat.completions", b'{"success":false,"message":"quota used up"}', "quota used up"),
        ("chat.completions", b'{"choices":null,"base_resp":{"status_msg":"login fail"}}', "login fail"),
        ("chat.completions", b'{"Code":"Throttled","Message":"slow down"}', "slow down"),
        ("chat.completions", b'{"success":false,"errors":[{"code":7,"message":"no such route"}]}', "no such route"),
        ("embeddings", b'{"object":"list","data":[]}', NO_CHOICES),
        ("embeddings", b'{"data":null,"detail":"no embeddings here"}', "no embeddings here"),
        ("responses", b'{"status":"completed","error":null}', NO_CHOICES),
        ("responses", b'{"choices":[{}]}', NO_CHOICES),
    ],
)
def test_status_200_with_an_error_or_no_content_may_be_billed(
    operation: str, body: bytes, message: str, upstream: ScriptedProvider
) -> None:
    upstream.respond_with(200, body, {"x-request-id": "r"})
    with pytest.raises(ProviderError) as failed:
        call_provider(provider(upstream.base_url), operation)
    error = failed.value
    assert (type(error), error.status, error.may_be_billed, error.message) == (ProviderError, 502, True, message)
    rendered, upstream_error = json.loads(wire_errors.render_error(error)), json.loads(body)
    assert rendered["responseStatus"]["message"] == message
    assert rendered["error"]["message"] == message
    if isinstance(upstream_error.get("error"), dict):
        assert rendered["error"].items() >= upstream_error["error"].items()
    assert wire_errors.error_headers(error) == {"x-request-id": "r", "x-should-retry": "false"}


def test_account_error_with_status_200_is_hidden_and_may_be_billed(upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, json.dumps({"error": {"message": SECRET, "code": "insufficient_quota"}}).encode())
    with pytest.raises(ProviderAuth) as failed:
        call_provider(provider(upstream.base_url))
    assert failed.value.may_be_billed
    assert SECRET.encode() not in wire_errors.render_error(failed.value)


def test_error_in_an_array_is_relayed_as_an_object(upstream: ScriptedProvider) -> None:
    error_object = (
        b'{"error": {"code": 400, "message": "Cannot find field.", "details": [{"at": 2.50}]}, "more": 1E400}'
    )
    upstream.respond_with(400, b"\xef\xbb\xbf [ " + error_object + b" ]\n")
    with pytest.raises(ProviderRejected) as rejection:
        call_provider(provider(upstream.base_url))
    rendered = wire_errors.render_error(rejection.value)
    assert b'{"code": 400, "message": "Cannot find field.", "details": [{"at": 2.50}]}' in rendered
    assert b"1E400" in rendered
    assert json.loads(rendered)["responseStatus"]["message"] == "Cannot find field."


@pytest.mark.parametrize("location", ["http://[", "https://%zz:x/", "//", ""])
def test_redirect_is_a_retryable_error_for_any_location(location: str, upstream: ScriptedProvider) -> None:
    upstream.respond_with(302, b"{}", {"location": location})
    with pytest.raises(ProviderError) as failed:
        call_provider(provider(upstream.base_url))
    assert (failed.value.retryable, failed.value.may_be_billed) == (True, False)


def test_unknown_model_of_a_wildcard_is_a_client_error(upstream: ScriptedProvider) -> None:
    upstream.respond_with(404, b'{"error":{"message":"no such model"}}')
    with pytest.raises(ProviderRejected) as rejection:
        call_provider(provider(upstream.base_url), model_is_configured=False)
    assert rejection.value.status == 404


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
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
def test_retry_after_is_parsed_as_seconds_or_date(
    retry_after: str, seconds: int | None, upstream: ScriptedProvider
) -> None:
    upstream.respond_with(429, b"{}", {"retry-after": retry_after})
    with pytest.raises(ProviderRateLimited) as limited:
        call_provider(provider(upstream.base_url))
    assert limited.value.retry_after_s == seconds


@pytest.mark.parametrize("key", ["schlüssel", "two\r\nlines"])
def test_api_key_invalid_in_a_header_is_an_auth_error_without_a_call(key: str, upstream: ScriptedProvider) -> None:
    with pytest.raises(ProviderAuth) as auth_error:
        call_provider(provider(upstream.base_url), api_key=key)
    assert (upstream.requests, auth_error.value.may_be_billed) == ([], False)
    assert key not in str(auth_error.value)


def test_request_that_mentions_an_invalid_key_is_a_client_error(upstream: ScriptedProvider) -> None:
    error = {"error": {"message": 'Invalid value at messages[0]: "API key not valid"'}}
    upstream.respond_with(400, json.dumps(error).encode())
    with pytest.raises(ProviderRejected):
        call_provider(provider(upstream.base_url, preset="gemini"))


# --- model list ---


@pytest.mark.parametrize(
    "body",
    [b'{"object":"list","data":[{"id":"b","n":1E400},{"id":"a"},{"id":"b"}]}', b' [{"id":"b"},{"id":"a"}] '],
)
def test_list_models_returns_sorted_unique_ids(body: bytes, upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, body)
    assert list_models(provider(upstream.base_url)) == ["a", "b"]
    request = upstream.requests[-1]
    assert (request.method, request.path, request.body) == ("GET", "/v1/models", b"")
    assert request.headers["authorization"] == "Bearer k"


@pytest.mark.parametrize(
    "body", [b"{}", b'{"data":{}}', b'{"data":[{"name":"a"}]}', b'{"data":[{"id":1}]}', b"<html>", b'{"error":{}}']
)
def test_invalid_model_list_is_a_provider_error(body: bytes, upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, body)
    with pytest.raises(ProviderError, match="the response is not a list of models"):
        list_models(provider(upstream.base_url))


def test_model_list_size_is_limited(upstream: ScriptedProvider) -> None:
    upstream.respond_with(200, b'{"data":[]}' + b" " * MAX_LIST_BYTES)
    with pytest.raises(ProviderError, match="too large"):
        list_models(provider(upstream.base_url))


@pytest.mark.parametrize(
    ("status", "error_class"),
    [
        (401, ProviderAuth),
        (404, ProviderRejected),
        (429, ProviderRateLimited),
        (503, ProviderUnavailable),
        (500, ProviderError),
        (None, ProviderTimeout),
    ],
)
def test_list_models_maps_errors_as_calls_do(
    status: int | None, error_class: type[ProviderError], upstream: ScriptedProvider
) -> None:
    upstream.respond_with(status, b"{}")
    with pytest.raises(ProviderError) as failed:
        list_models(provider(upstream.base_url))
    assert type(failed.value) is error_class
