"""What callers see of a job: the status document, the job record, the event."""

from typing import Any
from urllib.parse import quote

from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.wire import errors as wire_errors
from aiserver.wire.render import RawJson, format_duration, format_iso, render

INLINE_BYTES = 4 * 1024 * 1024 - 8 * 1024  # of bodies in one answer, which stays under 4 MB with what stands around
ESCAPED_BYTES = 5 * 1024 * 1024 + 512 * 1024  # Lambda takes an answer as a JSON string, of at most 6 MB
STRING_BYTES = 1024 * 1024  # of one body as a JSON string of its own, which Lambda's escaping then doubles again


def accepted_view(job: Job) -> dict[str, Any]:
    return {"id": job.id, "refId": job.ref_id, "statusUrl": status_url(job)}


def status_url(job: Job) -> str:
    return f"{job.base_url}/api/GetOpenAiChatStatus?refId={quote(job.ref_id, safe='')}"


def result_url(job: Job) -> str:
    """Where the bare result is, for whoever holds the job's key."""
    return f"{job.base_url}/v1/jobs/{job.id}/result"


def status_view(job: Job, result: bytes | None) -> bytes:
    """The status document; `result`, where given, is spliced in, and for older clients twice as far as it fits."""
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
            "responseStatus": failure_status(job),
        }
    )


def may_fit_inline(job: Job) -> bool:
    """Whether it is worth reading the result to see."""
    return (job.result_bytes or 0) <= INLINE_BYTES


def fits_inline(body: bytes, times: int = 1) -> bool:
    """Whether an answer can hold this body so many times, in itself and once Lambda has escaped it."""
    escaped = len(body) + sum(body.count(char) for char in (b'"', b"\\", b"\n", b"\r", b"\t"))
    return times * len(body) <= INLINE_BYTES and times * escaped <= ESCAPED_BYTES


def record_view(
    job: Job, request: bytes | None = None, result: bytes | None = None, *, request_link: str | None = None
) -> dict[str, Any]:
    """AI Server's job record; bodies are JSON strings, and give way to where they are when too large."""
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
    """Where the callback stands; nothing for a job without ReplyTo."""
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


def failure_status(job: Job) -> dict[str, Any] | None:
    if job.error_code is None:
        return None
    return wire_errors.response_status(job.error_code, job.error or "")


def error_view(job: Job) -> bytes:
    """A job that ended without a result, in the one error shape."""
    if job.state == JobState.CANCELLED:
        return wire_errors.render_envelope("Cancelled", "The job was cancelled", "invalid_request_error", "cancelled")
    return wire_errors.render_envelope(
        job.error_code or "InternalError",
        job.error or "",
        job.error_type or "server_error",
        job.error_sub_code or "internal_error",
    )


def event_view(job: Job) -> bytes:
    """The detail of a job's event: who, when and how much; never what was asked or answered."""
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
    """Without the byte order mark that may stand before a JSON text, but not within one."""
    return body.removeprefix(b"\xef\xbb\xbf")


def _json_string(body: bytes | None) -> str | None:
    """A body as a JSON string, unless that would be too long; quotes in it take two characters, and then four."""
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
    """One line for people."""
    if job.state == JobState.QUEUED and job.wait_reason:
        return f"Waiting: {job.wait_reason}"
    if job.state == JobState.STARTED and job.cancel_requested_at:
        return "Cancel requested"
    return job.error or str(job.state)
