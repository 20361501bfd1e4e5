"""The two servers of a soak: a proxy between the functions and AWS, and an upstream.

Both identify the calling process, inject the planned faults and record the results in the audit log.
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

from aiserver.http_client.transport import STALE_S
from benchmarks.soak.audit_log import AuditLog
from benchmarks.soak.faults import UPSTREAM_FAILURE_RATE, Fault, Faults, Point, parse_operation
from benchmarks.soak.loopback import Handler, Loopback, Response

# A kept-alive connection that ends sooner counts as stale, and its request is sent again: docs/decisions/0019.
CUT_AFTER_S = 4 * STALE_S
UPSTREAM_MAX_S = 0.05  # maximum of the random response time, so that there are calls to interrupt
AWS_TIMEOUT_S = 30.0
HOP_HEADERS = {"connection", "content-length", "transfer-encoding", "date", "server"}


class Proxy:
    """A proxy between functions and AWS. `second_worker` runs a job by its id in a second worker."""

    def __init__(self, faults: Faults, audit_log: AuditLog) -> None:
        self.second_worker: Callable[[int], object] = lambda _: None
        self._faults = faults
        self._audit_log = audit_log
        self._aws_host = ""
        self.server = Loopback(self._handler())

    def forward_to(self, aws_url: str) -> str:
        """Forward to `aws_url`. Returns the URL of the proxy."""
        self._aws_host = urlsplit(aws_url).netloc
        return self.server.url

    def _handler(self) -> type[Handler]:
        proxy = self

        class AwsHandler(Handler):
            def setup(self) -> None:
                super().setup()
                self._connection = http.client.HTTPConnection(proxy._aws_host, timeout=AWS_TIMEOUT_S)

            def finish(self) -> None:
                self._connection.close()
                super().finish()

            def respond(self, body: bytes) -> Response | None:
                target = self.headers.get("x-amz-target", "")
                return proxy._respond(target, body, self.pid, lambda: self._forward(body))

            def _forward(self, body: bytes) -> Response:
                headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_HEADERS}
                self._connection.request("POST", self.path, body, headers)
                response = self._connection.getresponse()
                response_headers = {k.lower(): v for k, v in response.getheaders() if k.lower() not in HOP_HEADERS}
                return Response(response.status, response.read(), response_headers)

        return AwsHandler

    def _respond(self, target: str, body: bytes, pid: int | None, forward: Callable[[], Response]) -> Response | None:
        operation = parse_operation(target, body)
        fault = self._faults.take(operation.job_id, operation.point, operation.number) if operation else None
        if fault is Fault.KILL_BEFORE:
            kill(pid, self._audit_log)
            return None
        if fault in (Fault.FAIL, Fault.REFUSE):
            return Response(500, b'{"__type":"InternalServerError","message":"soak"}')
        if fault is Fault.LOSE_MESSAGE:
            return _send_response(json.loads(body)["MessageBody"])
        response = forward()
        if operation and response.status == 200:
            self._audit_log.record_operation(operation, pid)
        if fault is Fault.DUPLICATE:
            forward()
        if fault is Fault.RACE and operation:
            self.second_worker(operation.job_id)
        if fault is Fault.KILL_AFTER:
            kill(pid, self._audit_log)
        return None if fault in (Fault.KILL_AFTER, Fault.LOSE_RESPONSE) else response


class Upstream:
    """An OpenAI-compatible provider that identifies the job of each call and fails according to the seed."""

    def __init__(self, faults: Faults, audit_log: AuditLog) -> None:
        self._faults = faults
        self._audit_log = audit_log
        self.server = Loopback(self._handler())

    def _handler(self) -> type[Handler]:
        upstream = self

        class CallHandler(Handler):
            def respond(self, body: bytes) -> Response | None:
                _, job_id, _ = self.headers["idempotency-key"].split("-")
                return upstream._respond(int(job_id), self.pid)

        return CallHandler

    def _respond(self, job_id: int, pid: int | None) -> Response | None:
        if pid is not None and self._faults.take(job_id, Point.CALL):
            self._audit_log.record_call(job_id, pid, "killed")
            kill(pid, self._audit_log)
            return None
        call = len(self._audit_log.histories[job_id].calls)
        rng = self._faults.rng("call", self._audit_log.number(job_id), call)
        outcome = rng.choice(tuple(FAILURES)) if rng.random() < UPSTREAM_FAILURE_RATE else "answered"
        self._audit_log.record_call(job_id, pid, outcome)
        time.sleep(rng.random() * UPSTREAM_MAX_S)
        if outcome == "cut":
            time.sleep(CUT_AFTER_S)
        if outcome != "answered":
            return FAILURES[outcome]
        body = _completion(f"chatcmpl-{job_id}-{call}")
        self._audit_log.record_response(job_id, body)
        return Response(200, body)


_ERROR_BODY = b'{"error":{"message":"not now","type":"server_error","code":null,"param":null}}'
FAILURES: Mapping[str, Response | None] = {
    "429": Response(429, _ERROR_BODY, {"retry-after": "1"}),
    "503": Response(503, _ERROR_BODY),
    "500": Response(500, _ERROR_BODY),
    "cut": None,  # after the request was read: it is unknown whether the call was billed
}


def _completion(id: str) -> bytes:
    completion = {
        "id": id,
        "object": "chat.completion",
        "created": 0,
        "model": "soak",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "soaked"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    return json.dumps(completion).encode()


def _send_response(message: str) -> Response:
    """The response of SQS to a sent message."""
    fields = {"MessageId": "lost", "MD5OfMessageBody": hashlib.md5(message.encode(), usedforsecurity=False).hexdigest()}
    return Response(200, json.dumps(fields).encode())


def kill(pid: int | None, audit_log: AuditLog) -> None:
    """Kill the process and record it; no effect when the process is unknown."""
    if pid is not None:
        audit_log.record_kill(pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
