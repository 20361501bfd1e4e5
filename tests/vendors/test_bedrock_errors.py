"""Mapping of Bedrock's errors, in responses and within streams, over HTTP with event stream frames."""

import json
from typing import Any

import pytest

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse
from tests.providers.fake_provider import FakeResponse, run_fake_provider
from tests.providers.streaming import read_stream
from tests.vendors.bedrock import BedrockDialect, frame
from tests.vendors.bedrock_events import MESSAGE_START, delta, stop
from tests.vendors.dispatch import open_stream, send
from tests.vendors.semantics import Response

DIALECT = BedrockDialect()
PATHS = {"/model/m/converse", "/model/m/converse-stream"}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "application/vnd.amazon.eventstream", "x-amzn-requestid": "req_1"}
PROVIDER = {"name": "b", "type": "bedrock", "models": {"m": ""}}


def error_of_call(
    response: FakeResponse, *, streams: bool = False, model_is_configured: bool = True
) -> tuple[bytes, ProviderError]:
    """Return the bytes received before the error that the caller gets, and that error."""
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    with run_fake_provider(PATHS, ("authorization", "Bearer k"), FakeResponse(401, b"{}")) as server:
        server.responses.append(response)
        provider = Provider.model_validate({**PROVIDER, "base_url": server.origin})
        upstream = Upstream(provider, "m", model_is_configured, api_key="k")
        try:
            if not streams:
                send(upstream, body)
                raise AssertionError
            with open_stream(upstream, body) as stream:
                received, stream_error = read_stream(stream.events)
        except ProviderError as error:
            return b"", error
    assert stream_error
    return received, stream_error


def error_for(status: int, error_type: str, message: str, **options: Any) -> ProviderError:
    headers = {**JSON, "x-amzn-errortype": f"{error_type}:http://internal.amazon.com/", "x-amzn-requestid": "req_1"}
    return error_of_call(FakeResponse(status, json.dumps({"message": message}).encode(), headers), **options)[1]


def exception(exception_type: str, **payload: Any) -> bytes:
    return frame(
        {":message-type": "exception", ":exception-type": exception_type, ":content-type": "application/json"}, payload
    )


@pytest.mark.parametrize(
    ("status", "error_type", "error_class", "client_status"),
    [
        (400, "ValidationException", ProviderRejected, 400),
        (403, "AccessDeniedException", ProviderAuth, 502),
        (403, "ExpiredTokenException", ProviderAuth, 502),
        (404, "ResourceNotFoundException", ProviderAuth, 502),
        (408, "ModelTimeoutException", ProviderTimeout, 504),
        (424, "ModelErrorException", ProviderError, 502),
        (429, "ThrottlingException", ProviderRateLimited, 429),
        (429, "ModelNotReadyException", ProviderRateLimited, 429),
        (500, "InternalServerException", ProviderError, 500),
        (503, "ServiceUnavailableException", ProviderUnavailable, 503),
    ],
)
def test_error_type_maps_to_provider_error_and_status(
    status: int, error_type: str, error_class: Any, client_status: int
) -> None:
    error = error_for(status, error_type, "so it is")
    assert (error.__class__, error.status) == (error_class, client_status)
    assert error.may_be_billed == (error_class is ProviderTimeout)
    if error_class is not ProviderAuth:
        body = json.loads(wire_errors.render_error(error))
        assert (body["error"]["message"], body["error"]["type"]) == ("so it is", error_type)
        assert body["bedrock"] == {"message": "so it is"}
        assert wire_errors.error_headers(error)["x-request-id"] == "req_1"
        assert not [name for name in wire_errors.error_headers(error) if "amzn" in name]


@pytest.mark.parametrize(
    "message",
    [
        "The provided model identifier is invalid.",
        "Invocation of model ID amazon.nova-pro-v1:0 with on-demand throughput isn't supported. Retry your request "
        "with the ID or ARN of an inference profile that contains this model.",
    ],
)
def test_unknown_model_is_a_provider_auth_error_when_configured(message: str) -> None:
    """A model that only the caller named is the caller's 404."""
    assert type(error_for(400, "ValidationException", message)) is ProviderAuth
    error = error_for(400, "ValidationException", message, model_is_configured=False)
    assert (type(error), error.status, error.message) == (ProviderRejected, 404, message)


def test_model_without_account_access_is_a_provider_auth_error() -> None:
    message = "Model use case details have not been submitted for this account. Fill out the form before."
    assert type(error_for(404, "ResourceNotFoundException", message, model_is_configured=False)) is ProviderAuth


@pytest.mark.parametrize(
    ("exception_type", "error_class", "status"),
    [
        ("throttlingException", ProviderRateLimited, 429),
        ("serviceUnavailableException", ProviderUnavailable, 503),
        ("internalServerException", ProviderError, 500),
        ("validationException", ProviderRejected, 400),
        ("modelStreamErrorException", ProviderError, 502),
        ("ofNextYearException", ProviderError, 500),
    ],
)
def test_stream_exception_is_billable_only_after_the_first_text(
    exception_type: str, error_class: Any, status: int
) -> None:
    start_frame = DIALECT.encode_frame(sse.format_event(json.dumps(MESSAGE_START).encode()))
    text_frame = DIALECT.encode_frame(sse.format_event(json.dumps(delta(0, text="Hi")).encode()))
    failure = exception(exception_type, message="so it is")
    received, error = error_of_call(FakeResponse(200, start_frame + failure, EVENTS), streams=True)
    assert (received, error.__class__, error.status, error.may_be_billed) == (b"", error_class, status, False)
    received, error = error_of_call(FakeResponse(200, start_frame + text_frame + failure, EVENTS), streams=True)
    assert (b'"Hi"' in received, error.__class__, error.may_be_billed) == (True, error_class, True)
    assert (error.message, "so it is" in wire_errors.render_error(error).decode()) == ("so it is", True)


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_malformed_model_output_is_an_error_that_may_be_billed(reason: str) -> None:
    response = json.loads(DIALECT.encode_response(Response("Hi"))) | {"stopReason": reason}
    _, error = error_of_call(FakeResponse(200, json.dumps(response).encode(), JSON))
    assert (type(error), error.status, error.may_be_billed) == (ProviderError, 502, True)
    frames = [
        DIALECT.encode_frame(sse.format_event(json.dumps(event).encode()))
        for event in (delta(0, text="Hi"), stop(reason))
    ]
    received, error = error_of_call(FakeResponse(200, b"".join(frames), EVENTS), streams=True)
    assert (b'"Hi"' in received, type(error), error.may_be_billed) == (True, ProviderError, True)


def test_invalid_bedrock_response_is_a_502() -> None:
    for body in (b"{}", b"[1]", b'{"output":{"message":{"content":[7]}},"stopReason":"end_turn"}', b"oops"):
        _, error = error_of_call(FakeResponse(200, body, JSON))
        assert (type(error), error.status, error.may_be_billed) == (ProviderError, 502, True)


def test_error_without_bedrock_body_is_mapped_by_status() -> None:
    _, error = error_of_call(FakeResponse(503, b"<html>busy</html>", {"content-type": "text/html"}))
    assert (type(error), error.status) == (ProviderUnavailable, 503)
