"""Containers of one stack that share circuits, and call one provider which does as it is told."""

import itertools
from collections.abc import Callable

from aiserver.errors import ProviderCircuitOpen, ProviderError
from aiserver.providers.breaker import Attempt, CircuitBreaker
from aiserver.providers.circuit import CLOSED_GATE, FAILURE_THRESHOLD, OPEN_MS, PROVIDER_GATE, CallStats, Circuit, Gate
from tests.fakes import FakeCircuits, FakeClock

BAD = ProviderError("bad", upstream_status=500)
LONG_MS = 27_000
KEY, MODEL = "key", "m"
_numbers = itertools.count()


def attempt(
    provider: str = "p", *, owner: str = KEY, model: str = MODEL, request: Callable[[], str] | None = None
) -> Attempt:
    """A call; its request is another one each time unless it is named."""
    return Attempt(provider, owner, model, request or (lambda: str(next(_numbers))))


def circuit_of_everyone(tally: CallStats = CLOSED_GATE.stats, ask_at: int | None = None, stamp: str = "") -> Circuit:
    return Circuit({PROVIDER_GATE: Gate(tally, ask_at)}, stamp)


class Fleet:
    """Containers of one stack, which call one provider."""

    def __init__(self, containers: int = 3) -> None:
        self.clock = FakeClock()
        self.circuits = FakeCircuits()
        self.breakers = [CircuitBreaker(self.circuits, self.clock) for _ in range(containers)]

    def call(
        self,
        container: int = 0,
        outcome: ProviderError | None = None,
        *,
        left_ms: int = LONG_MS,
        owner: str = KEY,
        model: str = MODEL,
        request: Callable[[], str] | None = None,
    ) -> bool:
        """Whether the provider was asked."""
        breaker, asked = self.breakers[container], attempt(owner=owner, model=model, request=request)
        self.clock.now += 1
        try:
            breaker.check(asked)
            with breaker.track_call(asked, deadline_ms=self.clock.now + left_ms):
                if outcome:
                    raise outcome
        except ProviderCircuitOpen:
            return False
        except ProviderError:
            pass
        return True

    @property
    def gate(self) -> Gate:
        """The stored one of the key and the model that calls are of unless they say otherwise."""
        return self.circuits.stored["p"].gate((KEY, MODEL))

    def calls(self, outcomes: str, container: int | None = None) -> list[bool]:
        """One call for each letter, G for good and B for bad, by one container or by each in turn."""
        return [
            self.call(i % len(self.breakers) if container is None else container, None if letter == "G" else BAD)
            for i, letter in enumerate(outcomes)
        ]


def opened(containers: int = 3) -> Fleet:
    """Containers whose provider's circuit has been open for as long as nobody may ask it."""
    fleet = Fleet(containers)
    fleet.calls("B" * FAILURE_THRESHOLD, container=0)
    fleet.clock.now += OPEN_MS
    return fleet
