"""What the job machine needs of the outside world; fakes and AWS adapters pass the same contract suite."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from aiserver.jobs.job import Job
from aiserver.jobs.transitions import AttributeValue, Transition


@dataclass(frozen=True)
class CreateResult:
    """The job that answers for a RefId: the new one, or one that was there."""

    job: Job
    created: bool


@dataclass(frozen=True)
class ConditionFailed:
    """A transition whose condition did not hold, and the job as it stood; None when there is no such job."""

    job: Job | None


@dataclass(frozen=True)
class JobPage:
    """Jobs of one owner, newest first; `cursor` continues, None at the end. It may hold few, and others still come."""

    jobs: list[Job]
    cursor: int | None


class JobStore(Protocol):
    """The truth about jobs."""

    def create(self, job: Job, request: bytes, *, now_ms: int, result: bytes | None = None) -> CreateResult:
        """T1: write the job, its request and its RefId at once, or give back the job that holds the RefId.

        A job that was answered on the spot is written with its `result`. Takes a further id where the job's own is
        taken. Large bodies are written before what refers to them.
        """
        ...

    def get(self, job_id: int) -> Job | None: ...

    def find_by_ref_id(self, owner: str, ref_id: str, *, now_ms: int) -> Job | None:
        """The owner's job of that RefId."""
        ...

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        """Make one transition if its conditions hold; the job as it then stands.

        A write that was already made by this very call, but never confirmed, counts as made.
        """
        ...

    def complete(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], result: bytes
    ) -> ConditionFailed | None:
        """As `apply`, with the result body in the same write; the store fills in where it is and how large."""
        ...

    def read_request(self, job: Job) -> bytes | None:
        """What was asked; None when it is no longer kept."""
        ...

    def read_result(self, job: Job) -> bytes | None:
        """What was answered; None when there is none, or it is no longer kept."""
        ...

    def presigned_url(self, location: str | None, *, seconds: int) -> str | None:
        """A signed URL for a body stored as an object, given its location; None for one stored in the table."""
        ...

    def due_jobs(self, shard: str, *, now_ms: int) -> Iterator[tuple[int, int]]:
        """Jobs whose `due_at` has passed, by id and `due_at`, longest overdue first, read as they are asked for."""
        ...

    def list_page(
        self, owner: str, *, tag: str | None, state: str | None, take: int, cursor: int | None
    ) -> JobPage: ...


class MessageSender(Protocol):
    """Hints that something can be done; losing, doubling or reordering one is harmless."""

    def send_job(self, queue: str, job_id: int, *, attempt: int, delay_s: int = 0) -> None:
        """`attempt` is how often the job had been taken: it tells this wait's message from an earlier one's."""
        ...

    def send_callback(self, job_id: int, *, due: int | None, delay_s: int = 0) -> None:
        """`due` is the `callback_next_at` that the message is sent for; a message of an earlier wait has another."""
        ...


class LeaseStore(Protocol):
    """How many may do the same thing at once, over all functions. Who dies in a slot frees it when its time is up."""

    def acquire(self, name: str, indexes: Sequence[int], *, now_ms: int, expires_ms: int) -> int | None:
        """A free slot of `name` among these, now taken until then; None when there is none."""
        ...

    def release(self, name: str, index: int, *, expires_ms: int) -> None:
        """Free the slot that was taken until then; no longer ours, it is left alone."""
        ...

    def count_held(self, names: Collection[str], *, now_ms: int) -> dict[str, int]:
        """How many slots of each name are taken, in one read."""
        ...


class EventPublisher(Protocol):
    """Where other systems hear that a job has ended."""

    def publish(self, detail_type: str, detail: bytes) -> None: ...
