"""The equations that hold between the table and the books, job by job, when a soak is over."""

from collections.abc import Callable, Set
from dataclasses import dataclass

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from benchmarks.soak.audit_log import Attempt, JobHistory

SOME = 5  # as many jobs are named where an equation breaks
MAYBE_BILLED = {"answered", "cut", "killed"}  # what the upstream may have done work for


@dataclass(frozen=True)
class FinishedJob:
    """A job at the end: the table's word (`job`) and ours (`book`)."""

    job: Job
    book: JobHistory
    killed: Set[int | None]

    def _died(self, attempt: Attempt) -> bool:
        return bool(attempt.pids & self.killed) or attempt.pids == {None}

    @property
    def unfinished(self) -> list[Attempt]:
        """Attempts whose worker never wrote an outcome."""
        return [attempt for attempt in self.book.attempts if not attempt.finished]

    @property
    def never_asked(self) -> int:
        """Calls that were marked by a process that was killed before they reached the upstream."""
        return sum(bool(attempt.marks) and not attempt.asked for attempt in self.unfinished if self._died(attempt))

    @property
    def killed_calls(self) -> int:
        """Calls of which only the killed process knew what came of them."""
        return sum(bool(attempt.marks) for attempt in self.unfinished if self._died(attempt))

    @property
    def cut_calls(self) -> int:
        """Calls the upstream read and never answered, whose worker lived to write so."""
        return sum(attempt.asked.count("cut") for attempt in self.book.attempts if attempt.finished)

    @property
    def unexplained(self) -> int:
        return sum(not self._died(attempt) for attempt in self.unfinished)

    @property
    def bought(self) -> int:
        return sum(how in MAYBE_BILLED for how in self.book.asked)

    @property
    def two_bodies(self) -> int:
        bodies: dict[str, set[bytes]] = {}
        for arrival in self.book.arrivals:
            bodies.setdefault(arrival.webhook_id, set()).add(arrival.body)
        return sum(len(found) - 1 for found in bodies.values())

    @property
    def is_failed(self) -> bool:
        return self.job.state == JobState.FAILED

    @property
    def foreign_bodies(self) -> int:
        """Callbacks that carry something else than an answer this very job was given."""
        if self.is_failed:
            return sum(b'"errorCode":"ProviderTimeout"' not in arrival.body for arrival in self.book.arrivals)
        return sum(arrival.body not in self.book.answers for arrival in self.book.arrivals)


# What must be equal, job by job: in words, in the table or at the receiver, and in our books.
EQUATIONS: tuple[tuple[str, Callable[[FinishedJob], int], Callable[[FinishedJob], int]], ...] = (
    ("ended in the table = one for each job", lambda c: c.job.has_ended, lambda _: 1),
    ("writes that ended a job = one for each job", lambda c: c.book.ended, lambda _: 1),
    (
        "calls recorded = calls in the upstream's log + killed between mark and call",
        lambda c: c.job.calls,
        lambda c: len(c.book.asked) + c.never_asked,
    ),
    (
        "maybeBilled = kills during a call + answers the upstream cut off",
        lambda c: c.job.maybe_billed,
        lambda c: c.killed_calls + c.cut_calls,
    ),
    ("attempts recorded = claims written", lambda c: c.job.attempt, lambda c: len(c.book.attempts)),
    ("attempts without an outcome, outside a killed process = 0", lambda c: c.unexplained, lambda _: 0),
    (
        "jobs Failed with ProviderTimeout = hosted jobs with a call of unknown outcome",
        lambda c: c.is_failed and c.job.error_code == "ProviderTimeout",
        lambda c: c.job.queue == "hosted" and c.killed_calls + c.cut_calls > 0,
    ),
    ("jobs Failed otherwise = 0", lambda c: c.is_failed and c.job.error_code != "ProviderTimeout", lambda _: 0),
    (
        "hosted calls that may be billed, beyond a job's first = 0",
        lambda c: max(0, c.bought - 1) if c.job.queue == "hosted" else 0,
        lambda _: 0,
    ),
    (
        "callbacks Delivered = jobs with a ReplyTo",
        lambda c: c.job.callback == CallbackState.DELIVERED,
        lambda c: c.job.reply_to is not None,
    ),
    (
        "jobs whose receiver said yes = jobs with a ReplyTo",
        lambda c: any(arrival.status == 200 for arrival in c.book.arrivals),
        lambda c: c.job.reply_to is not None,
    ),
    (
        "callbacks that arrived before the job's end = 0",
        lambda c: sum(arrival.state not in (JobState.COMPLETED, JobState.FAILED) for arrival in c.book.arrivals),
        lambda _: 0,
    ),
    ("webhook-ids with a second body = 0", lambda c: c.two_bodies, lambda _: 0),
    ("callbacks with a body that is not the job's own = 0", lambda c: c.foreign_bodies, lambda _: 0),
)


@dataclass(frozen=True)
class Invariant:
    """Two sums, and the jobs in which they differ."""

    words: str
    left: int
    right: int
    broken: list[int]

    @property
    def holds(self) -> bool:
        return self.left == self.right and not self.broken

    def __str__(self) -> str:
        return f"{self.words}: {self.left} = {self.right}, broken in {self.broken[:SOME]}"


def invariants(closed: list[FinishedJob]) -> list[Invariant]:
    """Every equation over all jobs; it holds only if it holds in each."""
    return [
        Invariant(
            words,
            sum(int(left(c)) for c in closed),
            sum(int(right(c)) for c in closed),
            [c.job.id for c in closed if left(c) != right(c)],
        )
        for words, left, right in EQUATIONS
    ]
