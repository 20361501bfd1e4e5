"""Bounds the memory used by all parallel calls of one process.

A worker runs ten jobs at once. Each may have a request of 5 MB and a response of 64 MB, and translating one of them
for a vendor takes several times its size. All of that at once would exceed the function's memory.
"""

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

from aiserver.errors import ProviderTimeout
from aiserver.limits import LARGE_RESPONSE_BYTES

# Held while a body is translated. Python runs one thread at a time, so that serializing translations costs no time.
translation_lock = threading.Lock()


class MemoryBudget:
    """Calls may read responses of up to LARGE_RESPONSE_BYTES in parallel, larger ones one at a time."""

    def __init__(self) -> None:
        self._large = threading.Lock()

    @contextmanager
    def share(self) -> Generator[None]:
        """Wrap one call of the current thread, from reading its response until the response is stored."""
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
        if size <= LARGE_RESPONSE_BYTES or self._is_large:
            return
        if not self._large.acquire(timeout=wait_s()):
            error = ProviderTimeout(
                "Other calls are using the memory for large responses; retry later", may_be_billed=True
            )
            error.is_neutral = True
            raise error
        self._is_large = True

    def release(self) -> None:
        if self._is_large:
            self._large.release()


_share: ContextVar[_Share | None] = ContextVar("share", default=None)


def reserve(size: int, wait_s: Callable[[], float]) -> None:
    """Wait until memory for a response of `size` bytes is available, at most `wait_s()` seconds.

    Outside of `MemoryBudget.share` there is no limit.

    Raises: ProviderTimeout, when the wait ends without memory; the circuit breaker ignores this error.
    """
    if share := _share.get():
        share.grow(size, wait_s)
