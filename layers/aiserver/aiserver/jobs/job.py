"""The job: one unit of work somebody asked for, whatever its kind."""

import hashlib
from dataclasses import dataclass, fields
from typing import Any, Self

from aiserver.jobs.states import TERMINAL_STATES, CallbackState, JobState

SHARDS = 8  # of the due index: enough for 8,000 due writes a second, few enough to read each minute


@dataclass(frozen=True)
class Job:
    """What the table holds of a job; its bodies are items of their own, and it stays under 4 KB.

    Times are milliseconds since 1970, but `ttl`, which DynamoDB wants in seconds. `lease_*` fence a worker,
    `due_at` is when the sweeper looks after an unfinished obligation, `callback_*` belong to the callback.
    `call_queue` is the queue of the provider being called: "gpu" where an unknown outcome costs nobody money.
    `base_url` is where its caller reached us, so that links made later lead back there.
    `request_location` and `result_location` say where a body is: "item", or the key of an S3 object.
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

    @property
    def has_ended(self) -> bool:
        return self.state in TERMINAL_STATES

    def is_past_ttl(self, now_ms: int) -> bool:
        """Past its time to live, though DynamoDB may take days to delete it."""
        return self.ttl is not None and self.ttl * 1000 <= now_ms

    @classmethod
    def from_item(cls, item: dict[str, Any]) -> Self:
        """From the table's attributes; those a newer version added are skipped."""
        values = {field: item[name] for field, name in _STORED_NAMES.items() if name in item}
        values["state"] = JobState(values["state"])
        values["callback"] = CallbackState(values.get("callback", CallbackState.NONE))
        return cls(**values)

    def to_item(self) -> dict[str, Any]:
        """The table's attributes; what is None is left out."""
        return {name: v for field, name in _STORED_NAMES.items() if (v := getattr(self, field)) is not None}


# Attributes keep the names under which earlier versions stored them: a renamed one would be lost.
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
    """The name of the attribute that stores a field of a job, or a parameter of its transitions."""
    return ATTRIBUTES.get(field, field)


_STORED_NAMES = {field.name: attribute_name(field.name) for field in fields(Job)}


def request_hash(operation: str, body: bytes) -> str:
    """What tells whether a RefId is used for the same request again."""
    return hashlib.sha256(operation.encode() + b"\n" + body).hexdigest()


def due_shard(job_id: int) -> str:
    return str(job_id % SHARDS)
