"""Tell a watcher each change of a job, as server-sent events, until its end."""

from collections.abc import Callable, Generator

from aiserver.clock import Clock
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore
from aiserver.usecases import views
from aiserver.wire import sse

POLL_S = 0.5  # two reads of the table a second, for each watcher, at most
RETRY = b"retry: 1000\n"  # ms until a reader whose stream has ended comes again; by itself it takes seconds


class WatchJob:
    def __init__(self, jobs: JobStore, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._jobs = jobs
        self._clock = clock
        self._sleep = sleep

    def events(self, job: Job, *, last_event_id: str | None, deadline_ms: int) -> Generator[bytes]:
        """The job as it stands, unless `last_event_id` names that, then each change, until its end or `until_ms`.

        b"" where there is nothing to send. Of changes between two looks only what came of them is told.
        """
        told, sent_ms, lead = last_event_id, None, RETRY
        found: Job | None = job
        while found is not None and not found.is_past_ttl(now_ms := self._clock.now_ms()):
            if event_id(found) != told:
                yield (
                    lead + b"id: " + event_id(found).encode() + b"\n" + sse.format_event(views.status_view(found, None))
                )
                told, sent_ms, lead = event_id(found), now_ms, b""
            elif sent_ms is None or now_ms >= sent_ms + sse.PING_MS:
                yield sse.PING
                sent_ms = now_ms
            else:
                yield b""
            if found.has_ended or now_ms >= deadline_ms:
                return
            self._sleep(POLL_S)
            found = self._jobs.get(job.id)


def has_received_all(job: Job, last_event_id: str | None) -> bool:
    """Whether nothing is left to tell to who has seen this event."""
    return job.has_ended and last_event_id == event_id(job)


def event_id(job: Job) -> str:
    """Names what there is to see of a job, by the job alone, so that any container can go on from it.

    Every change of its state makes another: a claim adds to `attempt`, a redrive to `epoch`.
    """
    asked = "-cancel" if job.cancel_requested_at else ""
    return f"{job.epoch}-{job.attempt}-{job.state}{asked}"
