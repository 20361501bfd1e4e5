"""Of equal providers the least loaded is asked first: by the calls under way for what each may have."""

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.jobs.states import JobState
from aiserver.router import ProviderCall
from aiserver.usecases.failover import FailoverResult, try_candidates
from tests.app import BODY, TestApp


def provider(name: str, concurrency: int | None = None, *, priority: int = 0, model: str = "m") -> dict[str, Any]:
    return {"name": name, "concurrency": concurrency, "priority": priority, "models": {model: ""}}


def load(house: TestApp, **taken: int) -> None:
    """Other functions have so many calls under way."""
    for name, count in taken.items():
        house.slots.held[f"provider#{name}"] = dict.fromkeys(range(count), house.clock.now + 60_000)


def order(house: TestApp) -> list[str]:
    return [candidate.provider.name for candidate in house.router.order_by_load(house.router.candidates("m"))]


def sync(house: TestApp) -> FailoverResult:
    question, found = ProviderCall("chat.completions", BODY.encode()), house.router.candidates("m")
    return try_candidates(house.router, question, found, clock=house.clock, deadline_ms=house.clock.now + 27_000)


CHANCES = [(number + 0.5) / 60 for number in range(60)]  # so that two, three, four or five have equal shares


def firsts(house: TestApp) -> dict[str, int]:
    """How often each comes first, as chance has it, in 60 passes."""
    found = Counter[str]()
    for house.clock.chance in CHANCES:
        found[order(house)[0]] += 1
    return dict(found)


def test_the_one_with_the_fewest_calls_for_what_it_may_have_comes_first_whatever_chance_says() -> None:
    house = TestApp(provider("small", 2), provider("large", 100), provider("middle", 10))
    load(house, small=1, large=40, middle=3)
    for house.clock.chance in CHANCES:
        assert order(house) == ["middle", "large", "small"]


def test_one_without_concurrency_counts_as_idle() -> None:
    house = TestApp(provider("counted", 100), provider("free"))
    load(house, counted=1)
    assert firsts(house) == {"free": 60}
    house.slots.held.clear()
    assert firsts(house) == {"counted": 30, "free": 30}


@pytest.mark.parametrize("busy", ["a", "b", "c", "d"])
def test_those_that_are_as_idle_share_the_calls_equally_though_another_is_busy(busy: str) -> None:
    house = TestApp(*(provider(name, 4 if name == busy else None) for name in "abcd"))
    load(house, **{busy: 2})
    assert firsts(house) == {name: 20 for name in "abcd" if name != busy}


def test_those_that_are_as_loaded_share_the_calls_equally() -> None:
    house = TestApp(provider("a", 2), provider("b", 4), provider("c", 6))
    load(house, a=1, b=2, c=3)
    assert firsts(house) == {"a": 20, "b": 20, "c": 20}


def test_where_the_load_is_not_known_all_equals_share_the_calls_and_none_is_left_out() -> None:
    house = TestApp(provider("a", 2), provider("b", 2), provider("c"))
    load(house, a=2, b=1)

    def away(*_: object, **__: object) -> dict[str, int]:
        raise ConnectionError("DynamoDB is away")

    house.slots.count_held = away
    assert firsts(house) == {"a": 20, "b": 20, "c": 20}
    assert set(order(house)) == {"a", "b", "c"}


def test_one_that_takes_any_model_is_never_asked_before_one_that_names_it_whatever_their_loads_and_priorities() -> None:
    house = TestApp(provider("any", priority=99, model="*"), provider("named", 1))
    load(house, named=1)
    assert firsts(house) == {"named": 60}


def test_a_lower_priority_is_not_asked_first_because_it_is_idle() -> None:
    house = TestApp(provider("high", 1, priority=1), provider("low", 1))
    load(house, high=1)
    assert firsts(house) == {"high": 60}


def test_whoever_was_filled_since_the_load_was_read_is_passed_over_in_the_same_pass_for_callers_and_jobs() -> None:
    house = TestApp(provider("a", 1), provider("b", 2))
    load(house, b=1)
    taken = house.slots.count_held

    def then_filled(*names: Any, **more: Any) -> dict[str, int]:
        found = taken(*names, **more)
        load(house, a=1)
        return found

    house.slots.count_held = then_filled
    done = sync(house)
    assert (done.provider, done.attempts) == ("b", 1)
    load(house, a=0)
    done = house.run(house.accept())
    assert (done.state, done.served_by, done.calls) == (JobState.COMPLETED, "b", 1)


def test_a_pass_holds_one_place_of_the_provider_it_asks_and_none_afterwards() -> None:
    house = TestApp(provider("a", 3), provider("b", 3))
    load(house, a=1, b=2)
    seen: list[dict[str, int]] = []
    call = house.protocol.call

    def looked(*args: Any, **more: Any) -> Any:
        seen.append(house.slots.count_held(["provider#a", "provider#b"], now_ms=house.clock.now))
        return call(*args, **more)

    house.protocol.call = looked
    assert sync(house).provider == "a"
    assert seen == [{"provider#a": 2, "provider#b": 2}]
    assert house.slots.count_held(["provider#a", "provider#b"], now_ms=house.clock.now) == {
        "provider#a": 1,
        "provider#b": 2,
    }


@pytest.mark.parametrize(
    "providers",
    [
        [provider("only", 3)],
        [provider("a"), provider("b")],
        [provider("first", 3, priority=1), provider("second", 3)],
        [provider("named", 3), provider("any", 3, model="*")],
    ],
)
def test_the_load_is_read_only_where_it_can_change_who_is_asked(providers: list[dict[str, Any]]) -> None:
    house = TestApp(*providers)
    order(house)
    assert house.slots.reads == 0


def test_the_load_of_all_equals_is_one_read() -> None:
    house = TestApp(provider("a", 3), provider("b", 3), provider("c"))
    order(house)
    assert house.slots.reads == 1


@st.composite
def fleets(draw: st.DrawFn) -> list[tuple[dict[str, Any], int]]:
    """Providers, each with how many calls it has under way."""
    found: list[tuple[dict[str, Any], int]] = []
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        concurrency = draw(st.none() | st.integers(1, 6))
        model, priority = draw(st.sampled_from(["m", "m:latest", "*"])), draw(st.integers(0, 1))
        taken = draw(st.integers(0, concurrency)) if concurrency else 0
        found.append((provider(name, concurrency, priority=priority, model=model), taken))
    return found


@given(fleet=fleets(), chance=st.floats(0, 1, exclude_max=True))
def test_nobody_is_asked_before_a_better_one(fleet: list[tuple[dict[str, Any], int]], chance: float) -> None:
    house = TestApp(*(one for one, _ in fleet))
    house.clock.chance = chance
    load(house, **{one["name"]: taken for one, taken in fleet})

    def worse(name: str) -> tuple[bool, int, bool, Fraction]:
        """The higher, the later: whoever takes any model, then the lower priority, then a tag, then the fuller."""
        one, taken = next(pair for pair in fleet if pair[0]["name"] == name)
        load = Fraction(taken, one["concurrency"] or 1)
        return "*" in one["models"], -one["priority"], "m" not in one["models"], load

    asked = order(house)
    assert sorted(asked) == [one["name"] for one, _ in fleet]
    assert [worse(name) for name in asked] == sorted(worse(name) for name in asked)
