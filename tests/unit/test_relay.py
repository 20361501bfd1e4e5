"""A stream on its way to the caller: pings while it is silent, an end in time, and how it ended is told once."""

import json
from collections.abc import Generator
from contextlib import ExitStack
from typing import Any

import pytest

from aiserver.errors import ProviderError, ProviderTimeout
from aiserver.jobs.states import State
from aiserver.usecases.ask import Begun
from aiserver.usecases.relay import Ended, relay
from aiserver.wire import sse
from tests.fakes import FakeClock
from tests.house import FakeStream

EVENT = b'data: {"choices":[]}\n\n'
SILENCE_S = 600
TOTAL_MS = 893_000
QUIET = b""


class Relayed:
    """A relay of a scripted stream; what it says of its end, and whether its place at the provider was left."""

    def __init__(self, *pieces: bytes | ProviderError | float, usage: str | None = None, count: int = 0) -> None:
        self.clock = FakeClock()
        self.ends: list[Ended] = []
        self.left: list[type[BaseException] | None] = []
        self.stream = FakeStream(self.clock, list(pieces), usage=usage, pieces=count)
        held = ExitStack()
        held.push(lambda kind, *_: self.left.append(kind))
        held.callback(self.stream.close)
        begun: Any = Begun(self.stream, held, SILENCE_S)  # pyright: ignore[reportArgumentType]
        until = self.clock.now + TOTAL_MS
        self.events: Generator[bytes] = relay("p", begun, self.clock, until_ms=until, ended=self.ends.append)


def test_events_pass_as_they_come_and_the_end_is_told_with_the_usage() -> None:
    relayed = Relayed(EVENT, EVENT + EVENT, usage='{"total_tokens":3}')
    assert list(relayed.events) == [EVENT, EVENT + EVENT]
    assert relayed.ends == [Ended(State.COMPLETED, None, '{"total_tokens":3}')]
    assert relayed.stream.is_closed
    assert relayed.left == [None]


def test_a_usage_that_was_not_told_is_unknown_and_no_guess_where_the_answer_is_whole() -> None:
    relayed = Relayed(EVENT, count=7)
    list(relayed.events)
    assert relayed.ends == [Ended(State.COMPLETED, None, None)]


def test_while_nothing_comes_there_is_a_ping_every_fifteen_seconds_and_a_look_at_the_caller_between() -> None:
    relayed = Relayed(EVENT, *[1.0] * 31, EVENT)
    came = list(relayed.events)
    assert came == [EVENT, *[QUIET] * 14, sse.PING, *[QUIET] * 14, sse.PING, QUIET, EVENT]
    assert sse.PING_MS == 15_000


def test_a_stream_that_said_nothing_since_it_began_begins_with_a_ping() -> None:
    assert list(Relayed(1.0, EVENT).events) == [sse.PING, EVENT]


def test_a_provider_that_falls_silent_is_given_up_as_its_operator_says() -> None:
    relayed = Relayed(EVENT, *[30.0] * 100)
    with pytest.raises(ProviderTimeout, match="fell silent"):
        list(relayed.events)
    assert relayed.clock.now - 1_800_000_000_000 == SILENCE_S * 1000
    (end,) = relayed.ends
    assert (end.state, type(end.error)) == (State.FAILED, ProviderTimeout)


@pytest.mark.parametrize("pieces", [[EVENT] * 10_000, [1.0] * 2000])
def test_a_stream_that_does_not_end_is_ended_before_the_function_is(pieces: list[Any]) -> None:
    relayed = Relayed(*pieces)
    relayed.stream.takes_s = 0.5
    with pytest.raises(ProviderTimeout):
        list(relayed.events)
    assert relayed.clock.now <= 1_800_000_000_000 + TOTAL_MS + 1500
    assert relayed.stream.is_closed


def test_an_error_is_raised_after_what_came_and_counts_as_the_end_of_the_call() -> None:
    error = ProviderError("broke", may_be_billed=True)
    relayed = Relayed(EVENT, error, count=3)
    assert next(relayed.events) == EVENT
    with pytest.raises(ProviderError, match="broke"):
        next(relayed.events)
    (end,) = relayed.ends
    assert (end.state, end.error) == (State.FAILED, error)
    assert json.loads(end.usage or "") == {"completion_tokens": 3, "estimated": True}
    assert relayed.left == [ProviderError]


@pytest.mark.parametrize("taken", [0, 1])
def test_whoever_closes_it_closes_the_provider_s_call_and_what_came_is_counted(taken: int) -> None:
    relayed = Relayed(EVENT, EVENT, count=2)
    for _ in range(taken):
        next(relayed.events)
    relayed.events.close()
    assert relayed.stream.is_closed
    (end,) = relayed.ends
    assert (end.state, end.error) == (State.CANCELLED, None)
    assert json.loads(end.usage or "") == {"completion_tokens": 2, "estimated": True}
