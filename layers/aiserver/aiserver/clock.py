"""Time, ids and random numbers behind one protocol, which tests replace; and a deadline in that time.

Times are integer milliseconds since 1970, UTC (`_ms`); responses render them as ISO-8601.
"""

import random
import secrets
import time
from dataclasses import dataclass
from typing import Protocol, Self

ID_EPOCH_MS = 1_735_689_600_000  # 2025-01-01: leaves ids below 2^53 (an exact number in JavaScript) until 2094
ID_RANDOM_BITS = 12
MAX_JOB_ID = 2**53 - 1


class Clock(Protocol):
    """The time, the ids and the random numbers that the gateway uses."""

    def now_ms(self) -> int: ...

    def job_id(self) -> int:
        """An integer below 2^53, ordered by time; the table's conditional write makes it unique."""
        ...

    def token(self) -> str:
        """32 random hex characters (128 bits)."""
        ...

    def fraction(self) -> float:
        """A number in [0, 1), for jitter."""
        ...


class SystemClock:
    """System time and randomness."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def job_id(self) -> int:
        return job_id(self.now_ms(), secrets.randbits(ID_RANDOM_BITS))

    def token(self) -> str:
        return secrets.token_hex(16)

    def fraction(self) -> float:
        return random.random()


def job_id(now_ms: int, random_part: int = 0) -> int:
    """An id made at that time; without a random part, the lowest such id."""
    return ((now_ms - ID_EPOCH_MS) << ID_RANDOM_BITS) | random_part


@dataclass(frozen=True, order=True)
class Deadline:
    """A time by which something must have ended, in Unix ms; the earliest of several is their `min`."""

    at_ms: int

    def remaining_s(self, clock: Clock) -> float:
        """Seconds until the deadline; negative after it."""
        return (self.at_ms - clock.now_ms()) / 1000

    def has_passed(self, clock: Clock) -> bool:
        return clock.now_ms() >= self.at_ms

    @classmethod
    def after(cls, seconds: float, clock: Clock) -> Self:
        """The deadline `seconds` from now."""
        return cls(clock.now_ms() + round(seconds * 1000))
