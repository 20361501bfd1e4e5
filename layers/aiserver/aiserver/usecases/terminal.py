"""Params of the transitions that end a job: callback, retention and error fields."""

from aiserver.errors import AiServerError
from aiserver.jobs.job import Job
from aiserver.jobs.states import EXPIRED, CallbackState
from aiserver.jobs.transitions import AttributeValue
from aiserver.wire.media_types import JSON, media_type

CALLBACK_DUE_MS = 60_000  # until the sweeper sends the message of an unclaimed callback again
MAX_ERROR_CHARS = 1000  # the job item stays under 4 KB
DAY_S = 86_400


def terminal_fields(job: Job, *, now_ms: int, settled_days: int) -> dict[str, AttributeValue]:
    """The params of every transition that ends a job: the callback to deliver, or the time to live."""
    has_callback = job.reply_to is not None
    return {
        "now": now_ms,
        "callback": CallbackState.PENDING if has_callback else CallbackState.NONE,
        "callback_next_at": now_ms if has_callback else None,
        "due_at": now_ms + CALLBACK_DUE_MS if has_callback else None,
        "ttl": None if has_callback else settled_ttl(now_ms, settled_days),
    }


def settled_ttl(now_ms: int, days: int) -> int:
    """When a job without an open callback is deleted, in Unix seconds, as DynamoDB needs it."""
    return now_ms // 1000 + days * DAY_S


def stored_type(content_type: str) -> str | None:
    """The media type that is stored with a result; None for JSON."""
    return None if media_type(content_type) == JSON else content_type


def failure_fields(error: AiServerError) -> dict[str, AttributeValue]:
    """The params that store an error with the job."""
    return {
        "error_code": error.error_code,
        "error": error.message[:MAX_ERROR_CHARS],
        "error_type": error.type,
        "error_sub_code": error.code[:64],
    }


def expiry_fields(job: Job) -> dict[str, AttributeValue]:
    """The params that store the expiry of a job, with the reason it was waiting for."""
    wait = f" while waiting ({job.wait_reason})" if job.wait_reason else ""
    return {
        "error_code": EXPIRED,
        "error": f"The job's deadline passed{wait}",
        "error_type": "server_error",
        "error_sub_code": "expired",
    }
