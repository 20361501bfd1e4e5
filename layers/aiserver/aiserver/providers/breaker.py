"""One container's view of the circuits: it reads them every few seconds, and writes only what others must know.

A call that goes well where nothing has failed lately costs no request; it is counted here, and told along with the
next failure. Who cannot read or write circuits asks the provider, and leaves them alone for a while: a breaker must not
be an outage of its own.
"""

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace
from threading import RLock

from aiserver.clock import Clock
from aiserver.errors import (
    ProviderAuth,
    ProviderCircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.circuit import Circuit, Circuits, Tally

CACHE_MS = 5_000
TROUBLED_CACHE_MS = 1_000  # while calls fail: those that go well must soon be told to whoever counts the failures
PATIENCE_MS = 10_000  # a call that had less time says nothing of its provider when it is cut off
AWAY_MS = 10_000  # circuits that could not be read or written are left alone so long: a caller waits for them
NOT_OFFERED = 501  # a model that makes no embeddings, on a server that does: chats would suffer for it
TRIES = 5  # of a write, each only after another function wrote in between

log = logging.getLogger("aiserver.breaker")


class Breaker:
    """For all calls of one container; safe to share between threads."""

    def __init__(self, circuits: Circuits, clock: Clock) -> None:
        self._circuits = circuits
        self._clock = clock
        self._known: dict[str, Circuit] = {}
        self._read_at: int | None = None
        self._away_until = 0
        self._own: dict[str, Tally] = {}  # all that was seen here since the circuit was last open
        self._untold: dict[str, Tally] = {}
        self._told_at: dict[str, int] = {}
        self._lock = RLock()

    def check(self, name: str) -> None:
        """Raises: ProviderCircuitOpen, where it is known that the provider is not to be asked now."""
        self._refuse_until(name, self._known_of(name).ask_at)

    @contextmanager
    def watched(self, name: str, *, deadline_ms: int) -> Generator[Callable[[], None]]:
        """Around one call: how it ends is what counts. Raises: ProviderCircuitOpen, where another call is the trial.

        An answer that has begun may take long to end: a trial has gone well when the function given here is called.
        """
        trial = self._begin(name)
        started = self._clock.now_ms()

        def begun() -> None:
            nonlocal trial
            if trial:
                self._went_well(name, trial)
                trial = None

        try:
            yield begun
        except ProviderError as error:
            if _is_failure(error, had_ms=deadline_ms - started, is_late=self._clock.now_ms() >= deadline_ms):
                self._failed(name, trial, started)
            elif trial and error.upstream_status is not None:
                self._went_well(name, trial)
            raise
        self._went_well(name, trial)

    def _known_of(self, name: str) -> Circuit:
        now = self._clock.now_ms()
        is_troubled = any(circuit.is_troubled(now) for circuit in self._known.values())
        oldest = now - (TROUBLED_CACHE_MS if is_troubled else CACHE_MS)
        with self._lock:
            was_read = self._read_at is not None
            is_stale = now >= self._away_until and (self._read_at is None or self._read_at <= oldest)
            if is_stale:
                self._read_at = now
            if not was_read:  # all wait, since nobody here knows anything; later, others go by what was known
                self._read()
        if is_stale and was_read:
            self._read()
        return self._known.get(name, Circuit())

    def _read(self) -> None:
        before = self._known
        try:
            read = self._circuits.all()
        except Exception:
            log.exception("circuits not read")
            self._leave_alone()
            return
        with self._lock:  # what was written here meanwhile may be younger than what was read
            self._read_at = self._clock.now_ms()  # a slow read must not be due again by the time it has come
            self._known = read | {name: one for name, one in self._known.items() if one is not before.get(name)}

    def _leave_alone(self) -> None:
        self._away_until = self._clock.now_ms() + AWAY_MS

    def _refuse_until(self, name: str, ask_at: int | None) -> None:
        left_ms = (ask_at or 0) - self._clock.now_ms()
        if left_ms > 0:
            told = f"{name} has failed too often and is not asked for now"
            raise ProviderCircuitOpen(told, retry_after_s=-(-left_ms // 1000))

    def _begin(self, name: str) -> Circuit | None:
        """The open circuit whose trial this call is; None where it is closed. Raises: ProviderCircuitOpen."""
        known = self._known_of(name)
        if known.ask_at is None:
            return None
        with self._lock:  # what led to that is over when it closes
            self._own.pop(name, None)
            self._untold.pop(name, None)
        now = self._clock.now_ms()

        def begun(circuit: Circuit) -> Circuit:
            self._refuse_until(name, circuit.ask_at)
            return circuit if circuit.ask_at is None else circuit.on_trial(now)

        made = self._change(name, begun)
        if made is None:  # others wrote each time, or nobody can: by what is known now
            self._refuse_until(name, self._known.get(name, known).ask_at)
            return known
        return None if made.ask_at is None else made

    def _failed(self, name: str, trial: Circuit | None, started: int) -> None:
        if trial:
            now, stamp = self._clock.now_ms(), trial.stamp
            self._change(name, lambda one: one.tried(started, now) if one.stamp == stamp else one)
            return
        self._count(name, is_good=False)
        self._tell(name)

    def _went_well(self, name: str, trial: Circuit | None) -> None:
        if trial:
            self._change(name, lambda circuit: circuit if circuit.ask_at is None else Circuit())
            return
        self._count(name, is_good=True)
        now, known = self._clock.now_ms(), self._known.get(name, Circuit())
        is_due = now >= self._told_at.get(name, 0) + CACHE_MS
        if known.tally.bad_at or (known.is_troubled(now) and is_due):
            self._told_at[name] = now
            self._tell(name, tries=1)

    def _count(self, name: str, *, is_good: bool) -> None:
        now = self._clock.now_ms()
        seen = Tally.of(now, is_good=is_good)
        with self._lock:
            for tallies in (self._own, self._untold):
                tallies[name] = tallies.get(name, Tally()).plus(seen, now)

    def _tell(self, name: str, tries: int = TRIES) -> None:
        """Write what has been counted here; where that fails it is told with what comes next."""
        now = self._clock.now_ms()
        with self._lock:
            told = self._untold.pop(name, Tally())
            is_certain = self._own.get(name, Tally()).is_bad(0, now)
        if self._change(name, lambda circuit: circuit.after(told, now, is_certain=is_certain), tries) is None:
            with self._lock:
                self._untold[name] = told.plus(self._untold.get(name, Tally()), now)

    def _change(self, name: str, change: Callable[[Circuit], Circuit], tries: int = TRIES) -> Circuit | None:
        """What `change` has made of the circuit as it is stored, and of no older one; None where it was not written."""
        for _ in range(tries if self._clock.now_ms() >= self._away_until else 0):
            old = self._known.get(name, Circuit())
            new = change(old)
            if new == old:
                return old
            new = replace(new, stamp=self._clock.token())
            try:
                stored = self._circuits.replace(name, old, new)
            except Exception:
                log.exception("circuit not written", extra={"provider": name})
                self._leave_alone()
                return None
            with self._lock:
                self._known = {**self._known, name: stored}  # a new one, since others may be reading the old
            if stored.stamp == new.stamp:
                if (old.ask_at is None) != (new.ask_at is None):
                    log.warning("circuit closed" if new.ask_at is None else "circuit opened", extra={"provider": name})
                return stored
        return None


def _is_failure(error: ProviderError, *, had_ms: int, is_late: bool) -> bool:
    """A refusal is none, nor is "slow down": whoever says so is up. Nor is what was cut off after a moment."""
    is_cut_off = isinstance(error, ProviderTimeout) or (isinstance(error, ProviderUnavailable) and is_late)
    if is_cut_off and error.upstream_status is None and had_ms < PATIENCE_MS:
        return False
    is_refusal = isinstance(error, ProviderRejected | ProviderAuth | ProviderRateLimited)
    status = error.upstream_status or 0
    return not (is_refusal or 400 <= status < 500 or status == NOT_OFFERED)
