"""Admission at its limits: the end of a lease, the wait of a busy provider, the hash of a request, and loads."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from aiserver.circuit_breaker.breaker import CircuitBreaker
from aiserver.clock import Deadline
from aiserver.errors import ProviderBusy, ProviderCircuitOpen, ProviderError
from aiserver.jobs.job import request_hash
from aiserver.operations import CHAT
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider
from aiserver.routing.admission import Admission, AdmissionControl
from tests.app import load_providers
from tests.fakes import FakeCircuits, FakeClock, FakeLeases

BODY = b'{"model":"m"}'


def provider(name: str = "p", **config: Any) -> Provider:
    (loaded,) = load_providers({"name": name, "models": {"m": ""}} | config)
    return loaded


class Scenario:
    """An AdmissionControl over fakes, without a store of leases or a breaker unless they are given."""

    def __init__(self, *, has_leases: bool = True, has_breaker: bool = False) -> None:
        self.clock = FakeClock()
        self.begin_ms = self.clock.now
        self.leases, self.circuits = FakeLeases(), FakeCircuits()
        self.control = AdmissionControl(
            self.clock,
            self.leases if has_leases else None,
            CircuitBreaker(self.circuits, self.clock) if has_breaker else None,
        )

    @contextmanager
    def admit(
        self, provider: Provider, *, for_ms: int = 90_000, begin_ms: int = 90_000, stream: bool = False
    ) -> Generator[Admission]:
        deadline, begin_deadline = Deadline(self.clock.now + for_ms), Deadline(self.clock.now + begin_ms)
        call = ProviderCall(CHAT, BODY, deadline, begin_deadline, "owner", stream=stream)
        with self.control.admit(Upstream(provider, "m", model_is_configured=True), call) as admission:
            yield admission

    def hold_lease(self, name: str, index: int = 0) -> None:
        self.leases.held.setdefault(f"provider#{name}", {})[index] = self.clock.now


@pytest.mark.parametrize(
    ("stream", "timeout_s", "expires_ms"),
    [(False, 30, 90_000), (False, 90, 150_000), (False, 600, 150_000), (True, 30, 150_000)],
)
def test_lease_expires_a_minute_after_the_end_of_its_call(stream: bool, timeout_s: int, expires_ms: int) -> None:
    scenario = Scenario()
    with scenario.admit(provider(concurrency=1, timeout_s=timeout_s), stream=stream):
        assert scenario.leases.held == {"provider#p": {0: scenario.begin_ms + expires_ms}}
    assert scenario.leases.held == {"provider#p": {}}


def test_provider_at_its_limit_is_busy_for_two_seconds() -> None:
    scenario = Scenario()
    limited = provider(concurrency=2)
    scenario.hold_lease("p")
    with scenario.admit(limited):
        pass
    scenario.hold_lease("p", 1)
    with pytest.raises(ProviderBusy) as raised, scenario.admit(limited):
        pytest.fail("the call was admitted")
    assert (raised.value.message, raised.value.retry_after_s) == ("Provider p is at its concurrency limit", 2)
    scenario.clock.now += 1
    with scenario.admit(limited):
        pass


@pytest.mark.parametrize(("has_leases", "concurrency"), [(True, None), (False, 1), (False, None)])
def test_call_without_a_limit_or_a_lease_store_takes_no_lease(has_leases: bool, concurrency: int | None) -> None:
    scenario = Scenario(has_leases=has_leases)
    with scenario.admit(provider(concurrency=concurrency)) as admission:
        admission.on_first_event()
        admission.withdraw()
    assert scenario.leases.held == {}


def test_breaker_knows_a_request_by_eight_characters_of_its_hash() -> None:
    scenario = Scenario(has_breaker=True)
    with pytest.raises(ProviderError), scenario.admit(provider()):
        raise ProviderError("broken", upstream_status=500)
    gate = scenario.circuits.stored["p"].gate(("owner", "m"))
    assert gate.stats.failures == ((scenario.begin_ms, request_hash("chat.completions", BODY)[:8]),)


def test_open_circuit_rejects_a_call_before_it_takes_a_lease() -> None:
    scenario = Scenario(has_breaker=True)
    for _ in range(5):
        with pytest.raises(ProviderError), scenario.admit(provider()):
            raise ProviderError("broken", upstream_status=503)
    with pytest.raises(ProviderCircuitOpen), scenario.admit(provider(concurrency=1)):
        pytest.fail("the call was admitted")
    assert scenario.leases.held == {}


def test_withdrawn_call_has_no_outcome() -> None:
    scenario = Scenario(has_breaker=True)
    with scenario.admit(provider()) as admission:
        admission.withdraw()
    assert scenario.circuits.stored == {}


def test_load_is_the_share_of_concurrency_in_use() -> None:
    scenario = Scenario()
    scenario.hold_lease("a")
    scenario.hold_lease("free")
    providers = [provider("a", concurrency=4), provider("b", concurrency=4), provider("free")]
    assert scenario.control.loads(providers) == {"a": 0.25, "b": 0, "free": 1}
    assert scenario.leases.reads == 1
    scenario.clock.now += 1
    assert scenario.control.loads(providers) == {"a": 0, "b": 0, "free": 0}


def test_load_is_empty_without_providers_or_a_lease_store() -> None:
    scenario = Scenario()
    assert scenario.control.loads([]) == {}
    assert scenario.leases.reads == 0
    assert Scenario(has_leases=False).control.loads([provider(concurrency=1)]) == {}
