"""Where a callback may go: the rules of its form, of its name, and of every address that the name has.

A ReplyTo must be such that everybody on the Internet could call it, and nobody can use it to reach inside. What was
checked is what is called: the URL is put into one spelling here, and its name is resolved once for each delivery.
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

RESOLVE_S = 5.0  # the system's resolver would take half a minute over servers that are silent

Resolve = Callable[[str, int], list[str]]

_FORBIDDEN_CHARS = re.compile(r"[\x00-\x20\x7f\\]")
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_NUMERIC_LABEL = re.compile(r"(0x[0-9a-f]*|[0-9]+)")  # as the last one it makes a name an IPv4 address
_IP_ADDRESS = "it must name a host, not an IP address"
_SPECIAL_USE = ("internal", "local", "localhost", "home.arpa", "onion", "test", "invalid")
# IANA's special-purpose registries, and where clouds keep services of their own. Written out, because what the
# ipaddress module calls global differs from one Python to the next.
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
    """The address may not be called: 400 when accepted, a dead callback at delivery."""


class NameNotFound(InvalidRequest):
    """The name does not exist: 400 when accepted, a failed attempt at delivery."""


class ResolverFailed(Exception):
    """The resolver could not tell just now."""


def refused_error(why: str) -> CallbackRefused:
    message = f"replyTo cannot be called: {why}"
    return CallbackRefused(message, param="replyTo", fields=(FieldError("CallbackRefused", "ReplyTo", message),))


def _name_not_found_error(why: str) -> NameNotFound:
    message = f"replyTo cannot be called: {why}"
    return NameNotFound(message, param="replyTo", fields=(FieldError("NameNotFound", "ReplyTo", message),))


def parse_url(url: str, *, unsafe: bool = False, hosts: Collection[str] = ()) -> httpx.URL:
    """The URL a ReplyTo means, its host in A-labels; `hosts`, where there are any, are those it may name.

    `unsafe` lets http, any port and any host pass. Raises: CallbackRefused.
    """
    if _FORBIDDEN_CHARS.search(url):
        raise refused_error(
            "it holds a space, a backslash or a control character; methods and $ variables do not belong"
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise refused_error("it is no URL") from error
    if parts.scheme not in (("https", "http") if unsafe else ("https",)):
        raise refused_error("it must be an https:// address")
    if "@" in parts.netloc:
        raise refused_error("it must hold no user name or password")
    if parts.fragment:  # it is never sent, and some parsers take https://a.example#@b.example for b.example's
        raise refused_error("it must hold no fragment (#)")
    if not host:
        raise refused_error("it names no host")
    if not unsafe:
        if "[" in parts.netloc:
            raise refused_error(_IP_ADDRESS)
        if port not in (None, 443):
            raise refused_error("it must use port 443")
        host = _public_name(host)
        parts = parts._replace(netloc=host)
    if hosts and not is_allowed_host(host, hosts):
        raise refused_error(f"{host} is not among the hosts that this API key may name")
    return _to_httpx_url(parts)


def _to_httpx_url(parts: SplitResult) -> httpx.URL:
    try:
        return httpx.URL(parts.geturl())
    except (httpx.InvalidURL, UnicodeError) as error:
        raise refused_error("it is no URL") from error


def _public_name(host: str) -> str:
    name = host_name(host)
    if name is None:
        raise refused_error("its host is no valid name")
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        raise refused_error(_IP_ADDRESS)
    if len(labels) < 2 or any(name == use or name.endswith("." + use) for use in _SPECIAL_USE):
        raise refused_error(f"{name} is not a public name")
    return name


def host_name(host: str) -> str | None:
    """A host as DNS spells it, lower-case and in A-labels; None for what is no name, as one that ends in a dot."""
    try:
        labels = idna.uts46_remap(host, std3_rules=False).split(".")
        name = ".".join(label if label.isascii() else idna.alabel(label).decode() for label in labels)
    except (idna.IDNAError, UnicodeError):
        return None
    return name if _NAME.fullmatch(name) else None


def host_pattern(text: str) -> str:
    """A host that ReplyTo may name, as it is compared: a public name, or `*.` and one for all names below it.

    Raises: ValueError, for anything else.
    """
    wildcard = "*." if text.startswith("*.") else ""
    try:
        return wildcard + _public_name(text.removeprefix(wildcard))
    except CallbackRefused as error:
        known = "write hooks.example.com, or *.example.com for all names below it"
        raise ValueError(f"{text!r} is no callback host; {known}") from error


def is_allowed_host(host: str, patterns: Collection[str]) -> bool:
    """Whether a host is one of these; `*.example.com` stands for every name below example.com."""
    return any(host.endswith(one[1:]) if one.startswith("*.") else host == one for one in patterns)


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a name, asked for no longer than RESOLVE_S. Raises: NameNotFound, ResolverFailed."""
    answers: queue.SimpleQueue[list[str] | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(_lookup(host, port))
        except Exception as error:  # told to whoever waits
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=RESOLVE_S)
    except queue.Empty as error:
        raise ResolverFailed(f"{host} could not be resolved within {RESOLVE_S:.0f} s") from error
    if isinstance(answer, Exception):
        raise answer
    return answer


def _lookup(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is empty or too long
        raise _name_not_found_error(f"{host} is no host name") from error
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
            raise _name_not_found_error(f"the name {host} does not exist") from error
        raise ResolverFailed(f"{host} cannot be resolved just now") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether an IP address is one that anybody on the Internet could have."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    if "%" in address:  # an IPv6 zone: an address of this machine's own links
        return False
    return not any(ip in net for net in _NOT_PUBLIC)
