"""What every end of a job writes, and how a failure is told afterwards."""

from aiserver.errors import AiServerError
from aiserver.jobs.job import Job
from aiserver.jobs.states import EXPIRED, CallbackState
from aiserver.jobs.transitions import AttributeValue

CALLBACK_DUE_MS = 60_000  # the sweeper looks after a callback that nobody has begun by then
MAX_ERROR_CHARS = 1000  # the job item stays under 4 KB
DAY_S = 86_400


def terminal_fields(job: Job, *, now_ms: int, settled_days: int) -> dict[str, AttributeValue]:
    """The params of every transition that ends a job: a callback is owed, or the job may be forgotten."""
    has_callback = job.reply_to is not None
    return {
        "now": now_ms,
        "callback": CallbackState.PENDING if has_callback else CallbackState.NONE,
        "callback_next_at": now_ms if has_callback else None,
        "due_at": now_ms + CALLBACK_DUE_MS if has_callback else None,
        "ttl": None if has_callback else settled_ttl(now_ms, settled_days),
    }


def settled_ttl(now_ms: int, days: int) -> int:
    """When a job nothing is owed for is forgotten, in seconds as DynamoDB wants it."""
    return now_ms // 1000 + days * DAY_S


def failure_fields(error: AiServerError) -> dict[str, AttributeValue]:
    """The params that keep an error with the job."""
    return {
        "error_code": error.error_code,
        "error": error.message[:MAX_ERROR_CHARS],
        "error_type": error.type,
        "error_sub_code": error.code[:64],
    }


def expiry_fields(job: Job) -> dict[str, AttributeValue]:
    """The same for a job whose deadline has passed, with what it was waiting for."""
    waited = f" while waiting ({job.wait_reason})" if job.wait_reason else ""
    return {
        "error_code": EXPIRED,
        "error": f"The job's deadline passed{waited}",
        "error_type": "server_error",
        "error_sub_code": "expired",
    }
