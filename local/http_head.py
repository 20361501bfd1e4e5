"""Parses the head of an HTTP/1.1 request strictly, to prevent request smuggling.

Source: RFC 9112, sections 2.2, 3, 5 and 6; section 11.2 describes the attack.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import BinaryIO, cast

from local.http_body import (
    MAX_LINE_BYTES,
    BodyTooLarge,
    MalformedBody,
    content_length,
    is_chunked,
    read_body,
    read_fields,
)

MAX_LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 10.0
IDLE_S = 1.0
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([\x21-\x7e]+) (HTTP/1\.[01])\r\n")
_HOST = re.compile(r"[^\s,@/\\?#]*")


class MalformedRequest(Exception):
    """The head is ambiguous or not HTTP; the message names the part."""


class StrictHandler(BaseHTTPRequestHandler):
    """Responds to every malformed head with `send_error(400, reason)` and closes the connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    command, path = "", "/"
    raw_requestline = b""
    is_rejected = False

    def setup(self) -> None:
        super().setup()
        self.headers = self.MessageClass()

    def parse_request(self) -> bool:
        self.command, self.path, self.request_version, self.requestline = "", "/", "HTTP/1.1", ""
        self.headers = self.MessageClass()
        self.close_connection = True
        try:
            self._read_head(cast(BinaryIO, self.rfile))
        except (MalformedRequest, MalformedBody) as malformed:
            self.send_error(400, str(malformed))
            return False
        persistent = min(self.request_version, self.protocol_version) == "HTTP/1.1"
        tokens = [token.strip() for token in self.headers.get("connection", "").lower().split(",")]
        self.close_connection = "close" in tokens or not persistent
        if self.headers.get("expect", "").lower() == "100-continue" and persistent:
            return self.handle_expect_100()
        return True

    def read_limited_body(self, limit: int) -> bytes | None:
        """The body; None after an error response, when it is malformed or exceeds `limit` bytes."""
        try:
            return read_body(cast(BinaryIO, self.rfile), self.headers, limit=limit)
        except BodyTooLarge:
            self.send_error(413, "the body is too large")
        except MalformedBody as malformed:
            self.send_error(400, str(malformed))
        return None

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.close_connection = self.is_rejected = True
        super().send_error(code, message, explain)

    def _read_head(self, source: BinaryIO) -> None:
        line = self.raw_requestline
        if line == b"\r\n":  # section 2.2: one empty line before a request is ignored
            line = source.readline(MAX_LINE_BYTES + 1)
        parts = _REQUEST_LINE.fullmatch(line)
        if parts is None:
            raise MalformedRequest("the request line is malformed")
        self.requestline = line.decode("latin-1").rstrip("\r\n")
        self.command, self.path, self.request_version = (part.decode("ascii") for part in parts.groups())
        if self.path.startswith("//"):  # as http.server does: clients would read it as a host
            self.path = "/" + self.path.lstrip("/")
        for name, value in read_fields(source):
            self.headers[name] = value
        self._check_framing()

    def _check_framing(self) -> None:
        for name in ("host", "content-length", "transfer-encoding"):
            if len(self.headers.get_all(name, [])) > 1:
                raise MalformedRequest(f"there are several {name} headers")
        if self.request_version == "HTTP/1.1" and "host" not in self.headers:
            raise MalformedRequest("the host header is missing")
        if not _HOST.fullmatch(self.headers.get("host", "")):
            raise MalformedRequest("the host header is malformed")
        if self.request_version == "HTTP/1.0" and "transfer-encoding" in self.headers:
            raise MalformedRequest("transfer-encoding is not defined in HTTP/1.0")
        if not is_chunked(self.headers):
            content_length(self.headers)

    def finish(self) -> None:
        """Let a rejected sender read the response: closing while it still sends would reset the connection."""
        if self.is_rejected:
            with contextlib.suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_WR)
                self.connection.settimeout(IDLE_S)
                self._drain()
        with contextlib.suppress(OSError):
            super().finish()

    def _drain(self) -> None:
        remaining, deadline = MAX_LINGER_BYTES, time.monotonic() + LINGER_S
        while remaining > 0 and time.monotonic() < deadline and (chunk := self.connection.recv(65_536)):
            remaining -= len(chunk)

    def log_message(self, format: str, *args: object) -> None:
        pass
