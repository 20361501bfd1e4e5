"""Stream each change of a job as server-sent events, until the job ends."""

from collections.abc import Callable, Generator

from aiserver.clock import Clock, Deadline
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore
from aiserver.usecases import views
from aiserver.wire import sse

POLL_INTERVAL_S = 0.5  # at most two reads of the table per second and watcher
RETRY = b"retry: 1000\n"  # ms until a client reconnects after the stream's end; the default is several seconds


class WatchJob:
    def __init__(self, jobs: JobStore, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._jobs = jobs
        self._clock = clock
        self._sleep = sleep

    def events(self, job: Job, *, last_event_id: str | None, deadline: Deadline) -> Generator[bytes | None]:
        """The job's current state, unless `last_event_id` is its id, then each change, until its end or `deadline`.

        Yields None when there is nothing to send. Several changes between two reads are sent as one event.
        """
        last_id, sent_ms, prefix = last_event_id, None, RETRY
        current: Job | None = job
        while current is not None and not current.is_past_ttl(now_ms := self._clock.now_ms()):
            if event_id(current) != last_id:
                last_id, sent_ms = event_id(current), now_ms
                yield prefix + b"id: " + last_id.encode() + b"\n" + sse.format_event(views.status_view(current, None))
                prefix = b""
            elif sent_ms is None or now_ms >= sent_ms + sse.PING_MS:
                yield sse.PING
                sent_ms = now_ms
            else:
                yield None
            if current.has_ended or now_ms >= deadline.at_ms:
                return
            self._sleep(POLL_INTERVAL_S)
            current = self._jobs.get(job.id)


def has_received_all(job: Job, last_event_id: str | None) -> bool:
    """True if the client that sends this `last_event_id` has received every event of an ended job."""
    return job.has_ended and last_event_id == event_id(job)


def event_id(job: Job) -> str:
    """Identifies the visible state of a job, computed from the job alone, so that any container can resume the stream.

    Every change of the state changes the id: a claim increments `attempt`, a redrive `epoch`.
    """
    cancel = "-cancel" if job.cancel_requested_at else ""
    return f"{job.epoch}-{job.attempt}-{job.state}{cancel}"
