"""The states of a job and of its callback."""

from enum import StrEnum


class JobState(StrEnum):
    """A job's state, as sent on the wire and stored in the table. `Executed` exists for AI Server and is never used."""

    QUEUED = "Queued"
    STARTED = "Started"
    EXECUTED = "Executed"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


class CallbackState(StrEnum):
    """The state of a job's callback."""

    NONE = "None"
    PENDING = "Pending"
    DELIVERING = "Delivering"
    DELIVERED = "Delivered"
    DEAD = "Dead"


TERMINAL_STATES = frozenset({JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED})
EXPIRED = "Expired"  # the errorCode of a job that failed because its deadline passed
