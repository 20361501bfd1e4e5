"""Downloads the files that a provider's response only refers to, before their URLs expire.

A URL comes from a provider's response, which a model or its operator writes: it is called only if its host is public
(http_client/addresses.py), and so is every redirect. A self-hosted server may also refer to itself.
"""

import io
import re
import time
from collections.abc import Callable
from contextlib import closing
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore
import httpx

from aiserver.errors import ProviderTimeout
from aiserver.http_client.addresses import (
    CheckedBackend,
    NotPublic,
    Resolve,
    ResolverFailed,
    UnknownHost,
    public_addresses,
    public_name,
    resolve_host,
)
from aiserver.http_client.decompression import ContentCodingError, decode_body
from aiserver.http_client.transport import DeadlineBackend, Transport, remaining_s, total_deadline
from aiserver.providers.call import Upstream
from aiserver.providers.http import CONNECT_TIMEOUT_S, auth_headers
from aiserver.providers.memory_budget import reserve

MAX_REDIRECTS = 3
PAUSES_S = (0.5, 1.0)  # before the second and the third attempt: the call that produced the file has been paid for
INVALID_URL = "its URL is not a valid HTTP URL"
PORTS = {"https": 443, "http": 80}
REDIRECTS = (301, 302, 303, 307, 308)
_FORBIDDEN_CHARS = re.compile(r"[\x00-\x20\x7f\\]")
_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "aiserver"}
_NETWORK_ERRORS = (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError)


class DownloadFailed(Exception):
    """The message is the reason, for the job's owner. `can_retry`: another attempt may succeed."""

    def __init__(self, reason: str, *, can_retry: bool = False) -> None:
        super().__init__(reason)
        self.can_retry = can_retry


class Downloads:
    """Downloads files; implements usecases.image_outputs.FileSource."""

    def __init__(
        self,
        *,
        sleep: Callable[[float], None] = time.sleep,
        resolver: Resolve = resolve_host,
        network: httpcore.NetworkBackend | None = None,
    ) -> None:
        def addresses(host: str, port: int) -> list[str]:
            return public_addresses(host, port, resolver)

        network = network or httpcore.SyncBackend()
        self._sleep = sleep
        self._public = Transport(CheckedBackend(addresses, network), keep_alive_s=0)
        self._own = Transport(DeadlineBackend(CONNECT_TIMEOUT_S, network), keep_alive_s=0)

    def fetch(self, url: str, upstream: Upstream, *, max_bytes: int, timeout_s: float) -> bytes:
        """The file at a URL, or a path, in a response of `upstream`. `timeout_s` limits all attempts together.

        Raises: DownloadFailed, when the URL is not allowed (then no packet was sent), or the file cannot be read within
        the time, is empty or larger than `max_bytes`.
        """
        url = _join(upstream.provider.base_url, url)
        with total_deadline(timeout_s):
            for pause_s in PAUSES_S:
                try:
                    return self._follow(url, upstream, max_bytes)
                except DownloadFailed as error:
                    if not error.can_retry or not _has_time(pause_s):
                        raise
                self._sleep(pause_s)
            return self._follow(url, upstream, max_bytes)

    def _follow(self, url: str, upstream: Upstream, max_bytes: int) -> bytes:
        may_be_own = True  # a redirect from another host must not lead back, where the API key is sent
        for _ in range(1 + MAX_REDIRECTS):
            parts = _split(url)
            may_be_own = may_be_own and _origin(parts) == _origin(urlsplit(upstream.provider.base_url))
            file_or_location = self._get(parts, upstream, max_bytes, is_own=may_be_own)
            if isinstance(file_or_location, bytes):
                return file_or_location
            url = _join(url, file_or_location)
            if parts.scheme == "https" and _split(url).scheme != "https":
                raise DownloadFailed("its URL redirects from HTTPS to HTTP")
        raise DownloadFailed(f"its URL redirects more than {MAX_REDIRECTS} times")

    def _get(self, parts: SplitResult, upstream: Upstream, max_bytes: int, *, is_own: bool) -> bytes | str:
        """The file, or the location of a redirect. `is_own`: the URL is on the provider's own origin."""
        is_self_hosted = is_own and upstream.provider.queue == "gpu"
        try:
            target = _to_httpx_url(parts if is_self_hosted else _public_url(parts))
            headers = _HEADERS | (auth_headers(upstream.provider, upstream.api_key) if is_own else {})
            request = httpx.Request("GET", target, headers={"host": target.netloc.decode(), **headers})
            transport = self._own if is_self_hosted else self._public
            with closing(transport.handle_request(request)) as response:
                return _read_file(response, max_bytes)
        except (NotPublic, UnknownHost) as error:
            raise DownloadFailed(str(error)) from error
        except (ContentCodingError, ProviderTimeout) as error:  # the second one: no memory is free
            raise DownloadFailed(str(error)) from error
        except (ResolverFailed, *_NETWORK_ERRORS) as error:
            raise DownloadFailed(str(error) or type(error).__name__, can_retry=True) from error


def _join(base_url: str, url: str) -> str:
    """Raises: DownloadFailed."""
    try:
        return urljoin(base_url, url)
    except ValueError as error:
        raise DownloadFailed(INVALID_URL) from error


def _split(url: str) -> SplitResult:
    """The parts of an HTTP URL. Raises: DownloadFailed."""
    parts = SplitResult("", "", "", "", "")
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in PORTS and parts.hostname and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or _FORBIDDEN_CHARS.search(url):
        raise DownloadFailed(INVALID_URL)
    return parts._replace(fragment="")


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)


def _public_url(parts: SplitResult) -> SplitResult:
    """The URL with its normalized host. Raises: NotPublic, also for an unusual port."""
    if parts.port not in (None, PORTS[parts.scheme]):
        raise NotPublic(f"the port of its URL must be {PORTS[parts.scheme]}")
    return parts._replace(netloc=public_name(parts.hostname or ""))


def _to_httpx_url(parts: SplitResult) -> httpx.URL:
    try:
        return httpx.URL(parts.geturl())
    except (httpx.InvalidURL, UnicodeError) as error:
        raise DownloadFailed(INVALID_URL) from error


def _read_file(response: httpx.Response, max_bytes: int) -> bytes | str:
    status, location = response.status_code, response.headers.get("location")
    if location and status in REDIRECTS:
        return location
    if status != 200:
        raise DownloadFailed(f"its URL returned status {status}", can_retry=status == 429 or status >= 500)
    content = io.BytesIO()  # its value is its buffer, not a copy
    for chunk in decode_body(response):
        content.write(chunk)
        reserve(content.tell(), remaining_s)
        if content.tell() > max_bytes:
            raise DownloadFailed(f"it is larger than {max_bytes:,} bytes")
    if not content.tell():
        raise DownloadFailed("its URL returned an empty file")
    return content.getvalue()


def _has_time(pause_s: float) -> bool:
    try:
        return remaining_s() > pause_s
    except httpcore.ReadTimeout:
        return False
