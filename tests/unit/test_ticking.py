"""What comes slowly is read in another thread: nothing is lost, late, or read far ahead, and closing ends all of it."""

import queue
import threading
from collections.abc import Generator

import pytest

from aiserver.providers.background_reader import MAX_ITEMS_AHEAD, read_ahead

PATIENCE_S = 20


class Source:
    """Yields what it is given until it is given None, and an exception as such; `cancel` ends its waiting."""

    def __init__(self) -> None:
        self.given: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()
        self.read = 0
        self.thread: threading.Thread | None = None
        self.closed = threading.Event()

    def items(self) -> Generator[int]:
        self.thread = threading.current_thread()
        try:
            while (item := self.given.get(timeout=PATIENCE_S)) is not None:
                if isinstance(item, BaseException):
                    raise item
                self.read += 1
                yield item
        finally:
            self.closed.set()

    def cancel(self) -> None:
        self.given.put(None)


def test_all_that_has_come_is_told_at_once_and_in_order() -> None:
    source = Source()
    for item in (1, 2, 3, None):
        source.given.put(item)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    assert [item for batch in batches for item in batch] == [1, 2, 3]
    assert source.thread is not threading.current_thread()
    assert source.closed.is_set()


def test_each_item_is_told_as_soon_as_it_comes() -> None:
    source = Source()
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    for item in range(3):
        source.given.put(item)
        assert next(batches) == [item]
    batches.close()


def test_while_nothing_comes_that_is_told_again_and_again() -> None:
    source = Source()
    batches = read_ahead(source.items(), source.cancel, poll_s=0.001)
    assert [next(batches) for _ in range(3)] == [[], [], []]
    source.given.put(7)
    assert next(batch for batch in batches if batch) == [7]
    batches.close()


def test_what_goes_wrong_is_raised_after_what_came_before() -> None:
    source = Source()
    source.given.put(1)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    assert next(batches) == [1]
    source.given.put(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        next(batches)


def test_whoever_closes_it_closes_what_is_read_even_while_that_waits() -> None:
    source = Source()
    batches = read_ahead(source.items(), source.cancel, poll_s=0.001)
    assert next(batches) == []
    batches.close()
    assert source.closed.is_set()
    assert source.thread
    assert not source.thread.is_alive()


def test_no_more_is_read_ahead_than_what_keeps_memory_flat() -> None:
    source = Source()
    for item in range(10 * MAX_ITEMS_AHEAD):
        source.given.put(item)
    source.given.put(None)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    taken = 0
    for batch in batches:
        taken += len(batch)
        assert len(batch) <= MAX_ITEMS_AHEAD
        assert source.read <= taken + MAX_ITEMS_AHEAD + 1
    assert taken == 10 * MAX_ITEMS_AHEAD


def test_closing_does_not_wait_for_room_that_nobody_makes() -> None:
    source = Source()
    for item in range(10 * MAX_ITEMS_AHEAD):
        source.given.put(item)
    batches = read_ahead(source.items(), source.cancel, PATIENCE_S)
    next(batches)
    batches.close()
    assert source.thread
    assert not source.thread.is_alive()
    assert source.read <= 2 * MAX_ITEMS_AHEAD + 1
