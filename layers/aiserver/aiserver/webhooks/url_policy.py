"""URL policy of callbacks (SSRF protection): rules for the URL, its host name and all its IP addresses.

A ReplyTo must be callable by everyone on the Internet, and must not reach internal services. The checked URL is the
called URL: it is normalized here, and its host name is resolved once for each delivery.
"""

import queue
import re
import socket
import threading
from collections.abc import Callable, Collection
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

import httpx
import idna

from aiserver.errors import FieldError, InvalidRequest

RESOLVE_TIMEOUT_S = 5.0  # the system's resolver would wait half a minute for silent servers

Resolve = Callable[[str, int], list[str]]

_FORBIDDEN_CHARS = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")  # as the last label it makes a name an IPv4 address
_IP_ADDRESS = "the host must be a name, not an IP address"
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


class CallbackRefused(InvalidRequest):
    """The URL is not allowed: 400 when the job is created, a dead callback at delivery."""


class NameNotFound(InvalidRequest):
    """The host name does not exist: 400 when the job is created, a failed attempt at delivery."""


class ResolverFailed(Exception):
    """The resolver failed temporarily."""


def callback_refused(reason: str) -> CallbackRefused:
    message = f"'replyTo' is not allowed: {reason}"
    return CallbackRefused(message, param="replyTo", fields=(FieldError("CallbackRefused", "ReplyTo", message),))


def _name_not_found(reason: str) -> NameNotFound:
    message = f"'replyTo' is not allowed: {reason}"
    return NameNotFound(message, param="replyTo", fields=(FieldError("NameNotFound", "ReplyTo", message),))


def parse_url(url: str, *, unsafe: bool = False, hosts: Collection[str] = ()) -> httpx.URL:
    """Parse a ReplyTo and return its URL, with the host in A-labels. `hosts`: the allowed hosts; empty allows all.

    `unsafe` allows http, any port and any host. Raises: CallbackRefused.
    """
    if _FORBIDDEN_CHARS.search(url):
        raise callback_refused(
            "it contains a space, a backslash or a control character; HTTP methods and $ variables are not supported"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise callback_refused("it is not a valid URL") from error
    if parts.scheme not in (("https", "http") if unsafe else ("https",)):
        raise callback_refused("it must start with https://")
    if "@" in parts.netloc:
        raise callback_refused("it must not contain a user name or password")
    if parts.fragment:  # it is never sent, and some parsers read https://a.example#@b.example as b.example
        raise callback_refused("it must not contain a fragment (#)")
    if not host:
        raise callback_refused("it has no host")
    if not unsafe:
        if "[" in parts.netloc:
            raise callback_refused(_IP_ADDRESS)
        if port not in (None, 443):
            raise callback_refused("its port must be 443")
        host = _public_name(host)
        parts = parts._replace(netloc=host)
    if hosts and not is_allowed_host(host, hosts):
        raise callback_refused(f"{host} is not among the callback hosts of this API key")
    return _to_httpx_url(parts)


def _to_httpx_url(parts: SplitResult) -> httpx.URL:
    try:
        return httpx.URL(parts.geturl())
    except (httpx.InvalidURL, UnicodeError) as error:
        raise callback_refused("it is not a valid URL") from error


def _public_name(host: str) -> str:
    name = host_name(host)
    if name is None:
        raise callback_refused("its host is not a valid name")
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        raise callback_refused(_IP_ADDRESS)
    if len(labels) < 2 or any(name == use or name.endswith("." + use) for use in _SPECIAL_USE):
        raise callback_refused(f"{name} is not a public name")
    return name


def host_name(host: str) -> str | None:
    """Normalize a host name: lower-case, in A-labels. None for an invalid name, such as one with a trailing dot."""
    try:
        labels = idna.uts46_remap(host, std3_rules=False).split(".")
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except (idna.IDNAError, UnicodeError):
        return None
    return name if _NAME.fullmatch(name) else None


def host_pattern(text: str) -> str:
    """Normalize an allowed callback host: a public name, or `*.` and a public name for all its subdomains.

    Raises: ValueError, for any other text.
    """
    wildcard = "*." if text.startswith("*.") else ""
    try:
        return wildcard + _public_name(text.removeprefix(wildcard))
    except CallbackRefused as error:
        hint = "write hooks.example.com, or *.example.com for all its subdomains"
        raise ValueError(f"{text!r} is not a valid callback host; {hint}") from error


def is_allowed_host(host: str, patterns: Collection[str]) -> bool:
    """Whether a host matches a pattern; `*.example.com` matches every subdomain of example.com."""
    return any(host.endswith(pattern[1:]) if pattern.startswith("*.") else host == pattern for pattern in patterns)


def resolve_host(host: str, port: int) -> list[str]:
    """Return all IP addresses of a name, within RESOLVE_TIMEOUT_S seconds. Raises: NameNotFound, ResolverFailed."""
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
        raise _name_not_found(f"{host} is not a valid host name") from error
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise _name_not_found(f"the host name {host} does not exist") from error
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
