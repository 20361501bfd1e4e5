"""Receivers on real sockets of 127.0.0.1 that do what none should, and the network that leads public addresses to them.

A behaviour is what a receiver does with one connection. Each ends when the caller hangs up, or after PATIENCE_S.
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

PATIENCE_S = 30  # longer than any caller should stay
DRIP_S = 0.05


@dataclass
class Connection:
    """One caller, as a behaviour sees it."""

    socket: socket.socket
    requests: list[str]

    def take_request(self) -> None:
        """Read one whole request and keep it: its head, then its body."""
        read = b""
        while b"\r\n\r\n" not in read:
            read += self._some()
        top, _, body = read.partition(b"\r\n\r\n")
        length = sum(int(line[15:]) for line in top.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length:
            body += self._some()
        self.requests.append((top + b"\r\n\r\n" + body).decode())

    def drip(self, data: bytes) -> None:
        """Send byte by byte, and wait before each for the caller to leave."""
        for byte in data:
            self.socket.settimeout(DRIP_S)
            with suppress(TimeoutError):
                self._some()
            self.socket.settimeout(PATIENCE_S)
            self.socket.sendall(bytes([byte]))

    def _some(self) -> bytes:
        data = self.socket.recv(65_536)
        if not data:
            raise ConnectionError("the caller left")
        return data


Behaviour = Callable[[Connection], None]


def head(status: int, *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status} Said", *lines, "", ""]).encode()


def hangs(connection: Connection) -> None:
    """Says nothing; where there is no TLS it does not speak that, either."""
    while connection.socket.recv(65_536):
        pass


def resets(connection: Connection) -> None:
    """Ends with RST instead of FIN, once the first byte has come.

    Sooner, the caller's ssl module may drop a socket that it did not close, and Python warns of that.
    """
    connection.socket.recv(1)
    connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def says(*pieces: bytes) -> Behaviour:
    """Just these bytes, once it was asked."""

    def behave(connection: Connection) -> None:
        connection.take_request()
        for piece in pieces:
            connection.socket.sendall(piece)

    return behave


def answers(status: int, *lines: str, body: bytes = b"") -> Behaviour:
    """An orderly answer with these header lines."""
    return says(head(status, *lines, f"content-length: {len(body)}") + body)


def then_hangs(*pieces: bytes) -> Behaviour:
    """Answers that much, and keeps the connection."""

    def behave(connection: Connection) -> None:
        says(*pieces)(connection)
        hangs(connection)

    return behave


def drips_handshake(count: int) -> Behaviour:
    """So many bytes, one by one, of a TLS record that a server could begin with; then the end."""
    record = bytes.fromhex("16 0303 4000 02 003ffc 0303") + bytes(count)

    def behave(connection: Connection) -> None:
        connection.drip(record[:count])

    return behave


def drips(status: int, *, head_bytes: int = 0, body_bytes: int = 0) -> Behaviour:
    """A whole answer, of which so many bytes come one by one."""
    start, padding = f"HTTP/1.1 {status} Said\r\nx: ".encode(), b"y" * head_bytes
    rest = f"\r\ncontent-length: {body_bytes}\r\n\r\n".encode()

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(start)
        connection.drip(padding)
        connection.socket.sendall(rest)
        connection.drip(b"z" * body_bytes)

    return behave


def floods(start: bytes, piece: bytes) -> Behaviour:
    """The start, then the piece again and again for as long as the caller takes it."""
    many = piece * (65_536 // len(piece) or 1)

    def behave(connection: Connection) -> None:
        connection.take_request()
        connection.socket.sendall(start)
        while True:
            connection.socket.sendall(many)

    return behave


class Receiver:
    """Gives each connection the next behaviour, the last one to all that follow; keeps what it heard."""

    def __init__(self, behaviours: Iterable[Behaviour], tls: ssl.SSLContext | None) -> None:
        self.connections = 0
        self.requests: list[str] = []
        self.server_names: list[str | None] = []
        self._behaviours, self._tls = list(behaviours), tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._thread.join(2 * PATIENCE_S)
        self._listening.close()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            for behaviour in chain(self._behaviours, repeat(self._behaviours[-1])):
                accepted, _ = self._listening.accept()
                self.connections += 1
                with suppress(OSError):  # the caller left, or never trusted us
                    self._serve_one(accepted, behaviour)

    def _serve_one(self, accepted: socket.socket, behaviour: Behaviour) -> None:
        with accepted:
            accepted.settimeout(PATIENCE_S)
            if self._tls is None:
                behaviour(Connection(accepted, self.requests))
                return
            self._tls.sni_callback = lambda _socket, name, _context: self.server_names.append(name)
            with self._tls.wrap_socket(accepted, server_side=True) as wrapped:
                behaviour(Connection(wrapped, self.requests))


@contextmanager
def receiver(*behaviours: Behaviour, tls: ssl.SSLContext | None = None) -> Generator[Receiver]:
    listening = Receiver(behaviours, tls)
    try:
        yield listening
    finally:
        listening.close()


@contextmanager
def closed_port() -> Generator[int]:
    """A port that refuses connections: bound, so that nobody else gets it, and not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_port() -> Generator[int]:
    """A port that lets nobody in and says nothing: its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as first, socket.socket() as second:
        for queued in (first, second):
            queued.setblocking(False)
            queued.connect_ex(full.getsockname())
        yield full.getsockname()[1]


class Authority:
    """A certificate authority that only those trust who are told to."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def write_to(self, path: Path) -> None:
        """What SSL_CERT_FILE may name."""
        self._ca.cert_pem.write_to_path(str(path))

    def tls_for(self, name: str, not_after: datetime | None = None) -> ssl.SSLContext:
        """A server's side, with a certificate for a host."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(name, not_after=not_after).configure_cert(context)
        return context


def self_signed() -> ssl.SSLContext:
    """A server's side, with a certificate that nobody vouches for."""
    context, own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), trustme.CA()
    with own.cert_pem.tempfile() as certificate, own.private_key_pem.tempfile() as key:
        context.load_cert_chain(certificate, key)
    return context


@dataclass
class Loopback(httpcore.NetworkBackend):
    """A network on which addresses are ports of 127.0.0.1; it knows who was called, and what was read of all answers.

    An address without a port of its own refuses the connection.
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
        return _Counted(httpcore.SyncBackend().connect_tcp("127.0.0.1", self.ports[host], timeout), self)


class _Counted(httpcore.NetworkStream):
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
        return _Counted(self._inner.start_tls(ssl_context, server_hostname, timeout), self._network)

    def get_extra_info(self, info: str) -> object:
        return self._inner.get_extra_info(info)
