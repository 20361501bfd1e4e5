"""Where deliveries find room: of all places a key has its share, and of that share each receiver a part."""

import random
from contextlib import AbstractContextManager

from aiserver.jobs.concurrency import lease
from aiserver.jobs.ports import LeaseStore


class DeliveryLimiter:
    """One that hangs takes its part and no more: which slots of the key's are a receiver's follows from its name.

    Two receivers rarely have the same part, so each leaves the other most of it (shuffle sharding,
    https://aws.amazon.com/builders-library/workload-isolation-using-shuffle-sharding/).
    """

    def __init__(self, slots: LeaseStore, *, per_key: int, per_receiver: int) -> None:
        self._slots = slots
        self._per_key = per_key
        self._per_receiver = min(per_receiver, per_key)

    def acquire(self, owner: str, receiver: str, *, now_ms: int, expires_ms: int) -> AbstractContextManager[bool]:
        """Whether there was a place; it is held while the block lasts, and if we die until `until_ms`."""
        part = self.lease_indexes(receiver)
        return lease(self._slots, f"callbacks#{owner}", part, now_ms=now_ms, expires_ms=expires_ms)

    def lease_indexes(self, receiver: str) -> list[int]:
        """The slots of a key's that a receiver may have, the same in every process."""
        return random.Random(receiver).sample(range(self._per_key), self._per_receiver)
