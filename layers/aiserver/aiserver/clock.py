"""Time, ids and random numbers behind one protocol, which tests replace.

Times are integer milliseconds since 1970, UTC (`_ms`); responses render them as ISO-8601.
"""

import random
import secrets
import time
from typing import Protocol

ID_EPOCH_MS = 1_735_689_600_000  # 2025-01-01: leaves ids below 2^53 (an exact number in JavaScript) until 2094
ID_RANDOM_BITS = 12


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


def job_id(now_ms: int, random_part: int) -> int:
    return ((now_ms - ID_EPOCH_MS) << ID_RANDOM_BITS) | random_part
