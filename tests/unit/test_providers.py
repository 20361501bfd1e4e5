"""Choosing a provider, and calling one over real HTTP: each outcome means what it says about our money."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydantic import ValidationError

from aiserver.errors import (
    InvalidRequest,
    NotFound,
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
    UpstreamAnswer,
)
from aiserver.providers.openai import MAX_ERROR_BYTES, OpenAi, client
from aiserver.providers.provider import Provider
from aiserver.providers.transport import total_deadline
from aiserver.router import Router
from local.scripted import ScriptedProvider
from tests.fakes import FakeClock

TOO_LONG = b"m" * (2 * MAX_ERROR_BYTES)


def provider(name: str = "p", **more: object) -> Provider:
    return Provider.model_validate({"name": name, "base_url": "http://127.0.0.1:1/v1", "models": {"m": ""}} | more)


def router(*providers: Provider) -> Router:
    return Router(lambda: list(providers), {}, None, FakeClock())


@pytest.mark.parametrize(
    ("models", "asked", "served"),
    [
        ({"m": ""}, "m", ("m", 0)),
        ({"m": "vendor/m"}, "m", ("vendor/m", 0)),
        ({"llama3:8b": ""}, "llama3", ("llama3:8b", 1)),
        ({"llama3:8b": "", "llama3:latest": "big"}, "llama3", ("big", 1)),
        ({"llama3": "x"}, "llama3:latest", ("x", 1)),
        ({"llama3:8b": ""}, "llama3:70b", None),
        ({"*": ""}, "any/thing:1", ("any/thing:1", 2)),
        ({"*": "one"}, "any", ("one", 2)),
        ({"m": ""}, "n", None),
        ({"*": ""}, "*", ("*", 2)),
    ],
)
def test_names_match_exactly_then_by_tag_then_as_any(
    models: dict[str, str], asked: str, served: tuple[str, int] | None
) -> None:
    assert provider(models=models).serves(asked) == served


def test_who_names_the_model_comes_before_any_and_then_priority() -> None:
    chosen = router(
        provider("any", models={"*": ""}, priority=9),
        provider("low"),
        provider("high", priority=5),
        provider("off", priority=7, enabled=False),
    ).candidates("m")
    assert [candidate.provider.name for candidate in chosen] == ["high", "low", "any"]


def test_a_provider_asked_for_is_the_only_one_and_must_serve() -> None:
    both = router(provider("p"), provider("q"))
    assert [c.provider.name for c in both.candidates("m", "q")] == ["q"]
    with pytest.raises(InvalidRequest) as refused:
        both.candidates("m", "r")
    assert refused.value.param == "provider"
    with pytest.raises(NotFound) as unknown:
        both.candidates("n")
    assert unknown.value.code == "model_not_found"


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "ftp://x"},
        {"base_url": "https://user:pass@x/v1"},
        {"name": "Has Space"},
        {"type": "smoke-signals"},
        {"models": {}},
        {"concurrency": 0},
        {"timeout_s": 0},
        {"queue": "other"},
        {"api_key_var": "A", "api_key_secret": "/b"},
        {"unknown": 1},
    ],
)
def test_a_provider_that_is_configured_wrongly_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        provider(**wrong)


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as scripted:
        yield scripted


def call(base_url: str, *, deadline_s: float = 5, configured: bool = True, key: str | None = "k") -> UpstreamAnswer:
    with client() as http:
        return OpenAi(http, FakeClock()).call(
            provider(base_url=base_url),
            "chat.completions",
            b'{"model":"m","messages":[{"role":"user","content":"hi"}]}',
            api_key=key,
            idempotency_key="i",
            model_is_configured=configured,
            deadline_s=deadline_s,
        )


def test_an_answer_comes_whole_with_its_usage_and_the_headers_we_relay(upstream: ScriptedProvider) -> None:
    told = b'{"choices":[], "usage":{"total_tokens": 7}}'
    upstream.answer_with(200, told, {"x-request-id": "r", "X-RateLimit-Remaining": "1", "server": "s"})
    answer = call(upstream.base_url)
    assert (answer.body, answer.usage) == (told, '{"total_tokens": 7}')
    assert answer.headers == {"x-request-id": "r", "x-ratelimit-remaining": "1"}
    sent = upstream.requests[-1]
    assert (sent.headers["authorization"], sent.headers["idempotency-key"]) == ("Bearer k", "i")


@pytest.mark.parametrize(
    ("status", "body", "kind", "billed"),
    [
        (400, b'{"error":{"message":"m"}}', ProviderRejected, False),
        (404, b'{"error":{"message":"m"}}', ProviderAuth, False),
        (401, b"{}", ProviderAuth, False),
        (402, b"{}", ProviderAuth, False),
        (403, b"<html>", ProviderAuth, False),
        (429, b'{"error":{"message":"m"}}', ProviderRateLimited, False),
        (429, b"slow", ProviderRateLimited, False),
        (429, b'{"error":{"code":"insufficient_quota"}}', ProviderAuth, False),
        (429, b'{"error":{"message":"%s","code":"insufficient_quota"}}' % TOO_LONG, ProviderRateLimited, False),
        (400, b'{"x":"%s"}' % TOO_LONG, ProviderError, False),
        (500, b'{"error":"m"}', ProviderError, False),
        (503, b"{}", ProviderUnavailable, False),
        (504, b"<html>", ProviderTimeout, True),
        (524, b'{"error":{"message":"m"}}', ProviderTimeout, True),
        (200, b"<html>", ProviderError, True),
        (200, b"[]", ProviderError, True),
        (204, b"", ProviderError, True),
        (301, b"{}", ProviderError, False),
        (None, b"", ProviderTimeout, True),
    ],
)
def test_each_outcome_has_its_own_meaning(
    status: int | None, body: bytes, kind: type[ProviderError], billed: bool, upstream: ScriptedProvider
) -> None:
    upstream.answer_with(status, body)
    with pytest.raises(ProviderError) as failed:
        call(upstream.base_url)
    assert type(failed.value) is kind
    assert failed.value.may_be_billed == billed


@pytest.mark.parametrize("location", ["http://[", "https://%zz:x/", "//", ""])
def test_a_redirect_is_a_bad_answer_wherever_it_leads(location: str, upstream: ScriptedProvider) -> None:
    upstream.answer_with(302, b"{}", {"location": location})
    with pytest.raises(ProviderError) as failed:
        call(upstream.base_url)
    assert (failed.value.retryable, failed.value.may_be_billed) == (True, False)


def test_no_cookie_of_one_call_goes_out_with_another(upstream: ScriptedProvider) -> None:
    with client() as http, total_deadline(5):
        for _ in range(2):
            upstream.answer_with(200, b"{}", {"content-type": "application/json", "set-cookie": "a=b; Path=/"})
            http.post(f"{upstream.base_url}/chat/completions", content=b"{}")
    assert "cookie" not in upstream.requests[-1].headers


def test_an_unknown_model_behind_any_is_the_caller_s_affair(upstream: ScriptedProvider) -> None:
    upstream.answer_with(404, b'{"error":{"message":"no such model"}}')
    with pytest.raises(ProviderRejected) as refused:
        call(upstream.base_url, configured=False)
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
        call(upstream.base_url)
    assert limited.value.retry_after_s == seconds


def test_a_provider_that_is_not_there_was_not_asked() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(ProviderUnavailable) as away:
        call(f"http://127.0.0.1:{port}/v1")
    assert not away.value.may_be_billed


@contextmanager
def raw_server(*pieces: bytes, pause_s: float) -> Iterator[str]:
    """Sends the pieces with pauses between them, then says nothing more."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                for piece in pieces:
                    connection.sendall(piece)
                    if done.wait(pause_s):
                        return
                done.wait(30)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        done.set()
        thread.join()


def test_a_call_whose_time_is_over_before_it_connects_was_never_made(upstream: ScriptedProvider) -> None:
    upstream.requests.clear()
    with pytest.raises(ProviderUnavailable):
        call(upstream.base_url, deadline_s=0)
    assert upstream.requests == []


@pytest.mark.parametrize("key", ["schlüssel", "two\r\nlines"])
def test_a_key_that_no_header_can_hold_is_the_gateway_s_own_trouble_and_no_call(
    key: str, upstream: ScriptedProvider
) -> None:
    upstream.requests.clear()
    with pytest.raises(ProviderAuth) as refused:
        call(upstream.base_url, key=key)
    assert (upstream.requests, refused.value.may_be_billed) == ([], False)
    assert key not in str(refused.value)


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"HTTP/1.1 200 OK\r\n",),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n", *[b"{"] * 50),
    ],
)
def test_the_deadline_is_total_even_against_a_drip(pieces: tuple[bytes, ...]) -> None:
    with raw_server(*pieces, pause_s=0.05) as base_url, pytest.raises(ProviderTimeout) as late:
        call(base_url, deadline_s=0.4)
    assert late.value.may_be_billed
