"""Containers of one stack that share circuits, and call one provider which does as it is told."""

from aiserver.errors import ProviderCircuitOpen, ProviderError
from aiserver.providers.breaker import Breaker
from aiserver.providers.circuit import OPEN_MS, ROW
from tests.fakes import FakeCircuits, FakeClock

BAD = ProviderError("bad", upstream_status=500)
LONG_MS = 27_000


class Fleet:
    """Containers of one stack, which call one provider."""

    def __init__(self, containers: int = 3) -> None:
        self.clock = FakeClock()
        self.circuits = FakeCircuits()
        self.breakers = [Breaker(self.circuits, self.clock) for _ in range(containers)]

    def call(self, container: int = 0, outcome: ProviderError | None = None, *, left_ms: int = LONG_MS) -> bool:
        """Whether the provider was asked."""
        breaker = self.breakers[container]
        self.clock.now += 1
        try:
            breaker.check("p")
            with breaker.watched("p", deadline_ms=self.clock.now + left_ms):
                if outcome:
                    raise outcome
        except ProviderCircuitOpen:
            return False
        except ProviderError:
            pass
        return True

    def calls(self, outcomes: str, container: int | None = None) -> list[bool]:
        """One call for each letter, G for good and B for bad, by one container or by each in turn."""
        return [
            self.call(i % len(self.breakers) if container is None else container, None if letter == "G" else BAD)
            for i, letter in enumerate(outcomes)
        ]


def opened(containers: int = 3) -> Fleet:
    """Containers whose provider's circuit has been open for as long as nobody may ask it."""
    fleet = Fleet(containers)
    fleet.calls("B" * ROW, container=0)
    fleet.clock.now += OPEN_MS
    return fleet
