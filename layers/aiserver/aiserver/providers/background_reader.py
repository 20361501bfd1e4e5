"""Reads what comes slowly in a thread of its own, so that whoever passes it on is free while nothing comes.

A stream's caller must hear a ping, and its upstream call must end, while that call waits for its next byte: neither can
be done by the thread that waits (docs/decisions/0015).
"""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar, cast

POLL_S = 0.5
MAX_ITEMS_AHEAD = 16  # items that are read before any is taken: what a slow caller leaves lying is not held here

Item = TypeVar("Item")


def read_ahead(items: Generator[Item], cancel: Callable[[], None], poll_s: float = POLL_S) -> Generator[list[Item]]:
    """All items that have come since they were last asked for; after `tick_s` without any, none.

    What `items` raises is raised here. Who closes this closes `items`: `cancel` must end whatever they wait for.
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
        except BaseException as failed:  # it is for the other thread
            error = failed
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
                yield batch
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
    """No item comes any more, and why."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _take_batch(items: "queue.SimpleQueue[Item | _End]", poll_s: float) -> tuple[list[Item], _End | None]:
    """What has come, at least one unless the time is up, and the end if it has."""
    batch: list[Item] = []
    try:
        item = items.get(timeout=poll_s)
        while not isinstance(item, _End):
            batch.append(cast(Item, item))
            item = items.get_nowait()
    except queue.Empty:
        return batch, None
    return batch, item
