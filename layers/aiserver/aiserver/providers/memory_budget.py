"""Bounds the memory that the parallel calls of one process take together.

A worker runs ten jobs at once. Each may bring a request of 5 MB and a response of 64 MB, and translating one of them
for a vendor takes several times its size: all of that at once would be more than a function has.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from aiserver.errors import ProviderTimeout
from aiserver.limits import MAX_PARALLEL_BYTES

# Held while a body is translated. Python runs one thread at a time anyhow: taking turns costs no time.
translation_lock = threading.Lock()


class MemoryBudget:
    """Lets any number of calls read responses of up to MAX_PARALLEL_BYTES, and one at a time a larger one."""

    def __init__(self) -> None:
        self._large = threading.Lock()

    @contextmanager
    def share(self) -> Generator[None]:
        """Around one call, from reading its response until the response is stored; of the calling thread only."""
        share = _Share(self._large)
        token = _share.set(share)
        try:
            yield
        finally:
            _share.reset(token)
            share.release()


class _Share:
    def __init__(self, large: threading.Lock) -> None:
        self._large = large
        self._is_large = False

    def grow(self, size: int, wait_s: Callable[[], float]) -> None:
        if size <= MAX_PARALLEL_BYTES or self._is_large:
            return
        if not self._large.acquire(timeout=wait_s()):
            busy = ProviderTimeout("Other calls held the memory for large responses", may_be_billed=True)
            busy.is_neutral = True
            raise busy
        self._is_large = True

    def release(self) -> None:
        if self._is_large:
            self._large.release()


_share: ContextVar[_Share | None] = ContextVar("share", default=None)


def reserve(size: int, wait_s: Callable[[], float]) -> None:
    """Wait until a response of this size may be held, at most `wait_s()` seconds; outside of a share it always may.

    Raises: ProviderTimeout, which says nothing against the provider.
    """
    if share := _share.get():
        share.grow(size, wait_s)
