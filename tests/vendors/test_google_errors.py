"""Gemini's errors in OpenAI's shape, and its list of models."""

import json
from typing import Any

import msgspec
import pytest

from aiserver.errors import ProviderAuth, ProviderRateLimited, ProviderResponse
from aiserver.providers.google import GOOGLE
from aiserver.providers.openai_response import map_error
from aiserver.providers.provider import Provider

RPC = "type.googleapis.com/google.rpc"
PROVIDER = Provider.model_validate({"name": "p", "preset": "google", "models": {"m": ""}})


def google(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def told(status: int, said: Any, headers: dict[str, str] | None = None) -> ProviderResponse:
    return GOOGLE.map_error(ProviderResponse(status, headers or {}, json.dumps(said).encode()))


@pytest.mark.parametrize(
    ("status", "word", "kind"),
    [
        (400, "INVALID_ARGUMENT", "invalid_request_error"),
        (403, "PERMISSION_DENIED", "permission_error"),
        (404, "NOT_FOUND", "not_found_error"),
        (429, "RESOURCE_EXHAUSTED", "rate_limit_error"),
        (503, "UNAVAILABLE", "server_error"),
    ],
)
def test_an_error_has_google_s_word_as_its_code_and_comes_whole(status: int, word: str, kind: str) -> None:
    said = google(status, word, "Why")
    for form in (said, [said]):
        error = told(status, form)
        assert json.loads(error.body) == {
            "error": {"message": "Why", "type": kind, "code": word, "param": None},
            "google": said,
        }
        assert error.status == status


@pytest.mark.parametrize(("delay", "waits"), [("32s", "32"), ("6.2s", "7"), ("0s", "0"), ("soon", None)])
def test_how_long_to_wait_is_told_in_a_header(delay: str, waits: str | None) -> None:
    quota = google(429, "RESOURCE_EXHAUSTED", "Slowly", {"@type": f"{RPC}.RetryInfo", "retryDelay": delay})
    assert told(429, quota).headers.get("retry-after") == waits
    assert told(429, quota, {"retry-after": "1"}).headers["retry-after"] == "1"


def test_a_request_s_id_is_told_where_the_error_has_it() -> None:
    error = google(500, "INTERNAL", "Oh", {"@type": f"{RPC}.RequestInfo", "requestId": "req_9"})
    assert told(500, error).headers == {"x-request-id": "req_9"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"message": "x"}', b"\xff"])
def test_what_is_no_error_of_google_s_is_none(body: bytes) -> None:
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
def test_trouble_with_the_gateway_s_own_key_is_no_fault_of_the_request(message: str) -> None:
    error = told(400, google(400, "INVALID_ARGUMENT", message))
    judged = map_error(PROVIDER, error, model_is_configured=True, retry_after_s=None)
    assert isinstance(judged, ProviderAuth)


def test_a_limit_that_is_met_is_one() -> None:
    error = told(429, google(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"))
    judged = map_error(PROVIDER, error, model_is_configured=True, retry_after_s=9)
    assert isinstance(judged, ProviderRateLimited)


def test_models_that_write_are_listed_page_by_page() -> None:
    writes = {"supportedGenerationMethods": ["generateContent"]}
    models = [
        {"name": "models/gemini-3.8-flash", **writes},
        {"name": "tunedModels/mine", **writes},
        {"name": "models/embedder", "supportedGenerationMethods": ["embedContent"]},
        {"name": "models/silent"},
    ]
    page = json.dumps({"models": models, "nextPageToken": "a/b="}).encode()
    assert GOOGLE.model_pages.parse(page) == (["gemini-3.8-flash", "tunedModels/mine"], "a/b=")
    assert GOOGLE.model_pages.build_request(None).path == "/models?pageSize=1000"
    assert GOOGLE.model_pages.build_request("a/b=").path == "/models?pageSize=1000&pageToken=a%2Fb%3D"
    assert GOOGLE.model_pages.parse(b"{}") == ([], None)
