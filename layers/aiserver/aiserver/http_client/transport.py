"""HTTP transport with a total deadline, over a configurable network backend.

httpx's timeouts limit only the silence between bytes: a server that sends one byte a second could block a caller for
ever. Here every network wait is limited to the time remaining until the calling thread's deadline.
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

from aiserver import log_events

SLICE_BYTES = 16 * 1024  # of one write
STALE_S = 0.05  # a kept-alive connection that ends this soon after a request had been closed before it
WAKE_S = 0.5  # how soon a wait notices an earlier deadline


log = logging.getLogger("aiserver.transport")


class StaleConnection(httpcore.NetworkError):
    """A kept-alive connection that ended while the next request was written, without a byte of a response."""


class NetworkDeadline:
    """When all network waits of one call end; `seconds` from now, and at once after `cancel`.

    A wait for a response notices within `wake_s` seconds that another thread has cancelled it.
    """

    def __init__(self, seconds: float, wake_s: float = math.inf) -> None:
        self.wake_s = wake_s
        self._is_cancelled = False
        self.reset(seconds)

    def reset(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._at = time.monotonic() + seconds

    def cancel(self) -> None:
        self._is_cancelled = True

    def remaining_s(self) -> float:
        return -math.inf if self._is_cancelled else self._at - time.monotonic()


_deadline: ContextVar[NetworkDeadline] = ContextVar("deadline")


@contextmanager
def total_deadline(deadline: float | NetworkDeadline) -> Generator[None]:
    """Limit all network waits in the `with` block by one deadline; a number is seconds from now."""
    token = _deadline.set(deadline if isinstance(deadline, NetworkDeadline) else NetworkDeadline(deadline))
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining_s(error_type: type[Exception] = httpcore.ReadTimeout) -> float:
    """Seconds until the deadline. Raises: `error_type`, when it has passed; ConnectTimeout means nothing was sent."""
    seconds = _deadline.get().remaining_s()
    if seconds <= 0:
        raise error_type("the total deadline has passed")
    return seconds


class DeadlineStream(httpcore.NetworkStream):
    """A connection whose waits end at the waiting thread's deadline; TLS handshakes take `handshake_s` at most."""

    def __init__(self, inner: httpcore.NetworkStream, handshake_s: float = math.inf) -> None:
        self._inner = inner
        self._handshake_s = handshake_s
        self._has_served = False  # a response before the most recent request
        self._is_answered = False
        self._written_at = -math.inf

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Raises: StaleConnection (docs/decisions/0019); errors of httpcore's stream."""
        try:
            data = self._read(max_bytes)
        except httpcore.ReadError as error:
            if self._is_stale:
                raise StaleConnection("the kept-alive connection was closed") from error
            raise
        if not data and self._is_stale:
            raise StaleConnection("the kept-alive connection was closed")
        self._is_answered = self._is_answered or bool(data)
        return data

    @property
    def _is_stale(self) -> bool:
        """Whether a connection that ends now had been closed before the request was written."""
        return self._has_served and not self._is_answered and time.monotonic() - self._written_at <= STALE_S

    def _read(self, max_bytes: int) -> bytes:
        while (wait_s := remaining_s()) > (wake_s := _deadline.get().wake_s):
            with suppress(httpcore.ReadTimeout):  # nothing received yet; reading again loses nothing
                return self._inner.read(max_bytes, wake_s)
        return self._inner.read(max_bytes, wait_s)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._is_answered:  # so that this is the next request
            self._has_served, self._is_answered = True, False
        try:
            for start in range(0, len(buffer), SLICE_BYTES):  # httpcore applies the timeout to each write
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
        timeout_s = min(self._handshake_s, remaining_s(httpcore.ConnectTimeout))
        return type(self)(self._inner.start_tls(ssl_context, server_hostname, timeout_s))

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)


class DeadlineBackend(httpcore.NetworkBackend):
    """Connects like httpcore within the deadline: `connect_s` seconds at most for TCP, and again for TLS."""

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
        """Connect to the first address that accepts; all addresses share the time (httpcore gives each all of it)."""
        end_time = time.monotonic() + min(self._connect_s, remaining_s(httpcore.ConnectTimeout))
        error: Exception = httpcore.ConnectError(f"{host} has no IP address")
        addresses = _addresses(host, port)
        for index, address in enumerate(addresses):
            share_s = (end_time - time.monotonic()) / (len(addresses) - index)
            if share_s <= 0:
                raise httpcore.ConnectTimeout("no address accepted the connection")
            try:
                inner = self._inner.connect_tcp(address, port, share_s, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exception:
                error = exception
            else:
                return DeadlineStream(inner, self._connect_s)
        raise error


def _addresses(host: str, port: int) -> list[str]:
    """Resolve a host, in the system's order of preference. Raises: httpcore.ConnectError."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise httpcore.ConnectError(str(error)) from error
    return list(dict.fromkeys(str(address[0]) for *_, address in addresses))


def _tls_context() -> ssl.SSLContext:
    """Create a context that verifies by certifi's certificates, or those of SSL_CERT_FILE."""
    context = httpx.create_ssl_context()
    # Ignore SSLKEYLOGFILE, which would log every session's keys. (typeshed does not allow None.)
    context.keylog_filename = None  # pyright: ignore[reportAttributeAccessIssue]
    return context


class Transport(httpx.BaseTransport):
    """httpx transport over an httpcore pool with a custom network backend; raises httpcore's errors."""

    def __init__(self, backend: httpcore.NetworkBackend, *, keep_alive_s: float, connections: int = 100) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=_tls_context(),
            network_backend=backend,
            keepalive_expiry=keep_alive_s,
            max_connections=connections,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; retry once only, when its kept-alive connection was stale (docs/decisions/0019)."""
        try:
            response = self._send(request)
        except StaleConnection:
            log.info(log_events.STALE_CONNECTION_RETRIED, extra={"host": request.url.host})
            response = self._send(request)
        return httpx.Response(response.status, headers=response.headers, stream=_Body(response))

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
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()
