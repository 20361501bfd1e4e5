"""Concurrency limits of callback deliveries, per API key and, within a key, per receiver."""

import random
from contextlib import AbstractContextManager

from aiserver.concurrency import ConcurrencyLeaseStore, lease


class DeliveryLimiter:
    """Assigns each receiver a subset of its key's leases, derived from its name, so that a slow one uses only those.

    Two receivers rarely share a complete subset (shuffle sharding,
    https://aws.amazon.com/builders-library/workload-isolation-using-shuffle-sharding/).
    """

    def __init__(self, leases: ConcurrencyLeaseStore, *, per_key: int, per_receiver: int) -> None:
        self._leases = leases
        self._per_key = per_key
        self._per_receiver = min(per_receiver, per_key)

    def acquire(self, owner: str, receiver: str, *, now_ms: int, expires_ms: int) -> AbstractContextManager[bool]:
        """True if a lease was free. It is held for the block; if the process dies, until `expires_ms`."""
        indexes = self.lease_indexes(receiver)
        return lease(self._leases, f"callbacks#{owner}", indexes, now_ms=now_ms, expires_ms=expires_ms)

    def lease_indexes(self, receiver: str) -> list[int]:
        """The indexes of the key's leases that a receiver may use, the same in every process."""
        return random.Random(receiver).sample(range(self._per_key), self._per_receiver)
