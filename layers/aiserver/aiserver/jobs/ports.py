"""Ports of the job state machine; fakes and AWS adapters pass the same contract suite."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from aiserver.jobs.job import Job
from aiserver.jobs.transitions import AttributeValue, Transition


@dataclass(frozen=True)
class CreateResult:
    """The job of a RefId: the new one, or the existing one."""

    job: Job
    created: bool


@dataclass(frozen=True)
class ConditionFailed:
    """A transition whose condition did not hold, with the stored job; None when the job does not exist."""

    job: Job | None


@dataclass(frozen=True)
class JobPage:
    """Jobs of one owner, newest first. `cursor` is None on the last page; a page may be short before the last."""

    jobs: list[Job]
    cursor: int | None


@dataclass(frozen=True)
class JobFilter:
    """Which jobs of an owner to list: with this tag and state, created in [since_ms, until_ms); None means any."""

    tag: str | None = None
    state: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def includes(self, job: Job) -> bool:
        """Whether the job has the state and the creation time; the tag is that of the query."""
        return (
            self.state in (None, job.state)
            and (self.since_ms is None or job.created_at >= self.since_ms)
            and (self.until_ms is None or job.created_at < self.until_ms)
        )


ANY_JOB = JobFilter()


class JobStore(Protocol):
    """The authoritative store of jobs."""

    def create(self, job: Job, request: bytes, *, now_ms: int, result: bytes | None = None) -> CreateResult:
        """T1: write the job, its request and its RefId atomically, or return the job that already has the RefId.

        A request answered synchronously is written with its `result`. A job whose id is in use gets a new id.
        Large bodies are written before the item that refers to them.
        """
        ...

    def get(self, job_id: int) -> Job | None: ...

    def find_by_ref_id(self, owner: str, ref_id: str, *, now_ms: int) -> Job | None:
        """The owner's job with that RefId, if it has not expired."""
        ...

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        """Apply one transition if its conditions hold; returns the job after the write.

        A write that this call already made, but whose confirmation was lost, counts as applied.
        """
        ...

    def complete(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], result: bytes
    ) -> ConditionFailed | None:
        """Like `apply`, with the result body in the same write; the store sets its location and size."""
        ...

    def read_request(self, job: Job) -> bytes | None:
        """The request body; None when it is no longer stored."""
        ...

    def read_result(self, job: Job) -> bytes | None:
        """The result body; None when there is none, or it is no longer stored."""
        ...

    def presigned_url(self, location: str | None, *, seconds: int, content_type: str | None = None) -> str | None:
        """A signed URL for a body stored as an S3 object; None for a body stored in the table.

        S3 answers with `content_type`, JSON if it is None.
        """
        ...

    def due_jobs(self, shard: str, *, now_ms: int) -> Iterator[tuple[int, int]]:
        """(id, `due_at`) of the jobs whose `due_at` has passed, longest overdue first, read lazily."""
        ...

    def list_page(
        self, owner: str, filter: JobFilter = ANY_JOB, *, take: int, cursor: int | None = None
    ) -> JobPage: ...


class MessageSender(Protocol):
    """Sends messages that start work; losing, duplicating or reordering one is harmless."""

    def send_job(self, queue: str, job_id: int, *, attempt: int, delay_s: int = 0) -> None:
        """`attempt` counts the job's claims so far: it distinguishes this wait's message from an earlier wait's."""
        ...

    def send_callback(self, job_id: int, *, due: int | None, delay_s: int = 0) -> None:
        """`due` is the `callback_next_at` the message is sent for; a message of an earlier wait has another."""
        ...


class EventPublisher(Protocol):
    """Publishes the end of a job to other systems."""

    def publish(self, detail_type: str, detail: bytes) -> None: ...
