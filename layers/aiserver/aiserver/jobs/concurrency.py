"""Holds one of a name's slots while something is done in it."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from aiserver.jobs.ports import LeaseStore

log = logging.getLogger("aiserver.slots")


@contextmanager
def lease(store: LeaseStore, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int) -> Generator[bool]:
    """Whether there was one among these; it is held while the block lasts, and if we die until `until_ms`."""
    index = store.acquire(name, indexes, now_ms=now_ms, expires_ms=expires_ms)
    try:
        yield index is not None
    finally:
        if index is not None:
            _release(store, name, index, expires_ms)


def _release(store: LeaseStore, name: str, index: int, expires_ms: int) -> None:
    try:
        store.release(name, index, expires_ms=expires_ms)
    except Exception:  # what it was taken for is done with, and it is free when its time is up
        log.exception("slot not given back", extra={"slots": name})
