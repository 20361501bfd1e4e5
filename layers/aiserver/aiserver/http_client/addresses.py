"""Host names and IP addresses of URLs that the gateway did not choose (SSRF protection).

A host must be a public name, and all its addresses must be publicly routable. CheckedBackend resolves a name once and
connects to an address that it has checked, so that DNS cannot change in between.
"""

import queue
import re
import socket
import threading
from collections.abc import Callable, Iterable
from ipaddress import ip_address, ip_network

import httpcore
import idna

from aiserver.http_client.transport import DeadlineStream, remaining_s

RESOLVE_TIMEOUT_S = 5.0  # the system's resolver would wait half a minute for silent servers
MAX_ADDRESSES = 4  # tried for one name: it could have thousands

Resolve = Callable[[str, int], list[str]]

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")  # as the last label it makes a name an IPv4 address
_SPECIAL_USE = ("internal", "local", "localhost", "home.arpa", "onion", "test", "invalid")
# IANA's special-purpose registries, and the addresses of cloud providers' internal services. Listed explicitly, because
# the ipaddress module's `is_global` differs between Python versions.
# https://www.iana.org/assignments/iana-ipv4-special-registry, https://www.iana.org/assignments/iana-ipv6-special-registry
_NOT_PUBLIC = [
    ip_network(net)
    for net in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT; Alibaba's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's platform services
        "169.254.0.0/16",  # link-local; metadata of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocol assignments; Oracle's metadata
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, withdrawn
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/3",  # multicast, reserved, broadcast
        "::/3",  # with the two below: all but global unicast, 2000::/3. Loopback, mapped IPv4, NAT64
        "4000::/2",
        "8000::/1",  # unique local, link-local, site-local, multicast
        "2001::/23",  # IETF protocol assignments; Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]


class NotPublic(Exception):
    """A host is not a public name, or has an address that is not public. The message is the reason."""


class UnknownHost(Exception):
    """A host name does not exist."""


class ResolverFailed(Exception):
    """The resolver failed temporarily."""


def public_name(host: str) -> str:
    """The normalized host name. Raises: NotPublic, when it is an IP address, or no name on the Internet."""
    name = host_name(host)
    if name is None:
        raise NotPublic("its host is not a valid name")
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        raise NotPublic("the host must be a name, not an IP address")
    if len(labels) < 2 or any(name == use or name.endswith("." + use) for use in _SPECIAL_USE):
        raise NotPublic(f"{name} is not a public name")
    return name


def host_name(host: str) -> str | None:
    """Normalize a host name: lower-case, in A-labels. None for an invalid name, such as one with a trailing dot."""
    try:
        labels = idna.uts46_remap(host, std3_rules=False).split(".")
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except (idna.IDNAError, UnicodeError):
        return None
    return name if _NAME.fullmatch(name) else None


def resolve_host(host: str, port: int) -> list[str]:
    """Return all IP addresses of a name, within RESOLVE_TIMEOUT_S seconds. Raises: UnknownHost, ResolverFailed."""
    results: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def resolve_in_thread() -> None:
        try:
            results.put(_lookup(host, port))
        except Exception as error:  # raised again in the waiting thread
            results.put(error)

    threading.Thread(target=resolve_in_thread, daemon=True).start()
    try:
        addresses = results.get(timeout=RESOLVE_TIMEOUT_S)
    except queue.Empty as error:
        raise ResolverFailed(f"{host} could not be resolved within {RESOLVE_TIMEOUT_S:.0f} s") from error
    if isinstance(addresses, Exception):
        raise addresses
    return addresses


def _lookup(host: str, port: int) -> list[str]:
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise UnknownHost(f"{host} is not a valid host name") from error
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise UnknownHost(f"the host name {host} does not exist") from error
        raise ResolverFailed(f"{host} could not be resolved: the resolver failed temporarily") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in addresses))


def is_public(address: str) -> bool:
    """Whether an IP address is publicly routable."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if "%" in address:  # an IPv6 zone: a link-local address of this machine
        return False
    return not any(ip in net for net in _NOT_PUBLIC)


def public_addresses(host: str, port: int, resolve: Resolve) -> list[str]:
    """All addresses of a name. Raises: NotPublic, when one of them is not public; errors of `resolve`."""
    addresses = resolve(host, port)
    if not all(is_public(address) for address in addresses):
        raise NotPublic(f"{host} resolves to an address that is not public")
    return addresses


class CheckedBackend(httpcore.NetworkBackend):
    """Connects only to the IP addresses that `addresses` returns for a host and port, within the deadline."""

    def __init__(
        self,
        addresses: Resolve,
        network: httpcore.NetworkBackend,
        stream: Callable[[httpcore.NetworkStream], httpcore.NetworkStream] = DeadlineStream,
    ) -> None:
        self._addresses = addresses
        self._network = network
        self._stream = stream

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no IP address")
        addresses = self._addresses(host, port)[:MAX_ADDRESSES]
        for remaining, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share_s = remaining_s(httpcore.ConnectTimeout) / remaining  # leave time for the next address
            try:
                return self._stream(self._network.connect_tcp(address, port, share_s, None, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure
