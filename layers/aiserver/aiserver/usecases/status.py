"""Read a job, wait for it, list jobs, hand out results: only ever to the key that owns them."""

from collections.abc import Callable

from aiserver.clock import Clock
from aiserver.errors import Conflict, InvalidRequest, NotFound
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobPage, JobStore
from aiserver.jobs.states import JobState
from aiserver.usecases import views

POLL_S = 0.5  # a waiter hears of the end within a second, at two reads a second
LINK_S = 300
MAX_TAKE = 200


class Status:
    def __init__(self, jobs: JobStore, clock: Clock, sleep: Callable[[float], None]) -> None:
        self._jobs = jobs
        self._clock = clock
        self._sleep = sleep

    def job(self, owner: str, *, job_id: int | None, ref_id: str | None) -> Job:
        """The owner's job by its id, or else its RefId.

        Raises: NotFound, in the same words for a job that never was, is gone, or is another key's; InvalidRequest.
        """
        if job_id is None and ref_id is None:
            raise InvalidRequest("Give the job's id or its refId")
        now = self._clock.now_ms()
        job = (
            self._jobs.get(job_id) if job_id is not None else self._jobs.find_by_ref_id(owner, ref_id or "", now_ms=now)
        )
        if job is None or job.owner != owner or job.is_past_ttl(now):
            raise NotFound("Job not found")
        return job

    def status(self, job: Job) -> bytes:
        """The status document, the result within where it fits."""
        inline = job.state == JobState.COMPLETED and views.may_fit_inline(job)
        return views.status_view(job, self._jobs.read_result(job) if inline else None)

    def record(self, job: Job) -> dict[str, object]:
        """The job record with its bodies, or with a link to a request and an address of a result that is too large."""
        request = self._jobs.read_request(job)
        result = self._jobs.read_result(job) if views.may_fit_inline(job) else None
        return views.record_view(
            job, request, result, request_link=self._jobs.presigned_url(job.request_location, seconds=LINK_S)
        )

    def wait(self, job: Job, *, deadline_ms: int) -> Job:
        """The job once it has ended, or as it stands at `until_ms`."""
        while not job.has_ended and self._clock.now_ms() < deadline_ms:
            self._sleep(POLL_S)
            job = self._jobs.get(job.id) or job
        return job

    def list_jobs(self, owner: str, *, tag: str | None, state: str | None, take: int, cursor: int | None) -> JobPage:
        """The owner's jobs, newest first. Raises: InvalidRequest."""
        if state is not None and state not in list(JobState):
            raise InvalidRequest(f"'state' must be one of {', '.join(JobState)}", param="state")
        if not 1 <= take <= MAX_TAKE:
            raise InvalidRequest(f"'take' must be 1 to {MAX_TAKE}", param="take")
        page = self._jobs.list_page(owner, tag=tag, state=state, take=take, cursor=cursor)
        now = self._clock.now_ms()
        return JobPage([job for job in page.jobs if not job.is_past_ttl(now)], page.cursor)

    def result(self, job: Job) -> bytes | str:
        """The bare result, or a link to it where it is large.

        Raises: Conflict, for a job that has none; NotFound, where it is no longer kept.
        """
        if job.state != JobState.COMPLETED:
            raise Conflict(f"Job {job.id} is {job.state} and has no result")
        if job.result_location is None:
            raise NotFound(f"Job {job.id} was answered by a stream, which is not kept")
        if views.may_fit_inline(job):
            result = self._jobs.read_result(job)
            if result is None:
                raise NotFound(f"The result of job {job.id} is no longer kept")
            if views.fits_inline(result):
                return result
        return self._jobs.presigned_url(job.result_location, seconds=LINK_S) or self._jobs.read_result(job) or b""
