"""Among equal providers the least loaded is called first: calls in flight divided by the concurrency limit."""

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.jobs.states import JobState
from aiserver.routing.failover import FailoverResult
from aiserver.routing.selection import equal_limited_providers, order_by_load
from tests.app import TestApp


def provider(name: str, concurrency: int | None = None, *, priority: int = 0, model: str = "m") -> dict[str, Any]:
    return {"name": name, "concurrency": concurrency, "priority": priority, "models": {model: ""}}


def set_load(app: TestApp, **calls: int) -> None:
    """Set the calls that other functions have in flight, by provider name."""
    for name, count in calls.items():
        app.leases.held[f"provider#{name}"] = dict.fromkeys(range(count), app.clock.now + 60_000)


def order(app: TestApp) -> list[str]:
    candidates = app.directory.candidates("m")
    loads = app.admission.loads(equal_limited_providers(candidates))
    return [candidate.provider.name for candidate in order_by_load(candidates, loads, app.clock.fraction())]


def run_sync(app: TestApp) -> FailoverResult:
    return app.try_providers(27_000)


CHANCES = [(number + 0.5) / 60 for number in range(60)]  # divisible among two, three, four or five providers


def first_counts(app: TestApp) -> dict[str, int]:
    """Return how often each provider is first in 60 passes with evenly spread random fractions."""
    counts = Counter[str]()
    for app.clock.chance in CHANCES:
        counts[order(app)[0]] += 1
    return dict(counts)


def test_provider_with_the_lowest_load_is_first_for_any_random_fraction() -> None:
    app = TestApp(provider("small", 2), provider("large", 100), provider("middle", 10))
    set_load(app, small=1, large=40, middle=3)
    for app.clock.chance in CHANCES:
        assert order(app) == ["middle", "large", "small"]


def test_provider_without_concurrency_limit_counts_as_idle() -> None:
    app = TestApp(provider("counted", 100), provider("free"))
    set_load(app, counted=1)
    assert first_counts(app) == {"free": 60}
    app.leases.held.clear()
    assert first_counts(app) == {"counted": 30, "free": 30}


@pytest.mark.parametrize("busy", ["a", "b", "c", "d"])
def test_idle_providers_share_calls_equally_while_another_is_busy(busy: str) -> None:
    app = TestApp(*(provider(name, 4 if name == busy else None) for name in "abcd"))
    set_load(app, **{busy: 2})
    assert first_counts(app) == {name: 20 for name in "abcd" if name != busy}


def test_equally_loaded_providers_share_calls_equally() -> None:
    app = TestApp(provider("a", 2), provider("b", 4), provider("c", 6))
    set_load(app, a=1, b=2, c=3)
    assert first_counts(app) == {"a": 20, "b": 20, "c": 20}


def test_unknown_load_shares_calls_equally_among_all_equal_providers() -> None:
    app = TestApp(provider("a", 2), provider("b", 2), provider("c"))
    set_load(app, a=2, b=1)

    def fail(*_: object, **__: object) -> dict[str, int]:
        raise ConnectionError("DynamoDB is unavailable")

    app.leases.count_active = fail
    assert first_counts(app) == {"a": 20, "b": 20, "c": 20}
    assert set(order(app)) == {"a", "b", "c"}


def test_named_model_precedes_any_model_whatever_load_and_priority() -> None:
    app = TestApp(provider("any", priority=99, model="*"), provider("named", 1))
    set_load(app, named=1)
    assert first_counts(app) == {"named": 60}


def test_idle_provider_of_lower_priority_is_not_first() -> None:
    app = TestApp(provider("high", 1, priority=1), provider("low", 1))
    set_load(app, high=1)
    assert first_counts(app) == {"high": 60}


def test_provider_filled_after_the_load_was_read_is_skipped_in_that_pass() -> None:
    app = TestApp(provider("a", 1), provider("b", 2))
    set_load(app, b=1)
    count_active = app.leases.count_active

    def count_then_fill(*args: Any, **options: Any) -> dict[str, int]:
        counts = count_active(*args, **options)
        set_load(app, a=1)
        return counts

    app.leases.count_active = count_then_fill
    result = run_sync(app)
    assert (result.provider, result.attempts) == ("b", 1)
    set_load(app, a=0)
    completed = app.run(app.accept())
    assert (completed.state, completed.served_by, completed.calls) == (JobState.COMPLETED, "b", 1)


def test_pass_holds_one_lease_of_the_called_provider_and_none_afterwards() -> None:
    app = TestApp(provider("a", 3), provider("b", 3))
    set_load(app, a=1, b=2)
    leases_during_call: list[dict[str, int]] = []
    send = app.dispatcher.send

    def count_and_send(*args: Any) -> Any:
        leases_during_call.append(app.leases.count_active(["provider#a", "provider#b"], now_ms=app.clock.now))
        return send(*args)

    app.dispatcher.send = count_and_send
    assert run_sync(app).provider == "a"
    assert leases_during_call == [{"provider#a": 2, "provider#b": 2}]
    assert app.leases.count_active(["provider#a", "provider#b"], now_ms=app.clock.now) == {
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
def test_load_is_read_only_where_it_can_change_the_order(providers: list[dict[str, Any]]) -> None:
    app = TestApp(*providers)
    order(app)
    assert app.leases.reads == 0


def test_load_of_all_equal_providers_is_one_read() -> None:
    app = TestApp(provider("a", 3), provider("b", 3), provider("c"))
    order(app)
    assert app.leases.reads == 1


@st.composite
def fleets(draw: st.DrawFn) -> list[tuple[dict[str, Any], int]]:
    """Providers, each with its number of calls in flight."""
    fleet: list[tuple[dict[str, Any], int]] = []
    for name in "abcdef"[: draw(st.integers(1, 6))]:
        concurrency = draw(st.none() | st.integers(1, 6))
        model, priority = draw(st.sampled_from(["m", "m:latest", "*"])), draw(st.integers(0, 1))
        calls = draw(st.integers(0, concurrency)) if concurrency else 0
        fleet.append((provider(name, concurrency, priority=priority, model=model), calls))
    return fleet


@given(fleet=fleets(), chance=st.floats(0, 1, exclude_max=True))
def test_providers_are_ordered_by_match_priority_and_load(
    fleet: list[tuple[dict[str, Any], int]], chance: float
) -> None:
    app = TestApp(*(config for config, _ in fleet))
    app.clock.chance = chance
    set_load(app, **{config["name"]: calls for config, calls in fleet})

    def rank(name: str) -> tuple[bool, int, bool, Fraction]:
        """Sort key: named model before any model, then priority, then exact name before tag, then load."""
        config, calls = next(pair for pair in fleet if pair[0]["name"] == name)
        load = Fraction(calls, config["concurrency"] or 1)
        return "*" in config["models"], -config["priority"], "m" not in config["models"], load

    ordered = order(app)
    assert sorted(ordered) == [config["name"] for config, _ in fleet]
    assert [rank(name) for name in ordered] == sorted(rank(name) for name in ordered)
