"""The state machine of a job and of its callback, as one table of transitions with their conditions and effects.

Every adapter interprets this table; nothing else writes a job's state. In a condition or an effect, the use case
supplies the value of a `Param`; other values are literals. An effect that resolves to None removes the attribute.
`attempt`, `lease_token` and `callback_attempt` are fences: the conditions fail for a late worker or deliverer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiserver.jobs.states import CallbackState, JobState

AttributeValue = str | int | None
FENCE_ATTRIBUTES = frozenset({"attempt", "lease_token", "callback_attempt", "callback_token"})


@dataclass(frozen=True)
class Param:
    """A value that the caller of the transition supplies."""

    name: str


@dataclass(frozen=True)
class Condition:
    """One condition on the stored job. A missing attribute satisfies only `absent`."""

    attribute: str
    op: Literal["=", "<", "<=", ">", "absent"]
    value: Param | str | int = ""


@dataclass(frozen=True)
class Transition:
    """One row of the table. `source` and `target` are states of `machine`; `adds` are increments."""

    name: str
    description: str
    writer: str
    machine: Literal["state", "callback"]
    source: str
    target: str
    guards: tuple[Condition, ...] = ()
    sets: Mapping[str, Param | str | int] = field(default_factory=dict[str, Param | str | int])
    adds: Mapping[str, int] = field(default_factory=dict[str, int])
    removes: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (Condition(self.machine, "=", self.source), *self.guards)

    @property
    def effects(self) -> Mapping[str, Param | str | int]:
        return {self.machine: self.target, **self.sets}


def resolve_value(value: Param | str | int, params: Mapping[str, AttributeValue]) -> AttributeValue:
    """The value of a condition or effect with these params. Raises: KeyError, when a param is missing."""
    return params[value.name] if isinstance(value, Param) else value


def is_applied(transition: Transition, stored: Mapping[str, object], params: Mapping[str, AttributeValue]) -> bool:
    """True if the stored job already has this transition's effects: a committed write whose confirmation was lost.

    Always False for a transition without a fence, because another process's write could look the same.
    """
    operands = [guard.value for guard in transition.guards] + list(transition.sets.values())
    fences = {operand.name for operand in operands if isinstance(operand, Param)} & FENCE_ATTRIBUTES
    return (
        bool(fences)
        and all(stored.get(name) == params[name] for name in fences & {"attempt", "callback_attempt"})
        and all(stored.get(name) == resolve_value(effect, params) for name, effect in transition.effects.items())
    )


def _params(*names: str) -> dict[str, Param | str | int]:
    return {name: Param(name) for name in names}


_NOW = Param("now")
_FENCE = (Condition("attempt", "=", Param("attempt")), Condition("lease_token", "=", Param("lease_token")))
_NOT_CANCELLED = Condition("cancel_requested_at", "absent")
_CALL_ATTRIBUTES = ("lease_token", "lease_until", "call_started_at", "call_queue")
_LEASE_ATTRIBUTES = (*_CALL_ATTRIBUTES, "cancel_requested_at", "wait_reason")

# Effects of every terminal transition: the time, whether a callback is due, and either when the sweeper checks that
# callback (`due_at`) or, without a callback, when the job may be deleted (`ttl`).
_TERMINAL_EFFECTS = {"completed_at": _NOW} | _params("callback", "callback_next_at", "due_at", "ttl")
_FAILURE_EFFECTS = _params("error_code", "error", "error_type", "error_sub_code")
_RESULT_EFFECTS = _params(
    *("served_by", "calls", "usage", "maybe_billed", "result_location", "result_bytes", "result_type"),
    *("outputs", "ignored"),
)


CLAIM = Transition(
    "T2",
    "a worker claims the job",
    "worker",
    "state",
    JobState.QUEUED,
    JobState.STARTED,
    guards=(Condition("not_before", "<=", _NOW), Condition("deadline", ">", _NOW)),
    sets={**_params("lease_token", "lease_until"), "due_at": Param("lease_until"), "started_at": _NOW},
    adds={"attempt": 1},
    removes=("wait_reason", "call_started_at", "call_queue"),
)
MARK_CALL = Transition(
    "T3",
    "the provider is about to be called",
    "worker",
    "state",
    JobState.STARTED,
    JobState.STARTED,
    guards=(*_FENCE, Condition("lease_until", ">", _NOW), _NOT_CANCELLED),
    # `calls` is set, not incremented: the SDK repeats a mark whose response was lost, and its conditions still hold.
    sets={"call_started_at": _NOW, **_params("call_queue", "calls", "maybe_billed")},
)
COMPLETE = Transition(
    "T4",
    "the provider returned a response",
    "worker, chat, media",
    "state",
    JobState.STARTED,
    JobState.COMPLETED,
    guards=(*_FENCE, _NOT_CANCELLED),
    sets=_TERMINAL_EFFECTS | _RESULT_EFFECTS | _FAILURE_EFFECTS,  # an error: some images could not be stored
    removes=_LEASE_ATTRIBUTES,
)
COMPLETE_CANCELLED = Transition(
    "T4c",
    "the provider returned a response after a cancel request",
    "worker, chat, media",
    "state",
    JobState.STARTED,
    JobState.CANCELLED,
    guards=_FENCE,
    sets=_TERMINAL_EFFECTS | _params("served_by", "usage", "maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
FAIL = Transition(
    "T5",
    "the job failed permanently",
    "worker",
    "state",
    JobState.STARTED,
    JobState.FAILED,
    guards=(*_FENCE, _NOT_CANCELLED),
    sets=_TERMINAL_EFFECTS | _FAILURE_EFFECTS | _params("maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
FAIL_CANCELLED = Transition(
    "T5c",
    "the job failed after a cancel request",
    "worker",
    "state",
    JobState.STARTED,
    JobState.CANCELLED,
    guards=_FENCE,
    sets=_TERMINAL_EFFECTS | _params("maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
FAIL_SYNC = Transition(
    "T5s",
    "the call of a synchronous request failed",
    "chat, media",
    "state",
    JobState.STARTED,
    JobState.FAILED,
    guards=_FENCE,
    sets=_TERMINAL_EFFECTS | _FAILURE_EFFECTS | _params("served_by", "calls", "usage", "maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
DISCONNECT = Transition(
    "T5d",
    "the caller of a stream disconnected",
    "chat, media",
    "state",
    JobState.STARTED,
    JobState.CANCELLED,
    guards=_FENCE,
    sets=_TERMINAL_EFFECTS | _params("served_by", "calls", "usage", "maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
DEFER = Transition(
    "T6",
    "the provider is unavailable or rate limited: retry later",
    "worker",
    "state",
    JobState.STARTED,
    JobState.QUEUED,
    guards=(*_FENCE, _NOT_CANCELLED),
    sets=_params("not_before", "wait_reason", "due_at", "invalid_responses", "maybe_billed"),
    removes=_CALL_ATTRIBUTES,
)
_EXPIRED_LEASE = (Condition("attempt", "=", Param("attempt")), Condition("lease_until", "<", _NOW))
RECOVER = Transition(
    "T7",
    "the worker died: retry",
    "sweep",
    "state",
    JobState.STARTED,
    JobState.QUEUED,
    guards=(*_EXPIRED_LEASE, _NOT_CANCELLED),
    sets=_params("not_before", "due_at", "maybe_billed"),
    removes=_CALL_ATTRIBUTES,
)
RECOVER_FAILED = Transition(
    "T7f",
    "the worker died during a call that may be billed",
    "sweep",
    "state",
    JobState.STARTED,
    JobState.FAILED,
    guards=(*_EXPIRED_LEASE, _NOT_CANCELLED),
    sets=_TERMINAL_EFFECTS | _FAILURE_EFFECTS | _params("maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
RECOVER_CANCELLED = Transition(
    "T7c",
    "the worker died after a cancel request",
    "sweep",
    "state",
    JobState.STARTED,
    JobState.CANCELLED,
    guards=_EXPIRED_LEASE,
    sets=_TERMINAL_EFFECTS | _params("maybe_billed"),
    removes=_LEASE_ATTRIBUTES,
)
EXPIRE = Transition(
    "T8",
    "the deadline has passed",
    "sweep, worker",
    "state",
    JobState.QUEUED,
    JobState.FAILED,
    guards=(Condition("deadline", "<=", _NOW),),
    sets=_TERMINAL_EFFECTS | _FAILURE_EFFECTS,
    removes=_LEASE_ATTRIBUTES,
)
RESEND = Transition(
    "T8b",
    "no worker claimed the job: its message is sent again",
    "sweep",
    "state",
    JobState.QUEUED,
    JobState.QUEUED,
    guards=(Condition("due_at", "=", Param("expected_due_at")),),
    sets=_params("due_at"),
    adds={"resends": 1},
)
CANCEL = Transition(
    "T9",
    "the owner cancels the job before it starts",
    "queue",
    "state",
    JobState.QUEUED,
    JobState.CANCELLED,
    guards=(Condition("owner", "=", Param("owner")),),
    sets=_TERMINAL_EFFECTS,
    removes=_LEASE_ATTRIBUTES,
)
REQUEST_CANCEL = Transition(
    "T10",
    "the owner requests a cancel while the job runs",
    "queue",
    "state",
    JobState.STARTED,
    JobState.STARTED,
    guards=(Condition("owner", "=", Param("owner")),),
    sets={"cancel_requested_at": _NOW},
)
REDRIVE = Transition(
    "T11",
    "the operator retries a failed job",
    "admin",
    "state",
    JobState.FAILED,
    JobState.QUEUED,
    sets={
        "not_before": _NOW,
        "resends": 0,
        "invalid_responses": 0,
        "callback": CallbackState.NONE,
        "callback_attempt": 0,
    }
    | _params("deadline", "due_at"),
    adds={"epoch": 1, "callback_sequence": 1},
    removes=(
        *("ttl", "completed_at", "error_code", "error", "error_type", "error_sub_code"),
        *(
            "callback_next_at",
            "callback_waits",
            "callback_token",
            "callback_lease_until",
            "callback_last_status",
            "callback_last_error",
        ),
    ),
)

# A synchronous request has no queue; a queued job that failed is redriven by T11.
_FAILED_WITHOUT_EFFECT = (
    Condition("queue", "=", ""),
    Condition("maybe_billed", "=", 0),
    Condition("completed_at", "=", Param("completed_at")),
)
# What a repeat may state differently: the body is the same, but not the options around it.
REQUEST_FIELDS = ("base_url", "tag", "provider", "request_name", "client_state", "ignored")
_END_ATTRIBUTES = ("ttl", "completed_at", "error_code", "error", "error_type", "error_sub_code")
RESTART = Transition(
    "T12",
    "the caller repeats a synchronous request that failed without effect",
    "chat, media",
    "state",
    JobState.FAILED,
    JobState.STARTED,
    guards=_FAILED_WITHOUT_EFFECT,
    sets={
        **_params("lease_token", "lease_until", "deadline", *REQUEST_FIELDS),
        "due_at": Param("lease_until"),
        "started_at": _NOW,
        "call_started_at": _NOW,
        "call_queue": "hosted",
    },
    adds={"attempt": 1},
    removes=_END_ATTRIBUTES,
)

QUEUE_FAILED = Transition(
    "T13",
    "the caller queues a synchronous request that failed without effect",
    "queue",
    "state",
    JobState.FAILED,
    JobState.QUEUED,
    guards=_FAILED_WITHOUT_EFFECT,
    sets={"not_before": _NOW, "resends": 0, "invalid_responses": 0}
    | _params("queue", "deadline", "due_at", "reply_to", *REQUEST_FIELDS),
    adds={"epoch": 1},
    removes=_END_ATTRIBUTES,
)

CLAIM_DELIVERY = Transition(
    "C1",
    "a delivery attempt starts",
    "reply",
    "callback",
    CallbackState.PENDING,
    CallbackState.DELIVERING,
    # `completed_at`: the body was read earlier, and a redriven job may have ended differently since.
    guards=(
        Condition("callback_next_at", "<=", _NOW),
        Condition("callback_attempt", "<", Param("max_attempts")),
        Condition("completed_at", "=", Param("completed_at")),
    ),
    sets=_params("callback_token", "callback_lease_until") | {"due_at": Param("callback_lease_until")},
    adds={"callback_attempt": 1},
    removes=("callback_waits",),
)
_THIS_ATTEMPT = (
    Condition("callback_attempt", "=", Param("callback_attempt")),
    Condition("callback_token", "=", Param("callback_token")),
)
_DELIVERY_EFFECTS = _params("callback_last_status", "callback_last_error")
DEFER_DELIVERY = Transition(
    "C1b",
    "the receiver is at its concurrency limit: retry later",
    "reply",
    "callback",
    CallbackState.PENDING,
    CallbackState.PENDING,
    guards=(Condition("callback_next_at", "<=", _NOW), Condition("callback_attempt", "=", Param("callback_attempt"))),
    sets=_params("callback_next_at", "due_at"),
    adds={"callback_waits": 1},
)
GIVE_UP_UNATTEMPTED = Transition(
    "C1d",
    "the receiver was at its concurrency limit for a day",
    "reply",
    "callback",
    CallbackState.PENDING,
    CallbackState.DEAD,
    guards=(Condition("callback_next_at", "<=", _NOW), Condition("callback_attempt", "=", Param("callback_attempt"))),
    sets=_params("callback_last_status", "callback_last_error", "ttl"),
    removes=("due_at", "callback_next_at", "callback_waits"),
)
MARK_DELIVERED = Transition(
    "C2",
    "the receiver returned 2xx",
    "reply",
    "callback",
    CallbackState.DELIVERING,
    CallbackState.DELIVERED,
    guards=_THIS_ATTEMPT,
    sets=_DELIVERY_EFFECTS | _params("ttl"),
    removes=("due_at", "callback_next_at", "callback_lease_until"),
)
SCHEDULE_RETRY = Transition(
    "C3",
    "the attempt failed",
    "reply",
    "callback",
    CallbackState.DELIVERING,
    CallbackState.PENDING,
    guards=_THIS_ATTEMPT,
    sets=_DELIVERY_EFFECTS | _params("callback_next_at", "due_at"),
    removes=("callback_lease_until",),
)
GIVE_UP = Transition(
    "C4",
    "no attempt is left, or the receiver refused permanently",
    "reply",
    "callback",
    CallbackState.DELIVERING,
    CallbackState.DEAD,
    guards=_THIS_ATTEMPT,
    sets=_DELIVERY_EFFECTS | _params("ttl"),
    removes=("due_at", "callback_next_at", "callback_lease_until"),
)
RECOVER_DELIVERY = Transition(
    "C5",
    "the deliverer died: retry",
    "sweep",
    "callback",
    CallbackState.DELIVERING,
    CallbackState.PENDING,
    guards=(*_THIS_ATTEMPT, Condition("callback_lease_until", "<", _NOW)),
    sets=_DELIVERY_EFFECTS | _params("callback_next_at", "due_at"),
    removes=("callback_lease_until",),
)
RECOVER_DELIVERY_DEAD = Transition(
    "C5d",
    "the deliverer died on the last attempt",
    "sweep",
    "callback",
    CallbackState.DELIVERING,
    CallbackState.DEAD,
    guards=(*_THIS_ATTEMPT, Condition("callback_lease_until", "<", _NOW)),
    sets=_DELIVERY_EFFECTS | _params("ttl"),
    removes=("due_at", "callback_next_at", "callback_lease_until"),
)
RESEND_CALLBACK = Transition(
    "C5b",
    "no deliverer claimed the callback: its message is sent again",
    "sweep",
    "callback",
    CallbackState.PENDING,
    CallbackState.PENDING,
    guards=(Condition("due_at", "=", Param("expected_due_at")),),
    sets=_params("due_at"),
)
REDELIVER = Transition(
    "C6",
    "the owner or operator redelivers a dead callback",
    "queue, admin",
    "callback",
    CallbackState.DEAD,
    CallbackState.PENDING,
    guards=(Condition("owner", "=", Param("owner")),),
    sets={"callback_attempt": 0} | _params("callback_next_at", "due_at"),
    adds={"callback_sequence": 1},
    removes=("ttl",),
)
REDELIVER_DELIVERED = Transition(
    "C6d",
    "the owner or operator redelivers a delivered callback",
    "queue, admin",
    "callback",
    CallbackState.DELIVERED,
    CallbackState.PENDING,
    guards=(Condition("owner", "=", Param("owner")),),
    sets={"callback_attempt": 0} | _params("callback_next_at", "due_at"),
    adds={"callback_sequence": 1},
    removes=("ttl",),
)

TRANSITIONS: tuple[Transition, ...] = (
    *(CLAIM, MARK_CALL, COMPLETE, COMPLETE_CANCELLED, FAIL, FAIL_CANCELLED, FAIL_SYNC, DISCONNECT, DEFER),
    *(RECOVER, RECOVER_FAILED, RECOVER_CANCELLED, EXPIRE, RESEND, CANCEL, REQUEST_CANCEL, REDRIVE),
    *(RESTART, QUEUE_FAILED),
    *(CLAIM_DELIVERY, DEFER_DELIVERY, GIVE_UP_UNATTEMPTED, MARK_DELIVERED, SCHEDULE_RETRY, GIVE_UP),
    *(RECOVER_DELIVERY, RECOVER_DELIVERY_DEAD, RESEND_CALLBACK, REDELIVER, REDELIVER_DELIVERED),
)
