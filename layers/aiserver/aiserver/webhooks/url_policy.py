"""URL policy of callbacks (SSRF protection): rules for the URL, its host name and all its IP addresses.

A ReplyTo must be callable by everyone on the Internet, and must not reach internal services. The checked URL is the
called URL: it is normalized here, and its host name is resolved once for each delivery.
"""

import re
from collections.abc import Collection
from urllib.parse import SplitResult, urlsplit

import httpx

from aiserver.errors import FieldError, InvalidRequest
from aiserver.http_client.addresses import NotPublic, public_name

_FORBIDDEN_CHARS = re.compile(r"[\x00-\x20\x7f\\]")
_IP_ADDRESS = "the host must be a name, not an IP address"


class CallbackRefused(InvalidRequest):
    """The URL is not allowed: 400 when the job is created, a dead callback at delivery."""


class NameNotFound(InvalidRequest):
    """The host name does not exist: 400 when the job is created, a failed attempt at delivery."""


def callback_refused(reason: str) -> CallbackRefused:
    message = f"'replyTo' is not allowed: {reason}"
    return CallbackRefused(message, param="replyTo", fields=(FieldError("CallbackRefused", "ReplyTo", message),))


def name_not_found(reason: str) -> NameNotFound:
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
    try:
        return public_name(host)
    except NotPublic as error:
        raise callback_refused(str(error)) from error


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
