"""Delivers one POST to a URL chosen by a caller, protected against SSRF.

The host name is resolved once, every IP address must be public, and the connection uses a checked address, so that DNS
cannot change in between. The total time is limited to TOTAL_TIMEOUT_S, and only the start of the response is read.
"""

from collections.abc import Collection, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

import httpcore
import httpx

from aiserver.http_client import addresses
from aiserver.http_client.addresses import CheckedBackend, Resolve, ResolverFailed, public_addresses, resolve_host
from aiserver.http_client.transport import DeadlineStream, Transport, total_deadline
from aiserver.limits import MAX_RECEIVER_BYTES
from aiserver.webhooks.url_policy import CallbackRefused, NameNotFound, callback_refused, name_not_found, parse_url

TOTAL_TIMEOUT_S = 15  # of one delivery, from name resolution to the last byte read
MAX_EXCERPT_CHARS = 512

_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "aiserver", "connection": "close"}


@dataclass(frozen=True)
class DeliveryResult:
    """The result of one POST. `error` is None for a 2xx only; `refused`: the URL policy forbids the delivery."""

    status: int | None
    error: str | None
    retry_after: str | None = None
    refused: bool = False


class WebhookClient:
    """Checks callback URLs and makes deliveries; `unsafe` disables the strict URL policy (development only)."""

    def __init__(
        self,
        *,
        unsafe: bool = False,
        resolver: Resolve = resolve_host,
        network: httpcore.NetworkBackend | None = None,
        total_s: float = TOTAL_TIMEOUT_S,
    ) -> None:
        self._unsafe = unsafe
        self._resolve = resolver
        self._total_s = total_s
        backend = CheckedBackend(self._addresses, network or httpcore.SyncBackend(), _LimitedStream)
        # Not an httpx.Client, which keeps cookies, parses redirect URLs and may decompress.
        self._http = Transport(backend, keep_alive_s=0)

    def receiver(self, url: str) -> str:
        """Return host and port of a URL, without the path, which may contain a secret; "" for a forbidden URL."""
        try:
            return self._parse(url, ()).netloc.decode()
        except CallbackRefused:
            return ""

    def check_url(self, url: str, hosts: Collection[str] = ()) -> None:
        """Check that a callback to `url` is allowed; temporary resolver failures are ignored.

        `hosts`: the allowed hosts; empty allows every public host. Raises: CallbackRefused, NameNotFound.
        """
        target = self._parse(url, hosts)
        with suppress(ResolverFailed):
            self._addresses(target.raw_host.decode(), target.port or 443)

    def post(self, url: str, body: bytes, headers: Mapping[str, str], hosts: Collection[str] = ()) -> DeliveryResult:
        """POST once, without following redirects; read at most MAX_RECEIVER_BYTES of the response.

        Raises: CallbackRefused, when the URL is not allowed (any more); then no packet was sent.
        """
        target = self._parse(url, hosts)
        host = target.netloc.decode()  # httpx would decode A-labels, and fail for unknown ones
        request = httpx.Request("POST", target, content=body, headers={"host": host, **_HEADERS, **headers})
        try:
            with total_deadline(self._total_s), closing(self._http.handle_request(request)) as response:
                status, retry_after = response.status_code, response.headers.get("retry-after")
                excerpt = _excerpt(response)
        except (NameNotFound, ResolverFailed, httpcore.NetworkError, httpcore.TimeoutException) as error:
            return DeliveryResult(None, (str(error) or type(error).__name__)[:MAX_EXCERPT_CHARS])
        except httpcore.ProtocolError:
            return DeliveryResult(None, "the response is not valid HTTP, is incomplete, or its headers are too long")
        if 200 <= status < 300:
            return DeliveryResult(status, None)
        return DeliveryResult(status, f"status {status}: {excerpt}"[:MAX_EXCERPT_CHARS], retry_after)

    def _parse(self, url: str, hosts: Collection[str]) -> httpx.URL:
        return parse_url(url, unsafe=self._unsafe, hosts=hosts)

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return self._resolve(host, port) if self._unsafe else public_addresses(host, port, self._resolve)
        except addresses.UnknownHost as error:
            raise name_not_found(str(error)) from error
        except addresses.NotPublic as error:
            raise callback_refused(str(error)) from error


def _excerpt(response: httpx.Response) -> str:
    """Return the readable part of the body as text, shown to the job's owner only.

    The status is already known: errors while reading the body do not change the result.
    """
    body = bytearray()
    with suppress(httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        for chunk in response.iter_raw():
            body += chunk
    return body.decode("utf-8", "replace")


class _LimitedStream(DeadlineStream):
    """A connection that ends after MAX_RECEIVER_BYTES have been read, even if the receiver sends more."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        super().__init__(inner)
        self._remaining_bytes = MAX_RECEIVER_BYTES

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = super().read(min(max_bytes, self._remaining_bytes))
        self._remaining_bytes -= len(data)
        return data
