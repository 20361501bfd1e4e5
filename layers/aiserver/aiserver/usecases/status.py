"""Read, await and list jobs and return their results, only to the key that owns them."""

from collections.abc import Callable

from aiserver.artifacts import LINK_TTL_S, ArtifactUrls
from aiserver.clock import Clock, Deadline
from aiserver.errors import Conflict, InvalidRequest, NotFound
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ANY_JOB, JobFilter, JobPage, JobStore
from aiserver.jobs.states import JobState
from aiserver.usecases import views
from aiserver.usecases.media_outputs import job_file_keys, job_files, sign_urls

POLL_INTERVAL_S = 0.5  # a waiting caller gets the result within a second, at two reads per second
MAX_PAGE_SIZE = 200


class Status:
    def __init__(
        self, jobs: JobStore, clock: Clock, sleep: Callable[[float], None], urls: ArtifactUrls | None = None
    ) -> None:
        """`urls` creates the URLs of files; a function without it returns no such URLs."""
        self._jobs = jobs
        self._urls = urls
        self._clock = clock
        self._sleep = sleep

    def job(self, owner: str, *, job_id: int | None, ref_id: str | None) -> Job:
        """The owner's job by its id, or by its RefId if the id is None.

        Raises: NotFound, with the same message for an unknown, expired or another key's job; InvalidRequest.
        """
        if job_id is None and ref_id is None:
            raise InvalidRequest("'jobId' or 'refId' is required")
        now = self._clock.now_ms()
        job = (
            self._jobs.get(job_id) if job_id is not None else self._jobs.find_by_ref_id(owner, ref_id or "", now_ms=now)
        )
        if job is None or job.owner != owner or job.is_past_ttl(now):
            raise NotFound("Job not found")
        return job

    def status(self, job: Job) -> bytes:
        """The status document, with the result inline if it fits."""
        inline = job.state == JobState.COMPLETED and views.may_fit_inline(job)
        return views.status_view(job, self._jobs.read_result(job) if inline else None, job_files(job, self._urls))

    def record(self, job: Job) -> dict[str, object]:
        """The job record with its bodies; a request or result that is too large is replaced by its URL."""
        request = self._jobs.read_request(job)
        result = self._jobs.read_result(job) if views.may_fit_inline(job) else None
        return views.record_view(
            job,
            request,
            result,
            request_link=self._jobs.presigned_url(
                job.request_location, seconds=LINK_TTL_S, content_type=job.request_type
            ),
        )

    def wait(self, job: Job, *, deadline: Deadline) -> Job:
        """The job once it has ended, or its state at `deadline`."""
        while not job.has_ended and not deadline.has_passed(self._clock):
            self._sleep(POLL_INTERVAL_S)
            job = self._jobs.get(job.id) or job
        return job

    def list_jobs(self, owner: str, filter: JobFilter = ANY_JOB, *, take: int, cursor: int | None = None) -> JobPage:
        """The owner's jobs, newest first. Raises: InvalidRequest."""
        if filter.state is not None and filter.state not in list(JobState):
            raise InvalidRequest(f"'state' must be one of {', '.join(JobState)}", param="state")
        if filter.since_ms is not None and filter.until_ms is not None and filter.until_ms <= filter.since_ms:
            raise InvalidRequest("'until' must be later than 'since'", param="until")
        if not 1 <= take <= MAX_PAGE_SIZE:
            raise InvalidRequest(f"'take' must be 1 to {MAX_PAGE_SIZE}", param="take")
        page = self._jobs.list_page(owner, filter, take=take, cursor=cursor)
        now = self._clock.now_ms()
        return JobPage([job for job in page.jobs if not job.is_past_ttl(now)], page.cursor)

    def result(self, job: Job) -> bytes | str:
        """The result body, of media type `job.result_type`, or a signed URL for a large one.

        Raises: Conflict, when the job is not Completed; NotFound, when the result is not stored.
        """
        if job.state != JobState.COMPLETED:
            raise Conflict(f"Job {job.id} is {job.state} and has no result")
        if job.result_location is None:
            raise NotFound(f"Job {job.id} was streamed; streamed responses are not stored")
        if views.may_fit_response(job):
            result = self._jobs.read_result(job)
            if result is None:
                raise NotFound(f"The result of job {job.id} is no longer stored")
            if self._urls:
                result = sign_urls(result, job.base_url, job_file_keys(job), self._urls)
            if views.fits_inline(result):
                return result
        link = self._jobs.presigned_url(job.result_location, seconds=LINK_TTL_S, content_type=job.result_type)
        return link or self._jobs.read_result(job) or b""
