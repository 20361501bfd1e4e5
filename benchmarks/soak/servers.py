"""The two servers that a soak puts around the product: a proxy between functions and AWS, and an upstream.

Both know which process is calling, do what the plan says, and tell the ledger what came about.
"""

import hashlib
import http.client
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from benchmarks.soak.audit_log import AuditLog
from benchmarks.soak.faults import UPSTREAM_FAILS, Fault, Faults, Point, parse_operation
from benchmarks.soak.loopback import Answer, Handler, Loopback

UPSTREAM_MAX_S = 0.05  # it answers after a random time up to this, so that there are calls to kill
AWS_S = 30.0  # how long the embedded AWS may take to answer
NOT_PASSED_ON = {"connection", "content-length", "transfer-encoding", "date", "server"}


class Proxy:
    """Between functions and AWS. `second_worker` is given a job's id to run it beside the first."""

    def __init__(self, faults: Faults, ledger: AuditLog) -> None:
        self.second_worker: Callable[[int], object] = lambda _: None
        self._faults = faults
        self._ledger = ledger
        self._aws = ""
        self.server = Loopback(self._handler())

    def between(self, aws: str) -> str:
        """Stand before `aws`; the address to call instead."""
        self._aws = urlsplit(aws).netloc
        return self.server.url

    def _handler(self) -> type[Handler]:
        proxy = self

        class ToAws(Handler):
            def setup(self) -> None:
                super().setup()
                self._on = http.client.HTTPConnection(proxy._aws, timeout=AWS_S)

            def finish(self) -> None:
                self._on.close()
                super().finish()

            def answer(self, body: bytes) -> Answer | None:
                target = self.headers.get("x-amz-target", "")
                return proxy._answer(target, body, self.pid, lambda: self._forward(body))

            def _forward(self, body: bytes) -> Answer:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in NOT_PASSED_ON}
                self._on.request("POST", self.path, body, headers)
                response = self._on.getresponse()
                said = {k.lower(): v for k, v in response.getheaders() if k.lower() not in NOT_PASSED_ON}
                return Answer(response.status, response.read(), said)

        return ToAws

    def _answer(self, target: str, body: bytes, pid: int | None, forward: Callable[[], Answer]) -> Answer | None:
        done = parse_operation(target, body)
        what = self._faults.take(done.job_id, done.point, done.number) if done else None
        if what is Fault.KILL_BEFORE:
            kill(pid, self._ledger)
            return None
        if what in (Fault.FAIL, Fault.REFUSE):
            return Answer(500, b'{"__type":"InternalServerError","message":"soak"}')
        if what is Fault.SWALLOW:
            return _sent(json.loads(body)["MessageBody"])
        answer = forward()
        if done and answer.status == 200:
            self._ledger.wrote(done, pid)
        if what is Fault.TWICE:
            forward()
        if what is Fault.RACE and done:
            self.second_worker(done.job_id)
        if what is Fault.KILL_AFTER:
            kill(pid, self._ledger)
        return None if what in (Fault.KILL_AFTER, Fault.LOSE_ANSWER) else answer


class Upstream:
    """A provider that speaks OpenAI's protocol, knows whose call it is, and fails as the seed says."""

    def __init__(self, faults: Faults, ledger: AuditLog) -> None:
        self._faults = faults
        self._ledger = ledger
        self.server = Loopback(self._handler())

    def _handler(self) -> type[Handler]:
        upstream = self

        class Calls(Handler):
            def answer(self, body: bytes) -> Answer | None:
                _, job_id, _ = self.headers["idempotency-key"].split("-")
                return upstream._answer(int(job_id), self.pid)

        return Calls

    def _answer(self, job_id: int, pid: int | None) -> Answer | None:
        if pid is not None and self._faults.take(job_id, Point.ASK):
            self._ledger.asked(job_id, pid, "killed")
            kill(pid, self._ledger)
            return None
        call = len(self._ledger.entries[job_id].asked)
        chance = self._faults.chance("call", self._ledger.number(job_id), call)
        how = chance.choice(tuple(FAILURES)) if chance.random() < UPSTREAM_FAILS else "answered"
        self._ledger.asked(job_id, pid, how)
        time.sleep(chance.random() * UPSTREAM_MAX_S)
        if how != "answered":
            return FAILURES[how]
        body = _completion(f"chatcmpl-{job_id}-{call}")
        self._ledger.answered(job_id, body)
        return Answer(200, body)


_SAYS_NO = b'{"error":{"message":"not now","type":"server_error","code":null,"param":null}}'
FAILURES: Mapping[str, Answer | None] = {
    "429": Answer(429, _SAYS_NO, {"retry-after": "1"}),
    "503": Answer(503, _SAYS_NO),
    "500": Answer(500, _SAYS_NO),
    "cut": None,  # after the request was read: whether it was billed, nobody can know
}


def _completion(name: str) -> bytes:
    answer = {
        "id": name,
        "object": "chat.completion",
        "created": 0,
        "model": "soak",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "soaked"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    return json.dumps(answer).encode()


def _sent(message: str) -> Answer:
    """What SQS says to a message that it has taken."""
    told = {"MessageId": "lost", "MD5OfMessageBody": hashlib.md5(message.encode(), usedforsecurity=False).hexdigest()}
    return Answer(200, json.dumps(told).encode())


def kill(pid: int | None, ledger: AuditLog) -> None:
    """End the process now, and enter that; one that could not be found out lives on."""
    if pid is not None:
        ledger.kills(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
