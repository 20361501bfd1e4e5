"""The books of a soak: what was seen happening to each job while it ran."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.soak.faults import Operation, Point


@dataclass
class Attempt:
    """One claim of a job and what became of it: `asked` is how the upstream met each call.

    `pids` are the processes at the other end of its requests: one, or None where it had ended before we could look.
    """

    lease: str
    pids: set[int | None] = field(default_factory=set[int | None])
    marks: int = 0
    asked: list[str] = field(default_factory=list[str])
    finished: bool = False


@dataclass(frozen=True)
class Arrival:
    """A callback as its receiver got it, with the job's state in the table at that moment."""

    state: str
    webhook_id: str
    body: bytes
    status: int


@dataclass
class JobHistory:
    """Everything seen of one job."""

    number: int
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    answers: list[bytes] = field(default_factory=list[bytes])
    arrivals: list[Arrival] = field(default_factory=list[Arrival])
    ended: int = 0
    delivered: int = 0

    @property
    def asked(self) -> list[str]:
        return [how for attempt in self.attempts for how in attempt.asked]

    def attempt(self, lease: str) -> Attempt:
        """The attempt with this lease."""
        return next(attempt for attempt in self.attempts if attempt.lease == lease)

    def calling(self) -> Attempt:
        """The attempt that is about to call; a call nobody marked gets one of its own, which breaks an equation."""
        for attempt in reversed(self.attempts):
            if attempt.marks > len(attempt.asked):
                return attempt
        self.attempts.append(Attempt(""))
        return self.attempts[-1]


class AuditLog:
    """Filled in by the proxy, the upstream and the receiver while the soak runs; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transactions: set[str] = set()
        self.entries: dict[int, JobHistory] = {}
        self.killed: set[int] = set()
        self.fired: Counter[str] = Counter()

    def number(self, job_id: int) -> int | None:
        """Which of the soak's jobs this is."""
        book = self.entries.get(job_id)
        return book.number if book else None

    def wrote(self, deed: Operation, pid: int | None) -> None:
        """AWS has done this deed."""
        with self._lock:
            if deed.number is not None:
                self.entries.setdefault(deed.job_id, JobHistory(deed.number))
                return
            if deed.transaction in self._transactions:
                return
            self._transactions |= {deed.transaction} - {""}
            self._enter(self.entries[deed.job_id], deed, pid)

    def _enter(self, book: JobHistory, deed: Operation, pid: int | None) -> None:
        book.ended += deed.ends
        book.delivered += deed.point == Point.DELIVERED
        if deed.point == Point.CLAIM:
            book.attempts.append(Attempt(deed.lease))
        if deed.point in (Point.CLAIM, Point.MARK, Point.OUTCOME):
            attempt = book.attempt(deed.lease)
            attempt.pids.add(pid)
            attempt.marks += deed.point == Point.MARK
            attempt.finished |= deed.point == Point.OUTCOME

    def asked(self, job_id: int, pid: int | None, how: str) -> None:
        with self._lock:
            attempt = self.entries[job_id].calling()
            attempt.pids.add(pid)
            attempt.asked.append(how)

    def answered(self, job_id: int, body: bytes) -> None:
        with self._lock:
            self.entries[job_id].answers.append(body)

    def arrived(self, job_id: int, arrival: Arrival) -> None:
        with self._lock:
            self.entries[job_id].arrivals.append(arrival)

    def kills(self, pid: int) -> None:
        with self._lock:
            self.killed.add(pid)

    def fires(self, what: str) -> None:
        with self._lock:
            self.fired[what] += 1

    @property
    def ended(self) -> int:
        with self._lock:
            return sum(book.ended > 0 for book in self.entries.values())

    @property
    def delivered(self) -> int:
        with self._lock:
            return sum(book.delivered > 0 for book in self.entries.values())
