"""Serve a request synchronously. A RefId makes it idempotent; a RefId or Tag records it as a job."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Protocol

from aiserver.clock import Clock, Deadline
from aiserver.errors import AiServerError, Conflict, ProviderTimeout
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore
from aiserver.jobs.states import JobState
from aiserver.providers.call import ProviderCall
from aiserver.providers.response import ProviderResponse
from aiserver.routing.failover import Failover, FailoverResult, OpenStream
from aiserver.routing.selection import ProviderDirectory
from aiserver.usecases.request_log import RequestLog
from aiserver.usecases.stream_response import Copy, StreamOutcome, stream_response
from aiserver.usecases.sync_records import SyncRecord, SyncRecords, SyncRequest
from aiserver.usecases.terminal import StoredResponse, store_margin_ms
from aiserver.wire import sse
from aiserver.wire.requests import ModelRequest

CLOCK_SKEW_MS = 500  # tolerated between the clocks that measure one call
FIRST_BYTE_TIMEOUT_S = 280  # API Gateway drops a response whose first byte takes longer than 300 s


class StreamCopy(Copy, Protocol):
    """What is kept of a stream, to be stored."""

    @property
    def body(self) -> bytes: ...


class FileCopy(list[bytes]):
    """A complete file."""

    @property
    def body(self) -> bytes:
        return b"".join(self)


class ImageStore(Protocol):
    """Stores the images of responses: usecases.sync_images.SyncImages."""

    def prepare(self) -> None:
        """Read what later steps need, before a call that is paid for."""
        ...

    def store(
        self, response: ProviderResponse, result: FailoverResult, record: SyncRecord, deadline: Deadline
    ) -> StoredResponse:
        """The response after its images have been stored. Never raises: `is_lost` when the store failed."""
        ...

    def copy_events(self) -> StreamCopy:
        """An empty copy, which keeps the events of a stream that contain complete images."""
        ...

    def sign(self, body: bytes, base_url: str, keys: tuple[str, ...]) -> bytes:
        """A stored response in which the URLs of its artifacts work without an API key until they expire."""
        ...

    def keys(self, job: Job) -> tuple[str, ...]:
        """The keys of a job's artifacts."""
        ...


@dataclass(frozen=True)
class CompletionResult:
    """The provider's response, complete or as a stream, with the provider and the number of calls.

    `is_replay` marks a stored response that is returned again. `ignored`: see ProviderResponse. `keys` are those of the
    artifacts with its images, and `lost` tells which images could not be stored; empty where images are not stored.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Generator[bytes | None]
    provider: str
    attempts: int
    is_replay: bool = False
    ignored: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    lost: str = ""

    @property
    def response_headers(self) -> dict[str, str]:
        """The relayed headers, and those that tell how the gateway served the request."""
        served_by = {"x-provider": self.provider, "x-attempts": str(self.attempts)}
        served_by |= {"x-ignored": ", ".join(self.ignored)} if self.ignored else {}
        if self.lost:
            served_by["x-images-not-stored"] = self.lost.encode("ascii", "replace").decode()
        return self.headers | served_by | ({"x-replayed": "true"} if self.is_replay else {})


class Complete:
    def __init__(
        self,
        jobs: JobStore,
        directory: ProviderDirectory,
        failover: Failover,
        records: SyncRecords,
        clock: Clock,
        images: ImageStore | None = None,
        *,
        logs_tags: bool = False,
    ) -> None:
        """`images` stores images; None in a function without image operations. `logs_tags`: tags are logged."""
        self._logs_tags = logs_tags
        self._images = images
        self._jobs = jobs
        self._directory = directory
        self._failover = failover
        self._records = records
        self._clock = clock

    def run(self, request: ModelRequest, *, owner: str, base_url: str, deadline: Deadline) -> CompletionResult:
        """Call the best provider, and the next one if a call is known to have had no effect.

        A repeated RefId gets the stored response; while the first request runs, the repeated one waits for it.
        A stream must end by `deadline`; every response must start within FIRST_BYTE_TIMEOUT_S.
        Raises: NotFound (model), InvalidRequest (provider; unsupported field), Conflict (RefId), ProviderError.
        """
        started_ms = self._clock.now_ms()
        request_log = RequestLog(request, owner, started_ms, self._clock, logs_tag=self._logs_tags)
        try:
            return self._run(request, owner, base_url, started_ms, deadline, request_log)
        except Exception as error:
            request_log.end_with_error(error)
            raise

    def _run(
        self,
        request: ModelRequest,
        owner: str,
        base_url: str,
        started_ms: int,
        deadline: Deadline,
        request_log: RequestLog,
    ) -> CompletionResult:
        begin_deadline = min(deadline, Deadline(started_ms + FIRST_BYTE_TIMEOUT_S * 1000))
        images = self._images if _stores_images(request) else None
        margin_ms = store_margin_ms(begin_deadline.at_ms - started_ms) if images else 0
        stream_deadline, call_deadline = (
            Deadline(deadline.at_ms - margin_ms),
            Deadline(begin_deadline.at_ms - margin_ms),
        )
        call = _create_call(request, owner, stream_deadline, call_deadline)
        sync = SyncRequest(request, owner, base_url, started_ms, call.begin_deadline, call.deadline)
        stored_job = self._records.find(sync)
        if stored_job and stored_job.state == JobState.COMPLETED:
            return self._replay(stored_job, request_log)
        candidates = self._directory.candidates(request.model, request.options.provider, call.operation)
        if images:
            images.prepare()
        record = self._records.begin(sync, stored_job)
        if isinstance(record, Job):
            return self._replay(record, request_log)
        try:
            result = self._failover.try_candidates(call, candidates)
        except Exception:
            record.abandon()
            raise
        request_log.set_result(result)
        if result.stream:
            return self._relay_stream(result, result.stream, record, deadline, images, request_log)
        if result.response is None:
            error = self._error_to_raise(result, call)
            record.end(result, StreamOutcome(JobState.FAILED, error))
            raise error
        response = result.response
        stored = images.store(response, result, record, begin_deadline) if images else StoredResponse(response)
        completion = self._end(result, stored, record)
        request_log.end(response.status, usage=response.usage)
        return completion

    def _end(self, result: FailoverResult, stored: StoredResponse, record: SyncRecord) -> CompletionResult:
        response = stored.response
        if stored.is_lost and stored.error:
            record.end(result, StreamOutcome(JobState.FAILED, stored.error, response.usage))
            if record.sync.request.name:  # its response consists of the URLs of stored files
                raise stored.error
        else:
            record.end(result, StreamOutcome(JobState.COMPLETED, None, response.usage), stored)
        return CompletionResult(
            response.status,
            response.headers,
            self._sign(response.body, record.sync.base_url, stored.keys),
            result.provider,
            result.attempts,
            ignored=response.ignored,
            keys=stored.keys,
            lost=stored.error.message if stored.error else "",
        )

    def _sign(self, body: bytes, base_url: str, keys: tuple[str, ...]) -> bytes:
        return self._images.sign(body, base_url, keys) if self._images and keys else body

    def _relay_stream(
        self,
        result: FailoverResult,
        stream: OpenStream,
        record: SyncRecord,
        deadline: Deadline,
        images: ImageStore | None,
        request_log: RequestLog,
    ) -> CompletionResult:
        provider_stream = stream.stream
        headers = {**provider_stream.headers, **(sse.HEADERS if provider_stream.has_events else {})}
        copy: StreamCopy | None = None
        if record.stores_result and images:
            copy = images.copy_events()
        elif record.stores_result and not provider_stream.has_events:
            copy = FileCopy()

        def on_end(outcome: StreamOutcome) -> None:
            stored = None
            if copy and outcome.state == JobState.COMPLETED:
                response = ProviderResponse(200, headers, copy.body)
                stored = images.store(response, result, record, deadline) if images else StoredResponse(response)
            if stored and stored.is_lost:
                outcome = replace(outcome, state=JobState.FAILED, error=stored.error)
            record.end(result, outcome, stored)
            request_log.end_stream(outcome)

        end = record.sync.deadline  # before `deadline`, if images are stored
        body = stream_response(result.provider, stream, self._clock, deadline=end, on_end=on_end, copy_to=copy)
        return CompletionResult(200, headers, body, result.provider, result.attempts)

    def _error_to_raise(self, result: FailoverResult, call: ProviderCall) -> AiServerError:
        """The error of the pass; a timeout caused by the deadline suggests to queue the request."""
        error = result.error
        assert error  # a failover without a response has one
        if not isinstance(error, ProviderTimeout) or error.upstream is not None:
            return error
        is_past_deadline = self._clock.now_ms() >= call.begin_deadline.at_ms - CLOCK_SKEW_MS
        can_queue = is_past_deadline and call.operation.can_queue
        hint = "; queue the request to wait for longer" if can_queue else ""
        return ProviderTimeout(error.message + hint, may_be_billed=error.may_be_billed)

    def _replay(self, job: Job, request_log: RequestLog) -> CompletionResult:
        result = self._jobs.read_result(job)
        if result is None:
            raise Conflict(f"The response to RefId {job.ref_id} is no longer stored", param="refId")
        keys = self._images.keys(job) if self._images else ()
        request_log.end(200, replayed=True, provider=job.served_by)
        return CompletionResult(
            200,
            {"content-type": job.result_type} if job.result_type else {},
            self._sign(result, job.base_url, keys),
            job.served_by or "",
            job.calls or job.attempt,
            is_replay=True,
            ignored=tuple(job.ignored.split(",")) if job.ignored else (),
            keys=keys,
            lost=job.error or "",
        )


def _stores_images(request: ModelRequest) -> bool:
    """Whether the images of the response are stored: for AI Server's requests, and for those that are recorded."""
    options = request.options
    is_stored = bool(request.name or options.ref_id or options.tag)
    return request.operation.returns_images and is_stored


def _create_call(request: ModelRequest, owner: str, deadline: Deadline, begin_deadline: Deadline) -> ProviderCall:
    return ProviderCall(
        request.operation,
        request.body,
        deadline if request.stream else begin_deadline,
        begin_deadline,
        owner,
        stream=request.stream,
        content_type=request.content_type,
        is_aiserver=bool(request.name),
    )
