"""Params of the transitions that end a job: callback, retention, result and error fields."""

from dataclasses import dataclass

from aiserver.errors import AiServerError, ProviderError
from aiserver.jobs.job import Job
from aiserver.jobs.states import EXPIRED, CallbackState
from aiserver.jobs.transitions import AttributeValue
from aiserver.providers.response import ProviderResponse
from aiserver.wire.media_types import JSON, media_type

CALLBACK_DUE_MS = 60_000  # until the sweeper sends the message of an unclaimed callback again
STORE_MARGIN_MS = 30_000  # reserved after a call whose images are stored
MARGIN_SHARE = 4  # at most a quarter of a short time
MAX_ERROR_CHARS = 1000  # the job item stays under 4 KB
DAY_S = 86_400


def store_margin_ms(remaining_ms: int) -> int:
    """The time reserved to store images, of that which remains for their call."""
    return min(STORE_MARGIN_MS, remaining_ms // MARGIN_SHARE)


@dataclass(frozen=True)
class StoredResponse:
    """A complete response as it is stored with its job.

    `keys` are those of the artifacts with its images, in order. `error` names the images that could not be stored.
    """

    response: ProviderResponse
    keys: tuple[str, ...] = ()
    error: ProviderError | None = None

    @property
    def is_lost(self) -> bool:
        """Whether the response should contain images, of which none could be stored."""
        return self.error is not None and not self.keys


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


def result_fields(stored: StoredResponse | None, ignored: str | None) -> dict[str, str | None]:
    """The params that store what a call produced; None is a streamed response, which is not stored.

    `ignored` are the members that had no effect whatever the provider is, separated by commas.
    """
    names = ("result_type", "outputs", "error_code", "error", "error_type", "error_sub_code")
    fields = dict[str, str | None].fromkeys(names)
    if stored is None:
        return fields | {"ignored": ignored}
    all_ignored = [*(ignored.split(",") if ignored else []), *stored.response.ignored]
    return {
        **fields,
        "result_type": stored_type(stored.response.content_type),
        "outputs": ",".join(key.rpartition("/")[2] for key in stored.keys) or None,
        "ignored": ",".join(dict.fromkeys(all_ignored)) or None,
        **(failure_fields(stored.error) if stored.error else {}),
    }


def failure_fields(error: AiServerError) -> dict[str, str | None]:
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
