"""Misbehaving HTTP servers on 127.0.0.1, and a network that maps public addresses to them.

A behaviour handles one connection. It ends when the client disconnects, or after PATIENCE_S.
"""

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, repeat
from pathlib import Path

import httpcore
import trustme

PATIENCE_S = 30  # longer than any client should wait
DRIP_S = 0.05


@dataclass
class Connection:
    """One client connection of a behaviour."""

    socket: socket.socket
    requests: list[str]

    def take_request(self) -> None:
        """Read and record one complete request: its head, then its body."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        request_head, _, body = received.partition(b"\r\n\r\n")
        length = sum(
            int(line[15:]) for line in request_head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        while len(body) < length:
            body += self._receive()
        self.requests.append((request_head + b"\r\n\r\n" + body).decode())

    def drip(self, data: bytes) -> None:
        """Send byte by byte, and check before each whether the client disconnected."""
        for byte in data:
            self.socket.settimeout(DRIP_S)
            with suppress(TimeoutError):
                self._receive()
            self.socket.settimeout(PATIENCE_S)
            self.socket.sendall(bytes([byte]))

    def _receive(self) -> bytes:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the client disconnected")
        return data


Behaviour = Callable[[Connection], None]


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Said", *lines, "", ""]).encode()


def hang(connection: Connection) -> None:
    """Send nothing, not even a TLS handshake on a plain socket."""
    while connection.socket.recv(65_536):
        pass


def reset(connection: Connection) -> None:
    """Close with RST instead of FIN, after the first byte of the client.

    Earlier, the client's ssl module may drop a socket that it did not close, and Python warns about that.
    """
    connection.socket.recv(1)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def send_raw(*chunks: bytes) -> Behaviour:
    """Send only these bytes after the request."""

    def behave(connection: Connection) -> None:
        connection.take_request()
        for chunk in chunks:
            connection.socket.sendall(chunk)

    return behave


def respond(status: int, *lines: str, body: bytes = b"") -> Behaviour:
    """Send a valid response with these header lines."""
    return send_raw(head(status, *lines, f"content-length: {len(body)}") + body)


def send_then_hang(*chunks: bytes) -> Behaviour:
    """Send these bytes, and keep the connection open."""

    def behave(connection: Connection) -> None:
        send_raw(*chunks)(connection)
        hang(connection)

    return behave


def drip_handshake(count: int) -> Behaviour:
    """Send `count` bytes of a plausible first TLS record one by one, then close."""
    record = bytes.fromhex("16 0303 4000 02 003ffc 0303") + bytes(count)

    def behave(connection: Connection) -> None:
        connection.drip(record[:count])

    return behave


def drip_response(status: int, *, head_bytes: int = 0, body_bytes: int = 0) -> Behaviour:
    """Send a complete response, with that many bytes of head and body one by one."""
    start, padding = f"HTTP/1.1 {status} Said\r\nx: ".encode(), b"y" * head_bytes
    head_end = f"\r\ncontent-length: {body_bytes}\r\n\r\n".encode()

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(start)
        connection.drip(padding)
        connection.socket.sendall(head_end)
        connection.drip(b"z" * body_bytes)

    return behave


def flood(start: bytes, chunk: bytes) -> Behaviour:
    """Send the start, then the chunk repeatedly until the client disconnects."""
    batch = chunk * (65_536 // len(chunk) or 1)

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(start)
        while True:
            connection.socket.sendall(batch)

    return behave


class Receiver:
    """Gives each connection the next behaviour, and the last one to all later connections; records requests."""

    def __init__(self, behaviours: Iterable[Behaviour], tls: ssl.SSLContext | None) -> None:
        self.connections = 0
        self.requests: list[str] = []
        self.server_names: list[str | None] = []
        self._behaviours, self._tls = list(behaviours), tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes the accepting thread
        self._thread.join(2 * PATIENCE_S)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            for behaviour in chain(self._behaviours, repeat(self._behaviours[-1])):
                connection, _ = self._listener.accept()
                self.connections += 1
                with suppress(OSError):  # the client disconnected or rejected the certificate
                    self._serve_one(connection, behaviour)

    def _serve_one(self, connection: socket.socket, behaviour: Behaviour) -> None:
        with connection:
            connection.settimeout(PATIENCE_S)
            if self._tls is None:
                behaviour(Connection(connection, self.requests))
                return
            self._tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
            with self._tls.wrap_socket(connection, server_side=True) as encrypted:
                behaviour(Connection(encrypted, self.requests))


@contextmanager
def receiver(*behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> Generator[Receiver]:
    server = Receiver(behaviours, tls)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def refusing_port() -> Generator[int]:
    """A port that refuses connections: bound, so that no other process gets it, and not listening."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        yield listener.getsockname()[1]


@contextmanager
def unresponsive_port() -> Generator[int]:
    """A port that neither accepts nor refuses connections: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as second:
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield full.getsockname()[1]


class Authority:
    """A certificate authority that only explicitly configured clients trust."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write_to(self, path: Path) -> None:
        """Write the certificate to a file for SSL_CERT_FILE."""
        self._ca.cert_pem.write_to_path(str(path))

    def tls_for(self, name: str, not_after: datetime | None = None) -> ssl.SSLContext:
        """Return a server context with a certificate for a host."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, not_after=not_after).configure_cert(context)
        return context


def self_signed_context() -> ssl.SSLContext:
    """Return a server context with a certificate of an unknown authority."""
    context, authority = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    with authority.cert_pem.tempfile() as certificate, authority.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


@dataclass
class Loopback(httpcore.NetworkBackend):
    """A network that maps addresses to ports of 127.0.0.1, and records connections and the number of bytes read.

    An address that is not in `ports` refuses the connection.
    """

    ports: Mapping[str, int]
    connects: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    read_bytes: int = 0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        self.connects.append((host, port))
        if host not in self.ports:
            raise httpcore.ConnectError(f"nobody at {host}")
        return _CountingStream(httpcore.SyncBackend().connect_tcp("127.0.0.1", self.ports[host], timeout), self)


class _CountingStream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, network: Loopback) -> None:
        self._inner, self._network = inner, network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = self._inner.read(max_bytes, timeout)
        self._network.read_bytes += len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _CountingStream(self._inner.start_tls(ssl_context, server_hostname, timeout), self._network)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)
