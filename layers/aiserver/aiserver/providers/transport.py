"""HTTP that keeps a total deadline, over connections whose making can be chosen.

httpx's own timeouts limit silence between bytes; a server that drips one byte a second holds a caller for ever.
Here every wait on the network is cut to what is left of the deadline the calling thread has set.
"""

import logging
import math
import socket
import ssl
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import httpcore
import httpx

SLICE_BYTES = 16 * 1024  # sent at once
STALE_S = 0.05  # a kept connection that ends so soon after a request was closed before the request came
WAKE_S = 0.5  # how soon a wait sees that its deadline has been brought forward


log = logging.getLogger("aiserver.transport")


class StaleConnection(httpcore.NetworkError):
    """A kept connection that ended as the next request was written to it, without a byte of a response."""


class Deadline:
    """When all waits end. Another thread may bring it forward, which cuts a wait for an answer within WAKE_S."""

    def __init__(self, seconds: float, wake_s: float = math.inf) -> None:
        self.wake_s = wake_s
        self.extend(seconds)

    def extend(self, seconds: float) -> None:
        """It is that far off from now."""
        self._at = time.monotonic() + seconds

    def remaining_s(self) -> float:
        return self._at - time.monotonic()


_deadline: ContextVar[Deadline] = ContextVar("deadline")


@contextmanager
def total_deadline(deadline: float | Deadline) -> Generator[None]:
    """Bounds all network waits of the calls made inside, by one clock; a number is seconds from now."""
    token = _deadline.set(deadline if isinstance(deadline, Deadline) else Deadline(deadline))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining_s(error_type: type[Exception] = httpcore.ReadTimeout) -> float:
    """Seconds left of the deadline. Raises: `late` when none are: while connecting, nothing has been sent yet."""
    seconds = _deadline.get().remaining_s()
    if seconds <= 0:
        raise error_type("the total deadline has passed")
    return seconds


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose every wait ends at the deadline of the thread that waits; a handshake's also by itself."""

    def __init__(self, inner: httpcore.NetworkStream, handshake_s: float = math.inf) -> None:
        self._inner = inner
        self._handshake_s = handshake_s
        self._has_served = False  # a response before the request that was written last
        self._is_answered = False
        self._written_at = -math.inf

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises: StaleConnection (docs/decisions/0019); what httpcore's stream raises."""
        try:
            data = self._read(max_bytes)
        except httpcore.ReadError as error:
            if self._is_stale:
                raise StaleConnection("the kept connection was closed") from error
            raise
        if not data and self._is_stale:
            raise StaleConnection("the kept connection was closed")
        self._is_answered = self._is_answered or bool(data)
        return data

    @property
    def _is_stale(self) -> bool:
        """Whether a connection that ends now was dead when the request was written."""
        return self._has_served and not self._is_answered and time.monotonic() - self._written_at <= STALE_S

    def _read(self, max_bytes: int) -> bytes:
        while (left_s := remaining_s()) > (wake_s := _deadline.get().wake_s):
            with suppress(httpcore.ReadTimeout):  # nothing yet; nothing is lost by asking again
                return self._inner.read(max_bytes, wake_s)
        return self._inner.read(max_bytes, left_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._is_answered:  # so this is another request
            self._has_served, self._is_answered = True, False
        try:
            for start in range(0, len(buffer), SLICE_BYTES):  # httpcore gives each part the whole time anew
                self._inner.write(buffer[start : start + SLICE_BYTES], remaining_s())
        finally:
            self._written_at = time.monotonic()

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        left_s = min(self._handshake_s, remaining_s(httpcore.ConnectTimeout))
        return type(self)(self._inner.start_tls(ssl_context, server_hostname, left_s))

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class DeadlineBackend(httpcore.NetworkBackend):
    """Connects as httpcore does, under the deadline; at most `connect_s` to be let in, and as much for TLS."""

    def __init__(self, connect_s: float, network: httpcore.NetworkBackend | None = None) -> None:
        self._inner = network or httpcore.SyncBackend()
        self._connect_s = connect_s

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first address that lets us in; all of them share the time. (httpcore gives each the whole of it.)"""
        until = time.monotonic() + min(self._connect_s, remaining_s(httpcore.ConnectTimeout))
        error: Exception = httpcore.ConnectError(f"{host} has no address")
        addresses = _addresses(host, port)
        for tried, address in enumerate(addresses):
            share_s = (until - time.monotonic()) / (len(addresses) - tried)
            if share_s <= 0:
                raise httpcore.ConnectTimeout("nobody let us in")
            try:
                inner = self._inner.connect_tcp(address, port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
            else:
                return DeadlineStream(inner, self._connect_s)
        raise error


def _addresses(host: str, port: int) -> list[str]:
    """In the order of the system's choice. Raises: httpcore.ConnectError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _tls_context() -> ssl.SSLContext:
    """Verifies by certifi's authorities, or those of SSL_CERT_FILE."""
    context = httpx.create_ssl_context()
    # Python has obeyed SSLKEYLOGFILE: every session's keys would be written down. (typeshed does not know None.)
    context.keylog_filename = None  # pyright: ignore[reportAttributeAccessIssue]
    return context


class Transport(httpx.BaseTransport):
    """httpx over an httpcore pool with a backend of our choosing; errors are httpcore's own."""

    def __init__(self, backend: httpcore.NetworkBackend, *, keep_alive_s: float, connections: int = 100) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls_context(),
            network_backend=backend,
            keepalive_expiry=keep_alive_s,
            max_connections=connections,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Sent once more where the kept connection was closed before it came (docs/decisions/0019), and only then."""
        try:
            answer = self._send(request)
        except StaleConnection:
            log.info("stale_connection_retried", extra={"host": request.url.host})
            answer = self._send(request)
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def _send(self, request: httpx.Request) -> httpcore.Response:
        return self._pool.handle_request(
            httpcore.Request(
                request.method,
                httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions={"timeout": {"pool": remaining_s(httpcore.ConnectTimeout)}},
            )
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        yield from self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
