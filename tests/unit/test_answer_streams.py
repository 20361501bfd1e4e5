"""Streams that are asked for now: who is asked, what is kept of them, and what their provider's state learns."""

import json
from typing import Any

import pytest

from aiserver.errors import (
    Conflict,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.jobs.states import JobState
from aiserver.providers.circuit import FAILURE_THRESHOLD
from aiserver.usecases import views
from aiserver.usecases.complete import FIRST_BYTE_TIMEOUT_MS, CompletionResult
from aiserver.wire import requests
from tests.app import ME, STREAMED, FakeStream, TestApp

LIMIT_MS = 893_500
BODY = '{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]%s}'


def house(**more: Any) -> TestApp:
    return TestApp({"name": "a", "priority": 1, "models": {"m": "x"}, **more}, {"name": "b", "models": {"m": ""}})


def ask(house: TestApp, more: str = "", body: str = BODY) -> CompletionResult:
    request = requests.bind_chat(body % more)
    deadline_ms = house.clock.now + LIMIT_MS
    return house.answer.run(request, owner=ME.owner, base_url="https://x.io", deadline_ms=deadline_ms)


def test_a_stream_is_handed_on_with_who_gives_it_and_ends_by_itself() -> None:
    here = house()
    stream = FakeStream(here.clock, [STREAMED], headers={"x-request-id": "up-1", "content-type": "text/plain"})
    here.protocol.outcomes = [stream]
    answered = ask(here)
    assert (answered.status, answered.provider, answered.attempts) == (200, "a", 1)
    assert answered.headers["x-request-id"] == "up-1"
    assert answered.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answered.headers["cache-control"] == "no-cache"
    assert list(answered.body) == [STREAMED]
    assert stream.is_closed
    ((_, asked),) = here.protocol.calls
    assert json.loads(asked["body"]) == json.loads(BODY % "") | {"model": "x"}


def test_its_beginning_has_less_time_than_its_end() -> None:
    here = house(timeout_s=700)
    ask(here)
    ((_, asked),) = here.protocol.calls
    assert (asked["head_timeout_s"], asked["total_timeout_s"]) == (FIRST_BYTE_TIMEOUT_MS / 1000, LIMIT_MS / 1000)


@pytest.mark.parametrize("first", [ProviderUnavailable("away"), ProviderRateLimited("slow"), ProviderError("broken")])
def test_before_it_has_begun_the_next_provider_is_asked(first: ProviderError) -> None:
    here = house()
    here.protocol.outcomes = [first]
    answered = ask(here)
    assert (answered.provider, answered.attempts) == ("b", 2)
    assert list(answered.body) == [STREAMED]


@pytest.mark.parametrize("first", [ProviderRejected("bad"), ProviderTimeout("cut", may_be_billed=True)])
def test_what_could_cost_twice_or_goes_no_better_elsewhere_is_told(first: ProviderError) -> None:
    here = house()
    here.protocol.outcomes = [first]
    with pytest.raises(type(first)):
        ask(here)
    assert len(here.protocol.calls) == 1


@pytest.mark.parametrize("body", [BODY, BODY.replace('"stream":true,', "")])
def test_an_answer_that_does_not_begin_within_the_platform_s_patience_is_told_of_the_queue(body: str) -> None:
    here = TestApp({"name": "p", "models": {"m": ""}, "timeout_s": 800})
    here.protocol.takes_s = FIRST_BYTE_TIMEOUT_MS / 1000
    here.protocol.outcomes = [ProviderTimeout("Provider p did not answer in time", may_be_billed=True)]
    with pytest.raises(ProviderTimeout, match="in time; queue the request"):
        ask(here, body=body)
    ((_, asked),) = here.protocol.calls
    assert asked.get("head_timeout_s", asked.get("timeout_s")) == FIRST_BYTE_TIMEOUT_MS / 1000 == 280


def test_who_was_cut_off_is_not_told_that_more_time_would_help() -> None:
    here = TestApp({"name": "p", "models": {"m": ""}})
    here.protocol.outcomes = [ProviderTimeout("Provider p gave no whole answer", may_be_billed=True)]
    with pytest.raises(ProviderTimeout, match=r"answer$"):
        ask(here)


# --- what is kept ---


def kept(here: TestApp) -> Any:
    (job,) = here.jobs.list_page(ME.owner, tag=None, state=None, take=9, cursor=None).jobs
    return job


def test_a_stream_with_a_name_is_kept_with_its_usage_and_without_its_text() -> None:
    here = house()
    here.protocol.outcomes = [FakeStream(here.clock, [STREAMED, 2.0], usage='{"total_tokens":3}')]
    answered = ask(here, ',"refId":"r","tag":"t"')
    assert here.jobs.find_by_ref_id(ME.owner, "r", now_ms=here.clock.now) is None
    list(answered.body)
    job = kept(here)
    assert (job.ref_id, job.tag, job.state, job.served_by, job.attempt) == ("r", "t", JobState.COMPLETED, "a", 1)
    assert (job.usage, job.result_location, job.completed_at - job.started_at) == ('{"total_tokens":3}', None, 2000)
    told = json.loads(views.status_view(job, None))
    assert told["jobState"] == "Completed"
    assert not {"result", "resultUrl"} & told.keys()


def test_a_stream_without_a_name_is_not_kept() -> None:
    here = house()
    list(ask(here).body)
    assert here.jobs.items == {}


def test_a_stream_that_broke_off_is_kept_as_failed_with_what_was_counted() -> None:
    here = house()
    error = ProviderTimeout("Provider a broke off its answer", may_be_billed=True)
    here.protocol.outcomes = [FakeStream(here.clock, [STREAMED, error], content_events=4)]
    *_, told = ask(here, ',"tag":"t"').body
    assert b'"errorCode":"ProviderTimeout"' in bytes(told)
    job = kept(here)
    assert (job.state, job.error_code, job.error) == (JobState.FAILED, "ProviderTimeout", error.message)
    assert json.loads(job.usage) == {"completion_tokens": 4, "estimated": True}


def test_of_a_response_that_broke_off_the_usage_is_counted_in_its_own_words() -> None:
    here = TestApp({"name": "p", "models": {"m": ""}, "operations": ["responses"]})
    here.protocol.outcomes = [FakeStream(here.clock, [STREAMED, ProviderError("cut")], content_events=2)]
    request = requests.bind_responses('{"model":"m","input":"hi","stream":true,"tag":"t"}')
    answered = here.answer.run(request, owner=ME.owner, base_url="https://x.io", deadline_ms=here.clock.now + LIMIT_MS)
    list(answered.body)
    assert json.loads(kept(here).usage) == {"output_tokens": 2, "estimated": True}


def test_a_stream_whose_caller_has_gone_is_kept_as_cancelled_with_what_was_counted() -> None:
    here = house()
    here.protocol.outcomes = [stream := FakeStream(here.clock, [STREAMED, STREAMED], content_events=2)]
    answered = ask(here, ',"tag":"t"')
    assert not isinstance(answered.body, bytes)
    next(answered.body)
    answered.body.close()
    assert stream.is_closed
    job = kept(here)
    assert (job.state, json.loads(job.usage)["completion_tokens"]) == (JobState.CANCELLED, 2)


def test_a_stream_that_cannot_be_kept_is_not_spoilt_by_that() -> None:
    here = house()

    def broken(*_: object, **__: object) -> Any:
        raise RuntimeError("no table")

    here.jobs.create = broken  # type: ignore[method-assign]
    assert list(ask(here, ',"tag":"t"').body) == [STREAMED]


def test_the_same_ref_id_again_is_told_that_a_stream_s_text_is_not_kept() -> None:
    here = house()
    list(ask(here, ',"refId":"r"').body)
    with pytest.raises(Conflict, match="kept no answer"):
        ask(here, ',"refId":"r"')
    assert len(here.protocol.calls) == 1


# --- what its provider's state learns ---


def test_a_provider_has_its_place_taken_until_the_stream_has_ended() -> None:
    here = TestApp({"name": "p", "concurrency": 1, "timeout_s": 30, "models": {"m": ""}})
    answered = ask(here)
    (until,) = here.slots.held["provider#p"].values()
    assert until >= here.clock.now + LIMIT_MS  # a stream may last as long as the function, whatever its silence
    with pytest.raises(ProviderRateLimited):
        ask(here)
    list(answered.body)
    assert here.slots.held["provider#p"] == {}
    list(ask(here).body)


def due_for_a_trial() -> TestApp:
    """Its one provider has failed, and the next call is the one that finds out whether it still does."""
    here = TestApp({"name": "p", "models": {"m": ""}})
    here.protocol.outcomes = [ProviderError("broken") for _ in range(FAILURE_THRESHOLD)]
    for _ in range(FAILURE_THRESHOLD):
        with pytest.raises(ProviderError):
            ask(here)
    here.clock.advance(26)
    return here


def test_a_trial_that_has_begun_to_answer_has_gone_well_long_before_it_ends() -> None:
    here = due_for_a_trial()
    first = ask(here)
    events = iter(first.body)
    assert next(events) == STREAMED
    assert here.circuits.stored["p"].retry_at("me", "m") is None
    second = ask(here)
    assert list(second.body) == [STREAMED]
    assert list(events) == []


def test_a_trial_whose_first_event_comes_late_has_gone_well_by_then() -> None:
    here = due_for_a_trial()
    here.protocol.outcomes = [FakeStream(here.clock, [20.0, STREAMED, 1.0], has_first_event=False)]
    events = iter(ask(here).body)
    next(events)
    assert here.circuits.stored["p"].retry_at("me", "m") is not None
    assert next(events) == STREAMED
    assert here.circuits.stored["p"].retry_at("me", "m") is None


def test_a_trial_that_has_said_nothing_yet_has_not_gone_well() -> None:
    here = due_for_a_trial()
    here.protocol.outcomes = [FakeStream(here.clock, [700.0], has_first_event=False)]
    trial = ask(here)
    assert here.circuits.stored["p"].retry_at("me", "m") is not None
    list(trial.body)
    assert here.circuits.stored["p"].retry_at("me", "m") is not None


def test_streams_that_meet_our_own_limit_are_not_held_against_their_provider() -> None:
    here = TestApp({"name": "p", "models": {"m": ""}, "timeout_s": 80_000})
    for _ in range(2 * FAILURE_THRESHOLD):
        here.protocol.outcomes = [FakeStream(here.clock, [STREAMED, 900.0, STREAMED])]
        *_, last = ask(here).body
        assert b"no time left" in bytes(last)
    list(ask(here).body)


def test_streams_that_break_off_open_the_circuit_though_they_began_well() -> None:
    here = TestApp({"name": "p", "models": {"m": ""}})
    cut = ProviderTimeout("cut", may_be_billed=True)
    here.protocol.outcomes = [FakeStream(here.clock, [STREAMED, cut]) for _ in range(50)]
    for _ in range(50):
        list(ask(here).body)
        if here.circuits.stored["p"].retry_at("me", "m") is not None:
            return
    raise AssertionError("it never opened")
