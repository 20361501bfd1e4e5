"""The job record: one queued or recorded request, independent of its operation."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from aiserver.jobs.states import TERMINAL_STATES, CallbackState, JobState

FILE_PREFIX = "artifacts/"  # of the location of a result that is a file
DUE_SHARDS = 8  # of the due index: enough for 8,000 due writes per second, few enough to read every minute


@dataclass(frozen=True)
class JobRequest:
    """What the caller asked for. `owner` is the id of the API key; `body_hash` is `request_hash` of the body.

    `content_type` is the media type of the body; None for JSON. `request_name` is AI Server's request that it came as,
    and `client_state` that request's `state`; `ignored` are its members that had no effect, separated by commas.
    """

    owner: str
    ref_id: str
    operation: str
    model: str
    body_hash: str
    base_url: str
    tag: str | None = None
    provider: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    request_name: str | None = None
    client_state: str | None = None
    ignored: str | None = None


@dataclass(frozen=True)
class Job:
    """The job item of the table. It stays under 4 KB, because the bodies are stored separately.

    Times are Unix milliseconds, except `ttl`, which DynamoDB needs in seconds. `lease_*` fence a worker.
    `due_at` is when the sweeper checks an unfinished job or callback. `callback_*` belong to the callback.
    `call_queue` is the queue of the provider being called: "gpu" where an unknown outcome costs no money.
    `base_url` is the URL the caller used; links to the job are built from it.
    `request_location` and `result_location` locate a body: "item", or the key of an S3 object.
    `request_name`, `client_state` and `ignored`: see JobRequest.
    `request_type` and `result_type` are the media types of the bodies; None for JSON.
    `outputs` are the file names of the images of the result, separated by commas.
    """

    id: int
    owner: str
    ref_id: str
    operation: str
    model: str
    queue: str
    state: JobState
    created_at: int
    deadline: int
    request_location: str
    request_hash: str
    base_url: str
    tag: str | None = None
    provider: str | None = None
    reply_to: str | None = None
    due_shard: str | None = None
    due_at: int | None = None
    ttl: int | None = None
    request_type: str | None = None
    request_name: str | None = None
    client_state: str | None = None
    ignored: str | None = None

    epoch: int = 0
    attempt: int = 0
    calls: int = 0
    invalid_responses: int = 0
    maybe_billed: int = 0
    resends: int = 0
    not_before: int = 0
    wait_reason: str | None = None
    lease_token: str | None = None
    lease_until: int | None = None
    call_started_at: int | None = None
    call_queue: str | None = None
    started_at: int | None = None
    completed_at: int | None = None
    cancel_requested_at: int | None = None

    served_by: str | None = None
    result_location: str | None = None
    result_bytes: int | None = None
    result_type: str | None = None
    outputs: str | None = None
    usage: str | None = None
    error_code: str | None = None
    error: str | None = None
    error_type: str | None = None
    error_sub_code: str | None = None

    callback: CallbackState = CallbackState.NONE
    callback_attempt: int = 0
    callback_sequence: int = 0
    callback_waits: int = 0
    callback_next_at: int | None = None
    callback_token: str | None = None
    callback_lease_until: int | None = None
    callback_last_status: int | None = None
    callback_last_error: str | None = None

    @classmethod
    def accepted(cls, id: int, request: JobRequest, *, queue: str, created_at: int, deadline: int, due_at: int) -> Self:
        """A queued job."""
        return cls._create(
            id,
            request,
            queue=queue,
            state=JobState.QUEUED,
            created_at=created_at,
            deadline=deadline,
            reply_to=request.reply_to,
            due_shard=due_shard(id),
            due_at=due_at,
        )

    @classmethod
    def started(
        cls, id: int, request: JobRequest, *, started_at: int, deadline: int, lease_token: str, lease_until: int
    ) -> Self:
        """The job of a request that is about to be answered synchronously, under a lease of the function that does it.

        If that function dies, the outcome of the call is unknown: it counts as a call to a hosted provider.
        """
        return cls._create(
            id,
            request,
            queue="",
            state=JobState.STARTED,
            created_at=started_at,
            started_at=started_at,
            deadline=deadline,
            due_shard=due_shard(id),
            due_at=lease_until,
            attempt=1,
            lease_token=lease_token,
            lease_until=lease_until,
            call_started_at=started_at,
            call_queue="hosted",
        )

    @classmethod
    def recorded(
        cls,
        id: int,
        request: JobRequest,
        *,
        state: JobState,
        started_at: int,
        completed_at: int,
        calls: int,
        served_by: str,
        usage: str | None,
        maybe_billed: int,
        ttl: int,
        result: Mapping[str, Any],
    ) -> Self:
        """An ended job of a request that was answered synchronously, which has no callback.

        `result` are the fields that store what the call produced, or its error.
        """
        return cls._create(
            id,
            request,
            queue="",
            state=state,
            created_at=started_at,
            started_at=started_at,
            completed_at=completed_at,
            deadline=completed_at,
            attempt=calls,
            calls=calls,
            served_by=served_by,
            usage=usage,
            maybe_billed=maybe_billed,
            ttl=ttl,
            **result,
        )

    @classmethod
    def _create(cls, id: int, request: JobRequest, **fields: Any) -> Self:
        return cls(
            id=id,
            owner=request.owner,
            ref_id=request.ref_id,
            operation=request.operation,
            model=request.model,
            request_location="",
            request_hash=request.body_hash,
            base_url=request.base_url,
            tag=request.tag,
            provider=request.provider,
            request_type=request.content_type,
            request_name=request.request_name,
            client_state=request.client_state,
            ignored=request.ignored,
            **fields,
        )

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL_STATES

    @property
    def has_file(self) -> bool:
        """Whether the result is a file, and not JSON or text."""
        return (self.result_location or "").startswith(FILE_PREFIX)

    def is_past_ttl(self, now_ms: int) -> bool:
        """True after the time to live, although DynamoDB may take days to delete the item."""
        return self.ttl is not None and self.ttl * 1000 <= now_ms

    @classmethod
    def from_item(cls, item: dict[str, Any]) -> Self:
        """A job from the table's attributes; attributes added by a newer version are ignored."""
        attributes = {field: item[name] for field, name in _STORED_NAMES.items() if name in item}
        attributes["state"] = JobState(attributes["state"])
        attributes["callback"] = CallbackState(attributes.get("callback", CallbackState.NONE))
        return cls(**attributes)

    def to_item(self) -> dict[str, Any]:
        """The table's attributes; fields that are None are omitted."""
        attributes = {name: getattr(self, field) for field, name in _STORED_NAMES.items()}
        return {name: attribute for name, attribute in attributes.items() if attribute is not None}


# Attributes keep the names of earlier versions: the content of a renamed attribute would be lost.
ATTRIBUTES = {
    "invalid_responses": "bad_answers",
    "request_location": "request_at",
    "result_location": "result_at",
    "callback": "cb",
    "callback_attempt": "cb_attempt",
    "callback_sequence": "cb_sequence",
    "callback_waits": "cb_waits",
    "callback_next_at": "cb_next_at",
    "callback_token": "cb_token",
    "callback_lease_until": "cb_lease_until",
    "callback_last_status": "cb_last_status",
    "callback_last_error": "cb_last_error",
}


def attribute_name(field: str) -> str:
    """The name of the attribute that stores a job's field, or of a transition's parameter."""
    return ATTRIBUTES.get(field, field)


_STORED_NAMES = {field.name: attribute_name(field.name) for field in fields(Job)}


def request_hash(operation: str, body: bytes) -> str:
    """A hash that detects whether a RefId is reused for a different request."""
    return hashlib.sha256(operation.encode() + b"\n" + body).hexdigest()


def due_shard(job_id: int) -> str:
    return str(job_id % DUE_SHARDS)
