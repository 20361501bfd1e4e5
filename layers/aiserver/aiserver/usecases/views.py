"""JSON documents of a job for callers: the status document, the job record, the event."""

from typing import Any
from urllib.parse import quote

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.wire import errors as wire_errors
from aiserver.wire.render import RawJson, format_duration, format_iso, render

MAX_EMBEDDED_BYTES = (
    4 * 1024 * 1024 - 8 * 1024
)  # of bodies in one response, which stays under 4 MB with its other members
ESCAPED_BYTES = 5 * 1024 * 1024 + 512 * 1024  # Lambda accepts a response as a JSON string of at most 6 MB
STRING_BYTES = 1024 * 1024  # of one body as a JSON string, which Lambda's escaping doubles again


def accepted_view(job: Job) -> dict[str, Any]:
    return {"id": job.id, "refId": job.ref_id, "statusUrl": status_url(job)}


def status_url(job: Job) -> str:
    return f"{job.base_url}/api/GetOpenAiChatStatus?refId={quote(job.ref_id, safe='')}"


def result_url(job: Job) -> str:
    """The URL of the result body, readable with the job's API key."""
    return f"{job.base_url}/v1/jobs/{job.id}/result"


def status_view(job: Job, result: bytes | None) -> bytes:
    """The status document, with `result` inline as `result` and, for older clients, as `chatResponse`, if it fits."""
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
            "result": RawJson(_without_bom(result)) if result is not None and fits_inline(result) else None,
            "chatResponse": RawJson(_without_bom(result))
            if result is not None and fits_inline(result, times=2)
            else None,
            "responseStatus": error_status(job),
        }
    )


def may_fit_inline(job: Job) -> bool:
    """True if the result is JSON and small enough to be worth reading."""
    return job.result_type is None and (job.result_bytes or 0) <= MAX_EMBEDDED_BYTES


def fits_inline(body: bytes, times: int = 1) -> bool:
    """True if a response can contain this body `times` times, both unescaped and after Lambda's escaping."""
    escaped = len(body) + sum(body.count(char) for char in (b'"', b"\\", b"\n", b"\r", b"\t"))
    return times * len(body) <= MAX_EMBEDDED_BYTES and times * escaped <= ESCAPED_BYTES


def record_view(
    job: Job, request: bytes | None = None, result: bytes | None = None, *, request_link: str | None = None
) -> dict[str, Any]:
    """AI Server's job record; bodies are JSON strings, replaced by their URL when too large."""
    return {
        "id": job.id,
        "refId": job.ref_id,
        "tag": job.tag,
        "state": job.state,
        "model": job.model,
        "provider": job.served_by,
        **_timing_members(job),
        "durationMs": job.completed_at - job.started_at if job.completed_at and job.started_at else None,
        "replyTo": job.reply_to,
        "requestBody": _json_string(request),
        "requestUrl": request_link if request is not None and _json_string(request) is None else None,
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
    return body.decode()


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
