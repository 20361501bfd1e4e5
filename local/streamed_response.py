"""A streamed response on its way from a function to the gateway's caller, with API Gateway's rules and limits.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
"""

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

HEAD_TERMINATOR = bytes(8)
MAX_HEAD_BYTES = 16 * 1024
# Idle timeout of a regional API: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html
IDLE_S = 300

SendHead = Callable[[Mapping[str, Any]], Callable[[bytes], None]]


class MalformedStream(OSError):
    """A function's response does not begin with a valid head; the rest is discarded."""


class StreamedResponse:
    """A runtime_api.Sink. `send_head` sends the head to the caller and returns a function that sends body chunks."""

    def __init__(self, caller: socket.socket, send_head: SendHead, *, timeout_s: float, idle_s: float = IDLE_S) -> None:
        self._caller = caller
        self._send_head = send_head
        self._send: Callable[[bytes], None] | None = None
        self._head = bytearray()
        self._idle_s = idle_s
        self._last_write_at = time.monotonic()
        self._deadline = self._last_write_at + timeout_s
        self.is_late = False

    @property
    def has_begun(self) -> bool:
        """Whether the status has been sent."""
        return self._send is not None

    def write(self, chunk: bytes) -> None:
        """Raises: OSError, when the caller has disconnected; MalformedStream."""
        self._last_write_at = time.monotonic()
        if self._send is None:
            self._head += chunk
            head, terminator, chunk = bytes(self._head).partition(HEAD_TERMINATOR)
            if len(head) > MAX_HEAD_BYTES:
                raise MalformedStream
            if not terminator:
                return
            try:
                self._send = self._send_head(json.loads(head))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise MalformedStream from error
        if chunk:
            self._send(chunk)

    def is_disconnected(self) -> bool:
        """Whether the caller has disconnected, or the total or the idle timeout has passed."""
        now = time.monotonic()
        self.is_late = self.is_late or now >= min(self._deadline, self._last_write_at + self._idle_s)
        return self.is_late or _is_closed(self._caller)

    def end(self) -> None:
        """Complete the response. Raises: MalformedStream, when its head is missing or incomplete."""
        if self._send is None:
            raise MalformedStream
        self._send(b"")


def _is_closed(caller: socket.socket) -> bool:
    """Whether the caller closed the connection; a pipelined next request does not count."""
    with contextlib.suppress(OSError):
        if not select.select([caller], [], [], 0)[0]:
            return False
        return caller.recv(1, socket.MSG_PEEK) == b""
    return True
