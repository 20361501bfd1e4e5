"""Mapping of Gemini's errors to OpenAI's format, and its model list."""

import json
from typing import Any

import msgspec
import pytest

from aiserver.errors import ProviderAuth, ProviderRateLimited
from aiserver.providers.adapters.google import GOOGLE
from aiserver.providers.call import Upstream
from aiserver.providers.error_mapping import map_error
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse

RPC = "type.googleapis.com/google.rpc"
PROVIDER = Provider.model_validate({"name": "p", "preset": "google", "models": {"m": ""}})
UPSTREAM = Upstream(PROVIDER, "m", model_is_configured=True)


def google_error(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def map_google_error(status: int, body: Any, headers: dict[str, str] | None = None) -> ProviderResponse:
    return GOOGLE.map_error(ProviderResponse(status, headers or {}, json.dumps(body).encode()))


@pytest.mark.parametrize(
    ("status", "code", "error_type"),
    [
        (400, "INVALID_ARGUMENT", "invalid_request_error"),
        (403, "PERMISSION_DENIED", "permission_error"),
        (404, "NOT_FOUND", "not_found_error"),
        (429, "RESOURCE_EXHAUSTED", "rate_limit_error"),
        (503, "UNAVAILABLE", "server_error"),
    ],
)
def test_error_keeps_google_status_as_code_and_its_body(status: int, code: str, error_type: str) -> None:
    body = google_error(status, code, "Why")
    for variant in (body, [body]):
        error = map_google_error(status, variant)
        assert json.loads(error.body) == {
            "error": {"message": "Why", "type": error_type, "code": code, "param": None},
            "google": body,
        }
        assert error.status == status


@pytest.mark.parametrize(("delay", "retry_after"), [("32s", "32"), ("6.2s", "7"), ("0s", "0"), ("soon", None)])
def test_retry_delay_is_returned_as_retry_after_header(delay: str, retry_after: str | None) -> None:
    quota = google_error(429, "RESOURCE_EXHAUSTED", "Slowly", {"@type": f"{RPC}.RetryInfo", "retryDelay": delay})
    assert map_google_error(429, quota).headers.get("retry-after") == retry_after
    assert map_google_error(429, quota, {"retry-after": "1"}).headers["retry-after"] == "1"


def test_error_request_id_is_returned_as_header() -> None:
    error = google_error(500, "INTERNAL", "Oh", {"@type": f"{RPC}.RequestInfo", "requestId": "req_9"})
    assert map_google_error(500, error).headers == {"x-request-id": "req_9"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"message": "x"}', b"\xff"])
def test_body_that_is_not_a_google_error_is_a_decode_error(body: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        GOOGLE.map_error(ProviderResponse(502, {}, body))


@pytest.mark.parametrize(
    "message",
    [
        "API key not valid. Please pass a valid API key.",
        "API key expired. Please renew the API key.",
        "User location is not supported for the API use.",
    ],
)
def test_invalid_gateway_key_is_a_provider_auth_error(message: str) -> None:
    error = map_google_error(400, google_error(400, "INVALID_ARGUMENT", message))
    provider_error = map_error(UPSTREAM, error, retry_after_s=None)
    assert isinstance(provider_error, ProviderAuth)


def test_exceeded_quota_is_a_rate_limit_error() -> None:
    error = map_google_error(429, google_error(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"))
    provider_error = map_error(UPSTREAM, error, retry_after_s=9)
    assert isinstance(provider_error, ProviderRateLimited)


def test_model_list_contains_only_generating_models_and_next_page() -> None:
    generates = {"supportedGenerationMethods": ["generateContent"]}
    models = [
        {"name": "models/gemini-3.8-flash", **generates},
        {"name": "tunedModels/mine", **generates},
        {"name": "models/embedder", "supportedGenerationMethods": ["embedContent"]},
        {"name": "models/silent"},
    ]
    page = json.dumps({"models": models, "nextPageToken": "a/b="}).encode()
    assert GOOGLE.model_pages.parse(page) == (["gemini-3.8-flash", "tunedModels/mine"], "a/b=")
    assert GOOGLE.model_pages.build_request(None).path == "/models?pageSize=1000"
    assert GOOGLE.model_pages.build_request("a/b=").path == "/models?pageSize=1000&pageToken=a%2Fb%3D"
    assert GOOGLE.model_pages.parse(b"{}") == ([], None)
