"""Containers of one stack that share circuits and call one scripted provider."""

import itertools
from collections.abc import Callable

from aiserver.circuit_breaker.breaker import CallTarget, CircuitBreaker
from aiserver.circuit_breaker.circuit import (
    CLOSED_GATE,
    FAILURE_THRESHOLD,
    OPEN_MS,
    PROVIDER_GATE,
    CallStats,
    Circuit,
    Gate,
)
from aiserver.clock import Deadline
from aiserver.errors import ProviderCircuitOpen, ProviderError
from tests.fakes import FakeCircuits, FakeClock

FAILURE = ProviderError("bad", upstream_status=500)
LONG_MS = 27_000
KEY, MODEL = "key", "m"
_numbers = itertools.count()


def attempt(
    provider: str = "p", *, owner: str = KEY, model: str = MODEL, request: Callable[[], str] | None = None
) -> CallTarget:
    """Return a call attempt, of a new request unless one is given."""
    return CallTarget(provider, owner, model, request or (lambda: str(next(_numbers))))


def provider_circuit(stats: CallStats = CLOSED_GATE.stats, retry_at: int | None = None, stamp: str = "") -> Circuit:
    """Return a circuit with only the gate of all owners and models."""
    return Circuit({PROVIDER_GATE: Gate(stats, retry_at)}, stamp)


class Fleet:
    """Containers of one stack that call one provider."""

    def __init__(self, containers: int = 3) -> None:
        self.clock = FakeClock()
        self.circuits = FakeCircuits()
        self.breakers = [CircuitBreaker(self.circuits, self.clock) for _ in range(containers)]

    def call(
        self,
        container: int = 0,
        outcome: ProviderError | None = None,
        *,
        remaining_ms: int = LONG_MS,
        owner: str = KEY,
        model: str = MODEL,
        request: Callable[[], str] | None = None,
    ) -> bool:
        """Make one call, and return whether the provider was called."""
        breaker, call = self.breakers[container], attempt(owner=owner, model=model, request=request)
        self.clock.now += 1
        try:
            breaker.check(call)
            with breaker.track_call(call, deadline=Deadline(self.clock.now + remaining_ms)):
                if outcome:
                    raise outcome
        except ProviderCircuitOpen:
            return False
        except ProviderError:
            pass
        return True

    @property
    def gate(self) -> Gate:
        """Return the stored gate of the default owner and model."""
        return self.circuits.stored["p"].gate((KEY, MODEL))

    def calls(self, outcomes: str, container: int | None = None) -> list[bool]:
        """Make one call per letter, G for success and B for failure, in one container or in each in turn."""
        return [
            self.call(i % len(self.breakers) if container is None else container, None if letter == "G" else FAILURE)
            for i, letter in enumerate(outcomes)
        ]


def fleet_due_for_probe(containers: int = 3) -> Fleet:
    """Return containers whose circuit has been open for OPEN_MS: the next call is a probe."""
    fleet = Fleet(containers)
    fleet.calls("B" * FAILURE_THRESHOLD, container=0)
    fleet.clock.now += OPEN_MS
    return fleet
