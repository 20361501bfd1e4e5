"""JSON documents of a job for callers: the status document, the job record, the event."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.operations import OPERATIONS
from aiserver.usecases.media_outputs import Output, response_texts
from aiserver.wire import errors as wire_errors
from aiserver.wire.render import RawJson, dump_json, format_duration, format_iso, render

MAX_EMBEDDED_BYTES = (
    4 * 1024 * 1024 - 8 * 1024
)  # of bodies in one response, which stays under 4 MB with its other members
ESCAPED_BYTES = 5 * 1024 * 1024 + 512 * 1024  # Lambda accepts a response as a JSON string of at most 6 MB
# AI Server's requests, by the request that returns the status of their jobs; either one accepts every job.
STATUS_REQUESTS = {
    "QueueSpeechToText": "GetTextGenerationStatus",
    "QueueImageToText": "GetTextGenerationStatus",
    **dict.fromkeys(
        ("QueueTextToSpeech", "QueueTextToImage", "QueueImageToImage", "QueueImageWithMask"),
        "GetArtifactGenerationStatus",
    ),
}
STRING_BYTES = 1024 * 1024  # of one body as a JSON string, which Lambda's escaping doubles again


def accepted_view(job: Job) -> dict[str, Any]:
    return {"id": job.id, "refId": job.ref_id, "statusUrl": status_url(job)}


def accepted_media_view(job: Job, request_name: str) -> dict[str, Any]:
    """The response to AI Server's request of that name, also if its RefId found a job of another request."""
    state = {"jobId": job.id, "jobState": job.state, "status": _status_text(job)}
    return {"id": job.id, "refId": job.ref_id, "statusUrl": status_url(job, STATUS_REQUESTS[request_name]), **state}


def status_url(job: Job, request_name: str = "GetOpenAiChatStatus") -> str:
    """The URL of the job's status, by the request with that name."""
    return f"{job.base_url}/api/{request_name}?refId={quote(job.ref_id, safe='')}"


def result_url(job: Job) -> str:
    """The URL of the result body, readable with the job's API key."""
    return f"{job.base_url}/v1/jobs/{job.id}/result"


def status_view(job: Job, result: bytes | None, files: Sequence[Output] = ()) -> bytes:
    """The status document, with `result` inline as `result` and, for older clients, as `chatResponse`, if it fits.

    Texts of AI Server's requests are also in `results` and `textOutputs`; `files` are in `results` and `outputs`.
    """
    return render(
        {
            "jobId": job.id,
            "refId": job.ref_id,
            "tag": job.tag,
            "jobState": job.state,
            "status": _status_text(job),
            **_timing_members(job),
            "waitReason": job.wait_reason,
            "maybeBilled": job.maybe_billed or None,
            "provider": job.served_by,
            "usage": RawJson(job.usage.encode()) if job.usage else None,
            "callback": callback_view(job),
            "resultUrl": result_url(job) if job.result_location else None,
            **_result_members(job, result),
            **output_members(job, result, files),
            "ignored": job.ignored.split(",") if job.ignored else None,
            "responseStatus": error_status(job),
        }
    )


def _result_members(job: Job, result: bytes | None) -> dict[str, Any]:
    """The result as it came: JSON, or text as a JSON string."""
    if result is None:
        return {}
    if _is_media(job):
        json_text = _without_bom(result) if job.result_type is None else dump_json(result.decode(errors="replace"))
        return {"result": RawJson(json_text) if fits_inline(json_text, times=3) else None}
    return {
        "result": RawJson(_without_bom(result)) if fits_inline(result) else None,
        "chatResponse": RawJson(_without_bom(result)) if fits_inline(result, times=2) else None,
    }


def _is_media(job: Job) -> bool:
    """False for an operation of a newer version, too."""
    operation = OPERATIONS.get(job.operation)
    return operation is not None and operation.is_media


def output_members(job: Job, result: bytes | None, files: Sequence[Output]) -> dict[str, Any]:
    """The outputs of a media job, under the names of both generations of AI Server's clients."""
    if files:
        return {"results": list(files), "outputs": list(files)}
    operation = OPERATIONS.get(job.operation)
    if operation is None or not (operation.is_media or job.request_name is not None):
        return {}
    if result is None or not fits_inline(result, times=3):
        return {}
    texts = response_texts(operation, result, job.result_type)
    return {"results": texts, "textOutputs": texts} if texts else {}


def generation_callback(job: Job, result: bytes | None, files: Sequence[Output]) -> bytes:
    """The callback of AI Server's media requests: `{state?, refId, outputs?, textOutputs?, responseStatus?}`."""
    members = output_members(job, result, files)
    members.pop("results", None)
    return render(
        {"state": job.client_state, "refId": job.ref_id, **members, "responseStatus": _terminal_error_status(job)}
    )


def _terminal_error_status(job: Job) -> dict[str, Any] | None:
    if job.state == JobState.CANCELLED:
        return wire_errors.response_status("Cancelled", "The job was cancelled")
    return error_status(job)


def may_fit_inline(job: Job) -> bool:
    """True if the status may contain the result; images are never inline."""
    return may_fit_response(job) and job.outputs is None


def may_fit_response(job: Job) -> bool:
    """True if the result is JSON or text, and small enough to be worth reading."""
    return not job.has_file and (job.result_bytes or 0) <= MAX_EMBEDDED_BYTES


def fits_inline(body: bytes, times: int = 1) -> bool:
    """True if a response can contain this body `times` times, both unescaped and after Lambda's escaping."""
    escaped = len(body) + sum(body.count(char) for char in (b'"', b"\\", b"\n", b"\r", b"\t"))
    return times * len(body) <= MAX_EMBEDDED_BYTES and times * escaped <= ESCAPED_BYTES


def record_view(
    job: Job, request: bytes | None = None, result: bytes | None = None, *, request_link: str | None = None
) -> dict[str, Any]:
    """AI Server's job record; bodies are JSON strings, replaced by their URL when too large.

    A form is described: its text fields, and the name, size and hash of its files.
    """
    is_form = job.request_type is not None
    if job.request_type is not None and request is not None:
        from aiserver.wire import forms  # needed for forms only

        request = forms.describe_form(forms.parse_form(request, job.request_type))
    return {
        "id": job.id,
        "refId": job.ref_id,
        "tag": job.tag,
        "state": job.state,
        "model": job.model,
        "provider": job.served_by,
        **_timing_members(job),
        "usage": RawJson(job.usage.encode()) if job.usage else None,
        "durationMs": job.completed_at - job.started_at if job.completed_at and job.started_at else None,
        "replyTo": job.reply_to,
        "requestBody": _json_string(request),
        "requestUrl": request_link if request is not None and (is_form or _json_string(request) is None) else None,
        "responseBody": _json_string(result),
        "resultUrl": result_url(job) if job.result_location and _json_string(result) is None else None,
        "errorCode": job.error_code,
        "error": job.error,
    }


def callback_view(job: Job) -> dict[str, Any] | None:
    """The callback's state; None for a job without ReplyTo."""
    if job.reply_to is None:
        return None
    return {
        "state": job.callback,
        "attempts": job.callback_attempt,
        "waits": job.callback_waits or None,
        "lastStatus": job.callback_last_status,
        "lastError": job.callback_last_error,
        "nextAttemptAt": format_iso(job.callback_next_at) if job.callback == CallbackState.PENDING else None,
    }


def error_status(job: Job) -> dict[str, Any] | None:
    if job.error_code is None:
        return None
    return wire_errors.response_status(job.error_code, job.error or "")


def error_view(job: Job) -> bytes:
    """The error body of a job that failed or was cancelled."""
    if job.state == JobState.CANCELLED:
        return wire_errors.render_envelope("Cancelled", "The job was cancelled", "invalid_request_error", "cancelled")
    return wire_errors.render_envelope(
        job.error_code or "InternalError",
        job.error or "",
        job.error_type or "server_error",
        job.error_sub_code or "internal_error",
    )


def event_view(job: Job) -> bytes:
    """The detail of a job's event: key, times and usage; never the request or the response."""
    return render(
        {
            "id": job.id,
            "refId": job.ref_id,
            "tag": job.tag,
            "keyId": job.owner,
            "operation": job.operation,
            "model": job.model,
            "provider": job.served_by,
            "state": job.state,
            **_timing_members(job),
            "usage": RawJson(job.usage.encode()) if job.usage else None,
            "errorCode": job.error_code,
        }
    )


def _without_bom(body: bytes) -> bytes:
    """Remove the byte order mark, which is allowed before a JSON text, but not inside one."""
    return body.removeprefix(b"\xef\xbb\xbf")


def _json_string(body: bytes | None) -> str | None:
    """A body as a JSON string; None if too long. A quote takes two bytes, and four after Lambda's escaping."""
    if body is None or len(body) + body.count(b'"') + body.count(b"\\") > STRING_BYTES:
        return None
    return body.decode(errors="replace")


def _timing_members(job: Job) -> dict[str, Any]:
    return {
        "attempts": job.attempt,
        "createdDate": format_iso(job.created_at),
        "startedDate": format_iso(job.started_at),
        "completedDate": format_iso(job.completed_at),
        "duration": format_duration(job.completed_at - job.started_at) if job.completed_at and job.started_at else None,
    }


def _status_text(job: Job) -> str:
    """A one-line status for people."""
    if job.state == JobState.QUEUED and job.wait_reason:
        return f"Waiting: {job.wait_reason}"
    if job.state == JobState.STARTED and job.cancel_requested_at:
        return "Cancel requested"
    return job.error or str(job.state)
