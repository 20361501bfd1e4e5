"""One signed POST to an address a caller chose, made so that it can be trusted and cannot be abused.

Address rules: https on 443, no user info, no IP literal in any spelling, no special-use name; the name is resolved
once, every address must be public, and the connection goes to a checked address: nothing can change in between.
Signature: Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import httpcore
import httpx
import idna

from aiserver.errors import FieldError, InvalidRequest
from aiserver.providers.transport import DeadlineStream, Transport, remaining_s, total_deadline

TOTAL_S = 15  # for one delivery, from resolving to the last byte read
MAX_ANSWER_BYTES = 16 * 1024
MAX_EXCERPT_CHARS = 512

_FORBIDDEN_CHARS = re.compile(r"[\x00-\x20\x7f\\]")
_SPECIAL_USE = ("internal", "local", "localhost", "home.arpa", "onion", "test", "invalid")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")
# Addresses `is_global` lets through, though they lead back inside or to a cloud's own services.
_NOT_PUBLIC = [
    ip_network(net)
    for net in (
        "192.0.0.0/24",  # IETF protocol assignments; Oracle Cloud's metadata
        "168.63.129.16/32",  # Azure's platform services
        "::/96",  # IPv4-compatible
        "::ffff:0:0/96",  # IPv4-mapped
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",  # NAT64, local
        "2001::/32",  # Teredo
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
    )
]

Resolve = Callable[[str, int], list[str]]


class CallbackRefused(InvalidRequest):
    """The address may not be called: 400 when accepted, a dead callback at delivery."""


class NameNotFound(InvalidRequest):
    """The name does not exist: 400 when accepted, a failed attempt at delivery."""


class ResolverFailed(Exception):
    """The resolver could not tell just now."""


@dataclass(frozen=True)
class Delivery:
    """What came of one POST. `error` is None exactly for a 2xx."""

    status: int | None
    error: str | None
    retry_after: str | None = None


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name. Raises: NameNotFound, ResolverFailed."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise NameNotFound(f"replyTo: {host} is no host name", param="replyTo") from error
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise NameNotFound(f"replyTo: the name {host} does not exist", param="replyTo") from error
        raise ResolverFailed(f"{host} cannot be resolved just now") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the Internet could have."""
    ip: IPv4Address | IPv6Address = ip_address(address)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not any(ip in net for net in _NOT_PUBLIC)


class Replier:
    """Checks addresses and makes deliveries, by the strict rules unless `unsafe` (development only)."""

    def __init__(self, *, unsafe: bool = False, resolver: Resolve = resolve) -> None:
        self._unsafe = unsafe
        self._resolve = resolver
        backend = _CheckedBackend(self._addresses)
        self._http = httpx.Client(transport=Transport(backend, keep_alive_s=0), trust_env=False)

    def check(self, url: str) -> None:
        """Whether a callback to `url` may be promised; a resolver's passing failure does not speak against it.

        Raises: CallbackRefused, NameNotFound.
        """
        host, port = self._check_form(url)
        try:
            self._addresses(host, port)
        except ResolverFailed:
            return

    def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Delivery:
        """POST once; redirects are not followed, and at most MAX_ANSWER_BYTES of the answer are read.

        Raises: CallbackRefused when the address may not be called (any more); no packet has left then.
        """
        self._check_form(url)
        sent = {"accept-encoding": "identity", "user-agent": "aiserver", "connection": "close", **headers}
        try:
            with total_deadline(TOTAL_S), self._http.stream("POST", url, content=body, headers=sent) as response:
                status, retry_after = response.status_code, response.headers.get("retry-after")
                excerpt = _excerpt(response)
        except (NameNotFound, ResolverFailed, httpcore.NetworkError, httpcore.TimeoutException) as error:
            return Delivery(None, (str(error) or type(error).__name__)[:MAX_EXCERPT_CHARS])
        except httpx.InvalidURL as error:
            return Delivery(None, f"the address is no URL: {error}"[:MAX_EXCERPT_CHARS])
        except httpcore.ProtocolError:
            return Delivery(None, "the receiver does not speak HTTP")
        if 200 <= status < 300:
            return Delivery(status, None)
        return Delivery(status, f"status {status}: {excerpt}"[:MAX_EXCERPT_CHARS], retry_after)

    def _check_form(self, url: str) -> tuple[str, int]:
        if _FORBIDDEN_CHARS.search(url):
            raise _refused(
                "it holds a space, a backslash or a control character; methods and $ variables do not belong"
            )
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise _refused("it is no URL") from error
        if parts.scheme not in (("https", "http") if self._unsafe else ("https",)):
            raise _refused("it must be an https:// address")
        if "@" in parts.netloc:
            raise _refused("it must hold no user name or password")
        if not host:
            raise _refused("it names no host")
        if self._unsafe:
            return host, port or (443 if parts.scheme == "https" else 80)
        if port not in (None, 443):
            raise _refused("it must use port 443")
        _check_name(host)
        return host, 443

    def _addresses(self, host: str, port: int) -> list[str]:
        addresses = self._resolve(host, port)
        if not self._unsafe and not all(is_public(address) for address in addresses):
            raise _refused(f"{host} leads to an address that is not public")
        return addresses


def _check_name(host: str) -> None:
    if ":" in host:
        raise _refused("it must name a host, not an IP address")
    try:
        name = idna.encode(host, uts46=True).decode()
    except (idna.IDNAError, UnicodeError) as error:
        raise _refused("its host is no valid name") from error
    labels = name.lower().split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]) or name.endswith("."):
        raise _refused("it must name a host, not an IP address, and without a dot at its end")
    if len(labels) < 2 or any(name.lower() == use or name.lower().endswith("." + use) for use in _SPECIAL_USE):
        raise _refused(f"{host} is not a public name")


def _refused(why: str) -> CallbackRefused:
    message = f"replyTo cannot be called: {why}"
    return CallbackRefused(message, param="replyTo", fields=(FieldError("CallbackRefused", "ReplyTo", message),))


def _excerpt(response: httpx.Response) -> str:
    """The start of the answer, as text for its owner's eyes; reading ends at the limit, however much is to come.

    The status has been heard: what goes wrong after it takes nothing back.
    """
    read = bytearray()
    with suppress(httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        for chunk in response.iter_raw():
            read += chunk
            if len(read) >= MAX_ANSWER_BYTES:
                break
    return read[:MAX_EXCERPT_CHARS].decode("utf-8", "replace")


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects only to addresses that were checked in the same breath."""

    def __init__(self, addresses: Callable[[str, int], list[str]]) -> None:
        self._addresses = addresses
        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in self._addresses(host, port):
            try:
                return DeadlineStream(self._inner.connect_tcp(address, port, remaining_s(), None, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure


def signature_headers(secrets: Iterable[str], message_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The Standard Webhooks headers; several secrets (`whsec_…`) sign side by side while one is being rotated."""
    signed = f"{message_id}.{timestamp_s}.".encode() + body
    signatures = [
        "v1," + base64.b64encode(hmac.new(_secret_bytes(secret), signed, hashlib.sha256).digest()).decode()
        for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": " ".join(signatures),
    }


def _secret_bytes(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix("whsec_"))
