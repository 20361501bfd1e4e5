"""The audit log of a soak: the observed events of each job."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.soak.faults import Operation, Point


@dataclass
class Attempt:
    """One claim of a job. `marks` counts the marked calls, `calls` contains the outcome of each call at the upstream.

    `pids` are the processes that sent its requests; None, when the process ended before it could be identified.
    """

    lease: str
    pids: set[int | None] = field(default_factory=set[int | None])
    marks: int = 0
    calls: list[str] = field(default_factory=list[str])
    has_outcome: bool = False


@dataclass(frozen=True)
class Arrival:
    """A received callback, with the job's state in the table at that time and the status returned."""

    state: str
    webhook_id: str
    body: bytes
    status: int


@dataclass
class JobHistory:
    """The observed events of one job."""

    number: int
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    responses: list[bytes] = field(default_factory=list[bytes])
    arrivals: list[Arrival] = field(default_factory=list[Arrival])
    end_writes: int = 0
    delivery_writes: int = 0

    @property
    def calls(self) -> list[str]:
        return [outcome for attempt in self.attempts for outcome in attempt.calls]

    def attempt(self, lease: str) -> Attempt:
        """The attempt with this lease."""
        return next(attempt for attempt in self.attempts if attempt.lease == lease)

    def calling_attempt(self) -> Attempt:
        """The attempt of the next call. A call without a mark creates an attempt, which violates an invariant."""
        for attempt in reversed(self.attempts):
            if attempt.marks > len(attempt.calls):
                return attempt
        self.attempts.append(Attempt(""))
        return self.attempts[-1]


class AuditLog:
    """Written by the proxy, the upstream and the receiver during the soak; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._transactions: set[str] = set()
        self.histories: dict[int, JobHistory] = {}
        self.killed_pids: set[int] = set()
        self.fault_counts: Counter[str] = Counter()

    def number(self, job_id: int) -> int | None:
        """The number of a job by its id."""
        history = self.histories.get(job_id)
        return history.number if history else None

    def record_operation(self, operation: Operation, pid: int | None) -> None:
        """Record an operation that AWS has confirmed."""
        with self._lock:
            if operation.number is not None:
                self.histories.setdefault(operation.job_id, JobHistory(operation.number))
                return
            if operation.transaction in self._transactions:
                return
            self._transactions |= {operation.transaction} - {""}
            self._update_history(self.histories[operation.job_id], operation, pid)

    def _update_history(self, history: JobHistory, operation: Operation, pid: int | None) -> None:
        history.end_writes += operation.ends
        history.delivery_writes += operation.point == Point.DELIVERED
        if operation.point == Point.CLAIM:
            history.attempts.append(Attempt(operation.lease))
        if operation.point in (Point.CLAIM, Point.MARK, Point.OUTCOME):
            attempt = history.attempt(operation.lease)
            attempt.pids.add(pid)
            attempt.marks += operation.point == Point.MARK
            attempt.has_outcome |= operation.point == Point.OUTCOME

    def record_call(self, job_id: int, pid: int | None, outcome: str) -> None:
        with self._lock:
            attempt = self.histories[job_id].calling_attempt()
            attempt.pids.add(pid)
            attempt.calls.append(outcome)

    def record_response(self, job_id: int, body: bytes) -> None:
        with self._lock:
            self.histories[job_id].responses.append(body)

    def record_arrival(self, job_id: int, arrival: Arrival) -> None:
        with self._lock:
            self.histories[job_id].arrivals.append(arrival)

    def record_kill(self, pid: int) -> None:
        with self._lock:
            self.killed_pids.add(pid)

    def record_fault(self, name: str) -> None:
        with self._lock:
            self.fault_counts[name] += 1

    @property
    def end_count(self) -> int:
        with self._lock:
            return sum(history.end_writes > 0 for history in self.histories.values())

    @property
    def delivery_count(self) -> int:
        with self._lock:
            return sum(history.delivery_writes > 0 for history in self.histories.values())
