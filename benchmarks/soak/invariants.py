"""The invariants between the table and the audit log, checked per job after a soak."""

from collections.abc import Callable, Set
from dataclasses import dataclass

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from benchmarks.soak.audit_log import Attempt, JobHistory

MAX_JOBS_SHOWN = 5  # of the jobs that violate an invariant
MAYBE_BILLED = {"answered", "cut", "killed"}  # call outcomes that a provider may bill


@dataclass(frozen=True)
class FinishedJob:
    """A job after the soak: as stored in the table (`job`) and as observed (`history`)."""

    job: Job
    history: JobHistory
    killed_pids: Set[int | None]

    def _is_killed(self, attempt: Attempt) -> bool:
        return bool(attempt.pids & self.killed_pids) or attempt.pids == {None}

    @property
    def open_attempts(self) -> list[Attempt]:
        """Attempts without a written outcome."""
        return [attempt for attempt in self.history.attempts if not attempt.has_outcome]

    @property
    def calls_not_sent(self) -> int:
        """Calls marked by a process that was killed before they reached the upstream."""
        return sum(
            bool(attempt.marks) and not attempt.calls for attempt in self.open_attempts if self._is_killed(attempt)
        )

    @property
    def interrupted_calls(self) -> int:
        """Calls with an outcome that was lost with the killed process."""
        return sum(bool(attempt.marks) for attempt in self.open_attempts if self._is_killed(attempt))

    @property
    def cut_calls(self) -> int:
        """Calls read and then cut by the upstream, with an outcome written by the worker."""
        return sum(attempt.calls.count("cut") for attempt in self.history.attempts if attempt.has_outcome)

    @property
    def abandoned_attempts(self) -> int:
        """Attempts without an outcome, although no process was killed."""
        return sum(not self._is_killed(attempt) for attempt in self.open_attempts)

    @property
    def billable_calls(self) -> int:
        return sum(outcome in MAYBE_BILLED for outcome in self.history.calls)

    @property
    def conflicting_bodies(self) -> int:
        """Additional bodies received with the same webhook-id."""
        bodies: dict[str, set[bytes]] = {}
        for arrival in self.history.arrivals:
            bodies.setdefault(arrival.webhook_id, set()).add(arrival.body)
        return sum(len(variants) - 1 for variants in bodies.values())

    @property
    def is_failed(self) -> bool:
        return self.job.state == JobState.FAILED

    @property
    def foreign_bodies(self) -> int:
        """Callbacks with a body that is not a response to this job."""
        if self.is_failed:
            return sum(b'"errorCode":"ProviderTimeout"' not in arrival.body for arrival in self.history.arrivals)
        return sum(arrival.body not in self.history.responses for arrival in self.history.arrivals)


# Description, value in the table or at the receiver, expected value from the audit log; equal for each job.
INVARIANTS: tuple[tuple[str, Callable[[FinishedJob], int], Callable[[FinishedJob], int]], ...] = (
    ("jobs with a final state = one per job", lambda c: c.job.has_ended, lambda _: 1),
    ("writes that ended a job = one per job", lambda c: c.history.end_writes, lambda _: 1),
    (
        "calls recorded = calls in the upstream's log + calls killed before they were sent",
        lambda c: c.job.calls,
        lambda c: len(c.history.calls) + c.calls_not_sent,
    ),
    (
        "maybeBilled = calls interrupted by a kill + responses cut by the upstream",
        lambda c: c.job.maybe_billed,
        lambda c: c.interrupted_calls + c.cut_calls,
    ),
    ("attempts recorded = claims written", lambda c: c.job.attempt, lambda c: len(c.history.attempts)),
    ("attempts without an outcome, outside killed processes = 0", lambda c: c.abandoned_attempts, lambda _: 0),
    (
        "jobs Failed with ProviderTimeout = hosted jobs with a call of unknown outcome",
        lambda c: c.is_failed and c.job.error_code == "ProviderTimeout",
        lambda c: c.job.queue == "hosted" and c.interrupted_calls + c.cut_calls > 0,
    ),
    (
        "jobs Failed with another error = 0",
        lambda c: c.is_failed and c.job.error_code != "ProviderTimeout",
        lambda _: 0,
    ),
    (
        "additional hosted calls that may be billed, after a job's first = 0",
        lambda c: max(0, c.billable_calls - 1) if c.job.queue == "hosted" else 0,
        lambda _: 0,
    ),
    (
        "callbacks Delivered = jobs with a ReplyTo",
        lambda c: c.job.callback == CallbackState.DELIVERED,
        lambda c: c.job.reply_to is not None,
    ),
    (
        "jobs with a callback accepted by the receiver = jobs with a ReplyTo",
        lambda c: any(arrival.status == 200 for arrival in c.history.arrivals),
        lambda c: c.job.reply_to is not None,
    ),
    (
        "callbacks received before the job's end = 0",
        lambda c: sum(arrival.state not in (JobState.COMPLETED, JobState.FAILED) for arrival in c.history.arrivals),
        lambda _: 0,
    ),
    ("webhook-ids with different bodies = 0", lambda c: c.conflicting_bodies, lambda _: 0),
    ("callbacks with a body that does not match the job = 0", lambda c: c.foreign_bodies, lambda _: 0),
)


@dataclass(frozen=True)
class Invariant:
    """Two sums that must be equal, and the ids of the jobs for which they differ.

    The field names are keys in results/soak.json.
    """

    words: str
    left: int
    right: int
    broken: list[int]

    @property
    def holds(self) -> bool:
        return self.left == self.right and not self.broken

    def __str__(self) -> str:
        return f"{self.words}: {self.left} = {self.right}, violated by jobs {self.broken[:MAX_JOBS_SHOWN]}"


def check_invariants(jobs: list[FinishedJob]) -> list[Invariant]:
    """All invariants over all jobs; each must hold for every job."""
    return [
        Invariant(
            description,
            sum(int(left(job)) for job in jobs),
            sum(int(right(job)) for job in jobs),
            [job.job.id for job in jobs if left(job) != right(job)],
        )
        for description, left, right in INVARIANTS
    ]
