"""Holds one of a name's slots while something is done in it."""

import logging
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from aiserver.jobs.ports import Slots

log = logging.getLogger("aiserver.slots")


@contextmanager
def held(slots: Slots, name: str, among: Sequence[int], *, now_ms: int, until_ms: int) -> Generator[bool]:
    """Whether there was one among these; it is held while the block lasts, and if we die until `until_ms`."""
    slot = slots.take(name, among, now_ms=now_ms, until_ms=until_ms)
    try:
        yield slot is not None
    finally:
        if slot is not None:
            _give_back(slots, name, slot, until_ms)


def _give_back(slots: Slots, name: str, slot: int, until_ms: int) -> None:
    try:
        slots.give_back(name, slot, until_ms=until_ms)
    except Exception:  # what it was taken for is done with, and it is free when its time is up
        log.exception("slot not given back", extra={"slots": name})
