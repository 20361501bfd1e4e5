"""read_ahead reads a source in a thread: no item is lost, late or far ahead, and close ends the thread."""

import queue
import threading
from collections.abc import Generator

import pytest

from aiserver.http_client.background_reader import MAX_ITEMS_AHEAD, read_ahead

PATIENCE_S = 20


class Source:
    """Yields the queued items until None, raises queued exceptions; `cancel` ends its wait."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.read = 0
        self.thread: threading.Thread | None = None
        self.closed = threading.Event()

    def items(self) -> Generator[int]:
        self.thread = threading.current_thread()
        try:
            while (item := self.queue.get(timeout=PATIENCE_S)) is not None:
                if isinstance(item, BaseException):
                    raise item
                self.read += 1
                yield item
        finally:
            self.closed.set()

    def cancel(self) -> None:
        self.queue.put(None)


def test_available_items_are_returned_at_once_and_in_order() -> None:
    source = Source()
    for item in (1, 2, 3, None):
        source.queue.put(item)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    assert [item for batch in batches for item in batch] == [1, 2, 3]
    assert source.thread is not threading.current_thread()
    assert source.closed.is_set()


def test_each_item_is_returned_as_soon_as_it_arrives() -> None:
    source = Source()
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    for item in range(3):
        source.queue.put(item)
        assert next(batches) == [item]
    batches.close()


def test_silent_source_yields_none_per_poll() -> None:
    source = Source()
    batches = read_ahead(source.items(), source.cancel, poll_s=0.001)
    assert [next(batches) for _ in range(3)] == [None, None, None]
    source.queue.put(7)
    assert next(batch for batch in batches if batch) == [7]
    batches.close()


def test_exception_is_raised_after_the_items_before_it() -> None:
    source = Source()
    source.queue.put(1)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    assert next(batches) == [1]
    source.queue.put(ValueError("invalid"))
    with pytest.raises(ValueError, match="invalid"):
        next(batches)


def test_close_closes_a_waiting_source() -> None:
    source = Source()
    batches = read_ahead(source.items(), source.cancel, poll_s=0.001)
    assert next(batches) is None
    batches.close()
    assert source.closed.is_set()
    assert source.thread
    assert not source.thread.is_alive()


def test_number_of_items_read_ahead_is_limited() -> None:
    source = Source()
    for item in range(10 * MAX_ITEMS_AHEAD):
        source.queue.put(item)
    source.queue.put(None)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    count = 0
    for batch in batches:
        count += len(batch)
        assert len(batch) <= MAX_ITEMS_AHEAD
        assert source.read <= count + MAX_ITEMS_AHEAD + 1
    assert count == 10 * MAX_ITEMS_AHEAD


def test_close_does_not_wait_for_a_full_buffer() -> None:
    source = Source()
    for item in range(10 * MAX_ITEMS_AHEAD):
        source.queue.put(item)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    next(batches)
    batches.close()
    assert source.thread
    assert not source.thread.is_alive()
    assert source.read <= 2 * MAX_ITEMS_AHEAD + 1
