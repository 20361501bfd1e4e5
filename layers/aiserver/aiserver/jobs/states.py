"""The words for where a job, and its callback, stand."""

from enum import StrEnum


class JobState(StrEnum):
    """A job's state, as written on the wire and in the table. `Executed` is AI Server's and never used."""

    QUEUED = "Queued"
    STARTED = "Started"
    EXECUTED = "Executed"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class CallbackState(StrEnum):
    """Where the job's callback stands."""

    NONE = "None"
    PENDING = "Pending"
    DELIVERING = "Delivering"
    DELIVERED = "Delivered"
    DEAD = "Dead"


TERMINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
EXPIRED = "Expired"  # the errorCode of a job that failed by passing its deadline
