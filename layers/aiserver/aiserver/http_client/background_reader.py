"""Reads a slow generator in its own thread, so that the consumer can act while no item arrives.

While an upstream call waits for its next byte, the client needs pings, and the call must be cancellable.
The waiting thread can do neither (docs/decisions/0015).
"""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar, cast

POLL_S = 0.5
MAX_ITEMS_AHEAD = 16  # items read before the consumer takes one: bounds the memory used for a slow client

Item = TypeVar("Item")


def read_ahead(
    items: Generator[Item], cancel: Callable[[], None], poll_s: float = POLL_S
) -> Generator[list[Item] | None]:
    """Yield the items received since the last batch; None after `poll_s` seconds without an item.

    Exceptions of `items` are raised here. Closing this generator closes `items`: `cancel` must end any wait in them.
    """
    received: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
    capacity = threading.Semaphore(MAX_ITEMS_AHEAD)
    closed = threading.Event()

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                capacity.acquire()
                if closed.is_set():
                    break
                received.put(item)
        except BaseException as exception:  # raised again in the consumer's thread
            error = exception
        finally:
            items.close()
            received.put(_End(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while True:
            batch, end = _take_batch(received, poll_s)
            for _ in batch:
                capacity.release()
            if batch or end is None:
                yield batch or None
            if end is not None:
                break
        if end.error:
            raise end.error
    finally:
        closed.set()
        cancel()
        capacity.release()
        reader.join()


class _End:
    """End of the items; `error` is the exception that ended them, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _take_batch(items: "queue.SimpleQueue[Item | _End]", poll_s: float) -> tuple[list[Item], _End | None]:
    """Return the received items, none after `poll_s` seconds of silence, and the end marker once it is received."""
    batch: list[Item] = []
    try:
        item = items.get(timeout=poll_s)
        while not isinstance(item, _End):
            batch.append(cast(Item, item))
            item = items.get_nowait()
    except queue.Empty:
        return batch, None
    return batch, item
