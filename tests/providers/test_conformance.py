"""What every provider does for its callers, whatever it speaks: each manner over real HTTP on loopback.

Nothing here knows a protocol: how a promise is said at the provider's end is the manner's affair.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.wire import errors as wire_errors
from tests.providers.conformance_profiles import KEY, MANNERS, Caller, Exchange, Manner
from tests.providers.fake_provider import Said, StandIn, stand_in
from tests.providers.streaming import heard

DEADLINE_S = 30
WORDS = "the words of the provider"


@dataclass
class Subject:
    """A provider, its caller and the server that stands for it."""

    manner: Manner
    server: StandIn
    provider: Provider
    caller: Caller

    def ask(
        self, exchange: Exchange, *, api_key: str | None = KEY, model_is_configured: bool = True
    ) -> ProviderResponse:
        return self.caller.call(
            self.provider,
            exchange.operation,
            exchange.asked,
            api_key=api_key,
            idempotency_key=None,
            model_is_configured=model_is_configured,
            timeout_s=DEADLINE_S,
        )

    def streamed(self, said: Said) -> tuple[bytes, ProviderError | None]:
        """What comes of a stream when the server says that, and the error that ends it."""
        self.server.answers.append(said)
        stream = self.caller.stream(
            self.provider,
            "chat.completions",
            self.manner.exchanges[0].asked,
            api_key=KEY,
            model_is_configured=True,
            head_timeout_s=DEADLINE_S,
            total_timeout_s=DEADLINE_S,
        )
        with closing(stream):
            return heard(stream)

    def refused(self, said: Said, **how: Any) -> ProviderError:
        """What it means when the server says that."""
        self.server.answers.append(said)
        with pytest.raises(ProviderError) as failed:
            self.ask(self.manner.exchanges[0], **how)
        return failed.value


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with create_client() as shared:
        yield shared


def name(manner: Manner) -> str:
    return manner.name


@pytest.fixture(scope="module", params=MANNERS, ids=name)
def subject(request: pytest.FixtureRequest, http: httpx.Client) -> Iterator[Subject]:
    manner: Manner = request.param
    paths = {exchange.path for exchange in manner.exchanges} | {manner.list_path}
    with stand_in(paths, manner.credential, manner.error(401, f"No such key: {KEY[:5]}***")) as server:
        yield Subject(manner, server, manner.provider(server.origin), manner.caller(http))


def test_it_is_asked_for_what_its_provider_is_configured_for(subject: Subject) -> None:
    assert [exchange.operation for exchange in subject.manner.exchanges] == list(subject.provider.operations)


def test_each_question_arrives_at_its_place_with_the_key_and_its_answer_comes_back_whole(subject: Subject) -> None:
    header, credential = subject.manner.credential
    for exchange in subject.manner.exchanges:
        subject.server.answers.append(
            Said(200, exchange.said, {"content-type": "application/json", "x-request-id": "r"})
        )
        answer = subject.ask(exchange)
        sent = subject.server.requests[-1]
        assert (sent.method, sent.path, sent.body) == ("POST", exchange.path, exchange.seen)
        assert sent.headers["content-type"] == "application/json"
        assert {name: value for name, value in sent.headers.items() if KEY in value} == {header: credential}
        assert (answer.status, answer.body, answer.usage) == (200, exchange.answered, exchange.usage)
        assert answer.headers == {"content-type": "application/json", "x-request-id": "r"}


@pytest.mark.parametrize("subject", [m for m in MANNERS if m.listing is not None], indirect=True, ids=name)
def test_it_lists_its_models_as_a_request_names_them(subject: Subject) -> None:
    subject.server.answers.append(Said(200, subject.manner.listing or b""))
    assert subject.caller.list_models(subject.provider, api_key=KEY, timeout_s=DEADLINE_S) == subject.manner.models
    sent = subject.server.requests[-1]
    assert (sent.method, sent.path, sent.body) == ("GET", subject.manner.list_path, b"")


@pytest.mark.parametrize("status", [400, 404, 422])
def test_a_request_that_it_refuses_is_its_caller_s_affair_in_its_own_words(status: int, subject: Subject) -> None:
    error = subject.refused(subject.manner.error(status, WORDS), model_is_configured=False)
    assert (type(error), error.status, error.retryable) == (ProviderRejected, status, False)
    told = json.loads(wire_errors.render_error(error))
    assert told.pop("responseStatus")["message"] == told["error"]["message"]
    assert told == subject.manner.told(status, WORDS)


@pytest.mark.parametrize("status", [401, 402, 403])
def test_its_trouble_with_our_key_or_account_is_told_to_no_caller(status: int, subject: Subject) -> None:
    _is_hidden(subject.refused(subject.manner.error(status, WORDS)))


def test_a_key_that_it_does_not_know_is_our_trouble(subject: Subject) -> None:
    with pytest.raises(ProviderAuth) as failed:
        subject.ask(subject.manner.exchanges[0], api_key="another")
    _is_hidden(failed.value)


@pytest.mark.parametrize("subject", [m for m in MANNERS if list(m.ours)], indirect=True, ids=name)
def test_trouble_with_our_key_that_it_calls_the_request_s_is_ours_all_the_same(subject: Subject) -> None:
    for said in subject.manner.ours:
        _is_hidden(subject.refused(said))


def test_a_model_that_we_have_configured_and_it_does_not_have_is_our_trouble(subject: Subject) -> None:
    _is_hidden(subject.refused(subject.manner.error(404, WORDS), model_is_configured=True))


def _is_hidden(error: ProviderError) -> None:
    told = wire_errors.render_error(error)
    assert (type(error), error.status, error.retryable, error.may_be_billed) == (ProviderAuth, 502, True, False)
    assert WORDS.encode() not in told
    assert KEY[:5].encode() not in told


def test_a_wait_that_it_asks_for_is_told_on(subject: Subject) -> None:
    said = subject.manner.error(429, WORDS)
    headers = {"content-type": "application/json", "retry-after": "7", "x-ratelimit-remaining-requests": "0"}
    error = subject.refused(Said(429, said.body, headers))
    assert (type(error), error.status, error.retry_after_s) == (ProviderRateLimited, 429, 7)
    expected = {name: headers[name] for name in headers if name != "content-type"}
    assert wire_errors.error_headers(error).items() >= expected.items()


@pytest.mark.parametrize(("status", "kind"), [(500, ProviderError), (502, ProviderError), (503, ProviderUnavailable)])
def test_a_failure_of_its_own_may_be_asked_elsewhere(status: int, kind: type[ProviderError], subject: Subject) -> None:
    error = subject.refused(subject.manner.error(status, WORDS))
    assert (type(error), error.status, error.retryable, error.may_be_billed) == (kind, status, True, False)
    assert json.dumps(WORDS).encode() in wire_errors.render_error(error)


def test_a_stream_comes_in_openai_s_events_and_one_that_is_cut_is_told(subject: Subject) -> None:
    said, told = subject.manner.stream
    streams = {"content-type": subject.manner.stream_type}
    assert subject.streamed(Said(200, said, streams)) == (told, None)
    came, error = subject.streamed(Said(200, said[: len(said) * 3 // 5], streams))  # before it says why it ended
    assert came
    assert told.startswith(came)
    assert type(error) is ProviderTimeout


def test_a_stream_that_is_refused_has_the_status_of_any_other_call(subject: Subject) -> None:
    with pytest.raises(ProviderRateLimited):
        subject.streamed(subject.manner.error(429, WORDS))
