"""What goes wrong in a soak: a plan by a seed, and how the instants it speaks of are told from requests to AWS."""

import json
import random
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

REF = "soak-"  # a RefId is this and the job's number
UPSTREAM_FAILS = 0.05  # of its calls
SDK_TRIES = 4  # aiserver.bootstrap: how often a function asks AWS before it gives up


class Point(StrEnum):
    """An instant in a job's life."""

    ACCEPT = "accept"
    SEND = "job message"
    CLAIM = "claim"
    MARK = "mark"
    ASK = "call"
    OUTCOME = "outcome"
    SEND_CALLBACK = "callback message"
    DELIVER = "callback claim"
    POST = "callback"
    DELIVERED = "callback outcome"


class Fault(StrEnum):
    KILL_BEFORE = "process killed before it was done"
    KILL_AFTER = "process killed after it was done, before it heard so"
    LOSE_ANSWER = "done, and the answer lost"
    FAIL = "answered 500 once"
    REFUSE = "answered 500 until the sender gave up"
    SWALLOW = "lost, though the sender was told it was sent"
    TWICE = "sent twice"
    RACE = "given to a second worker as well"


# Shares of all jobs. At most one of these happens to a job, and one of the next to its callback. A kill costs
# a cold start, so they are few; but each takes along the other calls of its process.
Menu = tuple[tuple[Point, Fault, float], ...]
JOB_FAULTS: Menu = (
    (Point.ACCEPT, Fault.LOSE_ANSWER, 0.01),
    (Point.ACCEPT, Fault.FAIL, 0.01),
    (Point.SEND, Fault.LOSE_ANSWER, 0.01),
    (Point.SEND, Fault.REFUSE, 0.01),
    (Point.SEND, Fault.SWALLOW, 0.01),
    (Point.SEND, Fault.TWICE, 0.03),
    (Point.SEND, Fault.RACE, 0.03),
    (Point.CLAIM, Fault.KILL_BEFORE, 0.005),
    (Point.CLAIM, Fault.KILL_AFTER, 0.005),
    (Point.CLAIM, Fault.LOSE_ANSWER, 0.005),
    (Point.CLAIM, Fault.FAIL, 0.005),
    (Point.MARK, Fault.KILL_AFTER, 0.004),
    (Point.MARK, Fault.LOSE_ANSWER, 0.005),
    (Point.MARK, Fault.FAIL, 0.005),
    (Point.ASK, Fault.KILL_AFTER, 0.01),
    (Point.OUTCOME, Fault.KILL_BEFORE, 0.006),
    (Point.OUTCOME, Fault.KILL_AFTER, 0.006),
    (Point.OUTCOME, Fault.LOSE_ANSWER, 0.005),
    (Point.OUTCOME, Fault.FAIL, 0.005),
)
CALLBACK_FAULTS: Menu = (
    (Point.SEND_CALLBACK, Fault.SWALLOW, 0.02),
    (Point.SEND_CALLBACK, Fault.TWICE, 0.03),
    (Point.DELIVER, Fault.KILL_AFTER, 0.006),
    (Point.DELIVER, Fault.LOSE_ANSWER, 0.01),
    (Point.DELIVER, Fault.FAIL, 0.01),
    (Point.POST, Fault.FAIL, 0.03),
    (Point.DELIVERED, Fault.KILL_BEFORE, 0.006),
    (Point.DELIVERED, Fault.LOSE_ANSWER, 0.01),
    (Point.DELIVERED, Fault.FAIL, 0.01),
)


class Faults:
    """The plan. What happens to a job follows from the seed and its number, whatever the order of things; and once.

    `number` finds the number of a job by its id; `tell` hears of each fault as it happens.
    """

    def __init__(self, seed: int, number: Callable[[int], int | None], tell: Callable[[str], None]) -> None:
        self._seed = seed
        self._number = number
        self._tell = tell
        self._lock = threading.Lock()
        self._done: dict[tuple[int, Point], int] = {}

    def chance(self, *about: object) -> random.Random:
        """Randomness that follows from the seed and `about`."""
        return random.Random("/".join(map(str, (self._seed, *about))))

    def take(self, job_id: int, point: Point | None, number: int | None = None) -> Fault | None:
        """What is to happen here and now."""
        number = self._number(job_id) if number is None else number
        if number is None or point is None or (what := self._planned(number, point)) is None:
            return None
        with self._lock:
            done = self._done.get((number, point), 0)
            if done == (SDK_TRIES if what is Fault.REFUSE else 1):
                return None
            self._done[number, point] = done + 1
        if not done:
            self._tell(f"{point}: {what}")
        return what

    def _planned(self, number: int, point: Point) -> Fault | None:
        for name, menu in (("job", JOB_FAULTS), ("its callback", CALLBACK_FAULTS)):
            draw = self.chance(name, number).random()
            for at, what, share in menu:
                if 0 <= draw < share and at == point:
                    return what
                draw -= share
        return None


@dataclass(frozen=True)
class Operation:
    """What one request to AWS does to a job; `number` only where the job is accepted, `ends` where it ends it.

    `lease` is the token of the attempt it belongs to. `transaction` is the token of one that is answered alike, and not
    made again, when it is sent again.
    """

    point: Point | None
    job_id: int
    number: int | None = None
    ends: bool = False
    lease: str = ""
    transaction: str = ""


def parse_operation(target: str, body: bytes) -> Operation | None:
    """What a request to AWS is about to do; None where that is nothing to a job. `target` is its x-amz-target."""
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
    """Which row of the table of transitions this is: by what it counts or sets, and by the fence that it holds."""
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
