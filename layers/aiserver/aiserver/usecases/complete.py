"""Serve a request synchronously. A RefId makes it idempotent; a RefId or Tag records it as a job."""

from collections.abc import Generator
from dataclasses import dataclass

from aiserver.clock import Clock, Deadline
from aiserver.errors import AiServerError, Conflict, ProviderTimeout
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore
from aiserver.jobs.states import JobState
from aiserver.providers.call import ProviderCall
from aiserver.providers.response import ProviderResponse
from aiserver.routing.failover import Failover, FailoverResult, OpenStream
from aiserver.routing.selection import ProviderDirectory
from aiserver.usecases.stream_response import StreamOutcome, stream_response
from aiserver.usecases.sync_records import SyncRecord, SyncRecords, SyncRequest
from aiserver.wire import sse
from aiserver.wire.requests import ModelRequest

CLOCK_SKEW_MS = 500  # tolerated between the clocks that measure one call
FIRST_BYTE_TIMEOUT_S = 280  # API Gateway drops a response whose first byte takes longer than 300 s


@dataclass(frozen=True)
class CompletionResult:
    """The provider's response, complete or as a stream, with the provider and the number of calls.

    `is_replay` marks a stored response that is returned again.
    """

    status: int
    headers: dict[str, str]
    body: bytes | Generator[bytes | None]
    provider: str
    attempts: int
    is_replay: bool = False

    @property
    def response_headers(self) -> dict[str, str]:
        """The relayed headers, and those that tell how the gateway served the request."""
        served_by = {"x-provider": self.provider, "x-attempts": str(self.attempts)}
        return self.headers | served_by | ({"x-replayed": "true"} if self.is_replay else {})


class Complete:
    def __init__(
        self, jobs: JobStore, directory: ProviderDirectory, failover: Failover, records: SyncRecords, clock: Clock
    ) -> None:
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
        call = _create_call(request, owner, deadline, Deadline(started_ms + FIRST_BYTE_TIMEOUT_S * 1000))
        sync = SyncRequest(request, owner, base_url, started_ms, call.begin_deadline, call.deadline)
        stored_job = self._records.find(sync)
        if stored_job and stored_job.state == JobState.COMPLETED:
            return self._replay(stored_job)
        candidates = self._directory.candidates(request.model, request.options.provider, call.operation)
        record = self._records.begin(sync, stored_job)
        if isinstance(record, Job):
            return self._replay(record)
        try:
            result = self._failover.try_candidates(call, candidates)
        except Exception:
            record.abandon()
            raise
        if result.stream:
            return self._relay_stream(result, result.stream, record, deadline)
        if result.response is None:
            error = self._error_to_raise(result, call)
            record.end(result, StreamOutcome(JobState.FAILED, error))
            raise error
        response = result.response
        record.end(result, StreamOutcome(JobState.COMPLETED, None, response.usage), response)
        return CompletionResult(response.status, response.headers, response.body, result.provider, result.attempts)

    def _relay_stream(
        self, result: FailoverResult, stream: OpenStream, record: SyncRecord, deadline: Deadline
    ) -> CompletionResult:
        provider_stream = stream.stream
        file: list[bytes] | None = [] if record.stores_result and not provider_stream.has_events else None

        def on_end(outcome: StreamOutcome) -> None:
            is_stored = file is not None and outcome.state == JobState.COMPLETED
            response = ProviderResponse(200, provider_stream.headers, b"".join(file or ())) if is_stored else None
            record.end(result, outcome, response)

        headers = {**provider_stream.headers, **(sse.HEADERS if provider_stream.has_events else {})}
        body = stream_response(result.provider, stream, self._clock, deadline=deadline, on_end=on_end, copy_to=file)
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

    def _replay(self, job: Job) -> CompletionResult:
        result = self._jobs.read_result(job)
        if result is None:
            raise Conflict(f"The response to RefId {job.ref_id} is no longer stored", param="refId")
        headers = {"content-type": job.result_type} if job.result_type else {}
        return CompletionResult(200, headers, result, job.served_by or "", job.calls or job.attempt, is_replay=True)


def _create_call(request: ModelRequest, owner: str, deadline: Deadline, first_byte_deadline: Deadline) -> ProviderCall:
    begin_deadline = min(deadline, first_byte_deadline)
    return ProviderCall(
        request.operation,
        request.body,
        deadline if request.stream else begin_deadline,
        begin_deadline,
        owner,
        stream=request.stream,
        content_type=request.content_type,
        prefers_segments=request.prefers_segments,
    )
