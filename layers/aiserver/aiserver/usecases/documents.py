"""What callers see of a job: the status document, the job record, the event."""

from typing import Any
from urllib.parse import quote

from aiserver.jobs.job import Job
from aiserver.jobs.states import Callback, State
from aiserver.wire import errors as wire_errors
from aiserver.wire.render import Raw, duration, iso, render

INLINE_ANSWER_BYTES = 4 * 1024 * 1024  # Lambda refuses an answer over 6 MB, escapes included
STRING_BYTES = 1024 * 1024  # a body inside a JSON string: escaping may double it, and there are two
STATUS_OVERHEAD_BYTES = 8 * 1024


def accepted(job: Job) -> dict[str, Any]:
    return {"id": job.id, "refId": job.ref_id, "statusUrl": status_url(job)}


def status_url(job: Job) -> str:
    return f"{job.base_url}/api/GetOpenAiChatStatus?refId={quote(job.ref_id, safe='')}"


def result_url(job: Job) -> str:
    """Where the bare result is, for whoever holds the job's key."""
    return f"{job.base_url}/v1/jobs/{job.id}/result"


def status(job: Job, result: bytes | None) -> bytes:
    """The status document; `result`, where given, is spliced in, and for older clients twice as far as it fits."""
    room = INLINE_ANSWER_BYTES - STATUS_OVERHEAD_BYTES
    return render(
        {
            "jobId": job.id,
            "refId": job.ref_id,
            "tag": job.tag,
            "jobState": job.state,
            "status": _words(job),
            **_timing(job),
            "waitReason": job.wait_reason,
            "maybeBilled": job.maybe_billed or None,
            "provider": job.served_by,
            "usage": Raw(job.usage.encode()) if job.usage else None,
            "callback": callback(job),
            "resultUrl": result_url(job) if job.state == State.COMPLETED else None,
            "result": Raw(result) if result is not None else None,
            "chatResponse": Raw(result) if result is not None and 2 * len(result) <= room else None,
            "responseStatus": failure_status(job),
        }
    )


def fits_inline(job: Job) -> bool:
    return (job.result_bytes or 0) <= INLINE_ANSWER_BYTES - STATUS_OVERHEAD_BYTES


def record(job: Job, request: bytes | None = None, result: bytes | None = None) -> dict[str, Any]:
    """AI Server's job record; bodies are JSON strings, and give way to where they are when too large."""
    large = job.result_bytes is not None and job.result_bytes > STRING_BYTES
    return {
        "id": job.id,
        "refId": job.ref_id,
        "tag": job.tag,
        "state": job.state,
        "model": job.model,
        "provider": job.served_by,
        **_timing(job),
        "durationMs": job.completed_at - job.started_at if job.completed_at and job.started_at else None,
        "replyTo": job.reply_to,
        "requestBody": request.decode() if request is not None else None,
        "responseBody": result.decode() if result is not None else None,
        "resultUrl": result_url(job) if large else None,
        "errorCode": job.error_code,
        "error": job.error,
    }


def callback(job: Job) -> dict[str, Any] | None:
    """Where the callback stands; nothing for a job without ReplyTo."""
    if job.reply_to is None:
        return None
    return {
        "state": job.cb,
        "attempts": job.cb_attempt,
        "lastStatus": job.cb_last_status,
        "lastError": job.cb_last_error,
        "nextAttemptAt": iso(job.cb_next_at) if job.cb == Callback.PENDING else None,
    }


def failure_status(job: Job) -> dict[str, Any] | None:
    if job.error_code is None:
        return None
    return {"errorCode": job.error_code, "message": job.error}


def error_envelope(job: Job) -> bytes:
    """A job that ended without a result, in the one error shape."""
    if job.state == State.CANCELLED:
        return wire_errors.envelope("Cancelled", "The job was cancelled", "invalid_request_error", "cancelled")
    return wire_errors.envelope(
        job.error_code or "InternalError",
        job.error or "",
        job.error_type or "server_error",
        job.error_sub_code or "internal_error",
    )


def event(job: Job) -> bytes:
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
            **_timing(job),
            "usage": Raw(job.usage.encode()) if job.usage else None,
            "errorCode": job.error_code,
        }
    )


def _timing(job: Job) -> dict[str, Any]:
    return {
        "attempts": job.attempt,
        "createdDate": iso(job.created_at),
        "startedDate": iso(job.started_at),
        "completedDate": iso(job.completed_at),
        "duration": duration(job.completed_at - job.started_at) if job.completed_at and job.started_at else None,
    }


def _words(job: Job) -> str:
    """One line for people."""
    if job.state == State.QUEUED and job.wait_reason:
        return f"Waiting: {job.wait_reason}"
    if job.state == State.STARTED and job.cancel_requested_at:
        return "Cancel requested"
    return job.error or str(job.state)
