"""The states of a job and of its callback, as one table: what may change, when, and what is then written.

Every adapter interprets this table; nothing else writes a job's state. In a condition or an effect, a `Param` is
filled in by the use case; a literal stands as it is. An effect whose value turns out None removes the attribute.
`attempt`, `lease_token` and `cb_attempt` are fences: a worker or deliverer that comes back late matches nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from aiserver.jobs.states import Callback, State

Value = str | int | None
FENCES = frozenset({"attempt", "lease_token", "cb_attempt", "cb_token"})


@dataclass(frozen=True)
class Param:
    """Filled in by whoever makes the transition."""

    name: str


@dataclass(frozen=True)
class When:
    """One condition on the stored job. An absent attribute satisfies only `absent`."""

    attribute: str
    op: Literal["=", "<", "<=", ">", "absent"]
    value: Param | str | int = ""


@dataclass(frozen=True)
class Transition:
    """One row. `source` and `target` are of `machine`'s states; `adds` are increments."""

    name: str
    what: str
    writer: str
    machine: Literal["state", "cb"]
    source: str
    target: str
    when: tuple[When, ...] = ()
    sets: Mapping[str, Param | str | int] = field(default_factory=dict[str, Param | str | int])
    adds: Mapping[str, int] = field(default_factory=dict[str, int])
    removes: tuple[str, ...] = ()

    @property
    def conditions(self) -> tuple[When, ...]:
        return (When(self.machine, "=", self.source), *self.when)

    @property
    def effects(self) -> Mapping[str, Param | str | int]:
        return {self.machine: self.target, **self.sets}


def resolve(value: Param | str | int, params: Mapping[str, Value]) -> Value:
    """The value a condition or effect means with these params. Raises: KeyError for a param that was not given."""
    return params[value.name] if isinstance(value, Param) else value


def is_made(transition: Transition, stored: Mapping[str, object], params: Mapping[str, Value]) -> bool:
    """Whether the stored job already holds what this transition sets: a write that was committed and never said so.

    Only told of a transition that carries a fence, since without one another's write could look the same.
    """
    told = [when.value for when in transition.when] + list(transition.sets.values())
    fences = {value.name for value in told if isinstance(value, Param)} & FENCES
    return (
        bool(fences)
        and all(stored.get(name) == params[name] for name in fences & {"attempt", "cb_attempt"})
        and all(stored.get(name) == resolve(value, params) for name, value in transition.effects.items())
    )


def _params(*names: str) -> dict[str, Param | str | int]:
    return {name: Param(name) for name in names}


_NOW = Param("now")
_FENCE = (When("attempt", "=", Param("attempt")), When("lease_token", "=", Param("lease_token")))
_NO_CANCEL = When("cancel_requested_at", "absent")
_CALL = ("lease_token", "lease_until", "call_started_at", "call_queue")
_LEASE = (*_CALL, "cancel_requested_at", "wait_reason")

# What every end writes: when it was, whether a callback is owed, and either when the sweeper looks after that callback
# (`due_at`) or, where none is owed, when the job may be forgotten (`ttl`).
_END = {"completed_at": _NOW} | _params("cb", "cb_next_at", "due_at", "ttl")
_FAILURE = _params("error_code", "error", "error_type", "error_sub_code")
_ANSWER = _params("served_by", "usage", "maybe_billed", "result_at", "result_bytes")


CLAIM = Transition(
    "T2",
    "a worker takes it",
    "worker",
    "state",
    State.QUEUED,
    State.STARTED,
    when=(When("not_before", "<=", _NOW), When("deadline", ">", _NOW)),
    sets={**_params("lease_token", "lease_until"), "due_at": Param("lease_until"), "started_at": _NOW},
    adds={"attempt": 1},
    removes=("wait_reason", "call_started_at", "call_queue"),
)
MARK_CALL = Transition(
    "T3",
    "the provider is about to be called",
    "worker",
    "state",
    State.STARTED,
    State.STARTED,
    when=(*_FENCE, When("lease_until", ">", _NOW), _NO_CANCEL),
    # `calls` is set, not added to: the SDK sends a mark whose answer was lost again, and its conditions still hold.
    sets={"call_started_at": _NOW, **_params("call_queue", "calls", "maybe_billed")},
)
COMPLETE = Transition(
    "T4",
    "the provider answered",
    "worker",
    "state",
    State.STARTED,
    State.COMPLETED,
    when=(*_FENCE, _NO_CANCEL),
    sets=_END | _ANSWER,
    removes=_LEASE,
)
COMPLETE_CANCELLED = Transition(
    "T4c",
    "the provider answered after a cancel was asked",
    "worker",
    "state",
    State.STARTED,
    State.CANCELLED,
    when=_FENCE,
    sets=_END | _params("served_by", "usage", "maybe_billed"),
    removes=_LEASE,
)
FAIL = Transition(
    "T5",
    "it failed for good",
    "worker",
    "state",
    State.STARTED,
    State.FAILED,
    when=(*_FENCE, _NO_CANCEL),
    sets=_END | _FAILURE | _params("maybe_billed"),
    removes=_LEASE,
)
FAIL_CANCELLED = Transition(
    "T5c",
    "it failed after a cancel was asked",
    "worker",
    "state",
    State.STARTED,
    State.CANCELLED,
    when=_FENCE,
    sets=_END | _params("maybe_billed"),
    removes=_LEASE,
)
WAIT = Transition(
    "T6",
    "the provider asks to wait, or is not there yet",
    "worker",
    "state",
    State.STARTED,
    State.QUEUED,
    when=(*_FENCE, _NO_CANCEL),
    sets=_params("not_before", "wait_reason", "due_at", "bad_answers", "maybe_billed"),
    removes=_CALL,
)
_DEAD_LEASE = (When("attempt", "=", Param("attempt")), When("lease_until", "<", _NOW))
RECOVER = Transition(
    "T7",
    "its worker died: again",
    "sweep",
    "state",
    State.STARTED,
    State.QUEUED,
    when=(*_DEAD_LEASE, _NO_CANCEL),
    sets=_params("not_before", "due_at", "maybe_billed"),
    removes=_CALL,
)
RECOVER_FAILED = Transition(
    "T7f",
    "its worker died during a call that may be billed",
    "sweep",
    "state",
    State.STARTED,
    State.FAILED,
    when=(*_DEAD_LEASE, _NO_CANCEL),
    sets=_END | _FAILURE | _params("maybe_billed"),
    removes=_LEASE,
)
RECOVER_CANCELLED = Transition(
    "T7c",
    "its worker died after a cancel was asked",
    "sweep",
    "state",
    State.STARTED,
    State.CANCELLED,
    when=_DEAD_LEASE,
    sets=_END | _params("maybe_billed"),
    removes=_LEASE,
)
EXPIRE = Transition(
    "T8",
    "its deadline has passed",
    "sweep, worker",
    "state",
    State.QUEUED,
    State.FAILED,
    when=(When("deadline", "<=", _NOW),),
    sets=_END | _FAILURE,
    removes=_LEASE,
)
RESEND = Transition(
    "T8b",
    "nobody took it: its message is sent again",
    "sweep",
    "state",
    State.QUEUED,
    State.QUEUED,
    when=(When("due_at", "=", Param("seen")),),
    sets=_params("due_at"),
    adds={"resends": 1},
)
CANCEL = Transition(
    "T9",
    "its owner cancels it before it starts",
    "queue",
    "state",
    State.QUEUED,
    State.CANCELLED,
    when=(When("owner", "=", Param("owner")),),
    sets=_END,
    removes=_LEASE,
)
ASK_CANCEL = Transition(
    "T10",
    "its owner asks to cancel it while it runs",
    "queue",
    "state",
    State.STARTED,
    State.STARTED,
    when=(When("owner", "=", Param("owner")),),
    sets={"cancel_requested_at": _NOW},
)
REDRIVE = Transition(
    "T11",
    "its operator lets it try again",
    "admin",
    "state",
    State.FAILED,
    State.QUEUED,
    sets={"not_before": _NOW, "resends": 0, "bad_answers": 0, "cb": Callback.NONE, "cb_attempt": 0}
    | _params("deadline", "due_at"),
    adds={"epoch": 1, "cb_sequence": 1},
    removes=(
        *("ttl", "completed_at", "error_code", "error", "error_type", "error_sub_code"),
        *("cb_next_at", "cb_waits", "cb_token", "cb_lease_until", "cb_last_status", "cb_last_error"),
    ),
)

DELIVER = Transition(
    "C1",
    "a delivery is about to be tried",
    "reply",
    "cb",
    Callback.PENDING,
    Callback.DELIVERING,
    # `completed_at`: what is sent was read before, and a redrive may have given the job another end since.
    when=(
        When("cb_next_at", "<=", _NOW),
        When("cb_attempt", "<", Param("max_attempts")),
        When("completed_at", "=", Param("completed_at")),
    ),
    sets=_params("cb_token", "cb_lease_until") | {"due_at": Param("cb_lease_until")},
    adds={"cb_attempt": 1},
    removes=("cb_waits",),
)
_THIS_ATTEMPT = (When("cb_attempt", "=", Param("cb_attempt")), When("cb_token", "=", Param("cb_token")))
_OUTCOME = _params("cb_last_status", "cb_last_error")
POSTPONE = Transition(
    "C1b",
    "its receiver has as many deliveries at once as it may have: later",
    "reply",
    "cb",
    Callback.PENDING,
    Callback.PENDING,
    when=(When("cb_next_at", "<=", _NOW), When("cb_attempt", "=", Param("cb_attempt"))),
    sets=_params("cb_next_at", "due_at"),
    adds={"cb_waits": 1},
)
NEVER_TRIED = Transition(
    "C1d",
    "its receiver has been busy with others for a day",
    "reply",
    "cb",
    Callback.PENDING,
    Callback.DEAD,
    when=(When("cb_next_at", "<=", _NOW), When("cb_attempt", "=", Param("cb_attempt"))),
    sets=_params("cb_last_status", "cb_last_error", "ttl"),
    removes=("due_at", "cb_next_at", "cb_waits"),
)
DELIVERED = Transition(
    "C2",
    "the receiver answered 2xx",
    "reply",
    "cb",
    Callback.DELIVERING,
    Callback.DELIVERED,
    when=_THIS_ATTEMPT,
    sets=_OUTCOME | _params("ttl"),
    removes=("due_at", "cb_next_at", "cb_lease_until"),
)
RETRY_LATER = Transition(
    "C3",
    "the attempt failed",
    "reply",
    "cb",
    Callback.DELIVERING,
    Callback.PENDING,
    when=_THIS_ATTEMPT,
    sets=_OUTCOME | _params("cb_next_at", "due_at"),
    removes=("cb_lease_until",),
)
GIVE_UP = Transition(
    "C4",
    "no attempt is left, or the receiver refused for good",
    "reply",
    "cb",
    Callback.DELIVERING,
    Callback.DEAD,
    when=_THIS_ATTEMPT,
    sets=_OUTCOME | _params("ttl"),
    removes=("due_at", "cb_next_at", "cb_lease_until"),
)
RECOVER_DELIVERY = Transition(
    "C5",
    "its deliverer died: again",
    "sweep",
    "cb",
    Callback.DELIVERING,
    Callback.PENDING,
    when=(*_THIS_ATTEMPT, When("cb_lease_until", "<", _NOW)),
    sets=_OUTCOME | _params("cb_next_at", "due_at"),
    removes=("cb_lease_until",),
)
RECOVER_DEAD = Transition(
    "C5d",
    "its deliverer died on the last attempt",
    "sweep",
    "cb",
    Callback.DELIVERING,
    Callback.DEAD,
    when=(*_THIS_ATTEMPT, When("cb_lease_until", "<", _NOW)),
    sets=_OUTCOME | _params("ttl"),
    removes=("due_at", "cb_next_at", "cb_lease_until"),
)
REMIND = Transition(
    "C5b",
    "nobody delivered it: its message is sent again",
    "sweep",
    "cb",
    Callback.PENDING,
    Callback.PENDING,
    when=(When("due_at", "=", Param("seen")),),
    sets=_params("due_at"),
)
REDELIVER = Transition(
    "C6",
    "somebody wants a dead callback again",
    "queue, admin",
    "cb",
    Callback.DEAD,
    Callback.PENDING,
    when=(When("owner", "=", Param("owner")),),
    sets={"cb_attempt": 0} | _params("cb_next_at", "due_at"),
    adds={"cb_sequence": 1},
    removes=("ttl",),
)
REDELIVER_DELIVERED = Transition(
    "C6d",
    "somebody wants a delivered callback again",
    "queue, admin",
    "cb",
    Callback.DELIVERED,
    Callback.PENDING,
    when=(When("owner", "=", Param("owner")),),
    sets={"cb_attempt": 0} | _params("cb_next_at", "due_at"),
    adds={"cb_sequence": 1},
    removes=("ttl",),
)

TABLE: tuple[Transition, ...] = (
    *(CLAIM, MARK_CALL, COMPLETE, COMPLETE_CANCELLED, FAIL, FAIL_CANCELLED, WAIT),
    *(RECOVER, RECOVER_FAILED, RECOVER_CANCELLED, EXPIRE, RESEND, CANCEL, ASK_CANCEL, REDRIVE),
    *(DELIVER, POSTPONE, NEVER_TRIED, DELIVERED, RETRY_LATER, GIVE_UP),
    *(RECOVER_DELIVERY, RECOVER_DEAD, REMIND, REDELIVER, REDELIVER_DELIVERED),
)
