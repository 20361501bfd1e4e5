"""Conformance of every provider over HTTP on loopback, whatever its protocol.

The tests are independent of protocols: each profile encodes requests and responses in its provider's protocol.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.catalogue import AUDIO_OPERATIONS, IMAGE_OPERATIONS
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.wire import errors as wire_errors
from tests.providers.calls import dispatcher, make_call, upstream_of
from tests.providers.conformance_profiles import KEY, PROFILES, ConformanceProfile, ConstantTokenClock, Exchange
from tests.providers.fake_provider import FakeProvider, FakeResponse, run_fake_provider
from tests.providers.streaming import read_stream

TIMEOUT_S = 30
MESSAGE = "the words of the provider"


@dataclass
class Subject:
    """A provider, the dispatcher that calls it, and the fake server."""

    profile: ConformanceProfile
    server: FakeProvider
    provider: Provider
    dispatcher: Dispatcher

    def call(
        self, exchange: Exchange, *, api_key: str | None = KEY, model_is_configured: bool = True
    ) -> ProviderResponse:
        upstream = upstream_of(self.provider, api_key=api_key, model_is_configured=model_is_configured)
        call = make_call(exchange.operation, exchange.request_body, timeout_s=TIMEOUT_S)
        return self.dispatcher.send(upstream, call)

    def stream(self, response: FakeResponse) -> tuple[bytes, ProviderError | None]:
        """Return bytes and error of a stream when the server sends this response."""
        self.server.responses.append(response)
        call = make_call(body=self.profile.exchanges[0].request_body, timeout_s=TIMEOUT_S, stream=True)
        with self.dispatcher.open_stream(upstream_of(self.provider, api_key=KEY), call) as stream:
            return read_stream(stream.events)

    def expect_error(self, response: FakeResponse, **options: Any) -> ProviderError:
        """Return the error of a call when the server sends this response."""
        self.server.responses.append(response)
        with pytest.raises(ProviderError) as failure:
            self.call(self.profile.exchanges[0], **options)
        return failure.value


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with create_client() as client:
        yield client


def profile_name(profile: ConformanceProfile) -> str:
    return profile.name


@pytest.fixture(scope="module", params=PROFILES, ids=profile_name)
def subject(request: pytest.FixtureRequest, http: httpx.Client) -> Iterator[Subject]:
    profile: ConformanceProfile = request.param
    paths = {exchange.path for exchange in profile.exchanges} | {profile.list_path}
    with run_fake_provider(
        paths, profile.credential, profile.error_response(401, f"No such key: {KEY[:5]}***")
    ) as server:
        yield Subject(profile, server, profile.provider(server.origin), dispatcher(http, ConstantTokenClock()))


def test_text_operations_are_those_of_the_provider(subject: Subject) -> None:
    operations = [name for name in subject.provider.operations if name not in (*AUDIO_OPERATIONS, *IMAGE_OPERATIONS)]
    assert [exchange.operation for exchange in subject.profile.exchanges] == operations


def test_request_is_sent_with_the_key_and_its_response_returned(subject: Subject) -> None:
    """The usage and the relayed headers are returned with it."""
    header, credential = subject.profile.credential
    for exchange in subject.profile.exchanges:
        subject.server.responses.append(
            FakeResponse(200, exchange.upstream_response, {"content-type": "application/json", "x-request-id": "r"})
        )
        response = subject.call(exchange)
        request = subject.server.requests[-1]
        assert (request.method, request.path, request.body) == ("POST", exchange.path, exchange.upstream_body)
        assert request.headers["content-type"] == "application/json"
        assert {name: value for name, value in request.headers.items() if KEY in value} == {header: credential}
        assert (response.status, response.body, response.usage) == (200, exchange.response_body, exchange.usage)
        assert response.headers == {"content-type": "application/json", "x-request-id": "r"}


@pytest.mark.parametrize(
    "subject", [profile for profile in PROFILES if profile.listing is not None], indirect=True, ids=profile_name
)
def test_list_models_returns_model_names_as_used_in_requests(subject: Subject) -> None:
    subject.server.responses.append(FakeResponse(200, subject.profile.listing or b""))
    upstream = upstream_of(subject.provider, api_key=KEY, model_is_configured=False)
    assert subject.dispatcher.list_models(upstream, timeout_s=TIMEOUT_S) == subject.profile.models
    request = subject.server.requests[-1]
    assert (request.method, request.path, request.body) == ("GET", subject.profile.list_path, b"")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_rejected_request_is_a_client_error_with_the_provider_message(status: int, subject: Subject) -> None:
    error = subject.expect_error(subject.profile.error_response(status, MESSAGE), model_is_configured=False)
    assert (type(error), error.status, error.retryable) == (ProviderRejected, status, False)
    rendered = json.loads(wire_errors.render_error(error))
    assert rendered.pop("responseStatus")["message"] == rendered["error"]["message"]
    assert rendered == subject.profile.client_error(status, MESSAGE)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_key_or_account_error_is_hidden_from_the_caller(status: int, subject: Subject) -> None:
    _assert_hidden(subject.expect_error(subject.profile.error_response(status, MESSAGE)))


def test_unknown_key_is_hidden_from_the_caller(subject: Subject) -> None:
    with pytest.raises(ProviderAuth) as failed:
        subject.call(subject.profile.exchanges[0], api_key="another")
    _assert_hidden(failed.value)


@pytest.mark.parametrize(
    "subject", [profile for profile in PROFILES if list(profile.account_errors)], indirect=True, ids=profile_name
)
def test_key_error_with_a_client_status_is_hidden_from_the_caller(subject: Subject) -> None:
    for response in subject.profile.account_errors:
        _assert_hidden(subject.expect_error(response))


def test_missing_configured_model_is_hidden_from_the_caller(subject: Subject) -> None:
    _assert_hidden(subject.expect_error(subject.profile.error_response(404, MESSAGE), model_is_configured=True))


def _assert_hidden(error: ProviderError) -> None:
    rendered = wire_errors.render_error(error)
    assert (type(error), error.status, error.retryable, error.may_be_billed) == (ProviderAuth, 502, True, False)
    assert MESSAGE.encode() not in rendered
    assert KEY[:5].encode() not in rendered


def test_rate_limit_error_keeps_retry_after(subject: Subject) -> None:
    response = subject.profile.error_response(429, MESSAGE)
    headers = {"content-type": "application/json", "retry-after": "7", "x-ratelimit-remaining-requests": "0"}
    error = subject.expect_error(FakeResponse(429, response.body, headers))
    assert (type(error), error.status, error.retry_after_s) == (ProviderRateLimited, 429, 7)
    expected = {name: headers[name] for name in headers if name != "content-type"}
    assert wire_errors.error_headers(error).items() >= expected.items()


@pytest.mark.parametrize(
    ("status", "error_class"), [(500, ProviderError), (502, ProviderError), (503, ProviderUnavailable)]
)
def test_server_error_is_retryable_with_its_message(
    status: int, error_class: type[ProviderError], subject: Subject
) -> None:
    error = subject.expect_error(subject.profile.error_response(status, MESSAGE))
    assert (type(error), error.status, error.retryable, error.may_be_billed) == (error_class, status, True, False)
    assert json.dumps(MESSAGE).encode() in wire_errors.render_error(error)


def test_stream_is_translated_and_a_truncated_one_is_a_timeout(subject: Subject) -> None:
    upstream, expected = subject.profile.stream
    headers = {"content-type": subject.profile.stream_type}
    assert subject.stream(FakeResponse(200, upstream, headers)) == (expected, None)
    truncated = upstream[: len(upstream) * 3 // 5]  # cut before the finish reason
    received, error = subject.stream(FakeResponse(200, truncated, headers))
    assert received
    assert expected.startswith(received)
    assert type(error) is ProviderTimeout


def test_rejected_stream_has_the_status_of_a_call(subject: Subject) -> None:
    with pytest.raises(ProviderRateLimited):
        subject.stream(subject.profile.error_response(429, MESSAGE))
