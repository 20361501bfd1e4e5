"""A concurrency lease: a context manager that holds one of a name's leases for the duration of a block."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from aiserver import log_events
from aiserver.jobs.ports import ConcurrencyLeaseStore

log = logging.getLogger("aiserver.concurrency")


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
