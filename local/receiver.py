"""A webhook receiver on loopback: records callbacks and verifies their signatures."""

import base64
import contextlib
import hashlib
import hmac
import queue
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer

from local.http_head import StrictHandler

MAX_BODY_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Callback:
    """One POST as it arrived; header names in lower case."""

    headers: dict[str, str]
    body: bytes

    def is_signed_by(self, secret: str) -> bool:
        """Whether a signature is valid under `secret`, according to the specification of Standard Webhooks."""
        content = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        key = base64.b64decode(secret.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        signatures = self.headers["webhook-signature"].split()
        return any(hmac.compare_digest(expected, signature) for signature in signatures)


class Receiver:
    """Queues every POST it receives."""

    def __init__(self, url: str, callbacks: "queue.Queue[Callback]") -> None:
        self.url = url
        self._callbacks = callbacks

    def next(self, timeout_s: float) -> Callback:
        """The next callback. Raises: queue.Empty, when none arrives within `timeout_s`."""
        return self._callbacks.get(timeout=timeout_s)


@contextmanager
def receiver(status_for: Callable[[Callback], int] = lambda _: 200) -> Generator[Receiver]:
    """Listen on a free port of 127.0.0.1 until the block ends; `status_for` selects the status of each response."""
    callbacks: queue.Queue[Callback] = queue.Queue()

    class Handler(StrictHandler):
        protocol_version = "HTTP/1.0"

        def do_POST(self) -> None:
            if (body := self.read_limited_body(MAX_BODY_BYTES)) is None:
                return
            callback = Callback({name.lower(): value for name, value in self.headers.items()}, body)
            callbacks.put(callback)
            self.send_response(status_for(callback))
            self.send_header("content-length", "0")
            self.end_headers()

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the caller was killed
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Receiver(f"http://127.0.0.1:{server.server_port}/hook", callbacks)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
