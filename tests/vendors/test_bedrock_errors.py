"""What Bedrock's errors mean, whole and within a stream, over real HTTP and in real frames."""

import json
from typing import Any

import pytest

from aiserver.aws.bedrock import BedrockWire
from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.registry import AdapterRegistry
from aiserver.wire import errors as wire_errors
from aiserver.wire import sse
from tests.fakes import FakeClock
from tests.providers.fake_provider import Said, stand_in
from tests.providers.streaming import heard
from tests.vendors.bedrock import BedrockDialect, frame
from tests.vendors.bedrock_events import BEGIN, delta, stop
from tests.vendors.semantics import Answer

DIALECT = BedrockDialect()
PATHS = {"/model/m/converse", "/model/m/converse-stream"}
JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "application/vnd.amazon.eventstream", "x-amzn-requestid": "req_1"}
PROVIDER = {"name": "b", "type": "bedrock", "models": {"m": ""}}


def failed(said: Said, *, streams: bool = False, model_is_configured: bool = True) -> tuple[bytes, ProviderError]:
    """What came before the error that our caller gets, and it."""
    body = b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
    how: dict[str, Any] = {"api_key": "k", "model_is_configured": model_is_configured}
    with create_client() as http, stand_in(PATHS, ("authorization", "Bearer k"), Said(401, b"{}")) as server:
        server.answers.append(said)
        caller: Any = AdapterRegistry(lambda: http, FakeClock(), BedrockWire)["bedrock"]
        provider = Provider.model_validate({**PROVIDER, "base_url": server.origin})
        try:
            if not streams:
                caller.call(provider, "chat.completions", body, idempotency_key=None, timeout_s=5, **how)
                raise AssertionError
            came, late = heard(
                caller.stream(provider, "chat.completions", body, head_timeout_s=5, total_timeout_s=5, **how)
            )
        except ProviderError as error:
            return b"", error
    assert late
    return came, late


def refused(status: int, type: str, message: str, **how: Any) -> ProviderError:
    headers = {**JSON, "x-amzn-errortype": f"{type}:http://internal.amazon.com/", "x-amzn-requestid": "req_1"}
    return failed(Said(status, json.dumps({"message": message}).encode(), headers), **how)[1]


def exception(type: str, **said: Any) -> bytes:
    return frame({":message-type": "exception", ":exception-type": type, ":content-type": "application/json"}, said)


@pytest.mark.parametrize(
    ("status", "type", "kind", "told"),
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
def test_each_error_is_what_it_means(status: int, type: str, kind: Any, told: int) -> None:
    error = refused(status, type, "so it is")
    assert (error.__class__, error.status) == (kind, told)
    assert error.may_be_billed == (kind is ProviderTimeout)
    if kind is not ProviderAuth:
        body = json.loads(wire_errors.render_error(error))
        assert (body["error"]["message"], body["error"]["type"]) == ("so it is", type)
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
def test_a_model_that_is_not_there_is_our_trouble_where_we_have_configured_it(message: str) -> None:
    assert type(refused(400, "ValidationException", message)) is ProviderAuth
    theirs = refused(400, "ValidationException", message, model_is_configured=False)
    assert (type(theirs), theirs.status, theirs.message) == (ProviderRejected, 404, message)


def test_an_account_that_may_not_use_a_model_yet_is_our_trouble() -> None:
    message = "Model use case details have not been submitted for this account. Fill out the form before."
    assert type(refused(404, "ResourceNotFoundException", message, model_is_configured=False)) is ProviderAuth


@pytest.mark.parametrize(
    ("type", "kind", "status"),
    [
        ("throttlingException", ProviderRateLimited, 429),
        ("serviceUnavailableException", ProviderUnavailable, 503),
        ("internalServerException", ProviderError, 500),
        ("validationException", ProviderRejected, 400),
        ("modelStreamErrorException", ProviderError, 502),
        ("ofNextYearException", ProviderError, 500),
    ],
)
def test_an_exception_is_what_it_means_before_the_first_word_and_after(type: str, kind: Any, status: int) -> None:
    begin = DIALECT.framed(sse.format_event(json.dumps(BEGIN).encode()))
    word = DIALECT.framed(sse.format_event(json.dumps(delta(0, text="Hi")).encode()))
    failure = exception(type, message="so it is")
    came, error = failed(Said(200, begin + failure, EVENTS), streams=True)
    assert (came, error.__class__, error.status, error.may_be_billed) == (b"", kind, status, False)
    came, error = failed(Said(200, begin + word + failure, EVENTS), streams=True)
    assert (b'"Hi"' in came, error.__class__, error.may_be_billed) == (True, kind, True)
    assert (error.message, "so it is" in wire_errors.render_error(error).decode()) == ("so it is", True)


@pytest.mark.parametrize("reason", ["malformed_model_output", "malformed_tool_use"])
def test_an_answer_that_is_none_failed_and_may_be_billed(reason: str) -> None:
    whole = json.loads(DIALECT.message(Answer("Hi"))) | {"stopReason": reason}
    _, error = failed(Said(200, json.dumps(whole).encode(), JSON))
    assert (type(error), error.status, error.may_be_billed) == (ProviderError, 502, True)
    frames = [
        DIALECT.framed(sse.format_event(json.dumps(event).encode())) for event in (delta(0, text="Hi"), stop(reason))
    ]
    came, error = failed(Said(200, b"".join(frames), EVENTS), streams=True)
    assert (b'"Hi"' in came, type(error), error.may_be_billed) == (True, ProviderError, True)


def test_what_is_no_answer_of_bedrock_s_is_told_so() -> None:
    for body in (b"{}", b"[1]", b'{"output":{"message":{"content":[7]}},"stopReason":"end_turn"}', b"oops"):
        _, error = failed(Said(200, body, JSON))
        assert (type(error), error.status, error.may_be_billed) == (ProviderError, 502, True)


def test_a_refusal_without_words_of_bedrock_s_is_told_by_its_status() -> None:
    _, error = failed(Said(503, b"<html>busy</html>", {"content-type": "text/html"}))
    assert (type(error), error.status) == (ProviderUnavailable, 503)
