"""Concurrency leases: the store of leases, and a context manager that holds one for the duration of a block."""

import logging
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from aiserver import log_events

log = logging.getLogger("aiserver.concurrency")


class ConcurrencyLeaseStore(Protocol):
    """Concurrency leases shared by all functions. The lease of a process that dies expires."""

    def acquire(self, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int) -> int | None:
        """Lease a free one of these indexes of `name` until `expires_ms`; None when all are held."""

    def release(self, name: str, index: int, *, expires_ms: int) -> None:
        """Release the lease that expires at `expires_ms`; one held by another process since is not changed."""

    def count_active(self, names: Collection[str], *, now_ms: int) -> dict[str, int]:
        """How many leases of each name are held, in one read."""
        ...


@contextmanager
def lease(
    store: ConcurrencyLeaseStore, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int
) -> Generator[bool]:
    """True if one of `indexes` was free. It is held for the block; if the process dies, until `expires_ms`."""
    index = store.acquire(name, indexes, now_ms=now_ms, expires_ms=expires_ms)
    try:
        yield index is not None
    finally:
        if index is not None:
            _release(store, name, index, expires_ms)


def _release(store: ConcurrencyLeaseStore, name: str, index: int, expires_ms: int) -> None:
    try:
        store.release(name, index, expires_ms=expires_ms)
    except Exception:  # the work is done, and the lease expires by itself
        log.exception(log_events.LEASE_RELEASE_FAILED, extra={"lease": name})
