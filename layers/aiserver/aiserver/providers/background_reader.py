"""Reads what comes slowly in a thread of its own, so that whoever passes it on is free while nothing comes.

A stream's caller must hear a ping, and its upstream call must end, while that call waits for its next byte: neither can
be done by the thread that waits (docs/decisions/0015).
"""

import queue
import threading
from collections.abc import Callable, Generator
from typing import TypeVar, cast

TICK_S = 0.5
AHEAD = 16  # items that are read before any is taken: what a slow caller leaves lying is not held here

Item = TypeVar("Item")


def ticking(items: Generator[Item], cancel: Callable[[], None], tick_s: float = TICK_S) -> Generator[list[Item]]:
    """All items that have come since they were last asked for; after `tick_s` without any, none.

    What `items` raises is raised here. Who closes this closes `items`: `cancel` must end whatever they wait for.
    """
    came: queue.SimpleQueue[Item | _End] = queue.SimpleQueue()
    room = threading.Semaphore(AHEAD)
    closed = threading.Event()

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    break
                came.put(item)
        except BaseException as failed:  # it is for the other thread
            error = failed
        finally:
            items.close()
            came.put(_End(error))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        while True:
            batch, end = _taken(came, tick_s)
            for _ in batch:
                room.release()
            if batch or end is None:
                yield batch
            if end is not None:
                break
        if end.error:
            raise end.error
    finally:
        closed.set()
        cancel()
        room.release()
        reader.join()


class _End:
    """No item comes any more, and why."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _taken(came: "queue.SimpleQueue[Item | _End]", tick_s: float) -> tuple[list[Item], _End | None]:
    """What has come, at least one unless the time is up, and the end if it has."""
    batch: list[Item] = []
    try:
        item = came.get(timeout=tick_s)
        while not isinstance(item, _End):
            batch.append(cast(Item, item))
            item = came.get_nowait()
    except queue.Empty:
        return batch, None
    return batch, item
