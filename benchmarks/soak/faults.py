"""Fault injection of a soak: a plan from a seed, and recognition of its fault points in AWS requests."""

import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

REF = "soak-"  # prefix of the RefId; followed by the job's number
UPSTREAM_FAILURE_RATE = 0.05  # share of the calls
SDK_TRIES = 4  # aiserver.bootstrap: attempts of a function at an AWS request


class Point(StrEnum):
    """A step of a job at which a fault can be injected."""

    ACCEPT = "accept"
    SEND = "job message"
    CLAIM = "claim"
    MARK = "mark"
    CALL = "call"
    OUTCOME = "outcome"
    SEND_CALLBACK = "callback message"
    DELIVER = "callback claim"
    POST = "callback"
    DELIVERED = "callback outcome"


class Fault(StrEnum):
    """An injected fault; the values are keys in results/soak.json."""

    KILL_BEFORE = "process killed before it was done"
    KILL_AFTER = "process killed after it was done, before it heard so"
    LOSE_RESPONSE = "done, and the answer lost"
    FAIL = "answered 500 once"
    REFUSE = "answered 500 until the sender gave up"
    LOSE_MESSAGE = "lost, though the sender was told it was sent"
    DUPLICATE = "sent twice"
    RACE = "given to a second worker as well"


# Shares of all jobs. A job has at most one job fault and one callback fault. Kills are rare, because each costs a
# cold start and also ends the other calls of its process.
FaultRates = tuple[tuple[Point, Fault, float], ...]
JOB_FAULTS: FaultRates = (
    (Point.ACCEPT, Fault.LOSE_RESPONSE, 0.01),
    (Point.ACCEPT, Fault.FAIL, 0.01),
    (Point.SEND, Fault.LOSE_RESPONSE, 0.01),
    (Point.SEND, Fault.REFUSE, 0.01),
    (Point.SEND, Fault.LOSE_MESSAGE, 0.01),
    (Point.SEND, Fault.DUPLICATE, 0.03),
    (Point.SEND, Fault.RACE, 0.03),
    (Point.CLAIM, Fault.KILL_BEFORE, 0.005),
    (Point.CLAIM, Fault.KILL_AFTER, 0.005),
    (Point.CLAIM, Fault.LOSE_RESPONSE, 0.005),
    (Point.CLAIM, Fault.FAIL, 0.005),
    (Point.MARK, Fault.KILL_AFTER, 0.004),
    (Point.MARK, Fault.LOSE_RESPONSE, 0.005),
    (Point.MARK, Fault.FAIL, 0.005),
    (Point.CALL, Fault.KILL_AFTER, 0.01),
    (Point.OUTCOME, Fault.KILL_BEFORE, 0.006),
    (Point.OUTCOME, Fault.KILL_AFTER, 0.006),
    (Point.OUTCOME, Fault.LOSE_RESPONSE, 0.005),
    (Point.OUTCOME, Fault.FAIL, 0.005),
)
CALLBACK_FAULTS: FaultRates = (
    (Point.SEND_CALLBACK, Fault.LOSE_MESSAGE, 0.02),
    (Point.SEND_CALLBACK, Fault.DUPLICATE, 0.03),
    (Point.DELIVER, Fault.KILL_AFTER, 0.006),
    (Point.DELIVER, Fault.LOSE_RESPONSE, 0.01),
    (Point.DELIVER, Fault.FAIL, 0.01),
    (Point.POST, Fault.FAIL, 0.03),
    (Point.DELIVERED, Fault.KILL_BEFORE, 0.006),
    (Point.DELIVERED, Fault.LOSE_RESPONSE, 0.01),
    (Point.DELIVERED, Fault.FAIL, 0.01),
)


class Faults:
    """The fault plan. The seed and the job's number determine its faults, independent of order; each occurs once.

    `number` returns a job's number by its id; `on_fault` is called with each injected fault.
    """

    def __init__(self, seed: int, number: Callable[[int], int | None], on_fault: Callable[[str], None]) -> None:
        self._seed = seed
        self._number = number
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._counts: dict[tuple[int, Point], int] = {}

    def rng(self, *seed_parts: object) -> random.Random:
        """A random generator seeded with the plan's seed and `seed_parts`."""
        return random.Random("/".join(map(str, (self._seed, *seed_parts))))

    def take(self, job_id: int, point: Point | None, number: int | None = None) -> Fault | None:
        """The fault to inject now, or None. Counts the injection."""
        number = self._number(job_id) if number is None else number
        if number is None or point is None or (fault := self._find_fault(number, point)) is None:
            return None
        with self._lock:
            count = self._counts.get((number, point), 0)
            if count == (SDK_TRIES if fault is Fault.REFUSE else 1):
                return None
            self._counts[number, point] = count + 1
        if not count:
            self._on_fault(f"{point}: {fault}")
        return fault

    def _find_fault(self, number: int, point: Point) -> Fault | None:
        for name, rates in (("job", JOB_FAULTS), ("its callback", CALLBACK_FAULTS)):
            draw = self.rng(name, number).random()
            for fault_point, fault, share in rates:
                if 0 <= draw < share and fault_point == point:
                    return fault
                draw -= share
        return None


@dataclass(frozen=True)
class Operation:
    """The effect of one AWS request on a job. `number` is set on acceptance only; `ends` when it ends the job.

    `lease` is the lease token of its attempt. `transaction` is the idempotency token of a transaction: AWS does not
    apply a repeated one again.
    """

    point: Point | None
    job_id: int
    number: int | None = None
    ends: bool = False
    lease: str = ""
    transaction: str = ""


def parse_operation(target: str, body: bytes) -> Operation | None:
    """The operation of an AWS request; None, when it does not concern a job. `target` is its x-amz-target header."""
    operation = target.rpartition(".")[2]
    if operation == "SendMessage":
        message = json.loads(body)
        point = Point.SEND_CALLBACK if "Callback" in message["QueueUrl"] else Point.SEND
        return Operation(point, json.loads(message["MessageBody"])["id"])
    if operation == "UpdateItem":
        update = json.loads(body)
        return _parse_update(update) if update["Key"]["pk"]["S"].startswith("JOB#") else None
    if operation == "TransactWriteItems":
        transaction = json.loads(body)
        first = transaction["TransactItems"][0]
        if "Update" in first:
            return replace(_parse_update(first["Update"]), transaction=transaction["ClientRequestToken"])
        item = first["Put"]["Item"]
        return Operation(Point.ACCEPT, int(item["id"]["N"]), int(item["ref_id"]["S"].removeprefix(REF)))
    return None


def _parse_update(update: Mapping[str, Any]) -> Operation:
    """Identify the transition by the attributes that it increments or sets, and by its fence."""
    counts = re.search(r"ADD #(\w+)", update["UpdateExpression"])
    point = {"attempt": Point.CLAIM, "cb_attempt": Point.DELIVER}.get(counts[1]) if counts else None
    values = update["ExpressionAttributeValues"]
    if ":call_started_at" in values:
        point = Point.MARK
    fence = re.search(r"#lease_token = (:\w+)", f"{update['ConditionExpression']} {update['UpdateExpression']}")
    if point is None and fence:
        point = Point.OUTCOME
    if point is None and values.get(":cb") == {"S": "Delivered"}:
        point = Point.DELIVERED
    job_id = int(update["Key"]["pk"]["S"].removeprefix("JOB#"))
    return Operation(point, job_id, ends=":completed_at" in values, lease=values[fence[1]]["S"] if fence else "")
