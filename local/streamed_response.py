"""A streamed answer on its way from a function to the caller of the door: what API Gateway does with one.

Source: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
"""

import contextlib
import json
import select
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

HEAD_ENDS = bytes(8)
MAX_HEAD_BYTES = 16 * 1024  # within which it must end
# Of a regional API: https://docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode.html
IDLE_S = 300

SendHead = Callable[[Mapping[str, Any]], Callable[[bytes], None]]


class MalformedStream(OSError):
    """A function's answer that does not begin with a head: nobody takes the rest."""


class Reply:
    """runtime_api.Sink. `send_head` sends the head to the caller, and gives back what sends the rest."""

    def __init__(self, caller: socket.socket, send_head: SendHead, *, timeout_s: float, idle_s: float = IDLE_S) -> None:
        self._caller = caller
        self._send_head = send_head
        self._send: Callable[[bytes], None] | None = None
        self._head = bytearray()
        self._idle_s = idle_s
        self._heard = time.monotonic()
        self._until = self._heard + timeout_s
        self.is_late = False

    @property
    def has_begun(self) -> bool:
        """Whether its status is out."""
        return self._send is not None

    def write(self, piece: bytes) -> None:
        """Raises: OSError, where the caller has gone; MalformedStream."""
        self._heard = time.monotonic()
        if self._send is None:
            self._head += piece
            head, end, piece = bytes(self._head).partition(HEAD_ENDS)
            if len(head) > MAX_HEAD_BYTES:
                raise MalformedStream
            if not end:
                return
            try:
                self._send = self._send_head(json.loads(head))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise MalformedStream from error
        if piece:
            self._send(piece)

    def is_gone(self) -> bool:
        """Whether the caller has hung up, or API Gateway would have: the time or its patience is up."""
        now = time.monotonic()
        self.is_late = self.is_late or now >= min(self._until, self._heard + self._idle_s)
        return self.is_late or _has_hung_up(self._caller)

    def end(self) -> None:
        """All of it was sent. Raises: MalformedStream, where that was not even a head."""
        if self._send is None:
            raise MalformedStream
        self._send(b"")


def _has_hung_up(caller: socket.socket) -> bool:
    """A caller that sends its next request already has not."""
    with contextlib.suppress(OSError):
        if not select.select([caller], [], [], 0)[0]:
            return False
        return caller.recv(1, socket.MSG_PEEK) == b""
    return True
